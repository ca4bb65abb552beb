"""The reference abdomen, put together: everything that one patient is made of."""

from fewshot_seg.data.phantom.anatomy import Anatomy, Dice, Structure
from fewshot_seg.data.phantom.gut import bowel, pancreas, stomach
from fewshot_seg.data.phantom.liver import diaphragm, liver
from fewshot_seg.data.phantom.shapes import Ellipsoid, Offset, Shape, Union, Without
from fewshot_seg.data.phantom.solid_organs import kidney, spleen
from fewshot_seg.data.phantom.torso import Torso, draw_torso, spine, wall
from fewshot_seg.data.phantom.vessels import chain, tree

CLASSES = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}


def draw_abdomen(dice: Dice) -> tuple[Anatomy, Torso]:
    """One patient's abdomen, from the lower pole of the kidneys to the dome of the liver."""
    torso = draw_torso(dice, half_width=116.0, half_depth=80.0, widen=0.0004)
    domes = diaphragm(dice)
    organs, liver_shape = liver(dice, cavity=torso.cavity, domes=domes, label=1)
    limits: list[Shape] = [Offset(torso.cavity, -6.0), Offset(domes, -5.0)]
    structures = [
        *wall(dice, torso, lowest_rib=-45.0),
        *_chest(dice, torso, domes),
        *bowel(dice, cavity=torso.cavity),
        *stomach(dice, limits=limits),
        *organs,
        *pancreas(dice),
        *_psoas(dice),
        *spleen(dice, cavity=torso.cavity, domes=domes, label=4),
        *kidney(dice, (-60.0, -22.0, -38.0), side=-1.0, label=2),
        *kidney(dice, (60.0, -20.0, -32.0), side=1.0, label=3),
        *spine(dice, y=-47.0),
        *_great_vessels(dice),
    ]
    return Anatomy(structures, [torso.skin, torso.muscle, torso.cavity, domes, liver_shape]), torso


def _chest(dice: Dice, torso: Torso, domes: Shape) -> list[Structure]:
    """Muscle of the diaphragm, lungs over it with their vessels, and the heart on its middle."""
    lungs = Without(torso.cavity, domes)
    heart = dice.ellipsoid((18.0, 24.0, 98.0), (66.0, 52.0, 46.0), (0.0, -10.0, -20.0))
    sheet = Without(torso.cavity, Offset(domes, -3.0))
    found = [Structure("muscle", sheet), Structure("lung", lungs)]
    for side in (-1.0, 1.0):
        for _ in range(3):
            start = dice.near((side * 45.0, -15.0, 100.0), 14.0)
            rods = tree(
                dice, start, (side * 0.4, -0.5, -0.7), length=26.0, radius=2.6, generations=3
            )
            found += [Structure("lung vessel", Without(rod, domes)) for rod in rods]
    return [
        *found,
        Structure("visceral fat", Offset(heart, 6.0)),
        Structure("heart", heart),
        Structure("heart blood", Offset(heart, -12.0)),
    ]


def _psoas(dice: Dice) -> list[Structure]:
    """Muscles beside the lower spine, and the crura of the diaphragm before it."""
    found = []
    for side in (-1.0, 1.0):
        places = [
            (side * 26.0, -42.0, 0.0),
            (side * 34.0, -40.0, -50.0),
            (side * 42.0, -34.0, -130.0),
        ]
        rod = Union(chain(places, [6.0, 15.0, 20.0]), blend=8.0)
        crus = Ellipsoid((side * 15.0, -26.0, 20.0), (6.0, 14.0, 60.0), (0.0, 0.0, side * 20.0))
        found += [Structure("muscle", rod, shade=dice.normal(0.0, 0.4)), Structure("muscle", crus)]
    return found


def _great_vessels(dice: Dice) -> list[Structure]:
    """Aorta left of the midline, vena cava right of it, the oesophagus before the aorta."""
    bend = dice.normal(8.0, 3.0)
    aorta = [(6.0 + bend / 2, -27.0, 140.0), (bend, -21.0, 20.0), (2.0, -18.0, -130.0)]
    cava = [(-14.0, 0.0, 75.0), (-18.0, -9.0, 40.0), (-19.0, -18.0, -10.0), (-16.0, -18.0, -130.0)]
    oesophagus = [(8.0, -14.0, 140.0), (10.0, -8.0, 70.0), (24.0, 2.0, 48.0)]
    wide = dice.normal(10.5, 1.2)
    aorta_tube = Union(chain([dice.near(p, 2.0) for p in aorta], [wide] * 3))
    cava_tube = Union(chain([dice.near(p, 2.5) for p in cava], [11.0, 11.0, 10.0, 9.5]), blend=4.0)
    return [
        Structure("gut wall", Union(chain(oesophagus, [8.0] * 3))),
        Structure("vessel wall", aorta_tube),
        Structure("arterial blood", Offset(aorta_tube, -1.6)),
        Structure("vessel wall", cava_tube),
        Structure("venous blood", Offset(cava_tube, -1.2)),
    ]
