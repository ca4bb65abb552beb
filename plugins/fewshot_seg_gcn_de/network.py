"""The two U-Nets: a conditioner for support image and mask, a segmentor for the query."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg_gcn_de.correlation import interaction
from fewshot_seg_gcn_de.gate import Gate
from fewshot_seg_gcn_de.trunk import WIDTH, Adapter, Trunk
from fewshot_seg_gcn_de.unet_decoder import LastBlock, UpBlock

SITES = tuple(range(1, 10))
"""1 adapter, 2 stem, 3 to 5 layer1 to layer3 (the bottleneck), 6 to 8 decoder blocks, 9 the last
3x3 at image size."""
BOTTLENECK = 5
MULTIPLE = 32
"""Height and width are multiples of it: 16 for the trunk, 2 for the pooled keys at its end."""


def site_dims(width: int) -> tuple[int, ...]:
    """Channels at sites 1 to 9."""
    return (3, width, width, 2 * width, 4 * width, 2 * width, width, width, width)


def up_blocks(width: int) -> nn.ModuleList:
    """The decoder blocks of sites 6 to 8."""
    return nn.ModuleList(
        [UpBlock(4 * width, 2 * width), UpBlock(2 * width, width), UpBlock(width, width)]
    )


@final
class Conditioner(nn.Module):
    """Reads support image and mask; its nine maps are what the segmentor's sites look at."""

    def __init__(self, *, in_channels: int, width: int = WIDTH) -> None:
        super().__init__()
        self.adapter = Adapter(in_channels=in_channels + 1)
        self.trunk = Trunk(width=width)
        self.ups = up_blocks(width)
        self.last = LastBlock(width)

    def forward(
        self,
        images: Float[Tensor, "pair channel height width"],
        masks: Float[Tensor, "pair height width"],
    ) -> tuple[Tensor, ...]:
        adapted = self.adapter(torch.cat([images, masks.unsqueeze(1).to(images.dtype)], 1))
        *skips, maps = levels = self.trunk(adapted)
        decoded = []
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            maps = up(maps, skip)
            decoded.append(maps)
        return (adapted, *levels, *decoded, self.last(maps))


class Segmented(NamedTuple):
    """The segmentor's answer.

    logits: log-odds of the foreground.   bottleneck: site 5, before the support touched it.
    """

    logits: Float[Tensor, "task height width"]
    bottleneck: Float[Tensor, "task dim rows cols"]


@final
class Segmentor(nn.Module):
    """Segments query images by the conditioner's maps, which change its own at the nine sites.

    Site 1 lies before the trunk, which then runs to its end untouched: sites 2 to 4 change the
    skips alone, 5 the bottleneck, 6 to 9 what each decoder block gives to the next.
    correlation_sites: sites with a global correlation of this `kind`; all others have a gate.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        width: int = WIDTH,
        correlation_sites: Collection[int] = (5, 6, 7),
        kind: str = "default",
    ) -> None:
        super().__init__()
        self.adapter = Adapter(in_channels=in_channels)
        self.trunk = Trunk(width=width)
        self.ups = up_blocks(width)
        self.last = LastBlock(width)
        # a ModuleList: in the first official file a plain list kept these weights from learning
        self.sites = nn.ModuleList(
            interaction(kind, dim=dim) if site in correlation_sites else Gate(dim=dim)
            for site, dim in zip(SITES, site_dims(width), strict=True)
        )
        self.score = nn.Conv2d(width, 1, kernel_size=1)
        self.norm = nn.BatchNorm2d(1)

    def forward(
        self,
        images: Float[Tensor, "task channel height width"],
        support: Sequence[Float[Tensor, "pair _dim _rows _cols"]],
    ) -> Segmented:
        """support: the nine maps; each pair serves task/pair query images in a row."""

        def change(site: int, maps: Tensor) -> Tensor:
            return self.sites[site - 1](support[site - 1], maps)

        *skips, bottleneck = self.trunk(change(1, self.adapter(images)))
        skips = [change(site, skip) for site, skip in enumerate(skips, start=2)]
        maps = change(BOTTLENECK, bottleneck)
        for site, up in enumerate(self.ups, start=BOTTLENECK + 1):
            maps = change(site, up(maps, skips.pop()))
        maps = change(SITES[-1], self.last(maps))
        return Segmented(self.norm(self.score(maps)).squeeze(1), bottleneck)
