"""Gaussian blur of planes."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def gaussian_blur(
    planes: Float[Tensor, "*sample height width"],
    sigma: float | Float[Tensor, "*#sample"],
    radius: int | None = None,
) -> Float[Tensor, "*sample height width"]:
    """Blur each plane with a Gaussian of `sigma` pixels, cut off `radius` pixels from its centre
    (2 sigma unless given, at most the plane's size less one); edges mirror the plane.

    sigma: one for all planes; or each plane's own, cut off at 2 sigma and at `radius`, which must
        then be given.

    A sum of shifted planes, so that the result does not depend on the number of threads.
    """
    for axis in (-2, -1):
        wanted = radius
        if wanted is None:
            if isinstance(sigma, Tensor):
                raise ValueError("planes with a sigma each need a common radius")
            wanted = math.ceil(2 * sigma)
        reach = min(wanted, planes.shape[axis] - 1)
        planes = _blur_axis(planes, sigma, reach, axis) if reach > 0 else planes
    return planes


def _blur_axis(planes: Tensor, sigma: float | Tensor, radius: int, axis: int) -> Tensor:
    length = planes.shape[axis]
    pad = (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius)
    flat = planes.reshape(1, -1, *planes.shape[-2:])
    padded = functional.pad(flat, pad, mode="reflect")
    shifted = (padded.narrow(axis, start, length) for start in range(2 * radius + 1))
    blurred = torch.zeros_like(flat)
    if isinstance(sigma, Tensor):
        each = sigma.expand(planes.shape[:-2]).reshape(1, -1, 1, 1)
        for plane, weight in zip(shifted, _own_weights(each, radius)):
            blurred.addcmul_(plane, weight)
    else:
        for plane, share in zip(shifted, _weights(sigma, radius)):
            blurred.add_(plane, alpha=share)
    return blurred.reshape(planes.shape)


def _weights(sigma: float, radius: int) -> list[float]:
    offsets = range(-radius, radius + 1)
    weights = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in offsets]
    return [weight / sum(weights) for weight in weights]


def _own_weights(sigma: Tensor, radius: int) -> tuple[Tensor, ...]:
    """Of each offset, the weights of all planes."""
    offsets = torch.arange(-radius, radius + 1, device=sigma.device).reshape(-1, 1, 1, 1, 1)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2)) * (offsets.abs() <= (2 * sigma).ceil())
    return (weights / weights.sum(0)).unbind()
