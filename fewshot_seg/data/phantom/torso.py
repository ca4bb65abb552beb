"""What surrounds the organs: skin, fat, muscle wall, ribs, spine."""

from dataclasses import dataclass

import numpy as np

from fewshot_seg.data.phantom.anatomy import Dice, Structure
from fewshot_seg.data.phantom.shapes import (
    EVERYWHERE,
    Box,
    Capsule,
    Ellipsoid,
    Field,
    Offset,
    Points,
    Shape,
    Shared,
    Union,
    first_order,
)

_GROOVE_WIDTH = 26.0


@dataclass(frozen=True, eq=False)
class Outline:
    """A rounded, upright tube around the body's axis, with the groove of the spine at its back.

    widen: relative growth of the width per millimetre towards the head.
    """

    half_width: float
    half_depth: float
    power: float = 2.3
    groove: float = 0.0
    forward: float = 0.0
    widen: float = 0.0

    @property
    def box(self) -> Box:
        return EVERYWHERE

    def distance(self, points: Points) -> Field:
        x = points.x / (self.half_width * (1 + self.widen * points.z))
        y = points.y - self.forward
        if self.groove:
            dent = self.groove * np.exp(-((points.x / _GROOVE_WIDTH) ** 2))
            y = np.where(y < 0, y - dent, y)
        y = y / self.half_depth
        px, py = np.abs(x) ** (self.power - 1), np.abs(y) ** (self.power - 1)
        level = np.maximum(px * np.abs(x) + py * np.abs(y), 1e-9) ** (1 / self.power)
        slope = np.hypot(px / self.half_width, py / self.half_depth) * level ** (2 - self.power)
        return first_order(level, slope)


@dataclass(frozen=True, eq=False)
class Ribs:
    """Bars that run around the middle of the wall, falling from the spine to the front.

    lowest: height in millimetres below which there are no ribs, at the back; higher in front.
    """

    outside: Shape
    inside: Shape
    radius: float
    pitch: float
    fall: float
    lowest: float

    @property
    def box(self) -> Box:
        return Box((-np.inf, -np.inf, self.lowest), (np.inf, np.inf, np.inf))

    def distance(self, points: Points) -> Field:
        depth = (self.outside.distance(points) + self.inside.distance(points)) / 2
        front = np.arctan2(np.abs(points.x), -points.y) / np.pi  # 0 at the spine, 1 in front
        height = points.z + self.fall * front
        height = (height / self.pitch - np.round(height / self.pitch)) * self.pitch
        rib = np.hypot(depth * 1.3, height * 0.95) - self.radius
        margin = self.lowest + 75 * front**2 - points.z
        return np.maximum(rib, margin)


@dataclass(frozen=True, eq=False)
class Discs:
    """The flat spaces between vertebrae, one every `pitch` millimetres from `first`."""

    column: Shape
    first: float
    pitch: float
    thickness: float

    @property
    def box(self) -> Box:
        return self.column.box

    def distance(self, points: Points) -> Field:
        height = (points.z - self.first) / self.pitch
        gap = np.abs(height - np.round(height)) * self.pitch - self.thickness / 2
        return np.maximum(self.column.distance(points), gap)


@dataclass(frozen=True, eq=False)
class Torso:
    """The nested tubes of a patient. Half sizes in reference millimetres."""

    skin: Shared
    fat: Shared
    muscle: Shared
    cavity: Shared
    half_width: float


def draw_torso(dice: Dice, *, half_width: float, half_depth: float, widen: float) -> Torso:
    """A torso whose cavity has about the given half sizes; fat and muscle come on top."""
    fat, wall = dice.uniform(6.0, 20.0), dice.normal(12.0, 1.5)
    power = dice.uniform(2.15, 2.5)
    width, depth = dice.normal(half_width, 4.0), dice.normal(half_depth, 4.0)
    outer = width + wall + fat

    def tube(side: float, front: float, groove: float, forward: float) -> Shared:
        return Shared(Outline(side, front, power, groove, forward, widen))

    groove = dice.uniform(5.0, 10.0)
    skin = tube(outer, depth + wall + 0.75 * fat, groove, 0.0)
    return Torso(
        skin=skin,
        fat=Shared(Offset(skin, -2.2)),
        muscle=tube(width + wall, depth + wall, groove, -0.1 * fat),
        cavity=tube(width, depth, 0.0, 4.0),
        half_width=outer,
    )


def wall(dice: Dice, torso: Torso, *, lowest_rib: float) -> list[Structure]:
    """Skin, fat, muscle, ribs and what fills the cavity before there are organs in it."""
    ribs = Ribs(
        torso.muscle,
        torso.cavity,
        radius=dice.normal(5.0, 0.4),
        pitch=dice.normal(30.0, 2.0),
        fall=dice.normal(105.0, 10.0),
        lowest=lowest_rib,
    )
    return [
        Structure("skin", torso.skin),
        Structure("subcutaneous fat", torso.fat),
        Structure("muscle", torso.muscle),
        Structure("visceral fat", torso.cavity),
        Structure("cortical bone", ribs),
        Structure("marrow", Offset(ribs, -2.0)),
    ]


def spine(dice: Dice, *, y: float, aside: float = 0.0) -> list[Structure]:
    """Vertebrae with arch and processes, discs, the canal with the cord, and the back muscles.

    y: the middle of the vertebral bodies.   aside: their x.
    """
    far = 400.0
    body = Ellipsoid((aside, y, 0.0), (dice.normal(22.0, 1.5), dice.normal(17.0, 1.2), 40 * far))
    canal_y = y - 24.0
    arch = Union(
        [
            Ellipsoid((aside, canal_y, 0.0), (15.0, 13.0, 40 * far)),
            Capsule((aside, canal_y - 8, -far), (aside, canal_y - 8, far), (6.0, 6.0)),
        ],
        blend=6.0,
    )
    first, pitch = dice.uniform(-16.0, 16.0), dice.normal(34.0, 1.5)
    discs = Discs(body, first, pitch, dice.normal(8.0, 1.0))
    gaps = Discs(Offset(arch, 1.0), first, pitch, 10.0)
    between = Discs(_processes(aside, canal_y), first + pitch / 2, pitch, 16.0)
    back = [
        dice.ellipsoid(
            (aside + s * 36.0, y - 27.0, 0.0), (30.0, 21.0, 40 * far), move=2.0, turn=0.0
        )
        for s in (-1.0, 1.0)
    ]
    return [
        *(Structure("muscle", shape, shade=dice.normal(0.0, 0.5)) for shape in back),
        Structure("cortical bone", between),
        Structure("cortical bone", arch),
        Structure("muscle", gaps),
        Structure("cortical bone", body),
        Structure("marrow", Offset(body, -2.0)),
        Structure("disc", discs),
        Structure("fluid", Ellipsoid((aside, canal_y, 0.0), (10.0, 9.0, 40 * far))),
        Structure("cord", Ellipsoid((aside, canal_y, 0.0), (5.5, 4.5, 40 * far))),
    ]


def _processes(aside: float, canal_y: float) -> Shape:
    far = 400.0
    spinous = Ellipsoid((aside, canal_y - 20, 0.0), (4.0, 15.0, 40 * far))
    sides = [
        Ellipsoid(
            (aside + s * 24.0, canal_y - 2.0, 0.0), (16.0, 4.5, 40 * far), (0.0, 0.0, -s * 18)
        )
        for s in (-1.0, 1.0)
    ]
    return Union([spinous, *sides])
