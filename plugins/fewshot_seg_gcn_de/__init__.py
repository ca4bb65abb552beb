"""GCN-DE: global correlation network with discriminative embedding.

L. Sun, C. Li, X. Ding, Y. Huang, Z. Chen, G. Wang, Y. Yu, J. Paisley, "Few-shot medical image
segmentation using a global correlation network with discriminative embedding", Computers in Biology
and Medicine 140 (2022) 105067, arXiv 2012.05440; official code chenxinli001/GCN-DE.

Two ResNet-18 U-Nets, one for support image and mask, one for the query. At nine depths the map of
the support gates that of the query; at some of them a global correlation of all positions does so
instead. A softplus triplet keeps bottleneck maps of one class together and those of other classes
apart. All blocks, networks and losses agree with the official code (tests/test_gcn_de_parts.py);
which of its many variants is the default is our choice (docs/methods/gcn_de.md).
"""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, NamedTuple, final

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fewshot_seg.binary import empty_ways, label_logits, silence_empty, way_labels
from fewshot_seg.encoders.project import check_channels
from fewshot_seg.episode import Episode, Output, Support
from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg_gcn_de.correlation import KINDS
from fewshot_seg_gcn_de.losses import (
    MEANS,
    binary_cross_entropy,
    dice2d,
    discriminative_embedding,
)
from fewshot_seg_gcn_de.network import BOTTLENECK, MULTIPLE, SITES, Conditioner, Segmentor
from fewshot_seg_gcn_de.trunk import WIDTH, check_pretrained, load_pretrained

__all__ = ["GCNDE", "Conditioned"]

ShotOdds = Float[Tensor, "batch way shot query height width"]


class Conditioned(NamedTuple):
    """The conditioner's nine maps of every support image, and the ways without a mask."""

    maps: tuple[Float[Tensor, "batch way shot _dim _rows _cols"], ...]
    empty: Bool[Tensor, "batch way"]


