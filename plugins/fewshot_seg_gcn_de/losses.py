"""Segmentation losses on probabilities, and the discriminative embedding."""

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot_seg.episode import IGNORE
from fewshot_seg.errors import check_choice
from fewshot_seg.functional import full_precision

MEANS = ("channel", "spatial", "none")
"""Over what maps are averaged before they are compared."""
SMOOTH = 1.0
"""Keeps Dice finite where both sides are empty."""


def dice2d(
    probabilities: Float[Tensor, "task height width"], labels: Int[Tensor, "task height width"]
) -> Float[Tensor, ""]:
    """1 - 2 sum(p y) / (sum p^2 + sum y^2 + 1), mean over tasks, in [0, 1]; 255 is left out."""
    with full_precision(probabilities):
        target, scored = _target(labels)
        found = probabilities.float() * scored
        overlap = (found * target).sum((1, 2))
        total = found.square().sum((1, 2)) + target.square().sum((1, 2))
        return (1 - 2 * overlap / (total + SMOOTH)).mean().clamp(0, 1)


def binary_cross_entropy(
    probabilities: Float[Tensor, "task height width"], labels: Int[Tensor, "task height width"]
) -> Float[Tensor, ""]:
    """Mean over scored pixels of all tasks; a logarithm is at least -100. 0 without such pixels."""
    with full_precision(probabilities):
        target, scored = _target(labels)
        pixels = F.binary_cross_entropy(probabilities.float(), target, reduction="none")
        return (pixels * scored).sum() / scored.sum().clamp_min(1)


def _target(labels: Int[Tensor, "task height width"]) -> tuple[Tensor, Tensor]:
    """Foreground and scored pixels, as numbers."""
    return (labels == 1).float(), (labels != IGNORE).float()


def discriminative_embedding(
    support: Float[Tensor, "batch way shot dim rows cols"],
    query: Float[Tensor, "batch way shot query dim rows cols"],
    *,
    mean: str = "channel",
    present: Bool[Tensor, "batch way"] | None = None,
) -> Float[Tensor, ""]:
    """L_DE: mean over ordered pairs of ways c, k of softplus(d(s_c, q_c) - d(s_c, q_k)).

    d: mean absolute difference over episodes, shots, queries and positions.
    mean: maps are first averaged over "channel" (official), over positions ("spatial") or "none".
    present: ways to compare; a pair counts in the episodes that have both. All when None.
    0, with a graph, when there is no pair, as with one way.
    """
    check_choice("mean", mean, MEANS)
    batch, way = support.shape[:2]
    with full_precision(support):
        ours, theirs = _averaged(support.float(), mean), _averaged(query.float(), mean)
        differences = (ours[:, :, None, :, None] - theirs[:, None]).abs()
        distance = differences.flatten(3).mean(-1)  # batch way way
        gap = distance.diagonal(dim1=1, dim2=2).unsqueeze(2) - distance
        pairs = ~torch.eye(way, dtype=torch.bool, device=support.device).expand(batch, -1, -1)
        if present is not None:
            pairs = pairs & present.unsqueeze(1) & present.unsqueeze(2)
        episodes = pairs.sum(0)
        mean_gap = (gap * pairs).sum(0) / episodes.clamp_min(1)
        counts = episodes > 0
        return (F.softplus(mean_gap) * counts).sum() / counts.sum().clamp_min(1)


def _averaged(maps: Float[Tensor, "*image dim rows cols"], mean: str) -> Tensor:
    """Maps as vectors: "channel" leaves the positions, "spatial" the channels."""
    if mean == "channel":
        return reduce(maps, "... d r c -> ... (r c)", "mean")
    if mean == "spatial":
        return reduce(maps, "... d r c -> ... d", "mean")
    return rearrange(maps, "... d r c -> ... (d r c)")
