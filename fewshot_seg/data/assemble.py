"""An episode put together from chosen slices."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.prepare import PreparedScan
from fewshot_seg.episode import Episode, Support
from fewshot_seg.errors import DataError


class Slice(NamedTuple):
    """One slice of a prepared scan."""

    scan: PreparedScan
    slice_index: int

    @property
    def position(self) -> float:
        """Where in its scan the slice lies, from 0 to 1; 0.5 in a scan of one slice."""
        return self.scan.position(self.slice_index)


def episode_from_slices(
    support: Sequence[Sequence[Slice]],
    query: Sequence[Slice],
    classes: Sequence[int],
    *,
    augmentation: Augmentation | None = None,
    generator: np.random.Generator | None = None,
    shared: bool = False,
) -> Episode:
    """One episode (batch axis 1).

    support: the shots of each way.   query: the slices to segment.   classes: class id of each way.
    shared: all ways lie on the same slices, and `support` holds those shots once.
    augmentation: changes each slice on its own; needs `generator`.

    Query labels are k for the k-th way and 0 elsewhere, or None when a query scan is not
    annotated. With several ways, background masks exclude every class of the episode.
    Raises DataError for a support scan without labels, ValueError for numbers that do not fit.
    """
    n_way, n_shot = len(classes), len(support[0]) if support else 0
    fits = len(support) == (1 if shared else n_way) and all(
        len(shots) == n_shot for shots in support
    )
    if not (n_way and n_shot and fits):
        raise ValueError(
            "support needs the same number of slices for each class; got "
            f"{[len(shots) for shots in support]} slices for {len(classes)} classes"
        )
    if augmentation is not None and generator is None:
        raise ValueError("an augmentation needs a generator to draw from")
    for one in (one for shots in support for one in shots):
        if one.scan.labels is None:
            raise DataError(f"scan {one.scan.id} has no labels, so it cannot be a support")
    slices = [one for shots in support for one in shots] + list(query)
    images = _images(slices)
    masks = torch.stack([_one_hot(one, classes) for one in slices])
    if augmentation is not None and generator is not None:
        images, masks = augmentation.many(images, masks, generator)
    split = len(support) * n_shot
    shown = images[:split].reshape(1, -1, n_shot, *images.shape[1:])
    own = masks[:split].reshape(-1, n_shot, *masks.shape[1:])  # way shot class height width
    if shared:
        shown = shown.expand(-1, n_way, *shown.shape[2:])
        own = own.expand(n_way, *own.shape[1:])
    labelled = all(one.scan.labels is not None for one in query)
    return Episode(
        Support(
            shown,
            torch.stack([own[way, :, way] for way in range(n_way)])[None],
            1 - own.amax(2)[None] if n_way > 1 else None,
        ),
        images[split:][None],
        _labels(masks[split:])[None] if labelled else None,
        torch.tensor([list(classes)]),
        {"query_position": torch.tensor([[one.position for one in query]])},
    )


def counted(episode: Episode, redrawn: int) -> Episode:
    """The episode with the number of draws that were thrown away before it, for the log."""
    return replace(episode, extras={**episode.extras, "redrawn": torch.tensor([redrawn])})


def _images(slices: Sequence[Slice]) -> Float[Tensor, "slice channel height width"]:
    """The images; grey ones keep sharing the memory of their channels, which saves work."""
    images = [one.scan.images[one.slice_index] for one in slices]
    channels = images[0].shape[0]
    if channels > 1 and all(image.stride(0) == 0 for image in images):
        return torch.stack([image[:1] for image in images]).expand(-1, channels, -1, -1)
    return torch.stack(images)


def _one_hot(one: Slice, classes: Sequence[int]) -> Float[Tensor, "way height width"]:
    labels = one.scan.labels
    if labels is None:
        return torch.zeros(len(classes), *one.scan.size)
    return torch.stack([labels[one.slice_index] == value for value in classes]).float()


def _labels(masks: Float[Tensor, "query way height width"]) -> Tensor:
    ways = torch.arange(1, masks.shape[1] + 1, dtype=masks.dtype)
    return (masks * ways[:, None, None]).sum(1).long()
