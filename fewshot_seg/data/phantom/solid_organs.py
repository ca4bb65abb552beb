"""Kidneys with cortex, pyramids and sinus; the spleen."""

from collections.abc import Callable

import numpy as np

from fewshot_seg.data.phantom.anatomy import Dice, Structure
from fewshot_seg.data.phantom.shapes import (
    Capsule,
    Common,
    Ellipsoid,
    Offset,
    Shape,
    Union,
    Vector,
    Without,
    as_vector,
    rotation,
)


def kidney(dice: Dice, centre: Vector, *, side: float, label: int) -> list[Structure]:
    """A bean whose hilum looks to the spine. side: -1 for the right kidney, 1 for the left.

    The sinus within the bean belongs to the label, the fat of the hilum outside it does not.
    """
    place = dice.near(centre, (5.0, 6.0, 8.0))
    radii = dice.sized((24.0, 27.0, 47.0), 0.07)
    degrees = dice.near((-12.0, side * 12.0, side * 38.0), 7.0)
    turn = rotation(degrees)

    def at(x: float, y: float, z: float) -> Vector:
        """A place given in the kidney's own radii; x points to the hilum."""
        local = np.array([-side * x * radii[0], y * radii[1], z * radii[2]])
        return as_vector(np.asarray(place) + turn @ local)

    def part(where: Vector, size: Vector) -> Ellipsoid:
        a, b, c = (s * r for s, r in zip(size, radii))
        return Ellipsoid(where, (a, b, c), degrees)

    whole = part(place, (1.0, 1.0, 1.0))
    bean = Without(whole, part(at(1.0, 0.0, 0.0), (0.55, 0.36, 0.3)), blend=9.0)
    sinus = Common(part(at(0.5, 0.0, 0.0), (0.62, 0.4, 0.5)), [Offset(bean, -2.0)], blend=3.0)
    calyces = Union(
        [
            Capsule(at(0.35, 0.0, z), at(0.05, dice.normal(0.0, 0.2), 1.4 * z), (3.5, 2.2))
            for z in (-0.3, 0.0, 0.3)
        ]
    )
    pelvis = Capsule(at(0.4, 0.0, 0.0), at(1.25, -0.15, -0.3), (4.0, 2.5))
    return [
        Structure("visceral fat", Offset(whole, dice.normal(2.6, 0.6))),
        Structure("renal cortex", bean, label),
        *_pyramids(dice, at, bean),
        Structure("sinus fat", sinus, inside=True),
        Structure(
            "renal vein", Capsule(at(0.6, 0.3, 0.05), at(1.7, 0.8, 0.1), (2.6, 2.6)), inside=True
        ),
        Structure("urine", Common(pelvis, [Offset(whole, 8.0)]), inside=True),
        Structure("urine", Common(calyces, [Offset(bean, -3.0)]), inside=True),
    ]


def _pyramids(
    dice: Dice, at: Callable[[float, float, float], Vector], bean: Shape
) -> list[Structure]:
    """Medulla: cones around the sinus, their bases towards the surface."""
    found = []
    for height in np.linspace(-0.68, 0.68, 6):
        level = float(np.sqrt(1 - height**2))
        for angle in np.deg2rad([70.0, 140.0, 220.0, 290.0]):
            turned = angle + dice.normal(0.0, 0.12)
            x, y = float(np.cos(turned)), float(np.sin(turned))
            tip = at(0.15 + 0.3 * level * x, 0.3 * level * y, 0.85 * float(height))
            base = at(0.70 * level * x, 0.70 * level * y, float(height))
            cone = Capsule(tip, base, (2.0, dice.normal(5.5, 0.7)))
            found.append(Structure("medulla", Common(cone, [Offset(bean, -4.0)]), inside=True))
    return found


def spleen(dice: Dice, *, cavity: Shape, domes: Shape, label: int) -> list[Structure]:
    """A crescent between the left flank and the stomach."""
    body = dice.ellipsoid(
        (84.0, -26.0, 14.0), (40.0, 58.0, 46.0), (14.0, 0.0, 22.0), move=(4.0, 7.0, 8.0), size=0.08
    )
    hollow = dice.ellipsoid(
        (42.0, 8.0, 14.0), (44.0, 48.0, 62.0), (0.0, 0.0, 22.0), move=(5.0, 5.0, 6.0), size=0.08
    )
    crescent = Without(body, hollow, blend=8.0)
    whole = Common(crescent, [Offset(cavity, -3.0), Offset(domes, -5.0)], blend=6.0)
    return [Structure("spleen", whole, label)]
