"""A random half of every image, in blocks, so that prototypes can be tested on the other half."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_seg.functional import area_average


def described_half(
    masks: Float[Tensor, "batch way shot height width"], grid: tuple[int, int], block: int
) -> Float[Tensor, "batch way shot height width"]:
    """1 on a random half of the blocks of each image, 0 on the other half, at image size.

    grid: rows and columns of the feature map.   block: side of a block in feature positions; there
    are at least two blocks a side. The blocks that touch the mask are halved among themselves, and
    so are the others: of an odd number the larger half is described, so a single block always is.
    Draws from torch's global generator.
    """
    blocks = max(2, grid[0] // block), max(2, grid[1] // block)
    touched = area_average(masks, blocks).flatten(3) > 0
    kept = _half_of_each(touched).to(masks.dtype)
    flat = kept.reshape(-1, 1, *blocks)
    return F.interpolate(flat, size=masks.shape[-2:], mode="nearest").reshape(masks.shape)


def _half_of_each(
    touched: Bool[Tensor, "batch way shot cell"],
) -> Bool[Tensor, "batch way shot cell"]:
    """A random half of the true cells and a random half of the false ones."""
    order = torch.rand(touched.shape, device=touched.device) + (~touched).float()
    place = order.argsort(-1).argsort(-1)  # the true cells stand first, each kind in random order
    first = touched.sum(-1, keepdim=True)
    of_kind = torch.where(touched, first, touched.shape[-1] - first)
    in_kind = torch.where(touched, place, place - first)
    return 2 * in_kind < of_kind
