"""Felzenszwalb and Huttenlocher's graph segmentation (2004) of a volume, 26 neighbours a voxel.

A volume of 256x256x36 has 30 million edges. They are never held all at once: a histogram of the
costs cuts them into portions of rising cost, and a portion is collected without the edges that
can no longer join anything, then sorted. Both passes end as soon as no later edge can matter.

Importing this module imports numba; `fewshot_seg.data.supervoxels` does so on first use.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float, Int32
from numba import njit

from fewshot_seg.errors import OptionError

PORTION = 2**21
"""Edges to collect and sort at a time; the portions double up to eight times this."""
SHIFT = 15
"""Costs are binned by the leading 16 bits of their float32: 256 bins for each power of two."""
BINS = 2 ** (31 - SHIFT)


def segment(
    volume: Float[np.ndarray, "slice height width"],
    *,
    spacing_ratio: float = 1.0,
    scale: float = 1 / 255,
    min_size: int = 1,
) -> Int32[np.ndarray, "slice height width"]:
    """Segment ids from 0, in the order of each segment's first voxel (slice, row, column).

    spacing_ratio: s, distance of slices over that of pixels. An edge costs |difference| * sqrt(w)
        with w = 1 within a slice, s^2 straight across slices, (1 + s^2) / 2 and (2 + s^2) / 3
        across slices and one or two pixels (Hansen et al. 2022, official code).
    scale: k of the first pass. By rising cost, an edge joins two segments when it costs less than
        the dearest edge inside either plus k over its voxels.
    min_size: in the second pass an edge joins two segments when either has fewer voxels.

    Edges of one cost go by direction, then position: the same input gives the same ids.
    Raises OptionError for numbers that are not positive, ValueError for values not finite.
    """
    numbers = {"spacing_ratio": spacing_ratio, "scale": scale, "min_size": min_size}
    for name, value in numbers.items():
        if not (value > 0 and np.isfinite(value)):
            raise OptionError(f"{name} must be a positive number; got {value}")
    if volume.size == 0 or not np.isfinite(volume).all():
        raise ValueError(f"a volume of {volume.shape} with only finite values is needed")
    values = np.ascontiguousarray(volume, np.float64)
    offsets, factors = _directions(spacing_ratio)
    edges = _Edges(values, offsets, factors, _histogram(values, offsets, factors))
    parent = np.arange(values.size, dtype=np.int32)
    size = np.ones(values.size, np.int32)
    # Edges of cost 0 always join in the first pass, in whatever order: no need to sort them.
    _join_equal(values, offsets, parent, size)
    _first_pass(edges, parent, size, scale)
    _second_pass(edges, parent, size, min_size)
    _flatten(parent)
    ranks = np.cumsum(parent == np.arange(values.size, dtype=np.int32), dtype=np.int32) - 1
    found: np.ndarray = ranks[parent].astype(np.int32).reshape(volume.shape)
    return found


class _Edges(NamedTuple):
    """What the edges are made of, and how many fall into each bin of cost."""

    values: np.ndarray
    offsets: np.ndarray
    factors: np.ndarray
    histogram: np.ndarray

    def collect(
        self, bins: tuple[int, int], parent: np.ndarray, size: np.ndarray, enough: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(first voxel, second voxel, cost) of the edges in these bins, by rising cost, less
        those inside one segment and those between two of `enough` voxels."""
        _flatten(parent)
        room = int(self.histogram[bins[0] : bins[1]].sum())
        first, second = np.empty(room, np.int32), np.empty(room, np.int32)
        cost = np.empty(room, np.float64)
        count = _collect(
            self.values, self.offsets, self.factors, bins[0], bins[1], parent, size, enough,
            first, second, cost,
        )  # fmt: skip
        order = np.argsort(cost[:count], kind="stable")
        return first[order], second[order], cost[order]


def _first_pass(edges: _Edges, parent: np.ndarray, size: np.ndarray, scale: float) -> None:
    inner = np.zeros(size.size, np.float64)
    limit, first = scale / int(size.min()), 0  # no edge of this cost or more can join
    while first <= (last := _bin_of(limit)) and first < BINS:
        bins = next(_portions(edges.histogram[: last + 1], first))
        one, two, cost = edges.collect(bins, parent, size, np.iinfo(np.int32).max)
        limit = _merge_similar(one, two, cost, parent, size, inner, scale, limit)
        first = bins[1]


def _second_pass(edges: _Edges, parent: np.ndarray, size: np.ndarray, min_size: int) -> None:
    small = _count_small(parent, size, min_size)
    for bins in _portions(edges.histogram, 0):
        if not small:
            return
        one, two, _ = edges.collect(bins, parent, size, min_size)
        small = _absorb_small(one, two, parent, size, min_size, small)


def _portions(histogram: np.ndarray, first: int) -> Iterator[tuple[int, int]]:
    """Ranges of bins from `first` on with about PORTION edges each, then more and more: the
    later a portion, the fewer of its edges are still of use."""
    total, target = np.cumsum(histogram), PORTION
    while first < len(histogram):
        before = total[first - 1] if first else 0
        last = int(np.searchsorted(total, before + target, side="right"))
        last = min(max(last, first + 1), len(histogram))
        yield first, last
        first, target = last, min(2 * target, 8 * PORTION)


