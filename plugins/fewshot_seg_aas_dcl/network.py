"""The two branches: a U-Net for the support that gates a U-Net for the query."""

from itertools import pairwise
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.interfaces import FeatureMaps, Images
from fewshot_seg_aas_dcl.blocks import Gate, Up, convolutions, initialise

LEVELS = 5
STRIDE = 2 ** (LEVELS - 1)
"""Images must be a multiple of this high and wide."""


Levels = tuple[Float[Tensor, "image _ _ _"], ...]
"""Maps of several sizes (image channel rows cols), fine to coarse."""


class SupportBranch(NamedTuple):
    """The support branch, which no query changes; one entry a level, from fine to coarse.

    gates: of the query's encoder; gate i acts before level i + 1, the last one on the bottleneck.
    decoded, decoded_gates: likewise of the decoder, at levels 1 to 4; `decoded` is the finest map.
    """

    levels: Levels
    gates: Levels
    decoded: Float[Tensor, "image width height cols"]
    decoded_gates: Levels

    def repeat(self, queries: int) -> "SupportBranch":
        """Every image `queries` times in a row, to face each query."""
        if queries == 1:
            return self
        many = [
            tuple(part.repeat_interleave(queries, 0) for part in parts)
            for parts in (self.levels, self.gates, (self.decoded,), self.decoded_gates)
        ]
        return SupportBranch(many[0], many[1], many[2][0], many[3])


class QueryBranch(NamedTuple):
    """The gated branch: encoder maps from fine to coarse, and the finest decoder map."""

    levels: Levels
    decoded: Float[Tensor, "image width height cols"]


@final
class TwoBranch(nn.Module):
    """Encoder and decoder, whose weights both branches share except the first block.

    width: channels of the first level; they double at each of the five.   in_channels: of images.
    norm: see `convolutions`.
    """

    def __init__(self, *, width: int = 32, in_channels: int = 3, norm: str = "instance") -> None:
        super().__init__()
        dims = [width * 2**level for level in range(LEVELS)]
        self.in_channels, self.dim = in_channels, dims[-1]
        self.first_support = convolutions((in_channels + 1, width, width), norm)
        self.first = convolutions((in_channels, width, width), norm)
        middle = [convolutions((a, b, b), norm) for a, b in pairwise(dims[:-1])]
        self.encoder = nn.ModuleList([*middle, convolutions((dims[-2], dims[-1]), norm)])
        self.gates = nn.ModuleList([Gate(dim) for dim in dims])
        self.ups = nn.ModuleList([Up(coarse, fine, norm) for fine, coarse in pairwise(dims)])
        self.decoder = nn.ModuleList([convolutions((2 * d, d, d), norm) for d in dims[:-1]])
        initialise(self)

    def support(self, images: Images, masks: Float[Tensor, "image height width"]) -> SupportBranch:
        """Run the support branch. Masks in [0, 1] are read as one more channel."""
        levels = [self.first_support(torch.cat([images, masks.unsqueeze(1)], 1))]
        gates = []
        for gate, block in zip(self.gates, self.encoder, strict=False):
            pooled = F.max_pool2d(levels[-1], 2)
            gates.append(gate(pooled))
            levels.append(block(pooled))
        gates.append(self.gates[-1](levels[-1]))
        decoded, decoded_gates = levels[-1], []
        for level in reversed(range(LEVELS - 1)):
            decoded = self._decode(level, levels[level], decoded)
            decoded_gates.append(self.gates[level](decoded))
        return SupportBranch(tuple(levels), tuple(gates), decoded, tuple(decoded_gates[::-1]))

    def query(self, first: FeatureMaps, support: SupportBranch) -> QueryBranch:
        """Run the query branch from the maps of the block `first`; support image i gates map i."""
        levels = [first]
        for gate, block in zip(support.gates, self.encoder, strict=False):
            levels.append(block(gate * F.max_pool2d(levels[-1], 2)))
        levels[-1] = support.gates[-1] * levels[-1]
        decoded = levels[-1]
        for level in reversed(range(LEVELS - 1)):
            gate = support.decoded_gates[level]
            decoded = gate * self._decode(level, levels[level], decoded)
        return QueryBranch(tuple(levels), decoded)

    def bottleneck(self, images: Images) -> FeatureMaps:
        """The query's encoder without gates, for auxiliary images."""
        maps = self.first(images)
        for block in self.encoder:
            maps = block(F.max_pool2d(maps, 2))
        return maps

    def _decode(self, level: int, skip: Tensor, coarser: Tensor) -> Tensor:
        return self.decoder[level](torch.cat([skip, self.ups[level](coarser)], 1))
