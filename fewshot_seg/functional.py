"""Stateless tensor operations that several methods share. All are differentiable and batched."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot_seg.episode import IGNORE

EPS = 1e-5
"""Guard of every division by a mask's area."""
EMPTY = 1e-4
"""A support mask whose mass on the feature grid is below this counts as empty."""


def full_precision(tensor: Tensor) -> AbstractContextManager[None]:
    """No autocast inside: cosines, softmax over prototypes and KL lose too much in 16 bits."""
    return torch.autocast(tensor.device.type, enabled=False)


@contextmanager
def settled(module: nn.Module) -> Iterator[None]:
    """`module` in eval mode inside (batch norm by its running statistics), as it was afterwards."""
    was = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in was:
            part.training = training


def area_average(
    masks: Float[Tensor, "*batch height width"], grid: tuple[int, int]
) -> Float[Tensor, "*batch rows cols"]:
    """Masks on a coarser grid, each cell the mean of its pixels: an organ of any size survives."""
    if tuple(masks.shape[-2:]) == tuple(grid):
        return masks
    flat = masks.reshape(-1, 1, *masks.shape[-2:])
    return F.adaptive_avg_pool2d(flat.float(), grid).reshape(*masks.shape[:-2], *grid)


def resize(
    maps: Float[Tensor, "*batch rows cols"], size: tuple[int, int]
) -> Float[Tensor, "*batch height width"]:
    """Bilinear, align_corners False, as every interpolation of this library unless it says so."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    scaled = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return scaled.reshape(*maps.shape[:-2], *size)


def masked_average(
    maps: Float[Tensor, "*batch dim rows cols"], masks: Float[Tensor, "*batch rows cols"]
) -> Float[Tensor, "*batch dim"]:
    """Masked average pooling: sum(maps * masks) / (sum(masks) + 1e-5); 0 under an empty mask."""
    # not an einsum: a matrix product adds 65 000 pixels up one by one, which costs two digits
    total = (maps * masks.unsqueeze(-3)).sum((-2, -1))
    return total / (masks.sum((-2, -1)).unsqueeze(-1) + EPS)


def masked_average_at_mask(
    maps: Float[Tensor, "*batch dim rows cols"], masks: Float[Tensor, "*batch height width"]
) -> Float[Tensor, "*batch dim"]:
    """`masked_average` of the maps upsampled to the masks (bilinear, align_corners False), without
    ever upsampling them: the sum over pixels of (up F) * m is that over positions of F * (up^T m).
    """
    down = _upsampling(maps.shape[-2], masks.shape[-2], maps).mT
    across = _upsampling(maps.shape[-1], masks.shape[-1], maps)
    weights = down @ masks.to(maps.dtype) @ across
    total = (maps * weights.unsqueeze(-3)).sum((-2, -1))
    return total / (masks.sum((-2, -1)).unsqueeze(-1) + EPS)


def _upsampling(few: int, many: int, like: Tensor) -> Float[Tensor, "many few"]:
    """The matrix that `resize` applies along one axis."""
    identity = torch.eye(few, device=like.device, dtype=like.dtype).unsqueeze(0)
    return F.interpolate(identity, size=many, mode="linear", align_corners=False)[0].mT


def normalise(vectors: Tensor, dim: int, eps: float) -> Tensor:
    """Vectors along `dim` over their length, which is taken as at least `eps`."""
    return vectors / torch.linalg.vector_norm(vectors, dim=dim, keepdim=True).clamp_min(eps)


def cosine_maps(
    maps: Float[Tensor, "batch query dim rows cols"],
    prototypes: Float[Tensor, "batch label dim"],
    eps: float = 1e-8,
) -> Float[Tensor, "batch query label rows cols"]:
    """Cosine of every position with every prototype, in [-1, 1]; 0 for a zero vector."""
    return torch.einsum("bqdrc,bld->bqlrc", normalise(maps, 2, eps), normalise(prototypes, 2, eps))


def segmentation_loss(
    logits: Float[Tensor, "batch query label height width"],
    labels: Int[Tensor, "batch query height width"],
    weights: Sequence[float] | None = None,
) -> Float[Tensor, ""]:
    """Pixel cross-entropy, mean over scored pixels, 0 when there is none.

    weights: (background, foreground); the mean then divides by the sum of the pixels' weights.
    """
    flat = rearrange(logits.float(), "b q l h w -> (b q) l h w")
    target = rearrange(labels, "b q h w -> (b q) h w").long()
    per_pixel = F.cross_entropy(flat, target, ignore_index=IGNORE, reduction="none")
    scored = (target != IGNORE).to(flat.dtype)
    if weights is not None:
        background, foreground = weights
        scored = scored * torch.where(target == 0, background, foreground)
    return (per_pixel * scored).sum() / scored.sum().clamp_min(EPS)


def mean_probability_logits(
    logits: Float[Tensor, "sample *rest"],  # noqa: F821
    label_axis: int,
) -> Float[Tensor, "*rest"]:
    """Log of the samples' mean probabilities; `label_axis` counts in `logits`."""
    logs = torch.log_softmax(logits, dim=label_axis)
    return torch.logsumexp(logs, dim=0) - math.log(logits.shape[0])


def foreground(labels: Int[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """1 where a label is one of the episode's ways."""
    return ((labels > 0) & (labels != IGNORE)).float()