def _directions(spacing_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """One of each two opposite neighbours, and the factor on the difference towards it."""
    steps = [(z, y, x) for z in (0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    half = [step for step in steps if step > (0, 0, 0)]
    s2 = spacing_ratio**2
    across = {0: s2, 1: (1 + s2) / 2, 2: (2 + s2) / 3}
    weights = [across[abs(y) + abs(x)] if z else 1.0 for z, y, x in half]
    return np.array(half, np.int64), np.sqrt(np.array(weights, np.float64))


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Machine code of `function`, kept on disk where numba finds a folder to write to."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        return njit(nogil=True)(function)


# `no_type_check` also keeps run-time shape checks from wrapping what numba has to compile.


@_compiled
@no_type_check
def _bin_of(cost):
    return int(np.float32(cost).view(np.int32)) >> SHIFT


@_compiled
@no_type_check
def _root(parent, one):
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = parent[one]
    return one


@_compiled
@no_type_check
def _join(parent, size, one, two):
    """Join two roots under the lower, which is the segment's first voxel."""
    low, high = min(one, two), max(one, two)
    parent[high] = low
    size[low] += size[high]
    return low


@_compiled
@no_type_check
def _flatten(parent):
    for one in range(parent.size):  # a parent is never above its child, so it is settled
        parent[one] = parent[parent[one]]


@_compiled
@no_type_check
def _range(length, step):
    return max(0, -step), min(length, length - step)


@_compiled
@no_type_check
def _histogram(values, offsets, factors):
    counts = np.zeros(BINS, np.int64)
    depth, height, width = values.shape
    for one in range(len(offsets)):
        dz, dy, dx = offsets[one]
        factor = factors[one]
        y0, y1 = _range(height, dy)
        x0, x1 = _range(width, dx)
        for z in range(depth - dz):
            for y in range(y0, y1):
                for x in range(x0, x1):
                    cost = abs(values[z + dz, y + dy, x + dx] - values[z, y, x]) * factor
                    if cost > 0:
                        counts[_bin_of(cost)] += 1
    return counts


@_compiled
@no_type_check
def _join_equal(values, offsets, parent, size):
    depth, height, width = values.shape
    for one in range(len(offsets)):
        dz, dy, dx = offsets[one]
        step = (dz * height + dy) * width + dx
        y0, y1 = _range(height, dy)
        x0, x1 = _range(width, dx)
        for z in range(depth - dz):
            for y in range(y0, y1):
                for x in range(x0, x1):
                    if values[z + dz, y + dy, x + dx] == values[z, y, x]:
                        voxel = (z * height + y) * width + x
                        here, there = _root(parent, voxel), _root(parent, voxel + step)
                        if here != there:
                            _join(parent, size, here, there)


@_compiled
@no_type_check
def _collect(
    values, offsets, factors, first_bin, last_bin, parent, size, enough, first, second, costs
):
    count = 0
    depth, height, width = values.shape
    for one in range(len(offsets)):
        dz, dy, dx = offsets[one]
        factor = factors[one]
        step = (dz * height + dy) * width + dx
        y0, y1 = _range(height, dy)
        x0, x1 = _range(width, dx)
        for z in range(depth - dz):
            for y in range(y0, y1):
                for x in range(x0, x1):
                    cost = abs(values[z + dz, y + dy, x + dx] - values[z, y, x]) * factor
                    where = _bin_of(cost)
                    if where < first_bin or where >= last_bin or cost == 0:
                        continue
                    voxel = (z * height + y) * width + x
                    here, there = parent[voxel], parent[voxel + step]
                    if here == there or (size[here] >= enough and size[there] >= enough):
                        continue
                    first[count], second[count], costs[count] = voxel, voxel + step, cost
                    count += 1
    return count


@_compiled
@no_type_check
def _merge_similar(first, second, costs, parent, size, inner, scale, limit):
    for edge in range(costs.size):
        cost = costs[edge]
        if cost >= limit:
            break
        here, there = _root(parent, first[edge]), _root(parent, second[edge])
        if here == there:
            continue
        if cost < min(inner[here] + scale / size[here], inner[there] + scale / size[there]):
            joined = _join(parent, size, here, there)
            inner[joined] = cost
            limit = max(limit, cost + scale / size[joined])
    return limit


@_compiled
@no_type_check
def _count_small(parent, size, min_size):
    small = 0
    for one in range(parent.size):
        if parent[one] == one and size[one] < min_size:
            small += 1
    return small


@_compiled
@no_type_check
def _absorb_small(first, second, parent, size, min_size, small):
    for edge in range(first.size):
        here, there = _root(parent, first[edge]), _root(parent, second[edge])
        if here == there or (size[here] >= min_size and size[there] >= min_size):
            continue
        small -= int(size[here] < min_size) + int(size[there] < min_size)
        joined = _join(parent, size, here, there)
        small += int(size[joined] < min_size)
        if not small:
            break
    return small
