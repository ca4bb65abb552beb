"""The support as RP-Net sees it: moved onto each query by an affine warp, or as it lies."""

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.episode import Support
from fewshot_seg.registration import register_slices, warp, warp_mask

QueryImages = Float[Tensor, "batch query channel height width"]


class Views(NamedTuple):
    """Support images with their masks, and what they say of the query at first sight.

    view: one for each query, or 1 where the support was not moved.
    start: the query masks to begin with, mean over shots.
    """

    images: Float[Tensor, "batch way shot view channel height width"]
    masks: Float[Tensor, "batch way shot view height width"]
    backgrounds: Float[Tensor, "batch way shot view height width"]
    start: Float[Tensor, "batch query way height width"]


def unmoved(support: Support, n_query: int) -> Views:
    """The support as it lies."""
    start = repeat(support.masks.mean(2), "b w h x -> b q w h x", q=n_query)
    return Views(
        support.images.unsqueeze(3),
        support.masks.unsqueeze(3),
        support.backgrounds.unsqueeze(3),
        start,
    )


def register(
    support: Support, queries: QueryImages, *, steps: int, lr: float
) -> Float[Tensor, "batch way shot query 2 3"]:
    """The affine matrix of every support image for every query image."""
    way, shot, query = support.n_way, support.n_shot, queries.shape[1]
    moving = repeat(support.images, "b w s c h x -> (b w s q) c h x", q=query)
    fixed = repeat(queries, "b q c h x -> (b w s q) c h x", w=way, s=shot)
    theta = register_slices(moving, fixed, steps=steps, lr=lr)
    return rearrange(theta, "(b w s q) i j -> b w s q i j", w=way, s=shot, q=query)


@torch.no_grad()
def moved(
    support: Support,
    theta: Float[Tensor, "batch way shot query 2 3"],
    *,
    threshold: float,
    zero_flow_resample: bool,
) -> Views:
    """Image and masks of the support warped to every query, as the official code does.

    Raises ValueError when `theta` has other axes than the support.
    """
    axes, expected = theta.shape[:4], tuple(support.masks.shape[:3])
    if tuple(axes[:3]) != expected:
        raise ValueError(
            f"the registration is for (batch, way, shot) = {tuple(axes[:3])}, "
            f"but the support has {expected}"
        )
    flat, times = theta.flatten(0, 3), axes[3]
    images = repeat(support.images, "b w s c h x -> (b w s q) c h x", q=times)
    masks = repeat(support.masks, "b w s h x -> (b w s q) h x", q=times)
    # classes together, so that an organ's widened rim is no background
    classes = repeat(1 - support.backgrounds, "b w s h x -> (b w s q) h x", q=times)
    warped = warp_mask(masks, flat, threshold=threshold)
    start = warped
    if zero_flow_resample:
        start = warp_mask(masks, flat, threshold=threshold, zero_flow_resample=True)
    background = 1 - warp_mask(classes, flat, threshold=threshold)
    return Views(
        _split(_warp_images(images, flat), axes),
        _split(warped, axes),
        _split(background, axes),
        rearrange(_split(start, axes).mean(2), "b w q h x -> b q w h x"),
    )


def _split(flat: Tensor, axes: torch.Size) -> Tensor:
    """The pairs' axis as (batch, way, shot, query) again."""
    return flat.reshape(*axes, *flat.shape[1:])


def _warp_images(
    images: Float[Tensor, "pair channel height width"], theta: Float[Tensor, "pair 2 3"]
) -> Float[Tensor, "pair channel height width"]:
    """What comes in from outside is as dark as the image's darkest pixel: z-scored intensities
    would otherwise fill up with the scan's mean."""
    lowest = images.amin((-2, -1), keepdim=True)
    return warp(images - lowest, theta) + lowest
