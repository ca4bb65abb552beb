"""The prototype decoder: masked average pooling and scaled cosine, without parameters."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import (
    area_average,
    cosine_maps,
    full_precision,
    masked_average,
    masked_average_at_mask,
    resize,
)


class Prototypes(NamedTuple):
    """Background first."""

    vectors: Float[Tensor, "batch label dim"]


class Cosine(nn.Module):
    """scale * cosine with one prototype for each class and one for the background.

    scale: 20 in the paper (alpha).
    pool_at: "mask": features are upsampled to the mask (official code); "feature": the mask is
        brought to the feature grid (the medical forks).   mask_resize: how it is brought there,
        "area" (no organ is lost) or "bilinear" (as the forks do).
    eps: smallest length in the cosine; 1e-8 in PANet, 1e-4 in the medical forks.
    """

    def __init__(
        self,
        *,
        scale: float = 20.0,
        pool_at: str = "mask",
        mask_resize: str = "area",
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        check_choice("pool_at", pool_at, ("mask", "feature"))
        check_choice("mask_resize", mask_resize, ("area", "bilinear"))
        if scale <= 0 or eps <= 0:
            raise OptionError(f"scale={scale} and eps={eps} must be positive")
        self.scale, self.pool_at, self.mask_resize, self.eps = scale, pool_at, mask_resize, eps

    def describe(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot height width"],
        backgrounds: Float[Tensor, "batch way shot height width"] | None = None,
    ) -> Prototypes:
        """Prototypes: mean over shots for a way, over ways and shots for the background."""
        with full_precision(maps):
            others = 1 - masks if backgrounds is None else backgrounds
            foreground = self._pool(maps.float(), masks).mean(2)
            background = self._pool(maps.float(), others).mean((1, 2)).unsqueeze(1)
            return Prototypes(torch.cat([background, foreground], 1))

    def forward(
        self,
        maps: Float[Tensor, "batch query dim rows cols"],
        state: Prototypes,
        size: tuple[int, int],
    ) -> Float[Tensor, "batch query label height width"]:
        with full_precision(maps):
            return resize(self.scale * cosine_maps(maps.float(), state.vectors, self.eps), size)

    def _pool(self, maps: Tensor, masks: Tensor) -> Float[Tensor, "batch way shot dim"]:
        grid = (maps.shape[-2], maps.shape[-1])
        if self.pool_at == "mask":
            return masked_average_at_mask(maps, masks)
        small = area_average(masks, grid) if self.mask_resize == "area" else resize(masks, grid)
        return masked_average(maps, small)
