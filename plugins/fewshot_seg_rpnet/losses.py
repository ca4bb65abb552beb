"""The losses of RP-Net: every step of the loop learns, and the last one aligns prototypes."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_seg.episode import IGNORE
from fewshot_seg.functional import (
    full_precision,
    masked_average,
    normalise,
    resize,
    segmentation_loss,
)
from fewshot_seg_rpnet.refinement import COSINE_EPS, HALF, Described, Rounds

DICE_EPS = 1e-7

Labels = Int[Tensor, "batch query height width"]
SupportMasks = Float[Tensor, "batch way shot view height width"]


def dice_loss(
    logits: Float[Tensor, "batch query label height width"], labels: Labels
) -> Float[Tensor, ""]:
    """1 minus the mean over labels of the soft Dice, whose sums run over all scored pixels."""
    scored = rearrange((labels != IGNORE).float(), "b q h x -> b q 1 h x")
    each = torch.arange(logits.shape[2], device=labels.device)
    truth = scored * (labels.unsqueeze(2) == rearrange(each, "l -> l 1 1"))
    probabilities = scored * logits.float().softmax(2)
    shared, mass = (
        values.sum((0, 1, 3, 4)) for values in (probabilities * truth, probabilities + truth)
    )
    return 1 - (2 * shared / (mass + DICE_EPS)).mean()


def refine_loss(
    rounds: Rounds, labels: Labels, *, size: tuple[int, int], gamma: float = 1.0
) -> Float[Tensor, ""]:
    """Cross-entropy + Dice loss of every step, averaged with weight gamma^(T - t) for step t."""
    with full_precision(rounds.scores):
        losses = torch.stack([_one_step(scores, labels, size) for scores in rounds.scores])
    later = torch.arange(len(losses) - 1, -1, -1, device=losses.device)
    weights = gamma**later
    return (weights * losses).sum() / weights.sum()


def _one_step(scores: Tensor, labels: Labels, size: tuple[int, int]) -> Float[Tensor, ""]:
    logits = resize(scores.float(), size)
    return segmentation_loss(logits, labels) + dice_loss(logits, labels)


def alignment_loss(
    support: Described,
    rounds: Rounds,
    masks: SupportMasks,
    backgrounds: SupportMasks,
    *,
    scale: float,
) -> Float[Tensor, ""]:
    """Roles swapped: prototypes of the query's last prediction must segment the support.

    Cross-entropy of background against one way at a time, over pixels that are either (so not of
    another way); mean over episodes, ways, shots and queries, a way that the prediction does not
    contain counting 0. No gradient passes through the prediction.
    """
    with full_precision(rounds.maps):
        marks = _predicted(rounds)
        maps = rounds.maps.float()
        prototypes = torch.stack([masked_average(maps, one) for one in marks.unbind(3)], 3)
        views = rearrange(support.maps.float(), "b w s v e r c -> b v w s e r c")
        scores = scale * torch.einsum(
            "bqwserc,bqwle->bqwslrc",
            normalise(views, 4, COSINE_EPS).expand(-1, marks.shape[1], *[-1] * 5),
            normalise(prototypes, 4, COSINE_EPS),
        )
        logits = resize(scores, (masks.shape[-2], masks.shape[-1]))
        losses = _support_loss(logits, masks, backgrounds)
        present = marks[:, :, :, 1].flatten(3).any(-1).to(losses.dtype)
        return (losses * present.unsqueeze(3)).mean()


def _predicted(rounds: Rounds) -> Float[Tensor, "batch query way 2 rows cols"]:
    """Background and each way of the last prediction, on the feature grid."""
    found = rounds.scores[-1].detach().argmax(2)
    n_way = rounds.maps.shape[2]
    ways = torch.arange(1, n_way + 1, device=found.device)
    own = found.unsqueeze(2) == rearrange(ways, "w -> 1 1 w 1 1")
    background = (found == 0).unsqueeze(2).expand_as(own)
    return torch.stack([background, own], 3).float()


def _support_loss(
    logits: Float[Tensor, "batch query way shot 2 height width"],
    masks: SupportMasks,
    backgrounds: SupportMasks,
) -> Float[Tensor, "batch query way shot"]:
    """Mean cross-entropy over the scored pixels of each image."""
    target = torch.full_like(masks, IGNORE, dtype=torch.long)
    target = torch.where(backgrounds > HALF, 0, target)
    target = torch.where(masks > HALF, 1, target)
    target = rearrange(target, "b w s v h x -> b v w s h x").expand(-1, logits.shape[1], *[-1] * 4)
    pixels = F.cross_entropy(
        logits.flatten(0, 3), target.flatten(0, 3), ignore_index=IGNORE, reduction="none"
    )
    scored = (target != IGNORE).sum((-2, -1)).clamp_min(1)
    return pixels.sum((-2, -1)).reshape(scored.shape) / scored
