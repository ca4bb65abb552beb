"""The anomaly decoder: one foreground prototype and a learned threshold, no background model."""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.episode import Episode, Features
from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import (
    area_average,
    cosine_maps,
    full_precision,
    masked_average,
    masked_average_at_mask,
)

CLAMP = torch.finfo(torch.float32).eps
"""Probabilities stay this far from 0 and 1 before the logarithm (official code)."""


class Foreground(NamedTuple):
    """One prototype for each way, the mean over its shots."""

    vectors: Float[Tensor, "batch way dim"]


@final
class Anomaly(nn.Module):
    """Foreground where the anomaly score S = -scale * cosine lies below a learned threshold T.

    A way's probability is y = 1 - sigmoid(kappa (S - T)) on the feature grid, upsampled with
    align_corners True (the one place of this library that does so). Ways do not know of each
    other: the background's probability is 1 - max y, so a pixel goes to the way of largest y if
    that exceeds 0.5. The logits are logarithms of these probabilities.

    scale: alpha of the paper, 20.   kappa: steepness, 0.5.
    threshold: T at the start, -10, which asks for a cosine above 0.5 (T = -scale * cosine).
    threshold_loss: `learn` adds the loss "threshold" = T / scale, which pulls T down, towards
        compact foregrounds; negative values are normal.
    pool_at: "mask": features are upsampled to the mask, align_corners False; "feature": the mask
        is area-averaged to the feature grid.
    eps: smallest vector length in the cosine.
    """

    def __init__(
        self,
        *,
        scale: float = 20.0,
        kappa: float = 0.5,
        threshold: float = -10.0,
        threshold_loss: bool = True,
        pool_at: str = "mask",
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        check_choice("pool_at", pool_at, ("mask", "feature"))
        if scale <= 0 or kappa <= 0 or eps <= 0:
            raise OptionError(f"scale={scale}, kappa={kappa} and eps={eps} must be positive")
        self.scale, self.kappa, self.eps = scale, kappa, eps
        self.threshold_loss, self.pool_at = threshold_loss, pool_at
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def describe(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot height width"],
        backgrounds: Float[Tensor, "batch way shot height width"] | None = None,
    ) -> Foreground:
        """Masked mean of each support image, then over shots; the background takes no part."""
        with full_precision(maps):
            return Foreground(self._pool(maps.float(), masks).mean(2))

    def forward(
        self,
        maps: Float[Tensor, "batch query dim rows cols"],
        state: Foreground,
        size: tuple[int, int],
    ) -> Float[Tensor, "batch query label height width"]:
        """Log-probabilities at `size`."""
        with full_precision(maps):
            score = self.scores(maps, state)
            # not sigmoid of the negative: rounding near 1 is what the official losses contain
            low = 1 - torch.sigmoid(self.kappa * (score - self.threshold.float()))
            ways = _upsample(low, size)
            background = 1 - ways.amax(2, keepdim=True)
            return torch.cat([background, ways], 2).clamp(CLAMP, 1 - CLAMP).log()

    def scores(
        self, maps: Float[Tensor, "batch query dim rows cols"], state: Foreground
    ) -> Float[Tensor, "batch query way rows cols"]:
        """Anomaly scores in [-scale, scale], low where a position looks like the way."""
        with full_precision(maps):
            return -self.scale * cosine_maps(maps.float(), state.vectors.float(), self.eps)

    def learn(
        self, features: Features, state: Foreground, episode: Episode
    ) -> tuple[Float[Tensor, "batch query label height width"], dict[str, Float[Tensor, ""]]]:
        """`forward` in training, with the threshold's own loss."""
        logits = self(features.query, state, episode.size)
        return logits, {"threshold": self.threshold / self.scale} if self.threshold_loss else {}

    def _pool(self, maps: Tensor, masks: Tensor) -> Float[Tensor, "batch way shot dim"]:
        if self.pool_at == "mask":
            return masked_average_at_mask(maps, masks)
        return masked_average(maps, area_average(masks, (maps.shape[-2], maps.shape[-1])))


def _upsample(
    maps: Float[Tensor, "batch query way rows cols"], size: tuple[int, int]
) -> Float[Tensor, "batch query way height width"]:
    """Bilinear with align_corners True, as the official code upsamples its probabilities."""
    flat = rearrange(maps, "b q w r c -> (b q) w r c")
    high = F.interpolate(flat, size=size, mode="bilinear", align_corners=True)
    return rearrange(high, "(b q) w h x -> b q w h x", b=maps.shape[0])
