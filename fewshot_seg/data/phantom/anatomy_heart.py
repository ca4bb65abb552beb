"""The reference chest in the short axis of the heart.

x runs to the left, y to the front, z from the apex to the base.
"""

from fewshot_seg.data.phantom.anatomy import Anatomy, Dice, Structure
from fewshot_seg.data.phantom.shapes import (
    Capsule,
    Common,
    Ellipsoid,
    Offset,
    Plane,
    Shape,
    Shared,
    Union,
    Vector,
    Without,
)
from fewshot_seg.data.phantom.torso import Torso, draw_torso, spine, wall
from fewshot_seg.data.phantom.vessels import chain, tree

CLASSES = {1: "myocardium", 2: "LV blood pool", 3: "RV"}


def draw_heart(dice: Dice) -> tuple[Anatomy, Torso]:
    """One patient's heart among lungs, chest wall, liver and stomach."""
    torso = draw_torso(dice, half_width=112.0, half_depth=82.0, widen=0.0)
    centre = dice.near((27.0, 18.0, 0.0), (3.0, 3.0, 0.0))
    base = dice.normal(28.0, 4.0)
    ventricles, both = _ventricles(dice, centre, base)
    structures = [
        *wall(dice, torso, lowest_rib=-400.0),
        Structure("lung", torso.cavity),
        *_lung_vessels(dice, torso.cavity),
        *_mediastinum(dice, torso.cavity),
        *_below(dice, torso.cavity, both),
        *_atria(dice, centre, base),
        *ventricles,
        *spine(dice, y=-64.0, aside=dice.normal(4.0, 3.0)),
    ]
    return Anatomy(structures, [torso.skin, torso.muscle, torso.cavity]), torso


def _ventricles(dice: Dice, centre: Vector, base: float) -> tuple[list[Structure], Shape]:
    """Right ventricle first; the round left one lies over it and makes it a crescent."""
    x, y, _ = centre
    below = Plane((0.0, 0.0, base), (0.0, 0.0, 1.0))
    outer, wall_thickness = dice.normal(35.0, 2.2), dice.normal(10.2, 1.2)
    length = dice.normal(70.0, 5.0)
    lean: Vector = dice.near((0.0, 0.0, 0.0), (4.0, 4.0, 12.0))
    oval = dice.normal(1.0, 0.04)
    left = Ellipsoid((x, y, base - 14.0), (outer * oval, outer / oval, length - 14.0), lean)
    pool = Ellipsoid(
        (x, y, base - 12.0),
        _grown(left.radii, -wall_thickness),
        lean,
    )
    right = dice.ellipsoid(
        (x - 33.0, y + 6.0, base - 8.0),
        (40.0, 38.0, length - 20.0),
        (0.0, 10.0, 12.0),
        move=3.5,
        size=0.08,
    )
    right_inner = Common(right, [below], blend=4.0)
    both = Union([left, Offset(right, 3.5)], blend=8.0)
    structures = [
        Structure(
            "visceral fat", Common(Offset(both, dice.normal(5.0, 1.2)), [Offset(below, 10.0)])
        ),
        Structure("myocardium", Common(Offset(right, 3.5), [Offset(below, 3.0)])),
        Structure("right blood", right_inner, label=3),
        *_trabeculae(dice, right, right_inner),
        Structure("myocardium", Common(left, [below]), label=1),
        Structure("left blood", Common(pool, [below]), label=2),
        *_papillary(dice, pool, below),
    ]
    return structures, both


def _grown(radii: Vector, by: float) -> Vector:
    """Radii grown by `by`."""
    a, b, c = (radius + by for radius in radii)
    return a, b, c


def _papillary(dice: Dice, pool: Ellipsoid, below: Shape) -> list[Structure]:
    """Two muscles that rise from the free wall; as is the custom they count as pool."""
    x, y, z = pool.centre
    rx, ry, rz = pool.radii
    found = []
    for across, front in ((0.62, 0.42), (0.1, -0.66)):
        foot = dice.near((x + across * rx, y + front * ry, z - 0.55 * rz), 1.5)
        head = dice.near((x + 0.85 * across * rx, y + 0.85 * front * ry, z - 0.05 * rz), 1.5)
        muscle = Capsule(foot, head, (dice.normal(5.0, 0.6), dice.normal(3.4, 0.4)))
        found.append(Structure("myocardium", Common(muscle, [pool, below]), inside=True))
    return found


