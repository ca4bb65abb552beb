"""A patient as a list of painted structures, and the dice that make patients differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewshot_seg.data.phantom.shapes import Ellipsoid, Shape, Shared, Vector


@dataclass(frozen=True, eq=False)
class Structure:
    """One thing in the body; later structures cover earlier ones.

    tissue: what it is made of, see `appearance`.
    label: the class it belongs to, 0 for none.
    inside: True for a detail within an organ (a vessel, a pyramid), which leaves labels alone.
    shade: brighter or darker than the tissue usually is, in the tissue's own measure.
    """

    tissue: str
    shape: Shape
    label: int = 0
    inside: bool = False
    shade: float = 0.0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Structures from the back to the front of the painting, and the shapes that several share."""

    structures: Sequence[Structure]
    shared: Sequence[Shared]


@dataclass(frozen=True, eq=False)
class Dice:
    """Draws of one patient; every draw is cut at two standard deviations."""

    rng: np.random.Generator

    def normal(self, mean: float, spread: float) -> float:
        return mean + spread * float(np.clip(self.rng.standard_normal(), -2, 2))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def near(self, place: Vector, spread: float | Vector) -> Vector:
        """A place near `place`, `spread` millimetres off along each axis."""
        sx, sy, sz = (spread,) * 3 if isinstance(spread, float) else spread
        x, y, z = place
        return self.normal(x, sx), self.normal(y, sy), self.normal(z, sz)

    def sized(self, radii: Vector, spread: float) -> Vector:
        """Radii that vary together by `spread`, a fraction, and each alone by half of it."""
        both = self.normal(1.0, spread)
        a, b, c = (r * both * self.normal(1.0, spread / 2) for r in radii)
        return a, b, c

    def ellipsoid(
        self,
        centre: Vector,
        radii: Vector,
        degrees: Vector = (0.0, 0.0, 0.0),
        *,
        move: float | Vector = 6.0,
        size: float = 0.08,
        turn: float = 7.0,
    ) -> Ellipsoid:
        """An ellipsoid near the one given: moved in mm, sized by a fraction, turned in degrees."""
        return Ellipsoid(self.near(centre, move), self.sized(radii, size), self.near(degrees, turn))
