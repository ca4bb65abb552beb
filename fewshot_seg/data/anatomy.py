"""Whether classes lie in the body where their names say: how a wrong table of ids shows itself."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from fewshot_seg.data.facts import ScanRow
from fewshot_seg.data.known import PUBLISHED, Published
from fewshot_seg.data.words import scans

OPPOSITES = (
    (0, "right", "left"),
    (1, "anterior", "posterior"),
    (2, "superior", "inferior"),
    (2, "upper", "lower"),
)
"""RAS+ axis, the word for its far end, the word for its near end."""
ORGANS = (
    (0, "liver", "spleen"),
    (0, "liver", "left kidney"),
    (0, "liver", "stomach"),
    (0, "right kidney", "spleen"),
    (0, "gallbladder", "spleen"),
    (0, "inferior vena cava", "aorta"),
    (1, "liver", "right kidney"),
    (2, "liver", "right kidney"),
)
"""RAS+ axis, the organ farther along it, the other. In all CHAOS patients at least 15 mm."""
MARGIN = 5.0
"""Millimetres by which two middles must differ before they count as lying beside each other."""
ENCLOSED = 0.5
"""Share of the blood pool's border, within slices, that at least touches the muscle around it."""


@dataclass(frozen=True)
class Rule:
    """Something that holds for two classes in everybody, or nearly so.

    text: as a sentence.   holds: of a scan; None where it cannot be told.
    sideways: it is about left and right, so a mirrored scan breaks it.
    """

    text: str
    holds: Callable[[ScanRow], bool | None]
    sideways: bool = False


def rules(classes: Mapping[int, str]) -> tuple[Rule, ...]:
    """The rules that the names of the classes make; none for names that tell nothing."""
    names = {value: " ".join(_words(name)) for value, name in classes.items()}
    return (*_sides(names), *_rings(names))


def broken_rules(
    rows: Sequence[ScanRow], classes: Mapping[int, str]
) -> dict[Rule, tuple[list[str], int]]:
    """Rule -> the scans in which it is broken, and in how many it could be told."""
    found = {}
    for rule in rules(classes):
        answers = {row.id: rule.holds(row) for row in rows}
        broken = [scan_id for scan_id, answer in answers.items() if answer is False]
        if broken:
            found[rule] = (broken, sum(answer is not None for answer in answers.values()))
    return found


def wrong_names(rows: Sequence[ScanRow], classes: Mapping[int, str]) -> Iterator[str]:
    """A sentence when the names contradict most scans, with what the ids look like instead."""
    broken = broken_rules(rows, classes)
    mostly = {rule: found for rule, found in broken.items() if _most(*found)}
    if not mostly:
        return
    told = "; ".join(
        f"in {len(where)} of {count} scans it is not so that {rule.text}"
        for rule, (where, count) in mostly.items()
    )
    fitting = [one for one in PUBLISHED if one.classes != classes and _fits(one, rows)]
    if fitting:
        table = ", ".join(f"{value} {name}" for value, name in fitting[0].classes.items())
        yield (
            f"the class ids look like those of {fitting[0].title} ({table}), not like the names "
            f"they have here: {told}. Name them so in dataset.json"
        )
    elif all(rule.sideways for rule in mostly):
        yield (
            f"left and right look swapped: {told}. Correct the class names, or the affine of the "
            "files if it mirrors the patient"
        )
    else:
        yield (
            f"the class names do not fit where the labels lie: {told}. Correct the names in "
            "dataset.json, or the affine of the files if it turns the patient over"
        )


def odd_patients(rows: Sequence[ScanRow], classes: Mapping[int, str]) -> Iterator[str]:
    """Rules broken in a few scans: an unusual patient, or one file with swapped labels."""
    for rule, (broken, told) in broken_rules(rows, classes).items():
        if not _most(broken, told):
            yield f"in {scans(broken)} of {told} it is not so that {rule.text}; look at the labels"


def _fits(one: Published, rows: Sequence[ScanRow]) -> bool:
    seen = {value for row in rows for value in row.voxels or ()}
    return seen == set(one.classes) and not any(
        _most(*found) for found in broken_rules(rows, one.classes).values()
    )


def _most(broken: Sequence[str], told: int) -> bool:
    return 2 * len(broken) > told


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", name.lower())


def _sides(names: Mapping[int, str]) -> Iterator[Rule]:
    for first, second in permutations(names, 2):
        for axis, far, near in OPPOSITES:
            mirrored = [far if word == near else word for word in names[second].split()]
            if near in names[second].split() and mirrored == names[first].split():
                yield _beside(first, second, names, axis, far)
        for axis, far, _ in OPPOSITES[:3]:
            if (axis, names[first], names[second]) in ORGANS:
                yield _beside(first, second, names, axis, far)


def _beside(far: int, near: int, names: Mapping[int, str], axis: int, word: str) -> Rule:
    def holds(row: ScanRow) -> bool | None:
        centres = row.centres or {}
        if far not in centres or near not in centres:
            return None
        distance = centres[far][axis] - centres[near][axis]
        return None if abs(distance) < MARGIN else distance > 0

    places = {"right": "to the right of", "anterior": "in front of"}
    text = f"{names[far]} lies {places.get(word, 'above')} {names[near]}"
    return Rule(text, holds, sideways=axis == 0)


def _rings(names: Mapping[int, str]) -> Iterator[Rule]:
    for pool, muscle in permutations(names, 2):
        inside, around = set(names[pool].split()), set(names[muscle].split())
        if {"blood", "pool"} <= inside and "myocardium" in around and "right" not in inside:
            yield _within(pool, muscle, names)


def _within(pool: int, muscle: int, names: Mapping[int, str]) -> Rule:
    def holds(row: ScanRow) -> bool | None:
        border = (row.borders or {}).get(pool, {})
        if not border or muscle not in (row.voxels or {}):
            return None
        return border.get(muscle, 0) >= ENCLOSED * sum(border.values())

    return Rule(f"{names[pool]} lies within {names[muscle]}", holds)
