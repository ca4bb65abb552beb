"""The liver under its diaphragm: two lobes, a visceral face, vessels, gallbladder."""

from dataclasses import dataclass

import numpy as np

from fewshot_seg.data.phantom.anatomy import Dice, Structure
from fewshot_seg.data.phantom.shapes import (
    EVERYWHERE,
    Box,
    Common,
    Ellipsoid,
    Field,
    Offset,
    Plane,
    Points,
    Shape,
    Shared,
    Union,
    Vector,
    Without,
)
from fewshot_seg.data.phantom.vessels import tree


def diaphragm(dice: Dice) -> Shared:
    """The space under the diaphragm's two domes; the right one stands higher."""
    top = dice.normal(84.0, 4.0)
    right = Ellipsoid((-56.0, 2.0, 0.0), (92.0, 112.0, top))
    left = Ellipsoid((58.0, -2.0, 0.0), (86.0, 108.0, top - dice.normal(12.0, 4.0)))
    return Shared(_Below(Union([right, left], blend=24.0)))


@dataclass(frozen=True, eq=False)
class _Below:
    """A dome made endless downwards from its widest level at height 0."""

    dome: Shape

    @property
    def box(self) -> Box:
        return EVERYWHERE

    def distance(self, points: Points) -> Field:
        raised = np.maximum(points.z, 0)
        return self.dome.distance(Points(points.x, points.y, raised))


def liver(dice: Dice, *, cavity: Shape, domes: Shape, label: int) -> tuple[list[Structure], Shared]:
    """The organ with its vessels and the gallbladder, and its shape to build on."""
    shape = Shared(_body(dice, cavity, domes))
    gallbladder = dice.ellipsoid(
        (-38.0, 46.0, -16.0), (12.0, 17.0, 24.0), (25.0, 0.0, 20.0), move=7.0, size=0.15
    )
    return [
        Structure("liver", shape, label),
        *_vessels(dice, shape),
        Structure("muscle", Offset(gallbladder, 2.0)),
        Structure("bile", gallbladder, shade=dice.normal(0.0, 1.0)),
    ], shape


def _body(dice: Dice, cavity: Shape, domes: Shape) -> Shape:
    right = dice.ellipsoid(
        (-58.0, 4.0, 16.0), (78.0, 82.0, 92.0), (0.0, 8.0, -12.0), move=7.0, size=0.1
    )
    reach = dice.normal(62.0, 14.0)  # how far the left lobe goes
    left = dice.ellipsoid(
        (reach - 52.0, 42.0, 36.0), (66.0, 38.0, 32.0), (0.0, -12.0, -8.0), move=6.0, size=0.1
    )
    lobes = Union([right, left], blend=20.0)
    # The visceral face: the lower border climbs from the right flank to the left.
    lowest = dice.near((-108.0, 0.0, -56.0), (0.0, 0.0, 12.0))
    face = Plane(lowest, (dice.normal(0.52, 0.07), dice.normal(-0.10, 0.08), -1.0))
    hollow = dice.ellipsoid((46.0, -20.0, 18.0), (56.0, 50.0, 84.0), (0.0, 0.0, 24.0), move=6.0)
    renal = dice.ellipsoid((-42.0, -44.0, -38.0), (37.0, 32.0, 50.0), (-12.0, -10.0, 0.0), move=4.0)
    faced = Common(lobes, [face], blend=26.0)
    whole = Without(Without(faced, hollow, blend=16.0), renal, blend=10.0)
    return Common(whole, [Offset(cavity, -2.5), Offset(domes, -4.0)], blend=6.0)


def _vessels(dice: Dice, shape: Shape) -> list[Structure]:
    inner = Offset(shape, -5.0)
    hepatic: list[tuple[Vector, Vector]] = [
        ((-16.0, -12.0, 58.0), (-1.0, -0.1, -0.35)),
        ((-16.0, -8.0, 58.0), (-0.6, 0.9, -0.4)),
        ((-12.0, -6.0, 58.0), (0.2, 1.0, -0.3)),
        ((-18.0, -14.0, 30.0), (-1.0, -0.3, -0.2)),
    ]
    portal: list[tuple[Vector, Vector]] = [
        ((-22.0, 12.0, 14.0), (-1.0, 0.15, 0.2)),
        ((-22.0, 12.0, 14.0), (-0.7, -0.5, -0.3)),
        ((-18.0, 16.0, 16.0), (0.25, 0.9, 0.5)),
        ((-40.0, 10.0, 22.0), (-0.5, 0.7, 0.4)),
    ]
    found = []
    for tissue, roots in (("hepatic vein", hepatic), ("portal vein", portal)):
        for start, direction in roots:
            place, heading = dice.near(start, 5.0), dice.near(direction, 0.12)
            rods = tree(dice, place, heading, length=38.0, radius=5.4, generations=3)
            found += [Structure(tissue, Common(rod, [inner]), inside=True) for rod in rods]
    return found
