"""Prototype alignment regularisation (PANet section 3.4), for any decoder."""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.episode import IGNORE
from fewshot_seg.functional import full_precision
from fewshot_seg.interfaces import Step

HALF = 0.5


class Align(nn.Module):
    """Swap roles: what the query's prediction describes must segment the support.

    skip_empty: a way that the prediction does not contain adds nothing (PANet); False keeps it,
        which works against predicting background everywhere (the medical forks).

    All queries of an episode describe a way jointly, as one image of their height put on top of
    each other; decoders that compare equal positions of two images therefore take one query.

    Loss: "align", cross-entropy of support pixels, background against one way at a time, over ways
    times shots, mean over episodes; 0 where every way is skipped. No gradient through the argmax.
    """

    def __init__(self, *, skip_empty: bool = True) -> None:
        super().__init__()
        self.skip_empty = skip_empty

    def forward(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        features, support = step.features, step.episode.support
        with full_precision(features.query):
            predicted = self._predict(step)
            n_way = features.support.shape[1]
            ways = torch.arange(1, n_way + 1, device=predicted.device)
            masks = (predicted.unsqueeze(1) == rearrange(ways, "w -> 1 w 1 1 1")).float()
            background = repeat((predicted == 0).float(), "b q r c -> b w q r c", w=n_way)
            state = step.decoder.describe(
                rearrange(
                    repeat(features.query.float(), "b q d r c -> b w q d r c", w=n_way),
                    "b w q d r c -> (b w) 1 1 d (q r) c",
                ),
                rearrange(masks, "b w q r c -> (b w) 1 1 (q r) c"),
                rearrange(background, "b w q r c -> (b w) 1 1 (q r) c"),
            )
            height, width = support.masks.shape[-2:]
            logits = step.decoder(
                rearrange(features.support.float(), "b w s d r c -> (b w) s d r c"),
                state,
                (height, width),
            )
            losses = _support_loss(logits, support.masks, support.backgrounds)
            if self.skip_empty:
                present = rearrange(masks.sum((2, 3, 4)) > 0, "b w -> (b w)")
                losses = losses * present.to(losses.dtype)
            return {"align": losses.mean()}

    def _predict(self, step: Step) -> Tensor:
        """Hard labels of the query on the feature grid: batch query rows cols."""
        with torch.no_grad():
            scores = step.decoder(step.features.query.float(), step.state, step.features.grid)
            return scores.argmax(2)


def _support_loss(
    logits: Float[Tensor, "task shot label height width"],
    masks: Float[Tensor, "batch way shot height width"],
    backgrounds: Float[Tensor, "batch way shot height width"],
) -> Float[Tensor, " task"]:
    """Mean over pixels and shots; pixels of other classes of the episode are ignored."""
    target = torch.full_like(masks, IGNORE, dtype=torch.long)
    target = torch.where(backgrounds > HALF, 0, target)
    target = torch.where(masks > HALF, 1, target)
    target = rearrange(target, "b w s h x -> (b w s) h x")
    flat = rearrange(logits.float(), "t s l h x -> (t s) l h x")
    pixel = F.cross_entropy(flat, target, ignore_index=IGNORE, reduction="none")
    scored = (target != IGNORE).sum((1, 2)).clamp_min(1)
    per_shot = pixel.sum((1, 2)) / scored
    return rearrange(per_shot, "(t s) -> t s", t=logits.shape[0]).mean(1)
