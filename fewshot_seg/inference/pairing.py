"""Which labelled slices segment which slices of a scan, when nobody knows where the organ lies.

`middle`     the organ's middle slice, for all slices (the field's "EP2").
`spread-N`   N slices across the organ, for all slices; their probabilities are averaged.
`similar-N`  N slices across the organ; each slice takes the one that looks most alike.
`aligned-N`  the scans are first laid side by side along the slice axis by their looks alone; that
             estimates the organ's range, within which parts-N pairs slices as in evaluation, and
             outside of which nothing is looked for. Where the scans cannot be aligned (no spacing,
             pictures, too different) it is `spread-N`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from fewshot_seg.errors import UnknownNameError, did_you_mean
from fewshot_seg.evaluation.matching import Part, Parts, support_position
from fewshot_seg.inference.stack import Stack, align, likeness

NAMES = ("aligned-3", "middle", "spread-3", "similar-3")
DEFAULT = "aligned-3"
MARGIN = 0.1
"""An estimated range is widened at both ends by this part of itself, and by one slice."""


class Paired(NamedTuple):
    """A query slice may stand in several parts (averaged) or in none (background)."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()


Rule = Callable[[Sequence[Stack], Stack, int], Paired]


@dataclass(frozen=True)
class Pairing:
    """A rule by its name, for example "aligned-3"."""

    name: str
    rule: Rule
    n: int

    def __call__(self, supports: Sequence[Stack], query: Stack) -> Paired:
        """supports: each shows the class in at least one slice and is a shot."""
        return self.rule(supports, query, self.n)


def get_pairing(name: str) -> Pairing:
    """Raises UnknownNameError, and says why the protocols of evaluation are not among the names."""
    if name == "middle":
        return Pairing(name, _spread, 1)
    kind, _, count = name.rpartition("-")
    if kind in _RULES and count.isascii() and count.isdecimal() and int(count) > 0:
        return Pairing(name, _RULES[kind], int(count))
    why = ""
    if kind in ("parts", "chunks", "groups") or name == "middle-range":
        why = " It needs the range of the organ in the scan, which only labelled scans tell."
    raise UnknownNameError(
        f"unknown matching '{name}'{did_you_mean(name, NAMES) or '.'}{why} Known: "
        f"{', '.join(NAMES)} (with any number from 1 after the dash)."
    )


def _chosen(supports: Sequence[Stack], part: int, n: int) -> tuple[int, ...]:
    return tuple(own.shown[support_position(len(own.shown), part, n)] for own in supports)


def _spread(supports: Sequence[Stack], query: Stack, n: int) -> Paired:
    every = tuple(range(len(query)))
    slices = dict.fromkeys(_chosen(supports, part, n) for part in range(n))
    return Paired(tuple(Part(chosen, every) for chosen in slices))


def _similar(supports: Sequence[Stack], query: Stack, n: int) -> Paired:
    slices = list(dict.fromkeys(_chosen(supports, part, n) for part in range(n)))
    alike = [likeness(query, own) for own in supports]
    scores = torch.stack(
        [torch.stack([one[:, z] for one, z in zip(alike, chosen)]).mean(0) for chosen in slices]
    )
    best = scores.argmax(0).tolist()
    groups = [[z for z, choice in enumerate(best) if choice == k] for k in range(len(slices))]
    return Paired(tuple(Part(chosen, tuple(q)) for chosen, q in zip(slices, groups) if q))


def _aligned(supports: Sequence[Stack], query: Stack, n: int) -> Paired:
    found = [(align(query, own), own) for own in supports]
    ranges = [
        (one.query_position(own.shown[0]), one.query_position(own.shown[-1]))
        for one, own in found
        if one is not None
    ]
    if not ranges:
        note = f"could not be laid along the labelled scan, so spread-{n} was used"
        return Paired(_spread(supports, query, n).parts, (note,))
    first = sum(low for low, _ in ranges) / len(ranges)
    last = sum(high for _, high in ranges) / len(ranges)
    margin = MARGIN * (last - first) + 1
    inside = [z for z in range(len(query)) if first - margin <= z <= last + margin]
    if not inside:
        return Paired((), ("by its looks the scan ends before the organ begins",))
    shown = [own.shown for own in supports]
    return Paired(Parts(n).match(shown, inside, len(query)))


_RULES: Mapping[str, Rule] = {"aligned": _aligned, "spread": _spread, "similar": _similar}
