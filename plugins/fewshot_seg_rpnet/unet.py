"""RP-Net's encoder: a U-Net cut off at a quarter of the image size."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.encoders.project import check_channels
from fewshot_seg.errors import OptionError

STRIDE = 4
DEEPEST = 16
"""Images shrink by this at the deepest level."""


@final
class UNet(nn.Module):
    """Five levels down, two up: features with `4 * width` channels at stride 4 (official code).

    width: channels of the first level, doubled with each further one (64: 31 M parameters).
    in_channels: of the images. With 1, images of several channels are averaged, as a grey image
        that was repeated for other encoders would be.
    dim, stride: see the Encoder protocol.
    Raises OptionError for numbers below 1; ValueError for images with other channels, or whose
    sides are not divisible by 16.
    """

    def __init__(self, *, width: int = 64, in_channels: int = 1) -> None:
        super().__init__()
        if width < 1 or in_channels < 1:
            raise OptionError(f"width={width} and in_channels={in_channels} must be at least 1")
        self.in_channels, self.stride, self.dim = in_channels, STRIDE, STRIDE * width
        widths = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(
            _double(before, after) for before, after in zip([in_channels, *widths], widths)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList((_up(widths[4], widths[3]), _up(widths[3], widths[2])))
        self.merge = nn.ModuleList((_double(widths[4], widths[3]), _double(widths[3], widths[2])))

    def forward(
        self, images: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image dim rows cols"]:
        _check_size(images)
        if self.in_channels == 1:
            images = images.mean(1, keepdim=True)
        check_channels(images, self.in_channels)
        levels: list[Tensor] = []
        maps = images
        for level, block in enumerate(self.down):
            maps = block(self.pool(maps) if level else maps)
            levels.append(maps)
        for up, merge, skip in zip(self.up, self.merge, (levels[3], levels[2]), strict=True):
            maps = merge(torch.cat([skip, up(maps)], 1))
        return maps


def _layer(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


def _double(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_layer(before, after), *_layer(after, after))


def _up(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), *_layer(before, after))


def _check_size(images: Tensor) -> None:
    height, width = images.shape[-2:]
    if height % DEEPEST or width % DEEPEST:
        raise ValueError(
            f"the U-Net halves images four times, so their sides must be divisible by {DEEPEST}; "
            f"got {height}x{width}"
        )
