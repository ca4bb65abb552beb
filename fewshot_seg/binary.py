"""Several ways by a network that knows foreground and background only.

Every way becomes a task of its own along the batch axis; the answers are joined afterwards.
"""

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot_seg.episode import IGNORE

NEVER = -1e4
"""Logit of a way without support; far below any other, yet finite in 16 bits."""


def way_labels(
    labels: Int[Tensor, "batch query height width"], n_way: int
) -> Int[Tensor, "batch way query height width"]:
    """For each way 1 on its own pixels, 0 elsewhere, and 255 where nothing is scored."""
    ways = torch.arange(1, n_way + 1, device=labels.device)
    spread = repeat(labels, "b q h x -> b w q h x", w=n_way)
    own = (spread == rearrange(ways, "w -> 1 w 1 1 1")).to(labels.dtype)
    return torch.where(spread == IGNORE, torch.full_like(own, IGNORE), own)


def label_logits(
    odds: Float[Tensor, "batch query way height width"],
) -> Float[Tensor, "batch query label height width"]:
    """Logits from each way's log-odds against background: 0 for background, so a pixel goes to
    the most probable way if that is above one half."""
    return torch.cat([torch.zeros_like(odds[:, :, :1]), odds], 2)


def silence_empty(
    logits: Float[Tensor, "batch query label height width"], empty: Bool[Tensor, "batch way"]
) -> Float[Tensor, "batch query label height width"]:
    """No pixel for a way whose support mask is empty."""
    unusable = rearrange(empty, "b w -> b 1 w 1 1")
    return torch.cat([logits[:, :, :1], logits[:, :, 1:].masked_fill(unusable, NEVER)], 2)


def empty_ways(masks: Float[Tensor, "batch way shot height width"]) -> Bool[Tensor, "batch way"]:
    """True for a way without a marked pixel in any of its shots."""
    return ~(masks > 0).flatten(2).any(-1)
