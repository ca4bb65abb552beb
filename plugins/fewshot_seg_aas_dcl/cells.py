"""The cells of a masked map: local prototypes of foreground and background."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_seg.functional import normalise
from fewshot_seg_aas_dcl.similarity import nearest

NORM_FLOOR = 1e-4
FOREGROUND = 0.8
"""A foreground cell holds more than this share of the fullest cell's mask."""


class Cells(NamedTuple):
    """Unit vectors of all cells, row by row, and which of them belong to a class (or to none)."""

    vectors: Float[Tensor, "*batch cell dim"]
    foreground: Bool[Tensor, "*batch cell"]
    background: Bool[Tensor, "*batch cell"]


def cell_means(
    maps: Float[Tensor, "*batch dim rows cols"], cells: tuple[int, int]
) -> Float[Tensor, "*batch dim cell"]:
    """Means over `cells` = (rows, columns) parts of the map, whatever its size."""
    flat = maps.reshape(-1, *maps.shape[-3:])
    pooled = rearrange(F.adaptive_avg_pool2d(flat, cells), "n d r c -> n d (r c)")
    return pooled.reshape(*maps.shape[:-2], pooled.shape[-1])


def local_prototypes(
    maps: Float[Tensor, "*batch dim rows cols"],
    masks: Float[Tensor, "*batch height width"],
    cells: tuple[int, int],
) -> Cells:
    """Cells of a map; foreground where the mask exceeds 0.8 of its fullest cell, background where
    it is below its mean. An empty mask has neither."""
    vectors = normalise(cell_means(maps, cells).transpose(-2, -1), -1, NORM_FLOOR)
    small = nearest(masks, (maps.shape[-2], maps.shape[-1]))
    share = cell_means(small.unsqueeze(-3), cells).squeeze(-2)
    fullest, mean = share.amax(-1, keepdim=True), share.mean(-1, keepdim=True)
    return Cells(vectors, share > FOREGROUND * fullest, share < mean)


def contexts(
    maps: Float[Tensor, "*batch dim rows cols"], cells: tuple[int, int], *, mixed: bool = False
) -> Float[Tensor, "*batch cell dim"]:
    """One vector a cell.

    mixed: read the (dim, cell) numbers row by row as (cell, dim), as the official code does, so
        that a vector mixes channels and positions.
    """
    means = cell_means(maps, cells)
    if not mixed:
        return means.transpose(-2, -1)
    return means.reshape(*means.shape[:-2], means.shape[-1], means.shape[-2])


def scrambled(
    vectors: Float[Tensor, "*batch vector dim"], valid: Bool[Tensor, "*batch vector"]
) -> tuple[Float[Tensor, "*batch vector dim"], Bool[Tensor, "*batch vector"]]:
    """The n valid vectors, stacked as (dim, n) and read back row by row as (n, dim).

    Only for parity with the official code. The valid vectors come first in the result.
    """
    order = (~valid).to(torch.uint8).argsort(dim=-1, stable=True)
    front = vectors.gather(-2, order.unsqueeze(-1).expand(vectors.shape))
    many, dim = vectors.shape[-2:]
    count = valid.sum(-1, keepdim=True)
    place = torch.arange(many * dim, device=vectors.device).expand(*count.shape[:-1], -1)
    per_channel = count.clamp_min(1)
    channel, which = place // per_channel, place % per_channel
    source = which * dim + channel.clamp_max(dim - 1)
    read = front.flatten(-2).gather(-1, source)
    return read.reshape(vectors.shape), torch.arange(many, device=vectors.device) < count
