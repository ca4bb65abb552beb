"""How alike slices of two scans look, and how one scan lies along the other's axis.

Plain image comparison on small thumbnails: it needs no network, so it serves every method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.functional import area_average

THUMBNAIL = (12, 12)
"""Cells of a thumbnail: coarse, so that a shift of a few centimetres hardly matters."""
BODY = 0.15
"""A pixel belongs to the body where this part of the slices is brighter than the scan's mean."""
STRETCHES = (0.85, 0.925, 1.0, 1.075, 1.15)
"""How much longer the query's body may be than the labelled one."""
LEAST_OVERLAP = 0.6
"""Part of the shorter scan that an alignment must lay onto the other."""
LEAST_LIKENESS = 0.1
"""Mean likeness below which an alignment is not believed. On CHAOS noise reaches 0.05 and any two
patients 0.18; one of them upside down does so as well, so this does not tell what a scan shows."""

Images = Float[Tensor, "slice channel height width"]


@dataclass(frozen=True, eq=False)
class Stack:
    """What a slice matching may know of a scan.

    n_slices: of the scan.   shown: sorted slices that show the class; empty for a query of which
    nobody knows.   images: what the slices look like; None serves rules that do not look.
    step: millimetres between slices; None when unknown.
    """

    n_slices: int
    shown: tuple[int, ...] = ()
    images: Images | None = None
    step: float | None = None

    @classmethod
    def of(cls, images: Images, step: float | None, shown: Sequence[int] = ()) -> "Stack":
        """The stack of a scan's images."""
        return cls(len(images), tuple(shown), images, step)

    @cached_property
    def thumbnails(self) -> Float[Tensor, "slice edge"]:
        """See `thumbnails`. Raises ValueError without images."""
        if self.images is None:
            raise ValueError("slices without images cannot be compared by their looks")
        return thumbnails(self.images)


def thumbnails(images: Images) -> Float[Tensor, "slice edge"]:
    """The edges in each slice of the body, coarsely: a vector of unit length.

    The box around the body is brought to `THUMBNAIL` cells, so that patients of any build lie
    over each other; differences of neighbouring cells tell where something begins or ends, and
    nothing of how bright the scanner made it. A flat slice is the zero vector, like nothing at all.
    """
    cells = area_average(_body(images.mean(1))[:, None], THUMBNAIL)[:, 0]
    edges = torch.cat([cells.diff(dim=1).flatten(1), cells.diff(dim=2).flatten(1)], 1)
    return edges / edges.norm(dim=1, keepdim=True).clamp(min=1e-6)


def _body(
    grey: Float[Tensor, "slice height width"],
) -> Float[Tensor, "slice body_height body_width"]:
    """The images cut to the box around the body; all of them where there is none."""
    body = (grey > grey.mean()).float().mean(0) > BODY
    rows, cols = (body.any(axis).nonzero()[:, 0] for axis in (1, 0))
    if len(rows) == 0:
        return grey
    return grey[:, int(rows[0]) : int(rows[-1]) + 1, int(cols[0]) : int(cols[-1]) + 1]


class Alignment(NamedTuple):
    """query slice = (support slice - shift) / slope; likeness: mean over slices, -1 to 1."""

    slope: float
    shift: float
    likeness: float

    def query_position(self, support_slice: int) -> float:
        return (support_slice - self.shift) / self.slope


def likeness(query: Stack, support: Stack) -> Float[Tensor, "query_slice support_slice"]:
    """Cosine between the edges of each pair of slices, -1 to 1."""
    return query.thumbnails @ support.thumbnails.T


def align(query: Stack, support: Stack) -> Alignment | None:
    """The shift and stretch along the slice axis that make the scans most alike.

    None when a spacing is unknown, a scan has fewer than three slices, or nothing fits well.
    """
    if query.step is None or support.step is None or min(query.n_slices, support.n_slices) < 3:
        return None
    alike = likeness(query, support)
    slopes = [query.step / support.step / stretch for stretch in STRETCHES]
    found = [one for slope in slopes if (one := _best_shift(alike, slope)) is not None]
    best = max(found, key=lambda one: one.likeness, default=None)
    return best if best is not None and best.likeness >= LEAST_LIKENESS else None


def _best_shift(
    alike: Float[Tensor, "query_slice support_slice"], slope: float
) -> Alignment | None:
    """The best shift, in half support slices, for one slope."""
    n_query, n_support = alike.shape
    positions = torch.arange(n_query) * slope
    shifts = torch.arange(-2 * int(positions[-1]) - 2, 2 * n_support) / 2
    at = positions + shifts[:, None]  # shift query_slice
    inside = (at >= 0) & (at <= n_support - 1)
    low = at.floor().long().clamp(0, n_support - 1)
    rows = torch.arange(n_query)
    below, above = alike[rows, low], alike[rows, (low + 1).clamp(max=n_support - 1)]
    values = torch.where(inside, below + (at - low) * (above - below), 0.0)
    counts = inside.sum(1)
    least = LEAST_OVERLAP * min(n_query * slope, float(n_support))
    means = values.sum(1) / counts.clamp(min=1)
    means[(counts * slope < least) | (counts == 0)] = -2.0
    best = int(means.argmax())
    if means[best] < -1.5:
        return None
    return Alignment(slope, float(shifts[best]), float(means[best]))
