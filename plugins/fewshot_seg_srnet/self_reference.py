"""Self-reference regularisation (SRNet, RECONSTRUCTED), for any decoder."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot_seg.episode import IGNORE, Support
from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import EPS, cosine_maps, full_precision, masked_average, resize
from fewshot_seg.interfaces import Step
from fewshot_seg.prototype_sets import NORM_FLOOR, RESIZES, to_grid
from fewshot_seg_srnet.holdout import described_half

HALF = 0.5


@final
class SelfReference(nn.Module):
    """The support, segmented by what the support told, must give the support's masks.

    RECONSTRUCTED from the paper's abstract. self_ref says by what:
        "global": each label's mean over its support images, whatever the decoder, by `scale` times
            cosine; so means must represent their class. Does not vanish where the background is
            heterogeneous, as one mean cannot explain it.
        "full": all that the decoder described; nearly trivial for local prototypes.
        "holdout": what the decoder describes of a random half of the blocks of each support image
            scores the other half. Blocks are `block` x `block` feature positions (ALPNet's cell),
            halved among those that touch the way and among the others.
    class_weights: (background, foreground) weights of the cross-entropy, as `ce_weights` of the
        method; None is unweighted.
    scale, eps: factor and smallest length of the cosine, for "global".
    mask_resize: how masks come to the feature grid for "global", "bilinear" or "area".

    Loss: "self_reference", weighted mean over an image's pixels, then over images. Pixels of other
    ways and held-in pixels are ignored.
    """

    def __init__(
        self,
        *,
        self_ref: str = "global",
        class_weights: Sequence[float] | None = (0.05, 1.0),
        scale: float = 20.0,
        eps: float = NORM_FLOOR,
        block: int = 4,
        mask_resize: str = "bilinear",
    ) -> None:
        super().__init__()
        check_choice("self_ref", self_ref, ("global", "full", "holdout"))
        check_choice("mask_resize", mask_resize, RESIZES)
        weights = (1.0, 1.0) if class_weights is None else tuple(class_weights)
        if len(weights) != 2 or min(weights) < 0 or max(weights) <= 0:
            raise OptionError(
                f"class_weights={class_weights!r} must be two numbers, of background and "
                "foreground, neither negative nor both 0"
            )
        if scale <= 0 or eps <= 0 or block < 1:
            raise OptionError(
                f"scale={scale} and eps={eps} must be positive and block={block} at least 1"
            )
        self.self_ref, self.class_weights = self_ref, weights
        self.scale, self.eps, self.block, self.mask_resize = scale, eps, block, mask_resize

    def forward(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        maps, support = step.features.support, step.episode.support
        with full_precision(maps):
            queries = rearrange(maps.float(), "b w s d r c -> b (w s) d r c")
            size = (support.masks.shape[-2], support.masks.shape[-1])
            labels = support_labels(support)
            if self.self_ref == "global":
                scores = cosine_maps(queries, self._means(maps.float(), support), self.eps)
                logits = resize(self.scale * scores, size)
            elif self.self_ref == "full":
                logits = step.decoder(queries, step.state, size)
            else:
                kept = described_half(support.masks, step.features.grid, self.block)
                state = step.decoder.describe(
                    maps.float(), support.masks * kept, support.backgrounds * kept
                )
                logits = step.decoder(queries, state, size)
                held_in = rearrange(kept > 0, "b w s h x -> b (w s) h x")
                labels = labels.masked_fill(held_in, IGNORE)
            return {"self_reference": _image_mean_loss(logits, labels, self.class_weights)}

    def _means(
        self, maps: Float[Tensor, "batch way shot dim rows cols"], support: Support
    ) -> Float[Tensor, "batch label dim"]:
        """A way's mean over its shots, the background's over all images; background first."""
        grid = (maps.shape[-2], maps.shape[-1])
        inside = to_grid(support.masks, grid, self.mask_resize)
        outside = to_grid(support.backgrounds, grid, self.mask_resize)
        ways = masked_average(maps, inside).mean(2)
        background = masked_average(maps, outside).mean((1, 2)).unsqueeze(1)
        return torch.cat([background, ways], 1)


def support_labels(support: Support) -> Int[Tensor, "batch image height width"]:
    """Label maps of the images (way shot): k on the k-th way, 0 on background, 255 elsewhere."""
    ways = torch.arange(1, support.n_way + 1, device=support.masks.device)
    unknown = torch.full_like(support.masks, IGNORE, dtype=torch.long)
    labels = torch.where(support.backgrounds > HALF, 0, unknown)
    labels = torch.where(support.masks > HALF, rearrange(ways, "w -> w 1 1 1"), labels)
    return rearrange(labels, "b w s h x -> b (w s) h x")


def _image_mean_loss(
    logits: Float[Tensor, "batch image label height width"],
    labels: Int[Tensor, "batch image height width"],
    class_weights: tuple[float, ...],
) -> Float[Tensor, ""]:
    """Weighted cross-entropy of each image, mean over images; 0 for an image without any label."""
    background, foreground = class_weights
    pixel = F.cross_entropy(
        rearrange(logits.float(), "b i l h x -> (b i) l h x"),
        rearrange(labels, "b i h x -> (b i) h x"),
        ignore_index=IGNORE,
        reduction="none",
    )
    target = rearrange(labels, "b i h x -> (b i) h x")
    weight = torch.where(target == 0, background, foreground) * (target != IGNORE)
    return ((pixel * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(EPS)).mean()
