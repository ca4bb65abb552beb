"""Matching rules of the field that are told where the organ lies in the query, a weak label."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fewshot_seg.evaluation.pairs import (
    Paired,
    Part,
    at_least_one,
    equal_heights,
    pair,
    require_range,
    require_shown,
)
from fewshot_seg.evaluation.stack import Stack


@dataclass(frozen=True)
class Parts:
    """`parts-N` (ALPNet): the query's organ range is cut in N parts of equal height.

    Slices inside the range that do not show the organ are scored as well.
    """

    n: int = 3
    uses_query_range = True

    def __post_init__(self) -> None:
        at_least_one(self.n)

    @property
    def name(self) -> str:
        return f"parts-{self.n}"

    def match(self, support: Sequence[Stack], query: Stack) -> Paired:
        return _within_range(pair(support, equal_heights(_range(support, query), self.n)))


@dataclass(frozen=True)
class Chunks:
    """`chunks-N` (ADNet's EP1): the query's organ-bearing slices are cut in N chunks by count.

    Slices without the organ are not scored, also inside the range.
    """

    n: int = 3
    uses_query_range = True

    def __post_init__(self) -> None:
        at_least_one(self.n)

    @property
    def name(self) -> str:
        return f"chunks-{self.n}"

    def match(self, support: Sequence[Stack], query: Stack) -> Paired:
        _range(support, query)
        return _within_range(pair(support, _split(sorted(query.shown), self.n)))


@dataclass(frozen=True)
class Groups:
    """`groups-N` (SE-Net): the query's organ range is cut in N equal groups of slices.

    Follows the paper. The official code instead rounds group starts so that the last group holds
    a single slice, and counts only slices with more than 10 organ pixels.
    """

    n: int = 10
    uses_query_range = True

    def __post_init__(self) -> None:
        at_least_one(self.n)

    @property
    def name(self) -> str:
        return f"groups-{self.n}"

    def match(self, support: Sequence[Stack], query: Stack) -> Paired:
        return _within_range(pair(support, _split(_range(support, query), self.n)))


@dataclass(frozen=True)
class MiddleRange:
    """`middle-range`: the middle support slice, scored inside the query's organ range only.

    Between `middle` and `parts-3`: tells how much of their distance is the range and how much
    the further support slices.
    """

    name = "middle-range"
    uses_query_range = True

    def match(self, support: Sequence[Stack], query: Stack) -> Paired:
        return _within_range(pair(support, [_range(support, query)]))


def _range(support: Sequence[Stack], query: Stack) -> range:
    """The query's slices from the first to the last that shows the class."""
    require_shown(support)
    require_range(query)
    return range(min(query.shown), max(query.shown) + 1)


def _split(slices: Sequence[int], n: int) -> list[Sequence[int]]:
    borders = [len(slices) * part // n for part in range(n + 1)]
    return [slices[start:stop] for start, stop in pairwise(borders)]


def _within_range(parts: tuple[Part, ...]) -> Paired:
    return Paired(parts, tuple(sorted(index for part in parts for index in part.query)))
