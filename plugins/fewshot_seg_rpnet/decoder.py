"""RP-Net's loop as a decoder for any encoder: `build("panet", decoder="refine")`."""

from typing import NamedTuple, final

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.episode import Episode, Features
from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import (
    area_average,
    cosine_maps,
    full_precision,
    masked_average,
    resize,
)
from fewshot_seg_rpnet.losses import refine_loss
from fewshot_seg_rpnet.refinement import Refinement, Rounds


class Guide(NamedTuple):
    """What the decoder keeps of the support.

    prototypes: of the descriptors.   raw: of the features themselves; both background first.
    overlay: the masks on the feature grid, mean over shots.
    """

    prototypes: Float[Tensor, "batch view label width"]
    raw: Float[Tensor, "batch label dim"]
    overlay: Float[Tensor, "batch way rows cols"]


@final
class Refine(nn.Module):
    """The context relation encoder and the refinement loop on any features.

    Given by `build`: dim (channels), stride (of the features; predictions are cut at one half on a
        grid that much finer, whatever size is asked for).

    start: the first query masks: "prototype" (cosine with masked averages of the features), or
        "copy" (the support's masks as they lie). A decoder sees no images, so it cannot register.
    train_steps, test_steps: rounds of the loop in training and at test.
    radius, width, scale, soft_mask, keep_mask: see `Refinement`.
    gamma: weight gamma^(T - t) of step t's loss; 1 weighs all steps alike.

    Loss: "refine", cross-entropy + Dice loss of every step's answer. It holds the last answer's
    cross-entropy, so recipes give "ce" the weight 0.
    Raises OptionError for values out of range.
    """

    def __init__(
        self,
        *,
        dim: int,
        stride: int = 4,
        start: str = "prototype",
        train_steps: int = 4,
        test_steps: int = 10,
        radius: int = 5,
        width: int = 64,
        scale: float = 20.0,
        soft_mask: bool = False,
        keep_mask: bool = True,
        gamma: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("start", start, ("prototype", "copy"))
        check_steps(train_steps, test_steps, gamma)
        if stride < 1:
            raise OptionError(f"stride={stride} must be at least 1")
        self.dim, self.stride, self.start, self.gamma = dim, stride, start, gamma
        self.train_steps, self.test_steps = train_steps, test_steps
        self.refinement = Refinement(
            dim=dim,
            radius=radius,
            width=width,
            scale=scale,
            soft_mask=soft_mask,
            keep_mask=keep_mask,
        )

    def describe(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot height width"],
        backgrounds: Float[Tensor, "batch way shot height width"] | None = None,
    ) -> Guide:
        """Prototypes of descriptors and of features, and the masks' mean."""
        others = 1 - masks if backgrounds is None else backgrounds
        grid = (maps.shape[-2], maps.shape[-1])
        described = self.refinement.describe(
            maps.unsqueeze(3), masks.unsqueeze(3), others.unsqueeze(3)
        )
        with full_precision(maps):
            ways, background = (
                masked_average(maps.float(), area_average(some, grid)) for some in (masks, others)
            )
            raw = torch.cat([background.mean((1, 2)).unsqueeze(1), ways.mean(2)], 1)
        return Guide(described.prototypes, raw, area_average(masks, grid).mean(2))

    def forward(
        self,
        maps: Float[Tensor, "batch query dim rows cols"],
        state: Guide,
        size: tuple[int, int],
    ) -> Float[Tensor, "batch query label height width"]:
        """The last round's logits. Raises ValueError when start="copy" meets another grid."""
        return _at_size(self._rounds(maps, state), size)

    def learn(
        self, features: Features, state: Guide, episode: Episode
    ) -> tuple[Float[Tensor, "batch query label height width"], dict[str, Float[Tensor, ""]]]:
        """As `forward`, with the loss of all rounds."""
        assert episode.query_labels is not None
        rounds = self._rounds(features.query, state)
        loss = refine_loss(rounds, episode.query_labels, size=episode.size, gamma=self.gamma)
        return _at_size(rounds, episode.size), {"refine": loss}

    def _rounds(self, maps: Float[Tensor, "batch query dim rows cols"], state: Guide) -> Rounds:
        size = (maps.shape[-2] * self.stride, maps.shape[-1] * self.stride)
        return self.refinement(
            maps,
            state.prototypes,
            self._first_masks(maps, state, size),
            steps=self.train_steps if self.training else self.test_steps,
            size=size,
        )

    def _first_masks(
        self, maps: Float[Tensor, "batch query dim rows cols"], state: Guide, size: tuple[int, int]
    ) -> Float[Tensor, "batch query way rows cols"]:
        overlay = state.overlay
        if self.start == "copy" and overlay.shape[-2:] != maps.shape[-2:]:
            raise ValueError(
                f"start='copy' lays the support's masks on the query, but the support has a "
                f"{tuple(overlay.shape[-2:])} feature grid and the query {tuple(maps.shape[-2:])}; "
                "take start='prototype'"
            )
        if self.start == "copy":
            return repeat(overlay, "b w r c -> b q w r c", q=maps.shape[1])
        with full_precision(maps):
            scores = self.refinement.scale * cosine_maps(maps.float(), state.raw)
        nothing = torch.zeros_like(scores[:, :, 1:])
        return self.refinement.next_masks(scores, nothing, size)


def _at_size(rounds: Rounds, size: tuple[int, int]) -> Tensor:
    return resize(rounds.scores[-1], size)


def check_steps(train_steps: int, test_steps: int, gamma: float) -> None:
    """Raise OptionError unless there is a step and a weight."""
    if train_steps < 1 or test_steps < 1 or gamma <= 0:
        raise OptionError(
            f"train_steps={train_steps} and test_steps={test_steps} must be at least 1, "
            f"gamma={gamma} positive"
        )
