"""The support as the quantisers see it: rows of pixels."""

from typing import NamedTuple

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

Pixels = Float[Tensor, "batch way pixel dim"]
PixelMasks = Float[Tensor, "batch way pixel"]


class Scene(NamedTuple):
    """Feature pixels of each way's images, shot by shot and row by row, with their masks.

    masks: the way's, soft, in [0, 1].   backgrounds: where no way of the episode is, likewise.
    """

    pixels: Pixels
    masks: PixelMasks
    backgrounds: PixelMasks

    @classmethod
    def of(
        cls,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot rows cols"],
        backgrounds: Float[Tensor, "batch way shot rows cols"],
    ) -> "Scene":
        return cls(
            rearrange(maps, "b w s d r c -> b w (s r c) d"),
            rearrange(masks, "b w s r c -> b w (s r c)"),
            rearrange(backgrounds, "b w s r c -> b w (s r c)"),
        )
