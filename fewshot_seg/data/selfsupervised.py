"""Episodes without labels: one slice, one superpixel, two augmentations (ALPNet, section 3.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.episodes import EpisodeSource
from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.pseudo_cache import AUTO
from fewshot_seg.data.redraw import Redraws
from fewshot_seg.data.settings import kept_slices
from fewshot_seg.data.superpixels import pseudo_superpixels
from fewshot_seg.episode import Episode, Support
from fewshot_seg.errors import DataError, OptionError

STREAM = 2
"""Keeps these draws apart from those of other sources with the same seed."""
VANISHED = "augmentation always moved the superpixel out of a view; weaken it or lower min_pixels"


class SuperpixelSource:
    """Pseudo-organs: support and query are two augmented views of one slice, and the class is one
    of its superpixels. No label is read.

    scans: training scans of one size.   seed: with the episode's index it decides everything.
    augmentation: applied twice, independently; without geometry or intensity changes both views
        would be the same.
    min_size: pixels of the smallest superpixel on a slice of 256x256, see `superpixels`.
    min_pixels: a view counts from so many pixels of the superpixel.
    max_draws: how often an episode is drawn anew when a superpixel left the image.
    exclude, setting: classes held out, and which slices that costs; see `kept_slices`. Only this
        reads labels, and only in the settings that drop slices.
    n_shot, n_query: further views of the same slice.
    cache: folder that keeps the superpixels, see `PseudoCache`; None computes them anew.

    Superpixels are made at construction, unless the cache has them: 40 ms a slice of 256x256.
    `extras["query_position"]` says where in its scan each query slice lies, from 0 to 1.
    Raises DataError when no slice has a superpixel, OptionError for a number below 1.
    """

    def __init__(
        self,
        scans: Sequence[PreparedScan],
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        min_size: int = 400,
        min_pixels: int = 1,
        max_draws: int = 100,
        n_shot: int = 1,
        n_query: int = 1,
        exclude: Sequence[int] = (),
        setting: str = "setting1",
        cache: str | Path | None = AUTO,
    ) -> None:
        numbers = {"min_size": min_size, "min_pixels": min_pixels, "max_draws": max_draws,
                   "n_shot": n_shot, "n_query": n_query}  # fmt: skip
        check_numbers(numbers)
        self.scans = tuple(scans)
        self.seed, self.numbers = seed, numbers
        self.setting, self.exclude = setting, tuple(exclude)
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self._redraws = Redraws(seed=seed, stream=STREAM, most=max_draws, failure=VANISHED)
        self._segments = pseudo_superpixels(self.scans, min_size=min_size, cache=cache)
        kept = [
            set(kept_slices(scan.class_slices, scan.n_slices, self.exclude, setting))
            for scan in scans
        ]
        self._picks = [
            (scan, index)
            for scan, planes in enumerate(self._segments)
            for index, plane in enumerate(planes)
            if plane.max() > 0 and index in kept[scan]
        ]
        if not self._picks:
            raise DataError(
                f"none of the {len(scans)} scans has a superpixel: are their slices empty "
                f"or excluded, or is min_size={min_size} larger than the body?"
            )

    def episode(self, index: int) -> Episode:
        """Episode number `index`. Raises ValueError for a negative one, DataError after `max_draws`
        failed draws."""
        return self._redraws.first_whole(index, self._draw)

    @property
    def redrawn(self) -> int:
        """Draws thrown away in this process, over all episodes."""
        return self._redraws.thrown_away

    def describe(self) -> dict[str, Any]:
        """The arguments, the scans used and how many slices they have."""
        return {
            "source": "superpixel",
            "seed": self.seed,
            **self.numbers,
            "exclude": list(self.exclude),
            "setting": self.setting,
            "scans": [scan.id for scan in self.scans],
            "slices": len(self._picks),
            "augmentation": strengths(self.augmentation),
        }

    def _draw(self, index: int, generator: np.random.Generator) -> Episode | None:
        scan, plane = self._picks[int(generator.integers(len(self._picks)))]
        segments = self._segments[scan][plane]
        chosen = 1 + int(generator.integers(int(segments.max())))
        n_shot, n_query = self.numbers["n_shot"], self.numbers["n_query"]
        views = n_shot + n_query
        image = self.scans[scan].images[plane]
        mask = torch.from_numpy((segments == chosen).astype(np.float32))
        # expand keeps a grey image's channels in one memory, which augmentation makes use of
        images, masks = self.augmentation.many(
            image.expand(views, *image.shape), mask.expand(views, *mask.shape), generator
        )
        if bool((masks.flatten(1).sum(1) < self.numbers["min_pixels"]).any()):
            return None
        return Episode(
            Support(images[None, None, :n_shot].contiguous(), masks[None, None, :n_shot]),
            images[None, n_shot:].contiguous(),
            masks[None, n_shot:].long(),
            # negative: no class of the data set; told apart within any step
            classes=torch.tensor([[-1 - index]]),
            extras={"query_position": torch.full((1, n_query), self.scans[scan].position(plane))},
        )


def check_numbers(numbers: Mapping[str, int]) -> None:
    """Raises OptionError for one below 1."""
    for name, value in numbers.items():
        if value < 1:
            raise OptionError(f"{name} must be at least 1; got {value}")


def strengths(augmentation: Augmentation) -> dict[str, Any]:
    """An augmentation in plain values."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(augmentation).items()
    }


class MixedSource:
    """Episodes of several sources, drawn with given shares.

    shares: (source, share) pairs; shares are positive and need not sum to 1.
    seed: decides which source an episode comes from.
    Sources must give episodes of one shape and with the same extras.
    Raises OptionError for shares that are not positive.
    """

    def __init__(self, shares: Sequence[tuple[EpisodeSource, float]], *, seed: int = 0) -> None:
        if not shares or any(share <= 0 for _, share in shares):
            raise OptionError(
                f"a mixture needs sources with positive shares; got {[s for _, s in shares]}"
            )
        self.sources = tuple(source for source, _ in shares)
        self.shares = tuple(share for _, share in shares)
        total = sum(self.shares)
        self._edges = np.cumsum([share / total for share in self.shares])
        self.seed = seed

    def episode(self, index: int) -> Episode:
        """Episode number `index` of whichever source is drawn for it."""
        draw = np.random.default_rng([self.seed, index, STREAM + 1]).random()
        which = min(int(np.searchsorted(self._edges, draw, side="right")), len(self.sources) - 1)
        return self.sources[which].episode(index)

    def describe(self) -> dict[str, Any]:
        """The shares and what each source says of itself."""
        return {
            "source": "mixed",
            "seed": self.seed,
            "shares": list(self.shares),
            "sources": [source.describe() for source in self.sources],
        }
