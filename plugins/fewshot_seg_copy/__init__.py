"""copy: the answer is the support mask itself.

No paper and no learning: each query slice gets the mask of its support slice, unmoved. What it
scores is what the protocol gives away (the organ's range, and scans that lie alike), so it is the
floor that every method has to beat, and the yardstick for comparing two protocols.
"""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fewshot_seg.episode import IGNORE, Episode, Output, Support

__all__ = ["Copy", "CopyState"]


@dataclass(frozen=True, eq=False)
class CopyState:
    """Mean over shots of each way's masks, in [0, 1]."""

    masks: Float[Tensor, "batch way height width"]

    @property
    def empty(self) -> Bool[Tensor, "batch way"]:
        """True for a way whose masks are empty in every shot."""
        return ~(self.masks > 0).flatten(2).any(-1)


@final
class Copy(nn.Module):
    """Copy the support mask to each query slice.

    A pixel's foreground probability is the mean of the way's masks over the shots; the rest,
    1 minus their sum and at least 0, is background. A tie between background and a way (one of
    two shots) is background under argmax. There are no parameters.

    floor: smallest probability before the logarithm.
    """

    def __init__(self, *, floor: float = 1e-6) -> None:
        super().__init__()
        if not 0 < floor < 0.5:
            raise ValueError(f"floor must lie between 0 and 0.5; got {floor}")
        self.floor = floor

    def encode_support(self, support: Support) -> CopyState:
        return CopyState(support.masks.mean(2))

    def segment(
        self, state: CopyState, query_images: Float[Tensor, "batch query channel height width"]
    ) -> Float[Tensor, "batch query label height width"]:
        """Log-probabilities. Raises ValueError when the query has another size than the support."""
        masks = state.masks
        if masks.shape[-2:] != query_images.shape[-2:]:
            raise ValueError(
                f"copy needs query images of the support's size {tuple(masks.shape[-2:])}; "
                f"got {tuple(query_images.shape[-2:])}"
            )
        background = (1 - masks.sum(1, keepdim=True)).clamp(min=0)
        logits = torch.cat([background, masks], 1).clamp(min=self.floor).log()
        return repeat(logits, "b l h w -> b q l h w", q=query_images.shape[1])

    def forward(self, episode: Episode) -> Output:
        state = self.encode_support(episode.support)
        logits = self.segment(state, episode.query_images)
        losses = {}
        if self.training and episode.query_labels is not None:
            losses["ce"] = _cross_entropy(logits, episode.query_labels)
        return Output(logits, losses, empty_support=state.empty)


def _cross_entropy(
    logits: Float[Tensor, "batch query label height width"],
    labels: Int[Tensor, "batch query height width"],
) -> Float[Tensor, ""]:
    """Mean over scored pixels; 0 when there is none (torch would answer NaN)."""
    flat = labels.flatten(0, 1).long()
    total = F.cross_entropy(logits.flatten(0, 1), flat, ignore_index=IGNORE, reduction="sum")
    return total / (flat != IGNORE).sum().clamp(min=1)
