"""Solid shapes as signed distances in millimetres: negative inside, positive outside.

Space is the reference patient's: x to the left, y to the front, z to the head. Distances are exact
for capsules and of first order for the rest, which is all that a border one pixel wide needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

Field = Float[np.ndarray, "depth height width"]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """An axis-parallel box that holds a shape, so that the rest of space need not be visited."""

    low: Vector
    high: Vector

    def grow(self, by: float) -> "Box":
        low, high = (tuple(v + sign * by for v in end) for sign, end in self._ends())
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def join(self, other: "Box") -> "Box":
        low = tuple(min(a, b) for a, b in zip(self.low, other.low))
        high = tuple(max(a, b) for a, b in zip(self.high, other.high))
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def _ends(self) -> tuple[tuple[float, Vector], tuple[float, Vector]]:
        return (-1.0, self.low), (1.0, self.high)


EVERYWHERE = Box((-np.inf, -np.inf, -np.inf), (np.inf, np.inf, np.inf))


class Points:
    """Places to ask for a distance; `known` keeps what `Shared` shapes have already answered.

    A plain class: one is made for every structure in every slice, where a dataclass costs more.
    """

    def __init__(
        self, x: Field, y: Field, z: Field, known: dict["Shared", np.ndarray] | None = None
    ) -> None:
        self.x, self.y, self.z = x, y, z
        self.known = {} if known is None else known

    def crop(self, rows: slice, cols: slice) -> "Points":
        """The same slices, fewer rows and columns."""
        part = (slice(None), rows, cols)
        known = {shape: values[part] for shape, values in self.known.items()}
        return Points(self.x[part], self.y[part], self.z[part], known)


@runtime_checkable
class Shape(Protocol):
    """Anything with a signed distance and a box around its inside."""

    @property
    def box(self) -> Box: ...
    def distance(self, points: Points) -> Field: ...


def rotation(degrees: Vector) -> Float[np.ndarray, "3 3"]:
    """Turn about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """centre and radii in millimetres, turned by `degrees` about x, y, z."""

    centre: Vector
    radii: Vector
    degrees: Vector = (0.0, 0.0, 0.0)

    @cached_property
    def _turn(self) -> Float[np.ndarray, "3 3"]:
        return rotation(self.degrees)

    @cached_property
    def box(self) -> Box:
        reach = np.sqrt((self._turn**2) @ np.square(self.radii))
        low, high = (np.asarray(self.centre) + s * reach for s in (-1.0, 1.0))
        return Box(as_vector(low), as_vector(high))

    def distance(self, points: Points) -> Field:
        dx, dy, dz = (p - c for p, c in zip((points.x, points.y, points.z), self.centre))
        # A little more than 0, so that the very centre is well inside.
        first: np.ndarray | float = 1e-6
        second: np.ndarray | float = 1e-6 / max(self.radii) ** 2
        for axis, radius in enumerate(self.radii):
            column = [float(value) for value in self._turn[:, axis]]
            along = (column[0] * dx + column[1] * dy + column[2] * dz) * (1 / radius)
            square = along * along
            first = first + square
            second = second + square * (1 / radius**2)
        return first_order(np.sqrt(first), np.sqrt(second))


@dataclass(frozen=True, eq=False)
class Capsule:
    """A rounded rod from `start` to `end` whose radius changes evenly between the two given."""

    start: Vector
    end: Vector
    radii: tuple[float, float]

    @cached_property
    def box(self) -> Box:
        reach = max(self.radii)
        ends = np.array([self.start, self.end])
        return Box(as_vector(ends.min(0) - reach), as_vector(ends.max(0) + reach))

    def distance(self, points: Points) -> Field:
        dx, dy, dz = (p - c for p, c in zip((points.x, points.y, points.z), self.start))
        ax, ay, az = (e - s for e, s in zip(self.end, self.start))
        length = max(ax * ax + ay * ay + az * az, 1e-9)
        along = np.clip((dx * ax + dy * ay + dz * az) * (1 / length), 0.0, 1.0)
        dx, dy, dz = dx - along * ax, dy - along * ay, dz - along * az
        radius = self.radii[0] + along * (self.radii[1] - self.radii[0])
        return np.sqrt(dx * dx + dy * dy + dz * dz) - radius


@dataclass(frozen=True, eq=False)
class Plane:
    """The half of space behind `through`, where `normal`, of any length, points ahead."""

    through: Vector
    normal: Vector

    @property
    def box(self) -> Box:
        return EVERYWHERE

    def distance(self, points: Points) -> Field:
        nx, ny, nz = (float(n) for n in np.asarray(self.normal) / np.linalg.norm(self.normal))
        x, y, z = self.through
        return (points.x - x) * nx + (points.y - y) * ny + (points.z - z) * nz


@dataclass(frozen=True, eq=False)
class Offset:
    """A shape made thicker by `by` millimetres, or thinner when negative."""

    shape: Shape
    by: float

    @property
    def box(self) -> Box:
        return self.shape.box.grow(max(self.by, 0.0))

    def distance(self, points: Points) -> Field:
        return self.shape.distance(points) - self.by


@dataclass(frozen=True, eq=False)
class Union:
    """Where any of the shapes is; `blend` millimetres round off the seam."""

    shapes: Sequence[Shape]
    blend: float = 0.0

    @cached_property
    def box(self) -> Box:
        box = self.shapes[0].box
        for shape in self.shapes[1:]:
            box = box.join(shape.box)
        return box.grow(self.blend / 4)

    def distance(self, points: Points) -> Field:
        found = self.shapes[0].distance(points)
        for shape in self.shapes[1:]:
            found = blended_minimum(found, shape.distance(points), self.blend)
        return found


@dataclass(frozen=True, eq=False)
class Common:
    """Where `shape` and all of `limits` are; `blend` millimetres round off the edge."""

    shape: Shape
    limits: Sequence[Shape]
    blend: float = 0.0

    @property
    def box(self) -> Box:
        return self.shape.box

    def distance(self, points: Points) -> Field:
        found = self.shape.distance(points)
        for limit in self.limits:
            found = -blended_minimum(-found, -limit.distance(points), self.blend)
        return found


@dataclass(frozen=True, eq=False)
class Without:
    """`shape` less `removed`; `blend` millimetres round off the edge."""

    shape: Shape
    removed: Shape
    blend: float = 0.0

    @property
    def box(self) -> Box:
        return self.shape.box

    def distance(self, points: Points) -> Field:
        taken = self.removed.distance(points)
        return -blended_minimum(-self.shape.distance(points), taken, self.blend)


@dataclass(frozen=True, eq=False)
class Shared:
    """A shape that others are built from: its distance is worked out once for a set of points."""

    shape: Shape

    @property
    def box(self) -> Box:
        return self.shape.box

    def distance(self, points: Points) -> Field:
        if self not in points.known:
            points.known[self] = self.shape.distance(points)
        return points.known[self]


def as_vector(values: Float[np.ndarray, " 3"]) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])


def first_order(level: Field, slope: Field) -> Field:
    """Distance to where `level` is 1, for a level that grows along rays with |grad| slope/level."""
    return level * (level - 1) / np.maximum(slope, 1e-9)


def blended_minimum(first: Field, second: Field, blend: float) -> Field:
    """The smaller of two distances, with a round transition over `blend` millimetres."""
    if blend == 0:
        return np.minimum(first, second)
    near = np.maximum(blend - np.abs(first - second), 0)
    return np.minimum(first, second) - near * near * (0.25 / blend)
