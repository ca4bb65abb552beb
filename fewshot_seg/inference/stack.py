"""How alike slices of two scans look, and how one scan lies along the other's axis.

Plain image comparison on small thumbnails: it needs no network, so it serves every method.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.functional import area_average

THUMBNAIL = (16, 16)
"""Cells of a thumbnail: coarse, so that a shift of a centimetre in plane hardly matters."""
STRETCHES = (0.85, 0.925, 1.0, 1.075, 1.15)
"""How much longer the query's body may be than the labelled one."""
LEAST_OVERLAP = 0.6
"""Part of the shorter scan that an alignment must lay onto the other."""
LEAST_LIKENESS = 0.3
"""Mean correlation below which an alignment is not believed."""


@dataclass(frozen=True, eq=False)
class Stack:
    """A scan's slices as thumbnails of zero mean and unit length.

    step: millimetres between slices; None when unknown.
    shown: sorted slices that show the class; empty for a query, of which nobody knows.
    """

    thumbnails: Float[Tensor, "slice cell"]
    step: float | None
    shown: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        images: Float[Tensor, "slice channel height width"],
        step: float | None,
        shown: tuple[int, ...] = (),
    ) -> "Stack":
        """The stack of images on the canvas."""
        cells = area_average(images.mean(1, keepdim=True), THUMBNAIL).flatten(1)
        centred = cells - cells.mean(1, keepdim=True)
        # An empty slice stays the zero vector, like nothing at all.
        return cls(centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-6), step, shown)

    def __len__(self) -> int:
        return self.thumbnails.shape[0]


class Alignment(NamedTuple):
    """query slice = (support slice - shift) / slope; likeness: mean correlation, -1 to 1."""

    slope: float
    shift: float
    likeness: float

    def query_position(self, support_slice: int) -> float:
        return (support_slice - self.shift) / self.slope


def likeness(query: Stack, support: Stack) -> Float[Tensor, "query_slice support_slice"]:
    """Correlation of each pair of slices, -1 to 1."""
    return query.thumbnails @ support.thumbnails.T


def align(query: Stack, support: Stack) -> Alignment | None:
    """The shift and stretch along the slice axis that make the scans most alike.

    None when a spacing is unknown, a scan has fewer than three slices, or nothing fits well.
    """
    if query.step is None or support.step is None or min(len(query), len(support)) < 3:
        return None
    alike = likeness(query, support)
    best: Alignment | None = None
    for stretch in STRETCHES:
        found = _best_shift(alike, query.step / support.step / stretch)
        if found is not None and (best is None or found.likeness > best.likeness):
            best = found
    return best if best is not None and best.likeness >= LEAST_LIKENESS else None


def _best_shift(
    alike: Float[Tensor, "query_slice support_slice"], slope: float
) -> Alignment | None:
    """The best shift, in half support slices, for one slope."""
    n_query, n_support = alike.shape
    positions = torch.arange(n_query) * slope
    least = LEAST_OVERLAP * min(n_query * slope, float(n_support))
    best: Alignment | None = None
    for half in range(-2 * int(positions[-1]) - 2, 2 * n_support):
        at = positions + half / 2
        inside = (at >= 0) & (at <= n_support - 1)
        if not inside.any() or float(inside.sum()) * slope < least:
            continue
        score = float(_interpolated(alike[inside], at[inside]).mean())
        if best is None or score > best.likeness:
            best = Alignment(slope, half / 2, score)
    return best


def _interpolated(
    rows: Float[Tensor, "row column"], at: Float[Tensor, " row"]
) -> Float[Tensor, " row"]:
    """Each row's value at its own, fractional column."""
    low = at.floor().long().clamp(max=rows.shape[1] - 1)
    high = (low + 1).clamp(max=rows.shape[1] - 1)
    part = at - low
    one = rows.gather(1, low[:, None])[:, 0]
    return one * (1 - part) + rows.gather(1, high[:, None])[:, 0] * part
