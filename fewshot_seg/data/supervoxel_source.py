"""Episodes without labels: neighbouring slices of one supervoxel (ADNet, MedIA 2022)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.pseudo_cache import AUTO
from fewshot_seg.data.redraw import Redraws
from fewshot_seg.data.selfsupervised import check_numbers, strengths
from fewshot_seg.data.settings import kept_slices
from fewshot_seg.data.superpixels import pixels_at
from fewshot_seg.data.supervoxels import pseudo_supervoxels, spacing_ratio
from fewshot_seg.data.windows import Windows
from fewshot_seg.episode import Episode, Support
from fewshot_seg.errors import DataError, check_choice

STREAM = 4
"""Keeps these draws apart from those of other sources with the same seed."""
VANISHED = "augmentation always moved the supervoxel out of a slice; weaken it or raise min_pixels"
NO_GEOMETRY: dict[str, Any] = {
    **dict.fromkeys(("rotation", "shift", "shear", "elastic", "flip"), 0.0),
    "zoom": (1.0, 1.0),
}
NO_INTENSITY: dict[str, Any] = dict.fromkeys(
    ("gamma", "remap", "invert", "contrast", "brightness", "blur", "noise"), 0.0
)


class SupervoxelSource:
    """Pseudo-organs: support and query are neighbouring slices of one supervoxel. No label is read.

    An episode takes a scan, one of its supervoxels, n_shot + n_query consecutive ones of the slices
    that show it, and reverses their order in half of the cases; the first n_shot are the support.

    scans: training scans of one size; those of too few slices are left out.
    seed: with the episode's index it decides everything.   augmentation: None is the field's.
    augment: "one" changes the intensities of either the support or the query, and the geometry of
        either, by two tosses of a coin (ADNet); "both" changes everything of both (as ALPNet).
    min_size: voxels of the smallest supervoxel on slices of 256x256, see `supervoxels`: 5000 for
        abdomen, 1000 for heart.
    min_pixels: the lowest of the slices shows so many pixels of the supervoxel, on slices of
        256x256; scaled to others. The others may show fewer, as in the official code.
    max_draws: how often an episode is drawn anew when augmentation left a mask empty.
    n_shot, n_query: slices to learn from and to segment.
    spread: take every spread-th of the slices that show the supervoxel; 1 are neighbours.
    exclude, setting: classes held out, and which slices that costs; see `kept_slices`. Slices are
        never neighbours across a slice that is dropped. Only this reads labels, and only in the
        settings that drop slices.
    cache: folder that keeps the supervoxels, see `PseudoCache`; None computes them anew.

    Supervoxels are made at construction, unless the cache has them: about 2 s a scan.
    `extras["query_position"]` says where in its scan each query slice lies, from 0 to 1.

    Raises DataError when no episode could ever be drawn, OptionError for a value out of range.
    """

    def __init__(
        self,
        scans: Sequence[PreparedScan],
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        augment: str = "one",
        min_size: int = 5000,
        min_pixels: int = 200,
        max_draws: int = 100,
        n_shot: int = 1,
        n_query: int = 1,
        spread: int = 1,
        exclude: Sequence[int] = (),
        setting: str = "setting1",
        cache: str | Path | None = AUTO,
    ) -> None:
        self.numbers = {"min_size": min_size, "min_pixels": min_pixels, "max_draws": max_draws,
                        "n_shot": n_shot, "n_query": n_query, "spread": spread}  # fmt: skip
        check_numbers(self.numbers)
        check_choice("augment", augment, ("one", "both"))
        _check_volumes(scans)
        self.scans = tuple(scans)
        self.seed, self.augment = seed, augment
        self.setting, self.exclude = setting, tuple(exclude)
        self.augmentation = Augmentation() if augmentation is None else augmentation
        # in the order of the official code: intensities, then geometry
        self._halves = [replace(self.augmentation, **off) for off in (NO_GEOMETRY, NO_INTENSITY)]
        self._redraws = Redraws(seed=seed, stream=STREAM, most=max_draws, failure=VANISHED)
        kept = [
            kept_slices(scan.class_slices, scan.n_slices, self.exclude, setting) for scan in scans
        ]
        self._voxels = pseudo_supervoxels(self.scans, min_size=min_size, cache=cache)
        self._windows = [
            Windows.find(
                ids,
                slices,
                length=n_shot + n_query,
                spread=spread,
                min_pixels=pixels_at(min_pixels, scan.size),
            )
            for scan, ids, slices in zip(scans, self._voxels, kept, strict=True)
        ]
        self._usable = [place for place, one in enumerate(self._windows) if one.total]
        if not self._usable:
            raise DataError(_nothing(self.scans, self._windows, self.numbers))

    def episode(self, index: int) -> Episode:
        """Episode number `index`. Raises ValueError for a negative one, DataError after `max_draws`
        failed draws."""
        return self._redraws.first_whole(index, self._draw)

    @property
    def redrawn(self) -> int:
        """Draws thrown away in this process, over all episodes."""
        return self._redraws.thrown_away

    def describe(self) -> dict[str, Any]:
        """The arguments, the scans used, their supervoxels and how many of these can be drawn."""
        ratios = {scan.id: spacing_ratio(scan) for scan in self.scans}
        return {
            "source": "supervoxel",
            "seed": self.seed,
            **self.numbers,
            "augment": self.augment,
            "exclude": list(self.exclude),
            "setting": self.setting,
            "scans": [self.scans[place].id for place in self._usable],
            "supervoxels": sum(one.present for one in self._windows),
            "usable_supervoxels": sum(one.usable for one in self._windows),
            # these were segmented as if slices were as far apart as pixels
            "unknown_spacing": [name for name, ratio in ratios.items() if ratio is None],
            "augmentation": strengths(self.augmentation),
        }

    def _draw(self, index: int, generator: np.random.Generator) -> Episode | None:
        place = self._usable[int(generator.integers(len(self._usable)))]
        scan, window = self.scans[place], self._windows[place].draw(generator)
        slices = list(window.slices)
        masks = torch.from_numpy(self._voxels[place][slices] == window.id).float()
        grey = scan.images.stride(1) == 0  # channels that share their memory
        images = (scan.images[:, :1] if grey else scan.images)[slices]
        images, masks = self._changed(images, masks, generator)
        if not bool((masks > 0).flatten(1).any(1).all()):
            return None
        images = images.expand(-1, scan.images.shape[1], -1, -1)
        n_shot = self.numbers["n_shot"]
        positions = [scan.position(one) for one in slices[n_shot:]]
        return Episode(
            Support(images[None, None, :n_shot].contiguous(), masks[None, None, :n_shot]),
            images[None, n_shot:].contiguous(),
            masks[None, n_shot:].long(),
            # negative: no class of the data set; told apart within any step
            classes=torch.tensor([[-1 - index]]),
            extras={"query_position": torch.tensor([positions])},
        )

    def _changed(
        self,
        images: Float[Tensor, "slice channel height width"],
        masks: Float[Tensor, "slice height width"],
        generator: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Augmented slices, support first. Writes to what it is given."""
        if self.augment == "both":
            return self.augmentation.many(images, masks, generator)
        n_shot = self.numbers["n_shot"]
        for half in self._halves:
            side = slice(None, n_shot) if generator.random() < 0.5 else slice(n_shot, None)
            images[side], masks[side] = half.many(images[side], masks[side], generator)
        return images, masks


def _check_volumes(scans: Sequence[PreparedScan]) -> None:
    if not scans:
        raise DataError("there is no training scan")
    if all(scan.n_slices == 1 for scan in scans):
        raise DataError(
            f"episodes from supervoxels need neighbouring slices, but each of the {len(scans)} "
            "scans has a single one. Use the source 'superpixel' for 2-D images."
        )


def _nothing(
    scans: Sequence[PreparedScan], windows: Sequence[Windows], numbers: Mapping[str, int]
) -> str:
    need = numbers["n_shot"] + numbers["n_query"]
    found = sum(one.present for one in windows)
    return (
        f"none of the {found} supervoxels of the {len(scans)} scans can be drawn: {need} usable "
        f"slices at spread {numbers['spread']} must show one, the lowest with "
        f"min_pixels={numbers['min_pixels']} (at 256x256). Ask for fewer shots, lower min_pixels "
        f"or min_size={numbers['min_size']}, exclude fewer classes, or use the source 'superpixel'."
    )
