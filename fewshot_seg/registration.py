"""Affine registration of slices by gradient descent, many pairs at once.

As RP-Net prepares its input (Tang et al., ICCV 2021, arXiv 2108.00622; constants from the official
code): the matrix starts at the identity and follows Adam on the mean squared difference.

A matrix `theta` ("2 3") maps output to input coordinates, (x, y) in [-1, 1] between the outer
borders of the image, as in `torch.nn.functional.grid_sample` with align_corners False; outside the
image is 0.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.errors import OptionError
from fewshot_seg.functional import full_precision

STEPS = 50
LEARNING_RATE = 0.01
THRESHOLD = 0.1
"""A warped mask keeps a pixel from this fraction on, which widens it a little (official code)."""

Pictures = Float[Tensor, "pair channel height width"]
Masks = Float[Tensor, "pair height width"]
Thetas = Float[Tensor, "pair 2 3"]


def register_affine(
    moving: Pictures,
    fixed: Float[Tensor, "_ _ _ _"],
    *,
    steps: int = STEPS,
    lr: float = LEARNING_RATE,
    fall_back: bool = True,
) -> Thetas:
    """For each pair the matrix that lays `moving` over `fixed`.

    moving, fixed: intensities in [0, 1], so that steps of `lr` mean the same for all images; see
        `unit_range`.
    fall_back: keep the identity for a pair whose squared difference did not become smaller, as
        happens between contrasts.

    Every pair has its own Adam, so a batch gives what its pairs give one by one. Works within
    `no_grad`, `inference_mode` and autocast, in 32 bits; no gradient flows out of it.
    Raises OptionError for numbers out of range, ValueError when the sizes of a pair differ.
    """
    if steps < 0 or lr <= 0:
        raise OptionError(f"registration takes steps >= 0 and lr > 0; got {steps} and {lr}")
    if moving.shape != fixed.shape:
        raise ValueError(
            f"only images of one size can be registered; got {tuple(moving.shape)} "
            f"and {tuple(fixed.shape)}"
        )
    with torch.inference_mode(False), torch.enable_grad(), full_precision(moving):
        # inference tensors cannot be part of a graph, their copies can
        source, target = moving.detach().clone().float(), fixed.detach().clone().float()
        theta = identity(source).requires_grad_()
        adam = torch.optim.Adam([theta], lr=lr)
        for _ in range(steps):
            total = difference(warp(source, theta), target).sum()
            (theta.grad,) = torch.autograd.grad(total, [theta])
            adam.step()
        found = theta.detach()
    return _improved(source, target, found) if fall_back else found


def register_slices(
    moving: Pictures, fixed: Pictures, *, steps: int = STEPS, lr: float = LEARNING_RATE
) -> Thetas:
    """`register_affine` for intensities of any scale and any number of channels.

    Each image is averaged over its channels and brought to [0, 1] by its own extremes.
    """
    return register_affine(unit_range(moving), unit_range(fixed), steps=steps, lr=lr)


def unit_range(images: Pictures) -> Float[Tensor, "pair 1 height width"]:
    """The mean over channels, its smallest value at 0 and its largest at 1; 0 for a flat image."""
    grey = images.float().mean(1, keepdim=True)
    low, high = grey.amin((-2, -1), keepdim=True), grey.amax((-2, -1), keepdim=True)
    return (grey - low) / (high - low).clamp_min(1e-6)


def identity(images: Pictures) -> Thetas:
    """The matrix that moves nothing, for each image."""
    return torch.eye(2, 3, device=images.device).repeat(images.shape[0], 1, 1)


def difference(moved: Pictures, fixed: Pictures) -> Float[Tensor, " pair"]:
    """Mean squared difference of each pair."""
    return (moved - fixed).square().mean((1, 2, 3))


def warp(images: Pictures, theta: Thetas) -> Pictures:
    """The images resampled (bilinear, 0 outside), in 32 bits."""
    with full_precision(images):
        grid = _grid(theta.float(), images.shape[-2], images.shape[-1])
        return F.grid_sample(images.float(), grid, padding_mode="zeros", align_corners=False)


def warp_mask(
    masks: Masks,
    theta: Thetas,
    *,
    threshold: float = THRESHOLD,
    zero_flow_resample: bool = False,
) -> Masks:
    """1 where more than `threshold` of a warped mask falls, else 0.

    zero_flow_resample: shrink the fractions by (size - 1) / size first, as the official code does
        to the query's first mask, see `zero_flow`.
    """
    fractions = warp(masks.unsqueeze(1), theta)
    if zero_flow_resample:
        fractions = zero_flow(fractions)
    return (fractions.squeeze(1) > threshold).float()


def zero_flow(images: Pictures) -> Pictures:
    """Output pixel i reads i * size / (size - 1) - 0.5: a deformation of zero in the official code.

    Its grid spans [-1, 1] between pixel centres but is read as if it spanned the borders.
    """
    height, width = images.shape[-2:]
    y = torch.linspace(-1, 1, height, device=images.device)
    x = torch.linspace(-1, 1, width, device=images.device)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    grid = grid.expand(images.shape[0], height, width, 2)
    with full_precision(images):
        return F.grid_sample(images.float(), grid, padding_mode="zeros", align_corners=False)


def _grid(theta: Thetas, height: int, width: int) -> Float[Tensor, "pair height width 2"]:
    """Where each pixel is read from. The products of `affine_grid` without its matrix routine,
    whose gradient takes as long as the sampling itself."""
    y = _centres(height, theta.device)[None, :, None, None]
    x = _centres(width, theta.device)[None, None, :, None]
    across, down, shift = (theta[:, None, None, :, column] for column in range(3))
    return across * x + down * y + shift


def _centres(size: int, device: torch.device) -> Float[Tensor, " size"]:
    """Pixel centres in [-1, 1], align_corners False."""
    return (2 * torch.arange(size, device=device) + 1) / size - 1


def _improved(moving: Pictures, fixed: Pictures, theta: Thetas) -> Thetas:
    better = difference(warp(moving, theta), fixed) < difference(moving, fixed)
    return torch.where(better[:, None, None], theta, identity(moving))
