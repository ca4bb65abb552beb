"""Nodes of the graph: cells of feature maps as points, and which of them the support labels.

RECONSTRUCTED (no official code): the cells, the two thresholds and the fallback are our choice.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_seg.functional import EMPTY, EPS, area_average, normalise

FOREGROUND = 0.5
"""A cell with a larger share of a way's mask is labelled with that way."""
BACKGROUND = 0.05
"""A cell with a smaller share of anything else is labelled background."""
SHORTEST = 1e-6
"""Smallest feature length in the normalisation."""


class Sources(NamedTuple):
    """The nodes of support and unlabelled images.

    labels: one-hot (background first) at labelled nodes, all 0 elsewhere.
    present: False for a node that takes no part.   areas: each label's share of the labelled area.
    """

    points: Float[Tensor, "batch node axis"]
    labels: Float[Tensor, "batch node label"]
    present: Bool[Tensor, "batch node"]
    areas: Float[Tensor, "batch label"]

    def repeated(self, times: int) -> "Sources":
        """Each graph `times` over, one next to the other along the batch axis."""
        return Sources(*(tensor.repeat_interleave(times, 0) for tensor in self))

    def with_unlabelled(self, points: Float[Tensor, "batch more axis"]) -> "Sources":
        """The same sources with further nodes behind them, that have no label."""
        count = points.shape[1]
        return Sources(
            torch.cat([self.points, points], 1),
            F.pad(self.labels, (0, 0, 0, count)),
            F.pad(self.present, (0, count), value=True),
            self.areas,
        )


def fitting(window: int, grid: tuple[int, int]) -> int:
    """`window`, or 1 where the grid has not two windows a side: a graph needs nodes."""
    return window if min(grid) >= 2 * window else 1


def cells(
    maps: Float[Tensor, "*batch dim rows cols"], window: int
) -> Float[Tensor, "*batch dim down across"]:
    """Means over windows of `window` x `window` positions; a ragged rest makes smaller cells."""
    flat = maps.reshape(-1, *maps.shape[-3:])
    size = fitting(window, (maps.shape[-2], maps.shape[-1]))
    pooled = F.avg_pool2d(flat, size, ceil_mode=True)
    return pooled.reshape(*maps.shape[:-3], *pooled.shape[1:])


def placed(
    maps: Float[Tensor, "*batch dim rows cols"],
) -> Float[Tensor, "*batch placed rows cols"]:
    """The maps with two more channels: (row / rows, column / cols) of each position."""
    rows, cols = maps.shape[-2:]
    down = torch.arange(rows, device=maps.device, dtype=maps.dtype) / rows
    across = torch.arange(cols, device=maps.device, dtype=maps.dtype) / cols
    places = torch.stack(torch.meshgrid(down, across, indexing="ij"))
    return torch.cat([maps, places.expand(*maps.shape[:-3], 2, rows, cols)], -3)


def points(
    vectors: Float[Tensor, "batch node placed"], spatial: float
) -> Float[Tensor, "batch node axis"]:
    """Features at length 1 and, with `spatial`, behind them `spatial` times their place."""
    unit = normalise(vectors[..., :-2], -1, SHORTEST)
    return torch.cat([unit, spatial * vectors[..., -2:]], -1) if spatial else unit


def image_points(
    maps: Float[Tensor, "batch image dim rows cols"], *, window: int, spatial: float
) -> Float[Tensor, "batch node axis"]:
    """A point for each cell, image by image and row by row."""
    pooled = cells(placed(maps), window)
    return points(rearrange(pooled, "b i d r c -> b (i r c) d"), spatial)


