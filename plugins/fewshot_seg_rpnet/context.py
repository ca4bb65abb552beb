"""The context relation encoder (CRE) of RP-Net: what lies around each position, on both sides of
a mask."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError

Maps = Float[Tensor, "image dim rows cols"]


def local_correlation(
    first: Maps, second: Maps, radius: int
) -> Float[Tensor, "image offset rows cols"]:
    """<first(p), second(p + d)> / sqrt(dim) for every offset d within a square window; 0 outside.

    Channel (dx + radius) * (2 * radius + 1) + (dy + radius) belongs to the offset of dy rows and
    dx columns.

    For each of the window's rows, one matrix product for each row of the map gives all column
    offsets; the band of wanted ones is cut out. That costs cols / (2 * radius + 1) times the least
    number of products, as matrix products, and never holds more than rows x cols x cols numbers at
    a time, where the whole volume has (rows x cols)^2.
    """
    rows = first.shape[-2]
    queries = rearrange(first, "i d r c -> i r c d") / first.shape[1] ** 0.5
    keys = rearrange(F.pad(second, (radius,) * 4), "i d r c -> i r d c")
    bands = [
        _band(torch.matmul(queries, keys[:, dy : dy + rows]), 2 * radius + 1)
        for dy in range(2 * radius + 1)
    ]
    return rearrange(torch.stack(bands), "y i r c x -> i (x y) r c")


def _band(
    products: Float[Tensor, "image rows cols padded"], width: int
) -> Float[Tensor, "image rows cols {width}"]:
    """Entry [c, x] is products[c, c + x]: reading rows one number longer shifts each by one."""
    cols, padded = products.shape[-2:]
    flat = F.pad(products.flatten(-2), (0, cols))
    return rearrange(flat, "i r (c x) -> i r c x", x=padded + 1)[..., :width]


class ContextRelation(nn.Module):
    """Features and a mask -> a descriptor of each position's relation to the mask's two sides.

    A = phi_in(F * m), B = phi_out(F * (1 - m)), their local correlation, then a 1x1 convolution of
    correlation and A. phi: 3x3 convolution, batch norm, ReLU.

    dim: channels of F.   radius: of the window, in cells.   width: channels of the descriptor.
    Raises OptionError for numbers out of range.
    """

    def __init__(self, *, dim: int, radius: int = 5, width: int = 64) -> None:
        super().__init__()
        if dim < 1 or radius < 0 or width < 1:
            raise OptionError(
                f"dim={dim} and width={width} must be at least 1, radius={radius} at least 0"
            )
        self.dim, self.radius, self.width = dim, radius, width
        self.inside = _layer(dim, dim, 3)
        self.outside = _layer(dim, dim, 3)
        self.join = _layer((2 * radius + 1) ** 2 + dim, width, 1)

    def forward(
        self, maps: Maps, masks: Float[Tensor, "image rows cols"]
    ) -> Float[Tensor, "image width rows cols"]:
        masks = masks.unsqueeze(1).to(maps.dtype)
        inside, outside = self.inside(maps * masks), self.outside(maps * (1 - masks))
        relation = local_correlation(inside, outside, self.radius)
        return self.join(torch.cat([relation, inside], 1))


def _layer(before: int, after: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, size, padding=size // 2),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )
