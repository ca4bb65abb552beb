"""RP-Net: recurrent mask refinement.

H. Tang, X. Liu, S. Sun, X. Yan, X. Xie, "Recurrent Mask Refinement for Few-Shot Medical Image
Segmentation", ICCV 2021, arXiv 2108.00622; official code uci-cbcl/RP-Net (no training script).

The support slice is registered to the query slice, and its warped mask is the query's first mask.
A context relation encoder describes each position by how it correlates with the other side of that
mask nearby; prototypes of the support's descriptors classify the query's; the prediction is the
next mask. Written anew from a description (the code's licence is non-commercial); correlation,
descriptors, U-Net, loop, losses and registration agree with arrays of the official code
(tests/test_rpnet_loop.py, test_rpnet_context.py, test_registration.py). What differs stands in
docs/methods/rpnet.md.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.binary import empty_ways, silence_empty
from fewshot_seg.episode import Episode, Output, Support
from fewshot_seg.errors import OptionError
from fewshot_seg.functional import area_average, resize
from fewshot_seg.registration import LEARNING_RATE, STEPS, THRESHOLD
from fewshot_seg.registry import Registry
from fewshot_seg_rpnet.decoder import check_steps
from fewshot_seg_rpnet.losses import alignment_loss, refine_loss
from fewshot_seg_rpnet.refinement import Described, Refinement, Rounds
from fewshot_seg_rpnet.views import Views, moved, register, unmoved

__all__ = ["RPNet"]

Thetas = Float[Tensor, "batch way shot query 2 3"]
QueryImages = Float[Tensor, "batch query channel height width"]


class _Run(NamedTuple):
    """One pass: the support as it was shown, its description, and the query's rounds."""

    views: Views
    support: Described
    rounds: Rounds


