"""Several prototypes for a class: grid cells that lie within its mask, scored together.

Sets are padded to one size and masked, so shapes never depend on what the masks hold.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_seg.errors import check_choice
from fewshot_seg.functional import area_average, normalise, resize

NORM_FLOOR = 1e-4
"""Smallest length in the cosine of the medical prototype networks."""
RESIZES = ("bilinear", "area")
"""Ways for a mask to come to the feature grid; see `to_grid`."""


class PrototypeSets(NamedTuple):
    """A set of vectors for each label; those that are not `present` take no part."""

    vectors: Float[Tensor, "batch label set dim"]
    present: Bool[Tensor, "batch label set"]

    def joined(self, other: "PrototypeSets") -> "PrototypeSets":
        """The union, label by label."""
        return PrototypeSets(
            torch.cat([self.vectors, other.vectors], 2),
            torch.cat([self.present, other.present], 2),
        )


def to_grid(
    masks: Float[Tensor, "*batch height width"], grid: tuple[int, int], how: str = "bilinear"
) -> Float[Tensor, "*batch rows cols"]:
    """Masks on the feature grid, soft, in [0, 1].

    how: "bilinear" (align_corners False) reads a mask at the centres of the cells, as the medical
        networks do, and can miss an organ smaller than a cell; "area" averages, and misses none.
    """
    check_choice("mask_resize", how, RESIZES)
    return area_average(masks, grid) if how == "area" else resize(masks, grid)


def cell_averages(
    maps: Float[Tensor, "*batch dim rows cols"], window: int
) -> Float[Tensor, "*batch cell dim"]:
    """Means over windows of `window` x `window` positions, row by row; a ragged rest is left out.

    A window larger than the map is shrunk to it.
    """
    flat = maps.reshape(-1, *maps.shape[-3:])
    pooled = F.avg_pool2d(flat, _fitting(window, maps))
    cells = rearrange(pooled, "n d r c -> n (r c) d")
    return cells.reshape(*maps.shape[:-3], *cells.shape[1:])


def cell_purity(
    masks: Float[Tensor, "*batch rows cols"], window: int
) -> Float[Tensor, "*batch cell"]:
    """The share of each cell of `cell_averages` that lies within the mask, in [0, 1]."""
    return cell_averages(masks.unsqueeze(-3), window).squeeze(-1)


def set_similarity(
    maps: Float[Tensor, "batch query dim rows cols"],
    sets: PrototypeSets,
    *,
    scale: float = 20.0,
    eps: float = NORM_FLOOR,
) -> Float[Tensor, "batch query label rows cols"]:
    """sum_i softmax_i(d) * d_i with d_i = scale * cosine of a position and prototype i.

    0 for a label without any present prototype (ALPNet, Eq. 5).
    """
    query = normalise(maps, 2, eps)
    keys = normalise(sets.vectors, 3, eps)
    score = scale * torch.einsum("bqdrc,blsd->bqlsrc", query, keys)
    absent = rearrange(~sets.present, "b l s -> b 1 l s 1 1")
    # finite, so that a label without prototypes gives no NaN; its sum is set to 0 below. Elsewhere
    # an absent prototype weighs exactly 0
    weight = score.masked_fill(absent, torch.finfo(score.dtype).min).softmax(3)
    known = rearrange(sets.present.any(2), "b l -> b 1 l 1 1")
    return (weight * score).sum(3) * known


def _fitting(window: int, maps: Tensor) -> tuple[int, int]:
    return min(window, maps.shape[-2]), min(window, maps.shape[-1])
