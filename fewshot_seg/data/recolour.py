"""Random changes of intensity. Each works on one image and keeps its channels in step."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Image = Float[Tensor, "channel height width"]
KNOTS = 8


def gamma(image: Image, exponent: float) -> Image:
    """r * ((x - m + e) / r) ** exponent + m with m the minimum and r the range + e, e = 1e-5
    (Ouyang et al., official code)."""
    low = image.min()
    span = image.max() - low + 1e-5
    return span * ((image - low + 1e-5) / span) ** exponent + low


def random_curve(strength: float, generator: np.random.Generator) -> list[float]:
    """Heights in [0, 1] of a rising curve at 9 evenly spaced knots.

    strength 0 is the diagonal, 1 a curve whose steps share out the range uniformly at random.
    """
    steps = generator.dirichlet(np.ones(KNOTS)) * strength + (1 - strength) / KNOTS
    return [0.0, *np.cumsum(steps).tolist()]


def remap(image: Image, curve: list[float]) -> Image:
    """Send the image's range to itself along a piecewise linear curve; falling inverts it."""
    low, high = image.min(), image.max()
    span = (high - low).clamp(min=1e-5)
    place = (image - low) / span * KNOTS
    knot = place.long().clamp(0, KNOTS - 1)
    heights = torch.tensor(curve)
    below, above = heights[knot], heights[knot + 1]
    return (below + (place - knot) * (above - below)) * span + low


def add_noise(image: Image, std: float, generator: np.random.Generator) -> Image:
    """Add Gaussian noise, the same to all channels, so that grey stays grey."""
    noise = generator.standard_normal((1, *image.shape[1:]), dtype=np.float32)
    return image + torch.from_numpy(noise) * std
