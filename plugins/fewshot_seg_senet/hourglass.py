"""The body both arms share: four stages down, a bottleneck, four stages up by unpooling."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

KERNEL = 5
SITES = (
    "encode1", "encode2", "encode3", "encode4", "bottleneck",
    "decode4", "decode3", "decode2", "decode1",
)  # fmt: skip
"""The stages in their order; each ends in a gate. Decoder stage i undoes the pooling of stage i."""
STEP = 16
"""Image sides are multiples of this: the bottleneck sees them four times halved."""


def block(in_channels: int, width: int) -> nn.Sequential:
    """5x5 convolution, PReLU with one slope, batch norm, in this order; the size stays."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, width, KERNEL, padding=KERNEL // 2),
            prelu=nn.PReLU(),
            batchnorm=nn.BatchNorm2d(width),
        )
    )


@final
class Hourglass(nn.Module):
    """`width` channels at every stage; no skip connection, so no mask can be copied over."""

    def __init__(self, *, in_channels: int, width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(
            {site: block(in_channels if site == SITES[0] else width, width) for site in SITES}
        )

    def forward(
        self,
        images: Float[Tensor, "image channel height width"],
        gates: Sequence[Float[Tensor, "image gate _ _"]] | None = None,
    ) -> list[Float[Tensor, "image dim _ _"]]:
        """The maps after each of SITES: H/2 .. H/16, H/16, H/8 .. H.

        gates: multiply each stage's maps (after pooling) before the next stage reads them.
        """
        maps, found = images, []
        places: list[Tensor] = []
        for number, site in enumerate(SITES):
            maps = self._stage(site, maps, places)
            if gates is not None:
                maps = maps * gates[number]
            found.append(maps)
        return found

    def _stage(self, site: str, maps: Tensor, places: list[Tensor]) -> Tensor:
        """places: a stack of pooling indices, filled on the way down, emptied on the way up."""
        convolve = self.stages[site]
        if site.startswith("encode"):
            maps, place = F.max_pool2d_with_indices(convolve(maps), (2, 2))
            places.append(place)
            return maps
        if site.startswith("decode"):
            maps = F.max_unpool2d(maps, places.pop(), (2, 2))
        return convolve(maps)