@final
class RPNet(nn.Module):
    """The whole network: registration, encoder, context relation, refinement loop.

    encoder: a registered encoder by name, or {"name": ..., option: value}.
    train_steps, test_steps: rounds of the loop (official configuration: 4 and 10).
    registration: False takes the support image and mask as they lie.
    registration_steps, registration_lr: see `fewshot_seg.registration.register_affine`. Each image
        is registered in [0, 1] by its own extremes, as intensities here are z-scored.
    threshold: fraction from which a warped mask keeps a pixel.
    zero_flow_resample: shrink the query's first mask as the official code does by oversight.
    radius, width, scale, soft_mask, keep_mask: see `Refinement`.
    align: weight of the alignment loss.   gamma: weight gamma^(T - t) of step t; 1 weighs alike.

    Losses: "refine" (cross-entropy + Dice loss of every step), "align".
    An episode's extras["registration"] ("batch way shot query 2 3", see
    `fewshot_seg.data.registered`) is used where given, in place of registering in `forward`.
    Raises OptionError for values out of range; UnknownNameError for the encoder; ValueError for
    image sizes or channels that the encoder does not take.
    """

    TRAINING: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adam",
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "schedule": "step",
        "step_every": 1_500,
        "step_factor": 0.1,
        "episodes_per_step": 12,
        "steps": 5_000,
    }
    EPISODES: ClassVar[Mapping[str, Any]] = {
        "source": "supervised",
        "pairing": "matched",
        "n_way": 1,
    }

    def __init__(
        self,
        *,
        encoder: str | Mapping[str, Any] = "unet",
        train_steps: int = 4,
        test_steps: int = 10,
        registration: bool = True,
        registration_steps: int = STEPS,
        registration_lr: float = LEARNING_RATE,
        threshold: float = THRESHOLD,
        zero_flow_resample: bool = False,
        radius: int = 5,
        width: int = 64,
        scale: float = 20.0,
        soft_mask: bool = False,
        keep_mask: bool = True,
        align: float = 1.0,
        gamma: float = 1.0,
    ) -> None:
        super().__init__()
        check_steps(train_steps, test_steps, gamma)
        if registration_steps < 0 or registration_lr <= 0 or not 0 <= threshold < 1 or align < 0:
            raise OptionError(
                f"registration_steps={registration_steps} and align={align} must not be negative, "
                f"registration_lr={registration_lr} must be positive and threshold={threshold} "
                "in [0, 1)"
            )
        self.encoder = _build_encoder(encoder)
        self.refinement = Refinement(
            dim=self.encoder.dim,  # type: ignore[arg-type]
            radius=radius,
            width=width,
            scale=scale,
            soft_mask=soft_mask,
            keep_mask=keep_mask,
        )
        self.train_steps, self.test_steps = train_steps, test_steps
        self.registration = registration
        self.registration_steps, self.registration_lr = registration_steps, registration_lr
        self.threshold, self.zero_flow_resample = threshold, zero_flow_resample
        self.align, self.gamma = align, gamma

    def forward(self, episode: Episode) -> Output:
        """Segment the query; with labels and in training mode, give the losses too."""
        support, size = episode.support, episode.size
        theta = episode.extras.get("registration") if self.registration else None
        run = self._run(support, episode.query_images, theta)
        losses: dict[str, Tensor] = {}
        if self.training and episode.query_labels is not None:
            views, rounds = run.views, run.rounds
            losses["refine"] = refine_loss(
                rounds, episode.query_labels, size=size, gamma=self.gamma
            )
            losses["align"] = alignment_loss(
                run.support, rounds, views.masks, views.backgrounds, scale=self.refinement.scale
            )
        empty = empty_ways(support.masks)
        logits = silence_empty(resize(run.rounds.scores[-1], size), empty)
        return Output(logits, losses, {"refine": 1.0, "align": self.align}, empty)

    def encode_support(self, support: Support) -> Support:
        """The support itself: which features it has depends on the query it is registered to."""
        return support

    def segment(
        self, state: Support, query_images: QueryImages
    ) -> Float[Tensor, "batch query label height width"]:
        """Logits. Raises ValueError when the query has another size than the support."""
        size = (query_images.shape[-2], query_images.shape[-1])
        if tuple(state.masks.shape[-2:]) != size:
            raise ValueError(
                f"rpnet lays the support over the query, so both need one size; the support is "
                f"{tuple(state.masks.shape[-2:])}, the query {size}"
            )
        run = self._run(state, query_images, None)
        return silence_empty(resize(run.rounds.scores[-1], size), empty_ways(state.masks))

    def _run(self, support: Support, queries: QueryImages, theta: Thetas | None) -> _Run:
        views = self._views(support, queries, theta)
        support_maps, query_maps = self._encode(views, queries)
        described = self.refinement.describe(support_maps, views.masks, views.backgrounds)
        rounds = self.refinement(
            query_maps,
            described.prototypes,
            area_average(views.start, (query_maps.shape[-2], query_maps.shape[-1])),
            steps=self.train_steps if self.training else self.test_steps,
            size=(queries.shape[-2], queries.shape[-1]),
        )
        return _Run(views, described, rounds)

    def _views(self, support: Support, queries: QueryImages, theta: Thetas | None) -> Views:
        if not self.registration:
            return unmoved(support, queries.shape[1])
        if theta is None:
            theta = register(
                support, queries, steps=self.registration_steps, lr=self.registration_lr
            )
        return moved(
            support, theta, threshold=self.threshold, zero_flow_resample=self.zero_flow_resample
        )

    def _encode(self, views: Views, queries: QueryImages) -> tuple[Tensor, Tensor]:
        """Support ("batch way shot view dim rows cols") and query maps, in one pass."""
        axes = views.images.shape[:4]
        images = torch.cat([views.images.flatten(0, 3), queries.flatten(0, 1)])
        wanted = getattr(self.encoder, "in_channels", images.shape[1])
        if images.shape[1] == 1:
            images = images.expand(-1, wanted, -1, -1)
        maps = self.encoder(images)
        support, query = maps.split([axes.numel(), len(images) - axes.numel()])
        return support.unflatten(0, axes), rearrange(query, "(b q) d r c -> b q d r c", b=axes[0])


def _build_encoder(encoder: str | Mapping[str, Any]) -> nn.Module:
    table = {"name": encoder} if isinstance(encoder, str) else dict(encoder)
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise OptionError(
            f'encoder={encoder!r} names no encoder; give a name or {{"name": ..., option: value}}'
        )
    built: nn.Module = Registry("encoder").build(name, **table)
    return built
