"""SENet as a whole method: gates interleave with encoding, so it is no pipeline of parts."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fewshot_seg.binary import empty_ways, label_logits, silence_empty, way_labels
from fewshot_seg.episode import Episode, Output, Support
from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import full_precision
from fewshot_seg.interfaces import Images
from fewshot_seg_senet.arms import Conditioner, Gates, Segmenter
from fewshot_seg_senet.dice import dice_loss
from fewshot_seg_senet.hourglass import STEP


class Conditioning(NamedTuple):
    """What the support says: nine gates for each way and shot, each "batch way shot gate _ _".

    size: height and width of the support images; the gates fit queries of that size only.
    """

    gates: Gates
    empty: Bool[Tensor, "batch way"]
    size: tuple[int, int]


@final
class SENet(nn.Module):
    """Conditioner and segmenter (section 3). Every way is a binary run, folded into the batch.

    conditioner_width, segmenter_width: channels at every stage of the arms, 16 and 64.
    in_channels: of the images both arms read, 1: grey. Colour images, and grey ones that come
        repeated three times, are averaged over their channels; with 3, grey ones are repeated.
    excitation: "spatial" (a gate for each position, all nine sites: the paper's model), "channel"
        (a gate for each channel: its ablation).

    Several shots: the logits are averaged. The answer's background logit is 0 and a way's is its
    log-odds. A way without a marked pixel gets no pixel, and its task no loss.
    Loss: "dice". Raises ValueError for images whose sides are no multiples of 16, or whose size
    differs between support and query.
    """

    TRAINING: ClassVar[Mapping[str, Any]] = {
        "optimizer": "sgd",
        "lr": 1e-3,
        "momentum": 0.99,
        "weight_decay": 1e-4,
        "schedule": "step",
        "step_every": 10_000,
        "step_factor": 0.1,
        "episodes_per_step": 2,
        "steps": 30_000,
    }
    """Both arms jointly; x0.1 every 10 epochs, read as the field's epochs of 1000 steps."""
    EPISODES: ClassVar[Mapping[str, Any]] = {"source": "supervised"}

    def __init__(
        self,
        *,
        conditioner_width: int = 16,
        segmenter_width: int = 64,
        in_channels: int = 1,
        excitation: str = "spatial",
    ) -> None:
        super().__init__()
        check_choice("excitation", excitation, ("spatial", "channel"))
        check_choice("in_channels", in_channels, (1, 3))
        if conditioner_width < 1 or segmenter_width < 1:
            raise OptionError(
                f"conditioner_width={conditioner_width} and segmenter_width={segmenter_width} "
                "must be at least 1"
            )
        self.in_channels = in_channels
        self.conditioner = Conditioner(
            in_channels=in_channels,
            width=conditioner_width,
            channel_gates=segmenter_width if excitation == "channel" else None,
        )
        self.segmenter = Segmenter(in_channels=in_channels, width=segmenter_width)

    def forward(self, episode: Episode) -> Output:
        """Segment the query; with labels and in training mode, give the loss too."""
        state = self.encode_support(episode.support)
        odds = self._odds(state, episode.query_images)
        losses = {}
        if self.training and episode.query_labels is not None:
            labels = way_labels(episode.query_labels, episode.support.n_way)
            with full_precision(odds):
                losses["dice"] = dice_loss(odds, labels, ~state.empty)
        return Output(_answer(state, odds), losses, empty_support=state.empty)

    def encode_support(self, support: Support) -> Conditioning:
        """The gates of every labelled image; `segment` may then be called many times."""
        size = _checked_size(support.images)
        axes = dict(zip("bws", support.images.shape[:3], strict=True))
        images = rearrange(support.images, "b w s c h x -> (b w s) c h x")
        masks = rearrange(support.masks, "b w s h x -> (b w s) h x")
        flat = self.conditioner(self._channels(images), masks)
        gates = (rearrange(gate, "(b w s) g r c -> b w s g r c", **axes) for gate in flat)
        return Conditioning(Gates(*gates), empty_ways(support.masks), size)

    def segment(
        self,
        state: Conditioning,
        query_images: Float[Tensor, "batch query channel height width"],
    ) -> Float[Tensor, "batch query label height width"]:
        """Logits of the query images by the encoded support."""
        return _answer(state, self._odds(state, query_images))

    def _odds(
        self,
        state: Conditioning,
        query_images: Float[Tensor, "batch query channel height width"],
    ) -> Float[Tensor, "batch query way height width"]:
        """Log-odds of each way, from the mean logits over its shots."""
        size = _checked_size(query_images)
        if size != state.size:
            raise ValueError(
                f"support images are {state.size[0]}x{state.size[1]} but query images "
                f"{size[0]}x{size[1]}: SE-Net's gates act position by position"
            )
        batch, query = query_images.shape[:2]
        way, shot = state.gates.encode1.shape[1:3]
        images = self._channels(rearrange(query_images, "b q c h x -> (b q) c h x"))
        tasks = repeat(images, "(b q) c h x -> (b w s q) c h x", b=batch, w=way, s=shot)
        gates = (repeat(g, "b w s g r c -> (b w s q) g r c", q=query) for g in state.gates)
        two = self.segmenter(tasks, Gates(*gates)).float()
        each = rearrange(
            two[:, 1] - two[:, 0], "(b w s q) h x -> b q w s h x", b=batch, w=way, s=shot
        )
        return each.mean(3)

    def _channels(self, images: Images) -> Float[Tensor, "image wanted height width"]:
        given = images.shape[1]
        if given == self.in_channels:
            return images
        if self.in_channels == 1:
            return images.mean(1, keepdim=True)
        if given == 1:
            return repeat(images, "i 1 h x -> i c h x", c=self.in_channels)
        raise ValueError(
            f"the images have {given} channels but this SE-Net was built for {self.in_channels}"
        )


def _answer(
    state: Conditioning, odds: Float[Tensor, "batch query way height width"]
) -> Float[Tensor, "batch query label height width"]:
    return silence_empty(label_logits(odds), state.empty)


def _checked_size(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[-2], images.shape[-1]
    if height % STEP or width % STEP:
        raise ValueError(
            f"SE-Net halves images four times, so their sides must be multiples of {STEP}; "
            f"got {height}x{width}: prepare the scans at another size, or pad them"
        )
    return height, width
