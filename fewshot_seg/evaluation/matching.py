"""Which support slice segments which query slice: the matching protocols of the field.

All indices are slice indices of a scan. A class's slices are given sorted, as in
`Scan.class_slices`. The same method scores very differently under different protocols (ADNet on
CHAOS: 78.8 % against 72.4 %), so a result always carries its protocol's name and whether it used
the query's ground-truth organ range.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

from fewshot_seg.errors import UnknownNameError, did_you_mean


@dataclass(frozen=True)
class Part:
    """Query slices that share their support slices.

    support: one slice index for each support scan (each is a shot).
    query: sorted slice indices of the query scan, at least one.
    """

    support: tuple[int, ...]
    query: tuple[int, ...]


@runtime_checkable
class Matching(Protocol):
    """A rule that pairs support and query slices; the slices it names are the ones scored.

    name: as `get_matching` takes it.
    uses_query_range: the rule needs to know where the class begins and ends in the query scan,
        which is a weak label.
    """

    @property
    def name(self) -> str: ...
    @property
    def uses_query_range(self) -> bool: ...

    def match(
        self, support: Sequence[Sequence[int]], query: Sequence[int], n_slices: int
    ) -> tuple[Part, ...]:
        """The parts of one query scan, those without a query slice left out.

        support: for each support scan the sorted slices that show the class.
        query: the same for the query scan; ignored unless `uses_query_range`, and may then be
            any slices that span the range.
        n_slices: number of slices of the query scan.
        Raises ValueError when a support scan, or the query where it is needed, has no slice.
        """
        ...


def scored_slices(parts: Sequence[Part]) -> tuple[int, ...]:
    """The query slices that are segmented and scored, sorted."""
    return tuple(sorted(index for part in parts for index in part.query))


@dataclass(frozen=True)
class Parts:
    """`parts-N` (ALPNet): the query's organ range is cut in N parts of equal height.

    Slices inside the range that do not show the organ are scored as well.
    """

    n: int = 3
    uses_query_range = True

    def __post_init__(self) -> None:
        _at_least_one(self.n)

    @property
    def name(self) -> str:
        return f"parts-{self.n}"

    def match(
        self, support: Sequence[Sequence[int]], query: Sequence[int], n_slices: int
    ) -> tuple[Part, ...]:
        _require(support, query)
        first, last = min(query), max(query)
        height = max(last - first, 1)  # a single slice is part 0
        groups: list[list[int]] = [[] for _ in range(self.n)]
        for index in range(first, last + 1):
            # floor((z - z_min) / ((z_max - z_min) / n)) in exact integers; z_max falls into part n
            groups[min((index - first) * self.n // height, self.n - 1)].append(index)
        return _pair(support, groups)


@dataclass(frozen=True)
class Chunks:
    """`chunks-N` (ADNet's EP1): the query's organ-bearing slices are cut in N chunks by count.

    Slices without the organ are not scored, also inside the range.
    """

    n: int = 3
    uses_query_range = True

    def __post_init__(self) -> None:
        _at_least_one(self.n)

    @property
    def name(self) -> str:
        return f"chunks-{self.n}"

    def match(
        self, support: Sequence[Sequence[int]], query: Sequence[int], n_slices: int
    ) -> tuple[Part, ...]:
        _require(support, query)
        return _pair(support, _split(sorted(query), self.n))


@dataclass(frozen=True)
class Groups:
    """`groups-N` (SE-Net): the query's organ range is cut in N equal groups of slices.

    Follows the paper. The official code instead rounds group starts so that the last group holds
    a single slice, and counts only slices with more than 10 organ pixels.
    """

    n: int = 10
    uses_query_range = True

    def __post_init__(self) -> None:
        _at_least_one(self.n)

    @property
    def name(self) -> str:
        return f"groups-{self.n}"

    def match(
        self, support: Sequence[Sequence[int]], query: Sequence[int], n_slices: int
    ) -> tuple[Part, ...]:
        _require(support, query)
        return _pair(support, _split(range(min(query), max(query) + 1), self.n))


@dataclass(frozen=True)
class Middle:
    """`middle` (ADNet's EP2): one middle support slice for all slices of the query scan.

    The only protocol that knows nothing of the query's organ range.
    """

    name = "middle"
    uses_query_range = False

    def match(
        self, support: Sequence[Sequence[int]], query: Sequence[int], n_slices: int
    ) -> tuple[Part, ...]:
        _require(support, None)
        return _pair(support, [range(n_slices)])


@dataclass(frozen=True)
class MiddleRange:
    """`middle-range`: the middle support slice, scored inside the query's organ range only.

    Between `middle` and `parts-3`: tells how much of their distance is the range and how much
    the further support slices.
    """

    name = "middle-range"
    uses_query_range = True

    def match(
        self, support: Sequence[Sequence[int]], query: Sequence[int], n_slices: int
    ) -> tuple[Part, ...]:
        _require(support, query)
        return _pair(support, [range(min(query), max(query) + 1)])


_COUNTED: dict[str, Callable[[int], Matching]] = {
    "parts": Parts,
    "chunks": Chunks,
    "groups": Groups,
}
_PLAIN: dict[str, Callable[[], Matching]] = {"middle": Middle, "middle-range": MiddleRange}
NAMES = ("parts-3", "chunks-3", "groups-10", "middle", "middle-range")
"""The usual names; the number of `parts-`, `chunks-` and `groups-` may be any from 1."""


def get_matching(name: str) -> Matching:
    """The protocol called `name`, for example "parts-3".

    Raises UnknownNameError for any other name.
    """
    if name in _PLAIN:
        return _PLAIN[name]()
    kind, _, count = name.rpartition("-")
    if kind in _COUNTED and count.isascii() and count.isdecimal() and int(count) > 0:
        return _COUNTED[kind](int(count))
    raise UnknownNameError(
        f"unknown matching protocol '{name}'{did_you_mean(name, NAMES) or '.'} "
        f"Known: {', '.join(NAMES)} (with any number from 1 after parts-, chunks- and groups-)."
    )


def support_position(n_slices: int, part: int, n_parts: int) -> int:
    """floor(n_slices * (1 / (2 n_parts) + part / n_parts)): the centre of a part, as a position.

    Counts in the sorted list of a support scan's class slices; exact integer arithmetic.
    """
    return n_slices * (2 * part + 1) // (2 * n_parts)


def _split(slices: Sequence[int], n: int) -> list[Sequence[int]]:
    borders = [len(slices) * part // n for part in range(n + 1)]
    return [slices[start:stop] for start, stop in pairwise(borders)]


def _pair(support: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]) -> tuple[Part, ...]:
    n = len(groups)
    return tuple(
        Part(tuple(own[support_position(len(own), part, n)] for own in support), tuple(query))
        for part, query in enumerate(groups)
        if query
    )


def _at_least_one(n: int) -> None:
    if n < 1:
        raise ValueError(f"a matching protocol needs at least 1 part; got {n}")


def _require(support: Sequence[Sequence[int]], query: Sequence[int] | None) -> None:
    if not support:
        raise ValueError("slice matching needs at least one support scan")
    for number, slices in enumerate(support, start=1):
        if not slices:
            raise ValueError(f"support scan {number} of {len(support)} shows the class in no slice")
    if query is not None and not query:
        raise ValueError("the query scan shows the class in no slice, so its range is unknown")