def describe_support(
    maps: Float[Tensor, "batch way shot dim rows cols"],
    masks: Float[Tensor, "batch way shot height width"],
    backgrounds: Float[Tensor, "batch way shot height width"],
    *,
    window: int,
    spatial: float,
) -> Sources:
    """The cells of labelled maps and one more node for each label, in the order (way shot row col),
    label.

    A cell is a way's above a share of 0.5, background where anything else holds less than 0.05,
    and without label in between. A label that no cell gets is given to the cell with its
    largest share and to the extra node, which holds the mean feature under its whole mask; else
    that node is absent. A label whose masks are empty has neither.
    """
    grid = (maps.shape[-2], maps.shape[-1])
    ways, rest = area_average(masks, grid), area_average(backgrounds, grid)
    way_cells, extra_ways = _way_labels(ways, window)
    rest_cells, extra_rest = _background_labels(rest, way_cells.any(1), window)
    images = rearrange(maps, "b w s d r c -> b (w s) d r c")
    nodes = image_points(images, window=window, spatial=spatial)
    extra = points(_means(placed(maps), ways, rest), spatial)
    labels = torch.cat([rest_cells.unsqueeze(1), way_cells], 1).to(maps.dtype)
    missing = torch.cat([extra_rest, extra_ways], 1)  # batch label
    area = torch.cat([rest.sum((1, 2, 3, 4)).unsqueeze(1), ways.sum((2, 3, 4))], 1)
    return Sources(
        torch.cat([nodes, extra], 1),
        torch.cat([labels.mT, torch.diag_embed(missing.to(maps.dtype))], 1),
        torch.cat([torch.ones_like(nodes[..., 0], dtype=torch.bool), missing], 1),
        area / area.sum(1, keepdim=True).clamp_min(EPS),
    )


def _way_labels(
    masks: Float[Tensor, "batch way shot rows cols"], window: int
) -> tuple[Bool[Tensor, "batch way node"], Bool[Tensor, "batch way"]]:
    """Which node is whose (a node lies in the image of one way), and which way has no full cell."""
    n_way = masks.shape[1]
    share = rearrange(cells(masks.unsqueeze(3), window), "b w s 1 r c -> b w (s r c)")
    own, lacking = _or_largest(share, share > FOREGROUND, masks.sum((2, 3, 4)) >= EMPTY)
    of_image = torch.eye(n_way, dtype=torch.bool, device=masks.device)
    spread = own.unsqueeze(2) & of_image[None, :, :, None]  # batch way image-way cell
    return rearrange(spread, "b w v p -> b w (v p)"), lacking


def _background_labels(
    backgrounds: Float[Tensor, "batch way shot rows cols"],
    taken: Bool[Tensor, "batch node"],
    window: int,
) -> tuple[Bool[Tensor, "batch node"], Bool[Tensor, "batch 1"]]:
    """Which node is background, and whether no cell is; nodes `taken` by a way are not."""
    share = rearrange(cells(backgrounds.unsqueeze(3), window), "b w s 1 r c -> b (w s r c)")
    share = share.masked_fill(taken, 0.0)
    full = share > 1 - BACKGROUND
    own, lacking = _or_largest(share, full, backgrounds.sum((1, 2, 3, 4)) >= EMPTY)
    return own & ~taken, lacking.unsqueeze(1)


def _or_largest(
    share: Float[Tensor, "*batch cell"],
    chosen: Bool[Tensor, "*batch cell"],
    anything: Bool[Tensor, "*batch"],
) -> tuple[Bool[Tensor, "*batch cell"], Bool[Tensor, "*batch"]]:
    """The chosen cells, or the one with the largest share where none is but the mask holds
    anything; and where that was so."""
    lacking = anything & ~chosen.any(-1)
    places = torch.arange(share.shape[-1], device=share.device)
    largest = places == share.argmax(-1, keepdim=True)
    return chosen | (largest & lacking.unsqueeze(-1)), lacking


def _means(
    maps: Float[Tensor, "batch way shot placed rows cols"],
    ways: Float[Tensor, "batch way shot rows cols"],
    rest: Float[Tensor, "batch way shot rows cols"],
) -> Float[Tensor, "batch label placed"]:
    """The mean vector under each label's masks over all its images, background first."""

    def mean(masks: Tensor, over: tuple[int, ...]) -> Tensor:
        total = (maps * masks.unsqueeze(3)).sum((*over, 4, 5))
        return total / masks.sum((*over, 3, 4)).unsqueeze(-1).clamp_min(EPS)

    return torch.cat([mean(rest, (1, 2)).unsqueeze(1), mean(ways, (2,))], 1)
