"""Matching rules that know nothing of the query's labels, so that any scan can be segmented.

All slices of the query scan are scored, and what a rule does not look at is background.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fewshot_seg.evaluation.pairs import (
    Paired,
    Part,
    at_least_one,
    equal_heights,
    pair,
    require_shown,
    support_slices,
)
from fewshot_seg.evaluation.stack import Stack, align, likeness

MARGIN = 0.1
"""An estimated range is widened at both ends by this part of itself, and by one slice."""
APART = "could not be laid along the labelled scan, so spread-{} was used"
OUTSIDE = "by its looks the scan ends before the organ begins"


@dataclass(frozen=True)
class Middle:
    """`middle` (ADNet's EP2): one middle support slice for all slices of the query scan."""

    name = "middle"
    uses_query_range = False

    def match(self, support: Sequence[Stack], query: Stack) -> Paired:
        return _spread(support, query, 1)


@dataclass(frozen=True)
class Spread:
    """`spread-N`: N slices across the organ, each for all slices; probabilities are averaged."""

    n: int = 3
    uses_query_range = False

    def __post_init__(self) -> None:
        at_least_one(self.n)

    @property
    def name(self) -> str:
        return f"spread-{self.n}"

    def match(self, support: Sequence[Stack], query: Stack) -> Paired:
        return _spread(support, query, self.n)


@dataclass(frozen=True)
class Similar:
    """`similar-N`: N slices across the organ; each query slice takes the one most alike."""

    n: int = 3
    uses_query_range = False

    def __post_init__(self) -> None:
        at_least_one(self.n)

    @property
    def name(self) -> str:
        return f"similar-{self.n}"

    def match(self, support: Sequence[Stack], query: Stack) -> Paired:
        require_shown(support)
        choices = _choices(support, self.n)
        alike = [likeness(query, own) for own in support]
        scores = torch.stack(  # choice query_slice
            [
                torch.stack([one[:, z] for one, z in zip(alike, chosen, strict=True)]).mean(0)
                for chosen in choices
            ]
        )
        best = scores.argmax(0).tolist()
        groups = [[z for z, own in enumerate(best) if own == k] for k in range(len(choices))]
        parts = tuple(
            Part(chosen, tuple(own)) for chosen, own in zip(choices, groups, strict=True) if own
        )
        return Paired(parts, _every(query))


@dataclass(frozen=True)
class Aligned:
    """`aligned-N`: the scans are laid side by side by their looks, which estimates the range.

    The shift and stretch along the slice axis that make the scans most alike say where the
    labelled organ would lie in the query. Within that range, widened a little, N parts of equal
    height pair slices as in `parts-N`; elsewhere nothing is looked for. Scans that cannot be laid
    side by side (no spacing, pictures, nothing alike) are served by `spread-N`, with a note.
    """

    n: int = 10
    uses_query_range = False

    def __post_init__(self) -> None:
        at_least_one(self.n)

    @property
    def name(self) -> str:
        return f"aligned-{self.n}"

    def match(self, support: Sequence[Stack], query: Stack) -> Paired:
        require_shown(support)
        found = estimated_range(support, query)
        if found is None:
            return _spread(support, query, self.n, APART)
        if not found:
            return Paired((), _every(query), (OUTSIDE,))
        return Paired(pair(support, equal_heights(found, self.n)), _every(query))


def estimated_range(support: Sequence[Stack], query: Stack) -> range | None:
    """Where the class lies in the query, by its looks alone; the mean over the support scans.

    Widened by `MARGIN` and cut to the scan, so it may be empty. None when no support scan can be
    laid along the query.
    """
    ranges = [
        (found.query_position(own.shown[0]), found.query_position(own.shown[-1]))
        for own in support
        if (found := align(query, own)) is not None
    ]
    if not ranges:
        return None
    first = sum(low for low, _ in ranges) / len(ranges)
    last = sum(high for _, high in ranges) / len(ranges)
    margin = MARGIN * (last - first) + 1
    low, high = math.ceil(first - margin), math.floor(last + margin)
    return range(max(low, 0), min(high, query.n_slices - 1) + 1)


def _spread(support: Sequence[Stack], query: Stack, n: int, note: str = "") -> Paired:
    require_shown(support)
    every = _every(query)
    notes = (note.format(n),) if note else ()
    return Paired(tuple(Part(chosen, every) for chosen in _choices(support, n)), every, notes)


def _choices(support: Sequence[Stack], n: int) -> list[tuple[int, ...]]:
    """N slices across the organ in each support scan; fewer where it shows in fewer."""
    return list(dict.fromkeys(support_slices(support, part, n) for part in range(n)))


def _every(query: Stack) -> tuple[int, ...]:
    return tuple(range(query.n_slices))
