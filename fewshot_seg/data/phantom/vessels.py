"""Trees of branching vessels inside an organ, and winding tubes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fewshot_seg.data.phantom.anatomy import Dice
from fewshot_seg.data.phantom.shapes import Capsule, Vector, as_vector


def chain(places: Sequence[Vector], radii: Sequence[float]) -> list[Capsule]:
    """A tube through `places` with the radius given at each."""
    ends = zip(places[:-1], places[1:], radii[:-1], radii[1:])
    return [Capsule(start, end, (first, last)) for start, end, first, last in ends]


def tree(
    dice: Dice,
    start: Vector,
    direction: Vector,
    *,
    length: float,
    radius: float,
    generations: int,
) -> list[Capsule]:
    """A vessel that forks in two `generations` times, each part shorter and thinner."""
    heading = np.asarray(direction) / np.linalg.norm(direction)
    return _branch(dice, np.asarray(start), heading, length, radius, generations)


def _branch(
    dice: Dice,
    start: Float[np.ndarray, " 3"],
    heading: Float[np.ndarray, " 3"],
    length: float,
    radius: float,
    generations: int,
) -> list[Capsule]:
    end = start + length * heading
    found = [Capsule(as_vector(start), as_vector(end), (radius, 0.75 * radius))]
    if generations == 0:
        return found
    aside = np.cross(heading, dice.rng.standard_normal(3))
    aside = aside / max(float(np.linalg.norm(aside)), 1e-6)
    for side in (-1.0, 1.0):
        turned = heading + side * dice.uniform(0.35, 0.8) * aside
        turned = turned / np.linalg.norm(turned)
        step = length * dice.uniform(0.65, 0.85)
        found += _branch(dice, end, turned, step, 0.72 * radius, generations - 1)
    return found