@final
class GCNDE(nn.Module):
    """The whole network. Every way is a binary task, every shot a run of its own.

    correlation_sites: sites, 1 to 9, with a global correlation instead of a gate; [] for none.
    kind: of the correlation: default, swap, gate, joint, self, self_sum_gate or gcnet.
    lambda_de: weight of the discriminative embedding.   de_mean: what its maps are averaged over
        first, "channel" (official), "spatial" or "none".
    width_divisor: divides the channels of both U-Nets, for small machines.
    in_channels: of the images; with 1, several channels (one slice repeated) become their mean.
    pretrained: of both trunks: "none", "imagenet" (as published), or the path of a checkpoint.

    Losses: "dice", "bce", and "discriminative" with two ways or more, which then should be classes
    of the same images. Probabilities are averaged over shots.
    Raises OptionError; ValueError for images whose sides are no multiples of 32.
    """

    TRAINING: ClassVar[Mapping[str, Any]] = {
        "optimizer": "sgd",
        "lr": 1e-2,
        "momentum": 0.99,
        "weight_decay": 1e-4,
        "schedule": "constant",
        "episodes_per_step": 2,
        "steps": 1000,
    }
    EPISODES: ClassVar[Mapping[str, Any]] = {"source": "supervised", "n_way": 2, "shared": True}

    def __init__(
        self,
        *,
        correlation_sites: Collection[int] = (5, 6, 7),
        kind: str = "default",
        lambda_de: float = 0.1,
        de_mean: str = "channel",
        width_divisor: int = 1,
        in_channels: int = 1,
        pretrained: str = "none",
    ) -> None:
        super().__init__()
        check_choice("kind", kind, KINDS)
        check_choice("de_mean", de_mean, MEANS)
        for site in correlation_sites:
            check_choice("correlation_sites", site, SITES)
        if lambda_de < 0:
            raise OptionError(f"lambda_de={lambda_de} must not be negative")
        if in_channels < 1:
            raise OptionError(f"in_channels must be at least 1, not {in_channels}")
        if width_divisor < 1 or WIDTH % width_divisor:
            raise OptionError(f"width_divisor={width_divisor} must divide {WIDTH}")
        width = WIDTH // width_divisor
        check_pretrained(pretrained, width=width)
        self.lambda_de, self.de_mean, self.in_channels = lambda_de, de_mean, in_channels
        self.conditioner = Conditioner(in_channels=in_channels, width=width)
        self.segmentor = Segmentor(
            in_channels=in_channels,
            width=width,
            correlation_sites=correlation_sites,
            kind=kind,
        )
        load_pretrained(pretrained, self.conditioner.trunk, self.segmentor.trunk)

    def forward(self, episode: Episode) -> Output:
        """Segment the query; with labels and in training mode, give the losses too."""
        state = self.encode_support(episode.support)
        odds, bottleneck = self._run(state, episode.query_images)
        losses = {}
        if self.training and episode.query_labels is not None:
            losses = self._losses(odds, episode.query_labels)
            if odds.shape[1] > 1 and self.lambda_de > 0:
                losses["discriminative"] = discriminative_embedding(
                    state.maps[BOTTLENECK - 1], bottleneck, mean=self.de_mean
                )
        return Output(
            _answer(odds, state.empty),
            losses,
            {"discriminative": self.lambda_de},
            empty_support=state.empty,
        )

    def encode_support(self, support: Support) -> Conditioned:
        """Run the conditioner on every labelled image once."""
        images = rearrange(support.images, "b w s c h x -> (b w s) c h x")
        masks = rearrange(support.masks, "b w s h x -> (b w s) h x")
        maps = self.conditioner(self._channels(images), masks)
        axes = dict(zip("bws", support.images.shape[:3], strict=True))
        split = (rearrange(m, "(b w s) d r c -> b w s d r c", **axes) for m in maps)
        return Conditioned(tuple(split), empty_ways(support.masks))

    def segment(
        self,
        state: Conditioned,
        query_images: Float[Tensor, "batch query channel height width"],
    ) -> Float[Tensor, "batch query label height width"]:
        """Logits of the query images by the conditioner's maps."""
        return _answer(self._run(state, query_images)[0], state.empty)

    def _run(
        self,
        state: Conditioned,
        query_images: Float[Tensor, "batch query channel height width"],
    ) -> tuple[ShotOdds, Float[Tensor, "batch way shot query dim rows cols"]]:
        """Log-odds of each way by each shot, and the segmentor's bottleneck maps."""
        batch, way, shot = state.maps[0].shape[:3]
        grey = self._channels(rearrange(query_images, "b q c h x -> (b q) c h x"))
        tasks = repeat(grey, "(b q) c h x -> (b w s q) c h x", b=batch, w=way, s=shot)
        found = self.segmentor(
            tasks, [rearrange(m, "b w s ... -> (b w s) ...") for m in state.maps]
        )
        axes = {"b": batch, "w": way, "s": shot}
        return (
            rearrange(found.logits.float(), "(b w s q) h x -> b w s q h x", **axes),
            rearrange(found.bottleneck, "(b w s q) d r c -> b w s q d r c", **axes),
        )

    def _losses(
        self, odds: ShotOdds, labels: Int[Tensor, "batch query height width"]
    ) -> dict[str, Tensor]:
        target = rearrange(way_labels(labels, odds.shape[1]), "b w q h x -> (b w q) h x")
        probabilities = rearrange(odds.sigmoid().mean(2), "b w q h x -> (b w q) h x")
        return {
            "dice": dice2d(probabilities, target),
            "bce": binary_cross_entropy(probabilities, target),
        }

    def _channels(
        self, images: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image wanted height width"]:
        height, width = images.shape[-2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise ValueError(
                f"gcn_de needs images whose height and width are multiples of {MULTIPLE}; "
                f"got {height}x{width}"
            )
        if self.in_channels == 1:
            return images.mean(1, keepdim=True)
        check_channels(images, self.in_channels)
        return images


def _answer(
    odds: ShotOdds, empty: Bool[Tensor, "batch way"]
) -> Float[Tensor, "batch query label height width"]:
    """Label logits from the log-odds of the shots' mean probability."""
    # log p - log (1 - p) of the mean, without ever forming p: finite for any logit
    yes, no = (torch.logsumexp(F.logsigmoid(sign * odds), 2) for sign in (1, -1))
    return silence_empty(label_logits(rearrange(yes - no, "b w q h x -> b q w h x")), empty)
