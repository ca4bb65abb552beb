"""Gaussian blur of planes."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def gaussian_blur(
    planes: Float[Tensor, "*sample height width"], sigma: float, radius: int | None = None
) -> Float[Tensor, "*sample height width"]:
    """Blur each plane with a Gaussian of `sigma` pixels, cut off `radius` pixels from its centre
    (2 sigma unless given, at most the plane's size less one); edges mirror the plane.

    A sum of shifted planes, so that the result does not depend on the number of threads.
    """
    for axis in (-2, -1):
        wanted = math.ceil(2 * sigma) if radius is None else radius
        reach = min(wanted, planes.shape[axis] - 1)
        planes = _blur_axis(planes, sigma, reach, axis) if reach > 0 else planes
    return planes


def _blur_axis(planes: Tensor, sigma: float, radius: int, axis: int) -> Tensor:
    offsets = range(-radius, radius + 1)
    weights = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in offsets]
    total, length = sum(weights), planes.shape[axis]
    pad = (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius)
    flat = planes.reshape(1, -1, *planes.shape[-2:])
    padded = functional.pad(flat, pad, mode="reflect")
    blurred = torch.zeros_like(flat)
    for start, weight in enumerate(weights):
        blurred.add_(padded.narrow(axis, start, length), alpha=weight / total)
    return blurred.reshape(planes.shape)
