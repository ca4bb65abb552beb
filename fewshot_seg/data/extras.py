"""Episode sources that add to each episode of another source what some methods need.

They can be put around any source, and around each other:

    source = WithUnlabelled(SupervisedSource(scans, classes=[1, 3, 4]), scans, count=4)
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.episodes import EpisodeSource
from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.data.settings import kept_slices
from fewshot_seg.data.unlabelled import UnlabelledPool
from fewshot_seg.data.warp import resample
from fewshot_seg.episode import Episode
from fewshot_seg.errors import DataError, OptionError

STREAMS = {"unlabelled": 11, "auxiliary": 12, "second_view": 13}
"""Keep these draws apart from those of the source inside, which has the same seed."""


class WithUnlabelled:
    """Adds `support.unlabelled`: slices of other images, without their labels.

    source: gives the episodes.   scans: training scans to take slices from; see `UnlabelledPool`
        for `exclude` and `setting`.
    count: slices an episode; they lie at the query's relative position, plus or minus 0.1.
    seed: with the episode's index it decides which.
    augmentation: of each slice; None leaves them as they are.
    """

    def __init__(
        self,
        source: EpisodeSource,
        scans: Sequence[PreparedScan],
        *,
        count: int = 4,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        exclude: Sequence[int] = (),
        setting: str = "setting1",
    ) -> None:
        self.source, self.seed, self.augmentation = source, seed, augmentation
        self.pool = UnlabelledPool(scans, count, exclude=exclude, setting=setting)

    def episode(self, index: int) -> Episode:
        """Episode number `index` of the source, with unlabelled images."""
        episode = self.source.episode(index)
        generator = np.random.default_rng([self.seed, index, STREAMS["unlabelled"]])
        where = episode.extras.get("query_position")
        position = generator.random() if where is None else float(where.mean())
        images = self.pool.draw(position, generator)
        if self.augmentation is not None:
            images, _ = self.augmentation.many(images, torch.zeros_like(images[:, 0]), generator)
        support = replace(episode.support, unlabelled=images[None].contiguous())
        return replace(episode, support=support)

    def describe(self) -> dict[str, Any]:
        """What the source says of itself, and how many slices are added."""
        scans = [scan.id for scan in self.pool.scans]
        added = {"count": self.pool.count, "seed": self.seed, "scans": scans}
        return {**self.source.describe(), "unlabelled": added}


class WithSecondView:
    """Adds `extras["second_view_images"]` and `["second_view_grid"]`: each image of the episode
    once more, warped by a known geometry and with other intensities.

    augmentation: how strongly; None is the field's. It must warp or recolour.
    Raises OptionError for one that changes nothing.
    """

    def __init__(
        self, source: EpisodeSource, *, seed: int = 0, augmentation: Augmentation | None = None
    ) -> None:
        self.source, self.seed = source, seed
        self.augmentation = Augmentation() if augmentation is None else augmentation
        if self.augmentation == Augmentation.none():
            raise OptionError("a second view without any augmentation would be the first one again")

    def episode(self, index: int) -> Episode:
        """Episode number `index` of the source, with a second view of its images."""
        episode = self.source.episode(index)
        generator = np.random.default_rng([self.seed, index, STREAMS["second_view"]])
        images = torch.cat([episode.support.images.flatten(1, 2), episode.query_images], 1)[0]
        size = episode.size
        grids = torch.stack([self.augmentation.grid(size, generator) for _ in images])
        moved = resample(images, grids)
        seen = torch.stack([self.augmentation.recolour(image, generator) for image in moved])
        extras = {"second_view_images": seen[None], "second_view_grid": grids[None]}
        return replace(episode, extras={**episode.extras, **extras})

    def describe(self) -> dict[str, Any]:
        """What the source says of itself, and that there are second views."""
        return {**self.source.describe(), "second_view": {"seed": self.seed}}


class WithAuxiliary:
    """Adds `extras["auxiliary_images"]`, `["auxiliary_masks"]` and `["auxiliary_ids"]`: slices
    that do not show the episode's classes, cut into superpixels, one of which is drawn (AAS-DCL).

    segments: superpixel ids of every slice of every scan, 0 outside the body; see
        `pseudo_superpixels`.
    count: slices an episode.
    exclude, setting: classes held out. Under the settings that drop slices, slices with a held-out
        class are never used; see `kept_slices`.
    For episodes of a pseudo-class, which has no label, any slice may serve.
    Raises DataError when some class is shown by every slice, OptionError for a count below 1.
    """

    def __init__(
        self,
        source: EpisodeSource,
        scans: Sequence[PreparedScan],
        segments: Sequence[Sequence[np.ndarray]],
        *,
        count: int = 3,
        seed: int = 0,
        exclude: Sequence[int] = (),
        setting: str = "setting1",
    ) -> None:
        if count < 1:
            raise OptionError(f"the number of auxiliary slices must be at least 1; got {count}")
        self.source, self.scans, self.seed, self.count = source, tuple(scans), seed, count
        self._segments = segments
        self._slices = [
            (position, index)
            for position, scan in enumerate(scans)
            for index in kept_slices(scan.class_slices, scan.n_slices, exclude, setting)
            if segments[position][index].max() > 0
        ]
        if not self._slices:
            raise DataError(f"none of the {len(scans)} scans has a slice with a superpixel to use")
        self._free: dict[frozenset[int], list[tuple[int, int]]] = {}

    def episode(self, index: int) -> Episode:
        """Episode number `index` of the source, with auxiliary slices."""
        episode = self.source.episode(index)
        generator = np.random.default_rng([self.seed, index, STREAMS["auxiliary"]])
        pool = self._without(frozenset(_classes(episode)))
        picks = generator.choice(len(pool), self.count, replace=len(pool) < self.count)
        images, masks, ids = [], [], []
        for scan, plane in (pool[pick] for pick in picks.tolist()):
            segments = self._segments[scan][plane]
            images.append(self.scans[scan].images[plane])
            masks.append(torch.from_numpy(segments.astype(np.int64)))
            ids.append(1 + int(generator.integers(int(segments.max()))))
        extras: dict[str, Tensor] = {
            "auxiliary_images": torch.stack(images)[None],
            "auxiliary_masks": torch.stack(masks)[None],
            "auxiliary_ids": torch.tensor([ids]),
        }
        return replace(episode, extras={**episode.extras, **extras})

    def describe(self) -> dict[str, Any]:
        """What the source says of itself, and how many slices are added."""
        added = {"count": self.count, "seed": self.seed, "slices": len(self._slices)}
        return {**self.source.describe(), "auxiliary": added}

    def _without(self, classes: frozenset[int]) -> list[tuple[int, int]]:
        """The slices that show none of the classes. Raises DataError when there is none."""
        if classes not in self._free:
            shown = [
                set().union(*(scan.class_slices.get(value, ()) for value in classes))
                for scan in self.scans
            ]
            free = [(scan, index) for scan, index in self._slices if index not in shown[scan]]
            if not free:
                raise DataError(
                    "every slice of the training scans shows one of the classes "
                    f"{sorted(classes)}, so none can serve as an auxiliary image without them"
                )
            self._free[classes] = free
        return self._free[classes]


def _classes(episode: Episode) -> list[int]:
    """The episode's annotated classes; pseudo-classes have negative ids."""
    if episode.classes is None:
        return []
    return [value for value in episode.classes.flatten().tolist() if value > 0]
