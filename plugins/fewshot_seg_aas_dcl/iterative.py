"""Constrained iterative prediction: refine the answer, keep the iterate that fits best."""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import area_average, full_precision
from fewshot_seg_aas_dcl.blocks import convolutions
from fewshot_seg_aas_dcl.network import Levels
from fewshot_seg_aas_dcl.similarity import MINMAX, SimPrior, min_max

Pair = Float[Tensor, "image two height width"]


class Iterates(NamedTuple):
    """All answers, the plain network's first, and how ill each fits (0 is perfect)."""

    logits: Float[Tensor, "iterate image two height width"]
    scores: Float[Tensor, "iterate image"]

    @property
    def selected(self) -> Int[Tensor, " image"]:
        """Index of the smallest score of each image, the last of equal ones."""
        return len(self.scores) - 1 - self.scores.flip(0).argmin(0)

    def best(self) -> Pair:
        """The logits of the selected iterates, picked on the device."""
        return select(self.logits, self.selected)


def select(
    iterates: Float[Tensor, "iterate image *rest"],
    index: Int[Tensor, " image"],
) -> Float[Tensor, "image *rest"]:  # noqa: F821
    """Entry `index[i]` of image i."""
    place = index.reshape(1, -1, *[1] * (iterates.ndim - 2))
    return iterates.gather(0, place.expand(1, *iterates.shape[1:])).squeeze(0)


def target_similarity(
    support: Levels, query: Levels, minmax: str = "global"
) -> Float[Tensor, "image height width"]:
    """Cosine of support and query at the same place, mean over the levels, scaled to [0, 1].

    At the size of the first level; coarser ones are replicated in blocks.
    """
    with full_precision(query[0]):
        size = (query[0].shape[-2], query[0].shape[-1])
        cosines = [
            area_average(F.cosine_similarity(a.float(), b.float(), dim=1), size)
            for a, b in zip(support, query, strict=True)
        ]
        return min_max(torch.stack(cosines).mean(0), minmax)


def mask_similarity(
    logits: Pair, masks: Float[Tensor, "image height width"], minmax: str = "global"
) -> Float[Tensor, "image height width"]:
    """Cosine of an answer's probabilities and the SUPPORT mask's at each pixel, in [0, 1]."""
    with full_precision(logits):
        wanted = torch.stack([1 - masks, masks], 1)
        return min_max(F.cosine_similarity(logits.float().softmax(1), wanted, dim=1), minmax)


def score(
    logits: Pair,
    masks: Float[Tensor, "image height width"],
    target: Float[Tensor, "image height width"],
    minmax: str = "global",
) -> Float[Tensor, " image"]:
    """Mean squared difference of `mask_similarity` and the target: 0 best, at most 1."""
    return (mask_similarity(logits, masks, minmax) - target).square().mean((1, 2))


@final
class ConstrainedIteration(nn.Module):
    """Split the query's features by the last answer, compare them with the support, answer anew.

    width: channels of the features.   iterations: 5 in the official code; 0 leaves the plain
    network.   minmax, prototype: see `SimPrior`.   norm: see `convolutions`.
    Raises OptionError for a negative number of iterations.
    """

    def __init__(
        self,
        *,
        width: int,
        iterations: int = 5,
        minmax: str = "global",
        prototype: str = "sum",
        norm: str = "instance",
    ) -> None:
        super().__init__()
        check_choice("minmax", minmax, MINMAX)
        if iterations < 0:
            raise OptionError(f"iterations={iterations} must not be negative")
        self.iterations, self.minmax = iterations, minmax
        self.prior = SimPrior(minmax=minmax, prototype=prototype)
        if iterations:
            self.merge = convolutions((2 * width, width), norm)
            self.fuse = convolutions((width + self.prior.channels(width), width), norm)

    def forward(
        self,
        query: Float[Tensor, "image width height cols"],
        support: Float[Tensor, "image width height cols"],
        masks: Float[Tensor, "image height cols"],
        target: Float[Tensor, "image height cols"],
        head: nn.Module,
    ) -> Iterates:
        """query, support: the decoders' maps at image size; target: `target_similarity`."""
        described = self.prior.describe(support, masks)
        logits = [head(query)]
        for _ in range(self.iterations):
            classes = rearrange(logits[-1].float().softmax(1), "i two h w -> i two 1 h w")
            split = rearrange(classes * query.unsqueeze(1), "i two d h w -> i (two d) h w")
            merged = self.merge(split)
            prior = self.prior(described, merged)
            logits.append(head(self.fuse(torch.cat([merged, prior], 1))))
        scores = [score(answer, masks, target, self.minmax) for answer in logits]
        return Iterates(torch.stack(logits).float(), torch.stack(scores))
