"""Stomach, bowel and pancreas: they move and fill differently in everybody, and carry no label."""

from itertools import pairwise

import numpy as np

from fewshot_seg.data.phantom.anatomy import Dice, Structure
from fewshot_seg.data.phantom.shapes import (
    Common,
    Offset,
    Plane,
    Shape,
    Union,
    Vector,
    as_vector,
)
from fewshot_seg.data.phantom.vessels import chain


def stomach(dice: Dice, *, limits: list[Shape]) -> list[Structure]:
    """A bag with fluid below and gas above its level; the patient lies on the back."""
    body = dice.ellipsoid(
        (48.0, 24.0, 26.0), (34.0, 34.0, 44.0), (10.0, -12.0, 10.0), move=8.0, size=0.14
    )
    antrum = chain(
        [
            dice.near((50.0, 40.0, 0.0), 6.0),
            dice.near((28.0, 50.0, -22.0), 6.0),
            dice.near((-4.0, 44.0, -26.0), 6.0),
            dice.near((-22.0, 32.0, -14.0), 5.0),
        ],
        [22.0, 18.0, 14.0, 9.0],
    )
    bag = Common(Union([body, *antrum], blend=14.0), limits, blend=6.0)
    content = Offset(bag, -dice.normal(4.5, 1.0))
    level = dice.normal(48.0, 9.0)
    gas = Common(content, [Plane((0.0, level, 0.0), (0.0, -1.0, 0.0))])
    return [
        Structure("gut wall", bag),
        Structure("chyme", content, shade=dice.uniform(-1.5, 1.5)),
        Structure("gas", gas),
    ]


def pancreas(dice: Dice) -> list[Structure]:
    """From the duodenum across the spine to the hilum of the spleen, with the splenic vein."""
    places = [
        dice.near(place, 5.0)
        for place in (
            (-30.0, 12.0, -26.0),
            (-12.0, 18.0, -14.0),
            (14.0, 12.0, -6.0),
            (42.0, 0.0, 2.0),
            (68.0, -10.0, 8.0),
        )
    ]
    gland = Union(chain(places, [13.0, 10.0, 8.5, 9.0, 7.0]), blend=6.0)
    behind = [(x, y - 10.0, z + 2.0) for x, y, z in places[1:]]
    vein = Union(chain(behind, [6.0, 4.5, 4.0, 3.5]))
    return [Structure("pancreas", gland), Structure("portal vein", vein)]


def bowel(dice: Dice, *, cavity: Shape) -> list[Structure]:
    """Coils of small bowel and the colon that frames them; each part has its own filling."""
    inner = Offset(cavity, -4.0)
    loops = []
    for _ in range(44):
        loops += _loop(dice, _coil(dice), dice.uniform(8.0, 12.5), inner, tissue="chyme")
    return loops + _colon(dice, inner)


def _coil(dice: Dice) -> list[Vector]:
    """Three bends of a loop somewhere in the lower belly."""
    height = dice.uniform(-110.0, -22.0)
    place = np.array([dice.uniform(-85.0, 90.0), dice.uniform(-12.0, 66.0), height])
    steps = dice.rng.standard_normal((2, 3)) * np.array([22.0, 14.0, 8.0])
    return [as_vector(place), as_vector(place + steps[0]), as_vector(place + steps.sum(0))]


def _loop(
    dice: Dice, places: list[Vector], radius: float, limit: Shape, *, tissue: str
) -> list[Structure]:
    tube = Common(Union(chain(places, [radius] * len(places)), blend=4.0), [limit])
    filled = Offset(tube, -dice.uniform(2.0, 3.5))
    found = [
        Structure("gut wall", tube, shade=dice.normal(0.0, 0.6)),
        Structure(tissue, filled, shade=dice.normal(0.0, 1.0)),
    ]
    if dice.uniform(0.0, 1.0) < 0.25:
        level = places[1][1] + dice.uniform(0.0, 0.6) * radius
        bubble = Common(filled, [Plane((0.0, level, 0.0), (0.0, -1.0, 0.0))])
        found.append(Structure("gas", bubble))
    return found


def _colon(dice: Dice, limit: Shape) -> list[Structure]:
    ascending = [dice.near((-84.0, 2.0, z), 4.0) for z in (-125.0, -95.0, -62.0)]
    across = [
        dice.near(place, (6.0, 4.0, 8.0))
        for place in ((-80.0, 28.0, -54.0), (-30.0, 62.0, -58.0), (30.0, 64.0, -48.0))
    ]
    flexure = [dice.near((84.0, 12.0, -12.0), 6.0)]
    descending = [dice.near((92.0, -12.0, z), 4.0) for z in (-45.0, -90.0, -125.0)]
    found = []
    path = ascending + across + flexure + descending
    for first, last in pairwise(path):
        radius = dice.normal(15.0, 2.0)
        middle = dice.near(as_vector((np.asarray(first) + np.asarray(last)) / 2), 4.0)
        found += _loop(dice, [first, middle, last], radius, limit, tissue="stool")
    return found
