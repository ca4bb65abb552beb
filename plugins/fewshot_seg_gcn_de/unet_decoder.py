"""The decoder half of each U-Net: three U-Net blocks and a last one at image size."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def double(
    maps: Float[Tensor, "image dim rows cols"],
) -> Float[Tensor, "image dim rows2 cols2"]:
    """Twice the size, bilinear with align_corners True, as the official code does."""
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)


@final
class ConvNorm(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(after)

    def forward(
        self, maps: Float[Tensor, "image before rows cols"]
    ) -> Float[Tensor, "image after rows cols"]:
        return self.norm(self.conv(maps)).relu()


@final
class UpBlock(nn.Module):
    """Double the size, 3x3 to the skip's channels, join the skip, two more 3x3."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.reduce = ConvNorm(before, after)
        self.fuse = ConvNorm(2 * after, after)
        self.refine = ConvNorm(after, after)

    def forward(
        self,
        maps: Float[Tensor, "image before rows cols"],
        skip: Float[Tensor, "image after rows2 cols2"],
    ) -> Float[Tensor, "image after rows2 cols2"]:
        return self.refine(self.fuse(torch.cat([self.reduce(double(maps)), skip], 1)))


@final
class LastBlock(nn.Module):
    """Double the size and one 3x3: the map at image size."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.block = ConvNorm(dim, dim)

    def forward(
        self, maps: Float[Tensor, "image dim rows cols"]
    ) -> Float[Tensor, "image dim rows2 cols2"]:
        return self.block(double(maps))