def _trabeculae(dice: Dice, right: Ellipsoid, inner: Shape) -> list[Structure]:
    """Bars of muscle across the right ventricle, most of them near the apex."""
    x, y, z = right.centre
    rx, ry, rz = right.radii
    found = []
    for _ in range(7):
        height = z + dice.uniform(-0.85, 0.1) * rz
        start = (x + dice.uniform(-0.9, 0.1) * rx, y + dice.uniform(-0.9, 0.9) * ry, height)
        end = dice.near(start, (9.0, 9.0, 8.0))
        rod = Capsule(start, end, (2.0, 1.4))
        found.append(Structure("myocardium", Common(rod, [Offset(inner, -1.0)]), inside=True))
    return found


def _atria(dice: Dice, centre: Vector, base: float) -> list[Structure]:
    """Over the base: both atria, the root of the aorta, the outflow to the lungs."""
    x, y, _ = centre
    above = Plane((0.0, 0.0, base - 2.0), (0.0, 0.0, -1.0))
    left = dice.ellipsoid((x - 2.0, y - 16.0, base + 26.0), (33.0, 28.0, 30.0), move=3.0)
    right = dice.ellipsoid((x - 56.0, y - 16.0, base + 18.0), (26.0, 30.0, 32.0), move=4.0)
    root = Union(
        chain([(x - 14.0, y + 6.0, base - 4.0), (x - 28.0, y + 10.0, base + 60.0)], [14.0] * 2)
    )
    outflow = Union(
        chain([(x - 20.0, y + 34.0, base - 18.0), (x - 4.0, y + 32.0, base + 60.0)], [13.0] * 2)
    )
    found = []
    for tissue, shape in (
        ("venous blood", left),
        ("venous blood", right),
        ("right blood", outflow),
        ("arterial blood", root),
    ):
        found += [
            Structure("vessel wall", Common(Offset(shape, 2.2), [Offset(above, 2.0)])),
            Structure(tissue, Common(shape, [above])),
        ]
    return found


def _mediastinum(dice: Dice, cavity: Shape) -> list[Structure]:
    """Fat before and behind the heart, the descending aorta and the oesophagus."""
    fat = Ellipsoid((0.0, -40.0, 0.0), (34.0, 40.0, 900.0))
    front = dice.ellipsoid((14.0, 68.0, 0.0), (52.0, 26.0, 120.0))
    aorta = Capsule(
        dice.near((24.0, -52.0, -200.0), 2.0), dice.near((22.0, -54.0, 200.0), 2.0), (12.0, 12.0)
    )
    oesophagus = Capsule((8.0, -36.0, -200.0), (4.0, -38.0, 200.0), (7.0, 7.0))
    return [
        Structure("visceral fat", Common(Union([fat, front]), [cavity])),
        Structure("gut wall", oesophagus),
        Structure("vessel wall", Offset(aorta, 1.5)),
        Structure("arterial blood", aorta),
    ]


def _lung_vessels(dice: Dice, cavity: Shape) -> list[Structure]:
    found = []
    for side in (-1.0, 1.0):
        for _ in range(5):
            start = dice.near((side * 42.0, -14.0, 10.0), (12.0, 16.0, 26.0))
            heading = dice.near((side * 0.8, 0.0, 0.0), 0.5)
            rods = tree(dice, start, heading, length=24.0, radius=3.0, generations=3)
            found += [Structure("lung vessel", Common(rod, [cavity])) for rod in rods]
    return found


def _below(dice: Dice, cavity: Shape, both: Shape) -> list[Structure]:
    """Dome of the liver and the stomach, behind and under the apical half of the heart."""
    bed = Offset(cavity, -3.0)
    free = Offset(both, 3.0)
    whole = dice.ellipsoid((-42.0, -36.0, -54.0), (80.0, 70.0, 70.0), (0.0, 0.0, 14.0), move=7.0)
    dome = Shared(Common(Without(whole, free), [bed], blend=4.0))
    bag = Common(
        Without(dice.ellipsoid((58.0, -26.0, -58.0), (50.0, 54.0, 54.0), move=8.0), free), [bed]
    )
    level = Plane((0.0, dice.normal(-14.0, 8.0), 0.0), (0.0, -1.0, 0.0))
    veins = []
    for _ in range(4):
        start = dice.near((-20.0, -40.0, -20.0), 8.0)
        rods = tree(
            dice, start, (-1.0, dice.normal(0.0, 0.6), -0.6), length=28.0, radius=3.6, generations=2
        )
        veins += [Structure("hepatic vein", Common(rod, [Offset(dome, -4.0)])) for rod in rods]
    content = Offset(bag, -4.0)
    return [
        Structure("muscle", Common(Offset(dome, 3.0), [cavity])),
        Structure("liver", dome),
        *veins,
        Structure("gut wall", bag),
        Structure("chyme", content, shade=dice.normal(0.0, 1.0)),
        Structure("gas", Common(content, [level])),
    ]
