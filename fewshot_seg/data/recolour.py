"""Changes of intensity, of one image or of many at once, each image with numbers of its own.

Numbers are floats, for all images alike, or tensors "sample 1 1 1". The channels of an image stay
in step, so that grey stays grey.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.data.smoothing import gaussian_blur

Images = Float[Tensor, "sample channel height width"]
Number = float | Tensor
KNOTS = 8


@dataclass(frozen=True)
class Colours:
    """What is done to an image, in this order; as it stands, nothing.

    exponent: of `gamma`.   curve: of `remap`, "sample 9".   factor, offset: times and plus.
    sigma: pixels of blur.   std: of the noise.
    """

    exponent: Number = 1.0
    curve: Float[Tensor, "sample knot"] | None = None
    factor: Number = 1.0
    offset: Number = 0.0
    sigma: Number = 0.0
    std: Number = 0.0


def gamma(images: Images, exponent: Number) -> Images:
    """r * ((x - m + e) / r) ** exponent + m with m the minimum and r the range + e, e = 1e-5
    (Ouyang et al., official code)."""
    low, high = _range(images)
    span = high - low + 1e-5
    return span * ((images - low + 1e-5) / span) ** exponent + low


def random_curve(strength: float, generator: np.random.Generator) -> list[float]:
    """Heights in [0, 1] of a rising curve at 9 evenly spaced knots.

    strength 0 is the diagonal, 1 a curve whose steps share out the range uniformly at random.
    """
    steps = generator.dirichlet(np.ones(KNOTS)) * strength + (1 - strength) / KNOTS
    return [0.0, *np.cumsum(steps).tolist()]


def remap(images: Images, curves: Float[Tensor, "sample knot"]) -> Images:
    """Send each image's range to itself along a piecewise linear curve; falling inverts it."""
    low, high = _range(images)
    span = (high - low).clamp(min=1e-5)
    place = (images - low) / span * KNOTS
    knot = place.long().clamp(0, KNOTS - 1)
    below, above = (curves.gather(1, one.flatten(1)).view_as(place) for one in (knot, knot + 1))
    return (below + (place - knot) * (above - below)) * span + low


def blur_reach(sigma: float) -> int:
    """How far a blur of up to `sigma` pixels reaches."""
    return max(1, int(np.ceil(2 * sigma)))


def blur(images: Images, sigma: Number, most: float) -> Images:
    """Blur each image by its own `sigma`, none above `most`; nearly 0 is none."""
    if isinstance(sigma, Tensor):
        return gaussian_blur(images, sigma[..., 0, 0].clamp(min=1e-3), blur_reach(most))
    return gaussian_blur(images, max(sigma, 1e-3))


def _range(images: Images) -> tuple[Tensor, Tensor]:
    return images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
