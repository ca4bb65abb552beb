"""Which support slice segments which query slice: the matching rules by name.

All indices are slice indices of a scan. The same method scores very differently under different
rules (ADNet on CHAOS: 78.8 % against 72.4 %), so a result always carries its rule's name and
whether it used the query's ground-truth organ range. The rules that do not are also those of
`fewshot_seg.inference`: a score under one of them is a score of what users get.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from fewshot_seg.errors import UnknownNameError, did_you_mean
from fewshot_seg.evaluation.blind import Aligned, Middle, Similar, Spread
from fewshot_seg.evaluation.pairs import Paired, Part, support_position
from fewshot_seg.evaluation.ranged import Chunks, Groups, MiddleRange, Parts
from fewshot_seg.evaluation.stack import Stack

__all__ = [
    "BLIND",
    "NAMES",
    "RANGED",
    "Aligned",
    "Chunks",
    "Groups",
    "Matching",
    "Middle",
    "MiddleRange",
    "Paired",
    "Part",
    "Parts",
    "Similar",
    "Spread",
    "Stack",
    "get_matching",
    "support_position",
]


@runtime_checkable
class Matching(Protocol):
    """A rule that pairs support and query slices, and says which of them are scored.

    name: as `get_matching` takes it.
    uses_query_range: the rule needs to know where the class begins and ends in the query scan,
        which is a weak label.
    """

    @property
    def name(self) -> str: ...
    @property
    def uses_query_range(self) -> bool: ...

    def match(self, support: Sequence[Stack], query: Stack) -> Paired:
        """The parts of one query scan, those without a query slice left out.

        support: each shows the class in at least one slice and is a shot.
        query: what it shows of the class is ignored unless `uses_query_range`, and may then be
            any slices that span the range.
        Raises ValueError when a support scan, or the query where it is needed, has no slice.
        """
        ...


_COUNTED: dict[str, Callable[[int], Matching]] = {
    "parts": Parts,
    "chunks": Chunks,
    "groups": Groups,
    "aligned": Aligned,
    "similar": Similar,
    "spread": Spread,
}
_PLAIN: dict[str, Callable[[], Matching]] = {"middle": Middle, "middle-range": MiddleRange}
RANGED = ("parts-3", "chunks-3", "groups-10", "middle-range")
"""Usual names of rules that need the query's organ range; any number from 1 after the dash."""
BLIND = ("aligned-10", "middle", "spread-3", "similar-9")
"""Usual names of rules that need nothing of the query; any number from 1 after the dash."""
NAMES = (*RANGED, *BLIND)


def get_matching(name: str) -> Matching:
    """The rule called `name`, for example "parts-3".

    Raises UnknownNameError for any other name.
    """
    if name in _PLAIN:
        return _PLAIN[name]()
    kind, _, count = name.rpartition("-")
    if kind in _COUNTED and count.isascii() and count.isdecimal() and int(count) > 0:
        return _COUNTED[kind](int(count))
    raise UnknownNameError(
        f"unknown matching protocol '{name}'{did_you_mean(name, NAMES) or '.'} "
        f"Known: {', '.join(NAMES)} (with any number from 1 after {', '.join(_COUNTED)})."
    )
