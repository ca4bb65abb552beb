"""copy: the answer is the support mask itself.

No paper and no learning: each query slice gets the mask of its support slice, unmoved. What it
scores is what the protocol gives away (the organ's range, and scans that lie alike), so it is the
floor that every method has to beat, and the yardstick for comparing two protocols. With
`registration` the mask is moved first, by the affine map that lays the two images over each other:
the floor of methods that register (rpnet), still without any learning.
"""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fewshot_seg.episode import IGNORE, Episode, Output, Support
from fewshot_seg.registration import register_slices, warp

__all__ = ["Copy", "CopyState"]


@dataclass(frozen=True, eq=False)
class CopyState:
    """The support's masks in [0, 1], and its images where they are to be registered."""

    masks: Float[Tensor, "batch way shot height width"]
    images: Float[Tensor, "batch way shot channel height width"] | None = None

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
    registration: lay each support image over each query image by an affine map first, and move the
        mask with it (see `fewshot_seg.registration`); a pair that gets no better stays unmoved.
    """

    def __init__(self, *, floor: float = 1e-6, registration: bool = False) -> None:
        super().__init__()
        if not 0 < floor < 0.5:
            raise ValueError(f"floor must lie between 0 and 0.5; got {floor}")
        self.floor, self.registration = floor, registration

    def encode_support(self, support: Support) -> CopyState:
        return CopyState(support.masks, support.images if self.registration else None)

    def segment(
        self, state: CopyState, query_images: Float[Tensor, "batch query channel height width"]
    ) -> Float[Tensor, "batch query label height width"]:
        """Log-probabilities. Raises ValueError when the query has another size than the support."""
        masks = state.masks.float()
        if masks.shape[-2:] != query_images.shape[-2:]:
            raise ValueError(
                f"copy needs query images of the support's size {tuple(masks.shape[-2:])}; "
                f"got {tuple(query_images.shape[-2:])}"
            )
        facing = repeat(masks, "b w s h x -> b w s q h x", q=query_images.shape[1])
        if state.images is not None:
            facing = registered(state.images, facing, query_images)
        ways = rearrange(facing.mean(2), "b w q h x -> b q w h x")
        background = (1 - ways.sum(2, keepdim=True)).clamp(min=0)
        return torch.cat([background, ways], 2).clamp(min=self.floor).log()

    def forward(self, episode: Episode) -> Output:
        state = self.encode_support(episode.support)
        logits = self.segment(state, episode.query_images)
        losses = {}
        if self.training and episode.query_labels is not None:
            losses["ce"] = _cross_entropy(logits, episode.query_labels)
        return Output(logits, losses, empty_support=state.empty)


def registered(
    images: Float[Tensor, "batch way shot channel height width"],
    masks: Float[Tensor, "batch way shot query height width"],
    queries: Float[Tensor, "batch query channel height width"],
) -> Float[Tensor, "batch way shot query height width"]:
    """Each mask moved as its image has to move to lie over that query (bilinear, 0 outside)."""
    batch, way, shot, query = masks.shape[:4]
    moving = repeat(images, "b w s c h x -> (b w s q) c h x", q=query)
    fixed = repeat(queries, "b q c h x -> (b w s q) c h x", w=way, s=shot)
    warped = warp(masks.flatten(0, 3).unsqueeze(1), register_slices(moving, fixed))
    return warped.reshape(batch, way, shot, query, *masks.shape[-2:])


def _cross_entropy(
    logits: Float[Tensor, "batch query label height width"],
    labels: Int[Tensor, "batch query height width"],
) -> Float[Tensor, ""]:
    """Mean over scored pixels; 0 when there is none (torch would answer NaN)."""
    flat = labels.flatten(0, 1).long()
    total = F.cross_entropy(logits.flatten(0, 1), flat, ignore_index=IGNORE, reduction="sum")
    return total / (flat != IGNORE).sum().clamp(min=1)
