"""The two arms: the conditioner makes gates of the support, the segmenter obeys them."""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg_senet.hourglass import SITES, Hourglass


class Gates(NamedTuple):
    """Nine gates in [0, 1], one a stage, in the order of SITES.

    Axes: any leading ones (image, or batch way shot), then (1, rows, cols) for spatial excitation
    or (channels of the segmenter, 1, 1) for channel excitation.
    """

    encode1: Float[Tensor, "*image gate _ _"]
    encode2: Float[Tensor, "*image gate _ _"]
    encode3: Float[Tensor, "*image gate _ _"]
    encode4: Float[Tensor, "*image gate _ _"]
    bottleneck: Float[Tensor, "*image gate _ _"]
    decode4: Float[Tensor, "*image gate _ _"]
    decode3: Float[Tensor, "*image gate _ _"]
    decode2: Float[Tensor, "*image gate _ _"]
    decode1: Float[Tensor, "*image gate _ _"]


@final
class Conditioner(nn.Module):
    """Image and mask -> gates, g = sigmoid(w * U + b) with U the maps of a stage (section 3).

    channel_gates: None for spatial gates, one number a position; else so many channel gates, from
        the mean of U over its positions.
    """

    def __init__(self, *, in_channels: int, width: int, channel_gates: int | None) -> None:
        super().__init__()
        self.body = Hourglass(in_channels=in_channels + 1, width=width)
        self.spatial = channel_gates is None
        self.squeeze = nn.ModuleDict(
            {site: nn.Conv2d(width, channel_gates or 1, 1) for site in SITES}
        )

    def forward(
        self,
        images: Float[Tensor, "image channel height width"],
        masks: Float[Tensor, "image height width"],
    ) -> Gates:
        stages = self.body(torch.cat([images, masks.unsqueeze(1).to(images.dtype)], 1))
        return Gates(*(self._gate(site, maps) for site, maps in zip(SITES, stages, strict=True)))

    def _gate(self, site: str, maps: Tensor) -> Tensor:
        seen = maps if self.spatial else maps.mean((2, 3), keepdim=True)
        return torch.sigmoid(self.squeeze[site](seen))


@final
class Segmenter(nn.Module):
    """Query image and gates -> two logits a pixel, background first."""

    def __init__(self, *, in_channels: int, width: int) -> None:
        super().__init__()
        self.body = Hourglass(in_channels=in_channels, width=width)
        self.classifier = nn.Conv2d(width, 2, 1)

    def forward(
        self, images: Float[Tensor, "image channel height width"], gates: Gates
    ) -> Float[Tensor, "image 2 height width"]:
        return self.classifier(self.body(images, gates)[-1])
