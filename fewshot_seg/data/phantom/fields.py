"""Smooth random fields in millimetres: tensor products of cubic B-splines.

They are defined in space, not on a pixel grid, so a patient is the same at every image size.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fewshot_seg.data.phantom.shapes import Field, Points, Vector

# Mean of the sum of squared cubic B-spline weights on one axis; dividing by it gives variance 1.
_POWER_PER_AXIS = 151 / 315


def spline_weights(places: Float[np.ndarray, " n"], n_knots: int) -> Float[np.ndarray, "n knots"]:
    """Weights of each of `n_knots` control points at `places`, in knots from the first span."""
    span = np.clip(np.floor(places), 0, n_knots - 4).astype(int)
    t = places - span
    pieces = np.stack(
        [
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        ],
        axis=1,
    )
    weights = np.zeros((len(places), n_knots))
    np.put_along_axis(weights, span[:, None] + np.arange(4), pieces, axis=1)
    return weights


@dataclass(frozen=True, eq=False)
class RandomField:
    """A field of mean 0 and about unit variance whose details are `knot` millimetres (z, y, x)."""

    control: Float[np.ndarray, "cz cy cx"]
    knot: Vector
    extent: Vector

    @classmethod
    def draw(cls, rng: np.random.Generator, *, extent: Vector, knot: Vector) -> "RandomField":
        """Over a box of `extent` millimetres (z, y, x) around the origin."""
        shape = [int(np.ceil(size / step)) + 3 for size, step in zip(extent, knot)]
        scale = _POWER_PER_AXIS**-1.5
        return cls((rng.standard_normal(shape) * scale).astype(np.float32), knot, extent)

    def on_grid(
        self,
        z: Float[np.ndarray, " depth"],
        y: Float[np.ndarray, " height"],
        x: Float[np.ndarray, " width"],
    ) -> Field:
        """The field at every combination of the given coordinates, in millimetres."""
        values = self.control
        for axis, places in enumerate((z, y, x)):
            knots = np.clip(
                places / self.knot[axis] + self.extent[axis] / self.knot[axis] / 2, 0, None
            )
            weights = spline_weights(knots, self.control.shape[axis]).astype(np.float32)
            values = np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)
        return values


@dataclass(frozen=True, eq=False)
class Pose:
    """How the reference patient becomes this one: stretched, moved and smoothly bent.

    stretch: size relative to the reference, (x, y, z).   shift: millimetres, (x, y, z).
    bend: one field for each of x, y, z; `amplitude` is its standard deviation in millimetres.
    """

    stretch: Vector
    shift: Vector
    bend: tuple[RandomField, RandomField, RandomField]
    amplitude: float

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        *,
        extent: Vector,
        stretch: float,
        shift: Vector,
        amplitude: float,
        knot: Vector,
    ) -> "Pose":
        """stretch, shift: standard deviations; draws are cut at two, so no patient is a freak."""
        sizes = 1 + stretch * np.clip(rng.standard_normal(3), -2, 2)
        moved = np.asarray(shift) * np.clip(rng.standard_normal(3), -2, 2)
        x, y, z = (RandomField.draw(rng, extent=extent, knot=knot) for _ in range(3))
        return cls(
            (float(sizes[0]), float(sizes[1]), float(sizes[2])),
            (float(moved[0]), float(moved[1]), float(moved[2])),
            (x, y, z),
            amplitude,
        )

    def to_reference(
        self,
        z: Float[np.ndarray, " depth"],
        y: Float[np.ndarray, " height"],
        x: Float[np.ndarray, " width"],
    ) -> Points:
        """Where in the reference patient the places of a grid of this patient lie."""
        planes = np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None])
        found = []
        for axis, plane in enumerate(planes):
            straight = (plane - self.shift[axis]) / self.stretch[axis]
            bent = straight + self.amplitude * self.bend[axis].on_grid(z, y, x)
            found.append(bent.astype(np.float32))
        return Points(found[0], found[1], found[2])
