"""The loop of RP-Net: predict the query's mask, describe the query by it, predict again."""

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError
from fewshot_seg.functional import (
    area_average,
    full_precision,
    masked_average,
    normalise,
    resize,
)
from fewshot_seg_rpnet.context import ContextRelation

HALF = 0.5
COSINE_EPS = 1e-8

Scores = Float[Tensor, "batch query label rows cols"]


class Described(NamedTuple):
    """The support's descriptors and prototypes (background first).

    view: 1, or one for each query where the support was moved to fit that query.
    """

    maps: Float[Tensor, "batch way shot view width rows cols"]
    prototypes: Float[Tensor, "batch view label width"]


class Rounds(NamedTuple):
    """Scores of each step on the feature grid, and the query's descriptors in the last."""

    scores: Float[Tensor, "step batch query label rows cols"]
    maps: Float[Tensor, "batch query way width rows cols"]


class Refinement(nn.Module):
    """Context relation, masked average prototypes and scaled cosine, in a loop.

    dim, radius, width: see `ContextRelation`.   scale: factor on the cosine.
    soft_mask: the next step sees probabilities; False (official) sees them cut at one half, which
        also keeps gradients within a step.
    keep_mask: a cut prediction without a pixel leaves the mask of the step before in place, as the
        loop hardly recovers from an empty one; False hands on the empty mask (official code).
    Raises OptionError for numbers out of range.
    """

    def __init__(
        self,
        *,
        dim: int,
        radius: int = 5,
        width: int = 64,
        scale: float = 20.0,
        soft_mask: bool = False,
        keep_mask: bool = True,
    ) -> None:
        super().__init__()
        if scale <= 0:
            raise OptionError(f"scale={scale} must be positive")
        self.scale, self.soft_mask, self.keep_mask = scale, soft_mask, keep_mask
        self.relation = ContextRelation(dim=dim, radius=radius, width=width)

    def describe(
        self,
        maps: Float[Tensor, "batch way shot view dim rows cols"],
        masks: Float[Tensor, "batch way shot view height width"],
        backgrounds: Float[Tensor, "batch way shot view height width"],
    ) -> Described:
        """Prototypes at the masks' resolution: a way's are the mean over its shots, the background
        is the mean over ways and shots."""
        small = area_average(masks, (maps.shape[-2], maps.shape[-1]))
        described = self.relation(maps.flatten(0, 3), small.flatten(0, 3))
        support = described.unflatten(0, maps.shape[:4])
        with full_precision(maps):
            pooled = resize(support.float(), (masks.shape[-2], masks.shape[-1]))
            ways = masked_average(pooled, masks).mean(2)
            background = masked_average(pooled, backgrounds).mean((1, 2)).unsqueeze(2)
        return Described(support, torch.cat([background, rearrange(ways, "b w v e -> b v w e")], 2))

    def forward(
        self,
        maps: Float[Tensor, "batch query dim rows cols"],
        prototypes: Float[Tensor, "batch view label width"],
        masks: Float[Tensor, "batch query way rows cols"],
        *,
        steps: int,
        size: tuple[int, int],
    ) -> Rounds:
        """`steps` rounds from the query masks `masks`, in [0, 1].

        size: the resolution at which a prediction is cut at one half.
        """
        axes = masks.shape[:3]
        spread = repeat(maps, "b q d r c -> (b q w) d r c", w=axes[2])
        found: list[Scores] = []
        for _ in range(steps):
            if found:
                masks = self.next_masks(found[-1], masks, size)
            described = self.relation(spread, masks.flatten(0, 2)).unflatten(0, axes)
            found.append(self._scores(described, prototypes))
        return Rounds(torch.stack(found), described)

    def next_masks(
        self,
        scores: Scores,
        masks: Float[Tensor, "batch query way rows cols"],
        size: tuple[int, int],
    ) -> Float[Tensor, "batch query way rows cols"]:
        """What the next step takes for the query masks, on the feature grid."""
        grid = (scores.shape[-2], scores.shape[-1])
        probabilities = resize(scores, size).softmax(2)[:, :, 1:]
        if self.soft_mask:
            return area_average(probabilities, grid)
        hard = (probabilities > HALF).to(masks.dtype)
        found = area_average(hard, grid)
        if not self.keep_mask:
            return found
        return torch.where(hard.flatten(3).any(-1)[..., None, None], found, masks)

    def _scores(
        self,
        maps: Float[Tensor, "batch query way width rows cols"],
        prototypes: Float[Tensor, "batch view label width"],
    ) -> Scores:
        """scale x cosine; the background's is the mean over the ways' descriptors."""
        with full_precision(maps):
            unit = normalise(maps.float(), 3, COSINE_EPS)
            vectors = normalise(prototypes, 3, COSINE_EPS).expand(-1, maps.shape[1], -1, -1)
            ways = torch.einsum("bqwerc,bqwe->bqwrc", unit, vectors[:, :, 1:])
            background = torch.einsum("bqwerc,bqe->bqwrc", unit, vectors[:, :, 0])
            return self.scale * torch.cat([background.mean(2, keepdim=True), ways], 2)
