"""Vectors that stand for classes in an image: cell means or class means, of static number."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot_seg.functional import EMPTY, masked_average
from fewshot_seg.prototype_sets import PrototypeSets, cell_averages, cell_purity


class Samples(NamedTuple):
    """The vectors of one image (or several that stand for one) in a row; some are not `present`."""

    vectors: Float[Tensor, "batch sample dim"]
    present: Bool[Tensor, "batch sample"]
    classes: Int[Tensor, " sample"]


def image_means(
    maps: Float[Tensor, "batch label image dim rows cols"],
    masks: Float[Tensor, "batch label image rows cols"],
) -> PrototypeSets:
    """The mean of a class in each of its images; not present where the mask is empty."""
    return PrototypeSets(masked_average(maps, masks), masks.sum((-2, -1)) > EMPTY)


def cells_or_means(
    maps: Float[Tensor, "batch label image dim rows cols"],
    masks: Float[Tensor, "batch label image rows cols"],
    *,
    window: int,
    purity: float,
    fall_back: bool,
) -> PrototypeSets:
    """The means of cells that lie within the class by more than `purity`.

    fall_back: a class without any such cell is given its `image_means`.
    """
    cells = PrototypeSets(
        rearrange(cell_averages(maps, window), "b k i n d -> b k (i n) d"),
        rearrange(cell_purity(masks, window) > purity, "b k i n -> b k (i n)"),
    )
    if not fall_back:
        return cells
    means = image_means(maps, masks)
    none = ~cells.present.any(2, keepdim=True)
    return cells.joined(PrototypeSets(means.vectors, means.present & none))


def at_most(sets: PrototypeSets, most: int) -> PrototypeSets:
    """A random choice of `most` present vectors for each class; all where there are no more.

    Draws from torch's global generator.
    """
    if sets.present.shape[2] <= most:
        return sets
    order = torch.rand(sets.present.shape, device=sets.present.device)
    chosen = (order + sets.present).topk(most, dim=2).indices
    index = repeat(chosen, "b k s -> b k s d", d=sets.vectors.shape[3])
    return PrototypeSets(sets.vectors.gather(2, index), sets.present.gather(2, chosen))


def in_a_row(several: Sequence[PrototypeSets]) -> Samples:
    """All classes of all `several` sets in one row; classes are counted on from set to set."""
    first, classes = 0, []
    for sets in several:
        _, label, size = sets.present.shape
        numbers = torch.arange(first, first + label, device=sets.present.device)
        classes.append(numbers.repeat_interleave(size))
        first += label
    return Samples(
        torch.cat([sets.vectors.flatten(1, 2) for sets in several], 1),
        torch.cat([sets.present.flatten(1, 2) for sets in several], 1),
        torch.cat(classes),
    )
