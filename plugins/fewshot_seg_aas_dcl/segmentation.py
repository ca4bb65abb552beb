"""Soft Dice for training, and the helper losses of the official code on probabilities."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_seg.episode import IGNORE
from fewshot_seg.functional import full_precision

SMOOTH = 1e-5
CE_SHARE = 0.8
"""Share of cross-entropy beside Dice (official helper losses)."""

Probabilities = Float[Tensor, "image two height width"]
Labels = Int[Tensor, "image height width"]


def soft_dice_loss(
    logits: Float[Tensor, "batch query label height width"],
    labels: Int[Tensor, "batch query height width"],
    *,
    joint: bool = False,
) -> Float[Tensor, ""]:
    """1 - Dice of each way's probabilities over all queries of an episode, mean over ways.

    joint: over background and ways together, as the official code flattens them; that is the mean
        probability of a wrong answer and does not weigh small organs up.
    Pixels labelled 255 are left out; without a scored pixel the loss is 0.
    """
    with full_precision(logits):
        scored = (labels != IGNORE).unsqueeze(2)
        classes = torch.arange(logits.shape[2], device=labels.device)
        wanted = (labels.unsqueeze(2) == classes[:, None, None]).float()
        found = logits.float().softmax(2) * scored
        if not joint:
            wanted, found = wanted[:, :, 1:], found[:, :, 1:]
        axes = (1, 2, 3, 4) if joint else (1, 3, 4)
        overlap, total = (wanted * found).sum(axes), (wanted + found).sum(axes)
        return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def official_dice(probabilities: Probabilities, labels: Labels) -> Float[Tensor, ""]:
    """Dice over all images and both classes at once."""
    wanted = _one_hot(probabilities, labels)
    overlap, total = (probabilities * wanted).sum(), probabilities.sum() + wanted.sum()
    return 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)


def official_bce_dice(probabilities: Probabilities, labels: Labels) -> Float[Tensor, ""]:
    """0.8 binary cross-entropy + 0.2 Dice."""
    bce = F.binary_cross_entropy(probabilities, _one_hot(probabilities, labels))
    return CE_SHARE * bce + (1 - CE_SHARE) * official_dice(probabilities, labels)


def official_ce_dice(probabilities: Probabilities, labels: Labels) -> Float[Tensor, ""]:
    """0.8 cross-entropy + 0.2 Dice; the probabilities go into the cross-entropy as if they were
    logits, so that it cannot fall below 0.31. For parity only: training takes logits."""
    ce = F.cross_entropy(probabilities, labels.long())
    return CE_SHARE * ce + (1 - CE_SHARE) * official_dice(probabilities, labels)


def _one_hot(probabilities: Probabilities, labels: Labels) -> Probabilities:
    classes = torch.arange(probabilities.shape[1], device=labels.device)
    return (labels.unsqueeze(1) == classes[:, None, None]).to(probabilities.dtype)
