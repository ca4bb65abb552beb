"""What every slice matching gives: query slices with the support slices that serve them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fewshot_seg.evaluation.stack import Stack


@dataclass(frozen=True)
class Part:
    """Query slices that share their support slices.

    support: one slice index for each support scan (each is a shot).
    query: sorted slice indices of the query scan, at least one.
    """

    support: tuple[int, ...]
    query: tuple[int, ...]


class Paired(NamedTuple):
    """The answer of a matching.

    parts: a query slice in several parts gets their mean probability, one in none background.
    scored: the sorted query slices that are scored: the organ's range where the rule knows it, else
        all slices of the scan.
    notes: what the owner of the scan should know.
    """

    parts: tuple[Part, ...]
    scored: tuple[int, ...]
    notes: tuple[str, ...] = ()


def support_position(n_slices: int, part: int, n_parts: int) -> int:
    """floor(n_slices * (1 / (2 n_parts) + part / n_parts)): the centre of a part, as a position.

    Counts in the sorted list of a support scan's class slices; exact integer arithmetic.
    """
    return n_slices * (2 * part + 1) // (2 * n_parts)


def support_slices(support: Sequence[Stack], part: int, n_parts: int) -> tuple[int, ...]:
    """Of each support scan the slice at the centre of a part."""
    return tuple(own.shown[support_position(len(own.shown), part, n_parts)] for own in support)


def pair(support: Sequence[Stack], groups: Sequence[Sequence[int]]) -> tuple[Part, ...]:
    """Each group of query slices with the support slices of its part; empty groups left out."""
    return tuple(
        Part(support_slices(support, part, len(groups)), tuple(query))
        for part, query in enumerate(groups)
        if query
    )


def equal_heights(slices: range, n: int) -> list[list[int]]:
    """The slices in `n` groups of equal height, as ALPNet's code cuts them."""
    first, height = slices.start, max(len(slices) - 1, 1)  # a single slice is group 0
    groups: list[list[int]] = [[] for _ in range(n)]
    for index in slices:
        # floor((z - z_min) / ((z_max - z_min) / n)) in exact integers; z_max falls into part n
        groups[min((index - first) * n // height, n - 1)].append(index)
    return groups


def at_least_one(n: int) -> None:
    """Raise ValueError for a rule without parts."""
    if n < 1:
        raise ValueError(f"a matching protocol needs at least 1 part; got {n}")


def require_shown(support: Sequence[Stack]) -> None:
    """Raise ValueError unless there are support scans and each shows the class."""
    if not support:
        raise ValueError("slice matching needs at least one support scan")
    for number, own in enumerate(support, start=1):
        if not own.shown:
            raise ValueError(f"support scan {number} of {len(support)} shows the class in no slice")


def require_range(query: Stack) -> None:
    """Raise ValueError unless the query's range is known."""
    if not query.shown:
        raise ValueError("the query scan shows the class in no slice, so its range is unknown")
