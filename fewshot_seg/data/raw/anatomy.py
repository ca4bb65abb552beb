"""Whether abdominal labels fit a patient: which organ lies where, and how large it is.

The rules hold with a wide margin in all 20 CHAOS patients and in a CT: from liver to spleen it is
132 to 211 mm leftwards, from right to left kidney 105 to 169 mm; the right kidney lies 29 to 117 mm
below the middle of the liver and 15 to 79 mm behind it; the liver is 5 to 12 times as large as a
kidney.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float

LIVER, SPLEEN, RIGHT, LEFT = "liver", "spleen", "right kidney", "left kidney"

SIDE_BY_SIDE = ((LIVER, SPLEEN), (RIGHT, LEFT))
"""Of two organs, the one nearer the patient's left second."""

WAYS = (
    ("left and right", SIDE_BY_SIDE),
    ("front and back", ((LIVER, SPLEEN), (LIVER, RIGHT))),
    ("head and feet", ((RIGHT, LIVER), (LEFT, SPLEEN))),
)
"""Along each axis of `Organ.centre`, pairs of which the second lies farther that way."""


class Organ(NamedTuple):
    """One class in one scan.   centre: millimetres towards the patient's left, back and head."""

    millilitres: float
    centre: Float[np.ndarray, " 3"]


def measure(labels: sitk.Image, classes: Mapping[int, str]) -> dict[str, Organ]:
    """The classes that are present, by name."""
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOff()
    shapes.Execute(labels)
    return {
        name: Organ(shapes.GetPhysicalSize(value) / 1000, np.array(shapes.GetCentroid(value)))
        for value, name in classes.items()
        if shapes.HasLabel(value)
    }


def fault(organs: Mapping[str, Organ]) -> str | None:
    """What cannot be so in a patient, in words; None when all is plausible.

    Organs that are absent are passed over: some patients have lost a kidney or the spleen.
    """
    return _exchanged(organs) or _too_small(organs)


def _exchanged(organs: Mapping[str, Organ]) -> str | None:
    steps = {f"{first} and {second}": step for first, second, step in _steps(organs, SIDE_BY_SIDE)}
    for pair, step in steps.items():
        if np.abs(step).argmax() != 0:
            return f"{pair} do not lie side by side, so the volume is turned or ids are mixed up"
    swapped = [pair for pair, step in steps.items() if step[0] < 0]
    if len(swapped) == 1 < len(steps):
        return f"{swapped[0]} are exchanged"
    wrong = [
        way
        for axis, (way, pairs) in enumerate(WAYS)
        if any(step[axis] < 0 for *_, step in _steps(organs, pairs))
    ]
    return f"{' and '.join(wrong)} are exchanged" if wrong else None


def _steps(
    organs: Mapping[str, Organ], pairs: tuple[tuple[str, str], ...]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Of the pairs that are there, the way from the first organ to the second."""
    for first, second in pairs:
        if first in organs and second in organs:
            yield first, second, organs[second].centre - organs[first].centre


def _too_small(organs: Mapping[str, Organ]) -> str | None:
    for kidney in (RIGHT, LEFT):
        if {LIVER, kidney} <= set(organs):
            liver, other = organs[LIVER].millilitres, organs[kidney].millilitres
            if liver < other:
                return f"the liver ({liver:.0f} ml) is smaller than the {kidney} ({other:.0f} ml)"
    return None
