"""The Dice loss of SE-Net: both classes of a binary task, image by image."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot_seg.episode import IGNORE

SMOOTH = 1e-4


def dice_loss(
    odds: Float[Tensor, "batch query way height width"],
    labels: Int[Tensor, "batch way query height width"],
    usable: Bool[Tensor, "batch way"] | None = None,
) -> Float[Tensor, ""]:
    """1 - 2 sum(p y) / (sum p + sum y + 1e-4), mean over background and foreground, then images.

    odds: log-odds of each way against background, so that one sigmoid is the softmax.
    labels: 1 for the way, 0 for the rest, 255 not scored.
    usable: False for a way whose tasks are left out (its support shows nothing); 0 if all are.
    """
    chance = rearrange(odds.float(), "b q w h x -> b w q h x")
    p = torch.stack([torch.sigmoid(-chance), torch.sigmoid(chance)])
    y = torch.stack([labels == 0, labels == 1]).float()
    p = p * (labels != IGNORE)
    overlap = (p * y).sum((-2, -1))
    total = p.sum((-2, -1)) + y.sum((-2, -1))
    losses = (1 - 2 * overlap / (total + SMOOTH)).mean((0, 3))  # batch way
    if usable is None:
        return losses.mean()
    return (losses * usable).sum() / usable.sum().clamp_min(1)
