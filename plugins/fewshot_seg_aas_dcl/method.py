"""The whole network: support branch, then query branch, refinement and, in training, losses."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, final

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.binary import empty_ways, label_logits, silence_empty
from fewshot_seg.episode import Episode, Output, Support
from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import mean_probability_logits, segmentation_loss
from fewshot_seg.interfaces import Images
from fewshot_seg.needs import require
from fewshot_seg_aas_dcl.blocks import convolutions, head, initialise
from fewshot_seg_aas_dcl.compat import Quirks
from fewshot_seg_aas_dcl.contrast import Auxiliary, DualLoss, DualTerms, runs_of
from fewshot_seg_aas_dcl.iterative import ConstrainedIteration, Iterates, Pair, target_similarity
from fewshot_seg_aas_dcl.network import STRIDE, QueryBranch, SupportBranch, TwoBranch
from fewshot_seg_aas_dcl.segmentation import CE_SHARE, soft_dice_loss
from fewshot_seg_aas_dcl.similarity import SimPrior


class SupportState(NamedTuple):
    """The support branch of each run (batch way shot), and the masks."""

    branch: SupportBranch
    masks: Float[Tensor, "batch way shot height width"]


class Answer(NamedTuple):
    """Of every pair of run and query: all iterates, and the query's maps."""

    iterates: Iterates
    query: QueryBranch


@final
class AASDCL(nn.Module):
    """Two gated U-Nets with constrained iterative prediction and dual contrastive losses.

    width: channels of the first of five levels (32 in the paper, so 512 at the bottleneck).
    in_channels: of images; grey ones are repeated.   iterations: of the refinement, 0 for none.
    prototype: "sum" (official) or "concat", see `class_prototypes`.   cells, temperature, factors:
        of the dual loss, see `DualLoss`.
    supervise: which iterates the segmentation losses act on: "all" alike, or the "selected" one of
        each pair only, which leaves the others untrained and yet to be selected at test.
    lambda_s, lambda_d: weights of the losses "cip" and "dual" (not in the official code).
    compat: quirks of the official code to reproduce, by name or several; "official" is all, see
        `fewshot_seg_aas_dcl.compat.Quirks`.

    Every shot of every way is a two-class run of its own; probabilities are averaged over shots,
    and ways joined by their log-odds. Losses: "ce", "dice" (weights 0.8 and 0.2), "cip" (how ill
    the last iterate fits), "dual". In training with labels the episode must bring auxiliary images
    (EpisodeError).
    Raises ValueError for images whose sides are not multiples of 16, that have only 16 x 16 pixels
    (one position at the bottleneck has no variance), or with other channels.
    """

    needs: ClassVar[tuple[str, ...]] = ("auxiliary",)
    TRAINING: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adam",
        "lr": 1e-4,
        "weight_decay": 0.0,
        "schedule": "cosine",
        "episodes_per_step": 1,
        "steps": 100_000,
    }
    EPISODES: ClassVar[Mapping[str, Any]] = {"source": "supervised", "auxiliary": 3}

    def __init__(
        self,
        *,
        width: int = 32,
        in_channels: int = 3,
        iterations: int = 5,
        prototype: str = "sum",
        cells: int | Sequence[int] = 4,
        temperature: float = 0.1,
        factors: Sequence[float] = (0.4, 0.6, 0.3),
        supervise: str = "all",
        lambda_s: float = 1.0,
        lambda_d: float = 1.0,
        compat: str | Sequence[str] = (),
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("width", width, 1),
            ("in_channels", in_channels, 1),
            ("lambda_s", lambda_s, 0),
            ("lambda_d", lambda_d, 0),
        ):
            if value < least:
                raise OptionError(f"{name}={value} must be at least {least}")
        check_choice("supervise", supervise, ("all", "selected"))
        self.supervise = supervise
        self.quirks = Quirks.named(compat)
        minmax, norm = self.quirks.minmax, self.quirks.norm
        self.weights = {"ce": CE_SHARE, "dice": 1 - CE_SHARE, "cip": lambda_s, "dual": lambda_d}
        self.network = TwoBranch(width=width, in_channels=in_channels, norm=norm)
        self.prior = SimPrior(minmax=minmax, prototype=prototype)
        dim = self.network.dim
        self.fuse = convolutions((dim + self.prior.channels(dim), dim), norm)
        self.head = head(width)
        self.refine = ConstrainedIteration(
            width=width, iterations=iterations, minmax=minmax, prototype=prototype, norm=norm
        )
        self.dual = DualLoss(
            factors=factors,
            temperature=temperature,
            cells=cells,
            prototype=prototype,
            quirks=self.quirks,
        )
        initialise(self)

    def forward(self, episode: Episode) -> Output:
        """Segment the query; with labels and in training mode, give the losses too."""
        learns = self.training and episode.query_labels is not None
        if learns:
            require(episode, "auxiliary", by="aas_dcl")
        state = self.encode_support(episode.support)
        answer = self._answer(state, episode.query_images)
        logits = self._join(state, answer.iterates.best())
        empty = empty_ways(state.masks)
        if not learns:
            return Output(silence_empty(logits, empty), empty_support=empty)
        losses, terms = self._losses(episode, state, answer, logits)
        parts = {f"dual_{name}": value.detach() for name, value in terms._asdict().items()}
        return Output(logits, losses, self.weights, empty, diagnostics=parts)

    def encode_support(self, support: Support) -> SupportState:
        """Run the support branch, which no query changes."""
        images = rearrange(support.images, "b w s c h x -> (b w s) c h x")
        masks = support.masks.float()
        flat = rearrange(masks, "b w s h x -> (b w s) h x")
        return SupportState(self.network.support(self._images(images), flat), masks)

    def segment(
        self,
        state: SupportState,
        query_images: Float[Tensor, "batch query channel height width"],
    ) -> Float[Tensor, "batch query label height width"]:
        """Logits of the query images by the encoded support, whose size they must have."""
        if state.masks.shape[-2:] != query_images.shape[-2:]:
            raise ValueError(
                f"query images must have the support's size {tuple(state.masks.shape[-2:])}; "
                f"got {tuple(query_images.shape[-2:])}"
            )
        logits = self._join(state, self._answer(state, query_images).iterates.best())
        return silence_empty(logits, empty_ways(state.masks))

    def _answer(self, state: SupportState, query_images: Tensor) -> Answer:
        """Every query by every run of its episode, in the order (batch way shot query)."""
        batch, queries = query_images.shape[:2]
        runs = state.masks.shape[1] * state.masks.shape[2]
        images = self._images(rearrange(query_images, "b q c h x -> (b q) c h x"))
        first = repeat(self.network.first(images), "(b q) d h x -> (b n q) d h x", b=batch, n=runs)
        support = state.branch.repeat(queries)
        query = self.network.query(first, support)
        target = target_similarity(support.levels, query.levels, self.refine.minmax)
        masks = repeat(state.masks, "b w s h x -> (b w s q) h x", q=queries)
        iterates = self.refine(query.decoded, support.decoded, masks, target, self.head)
        return Answer(iterates, query)

    def _join(
        self, state: SupportState, answers: Pair, iterates: int = 1
    ) -> Float[Tensor, "iterate_batch query label height width"]:
        """Mean probability over shots, then ways by their log-odds.

        answers: of every (iterate batch way shot query); the iterates stay along the batch axis.
        """
        batch, ways, shots = state.masks.shape[:3]
        runs = rearrange(
            answers, "(b w s q) l h x -> s b q w l h x", b=iterates * batch, w=ways, s=shots
        )
        background, way = mean_probability_logits(runs, label_axis=4).unbind(3)
        return label_logits(way - background)

    def _losses(
        self, episode: Episode, state: SupportState, answer: Answer, logits: Tensor
    ) -> tuple[dict[str, Tensor], DualTerms]:
        labels = episode.query_labels
        assert labels is not None
        terms = self._contrast(episode, state, answer.query)
        if self.supervise == "all":
            every = answer.iterates.logits
            logits = self._join(state, every.flatten(0, 1), len(every))
            labels = labels.repeat(len(every), 1, 1, 1)
        losses = {
            "ce": segmentation_loss(logits, labels),
            "dice": soft_dice_loss(logits, labels, joint=self.quirks.joint_dice),
            "cip": answer.iterates.scores[-1].mean(),
            "dual": self.dual.total(terms),
        }
        return losses, terms

    def _contrast(self, episode: Episode, state: SupportState, query: QueryBranch) -> DualTerms:
        images = rearrange(episode.extras["auxiliary_images"], "b a c h x -> (b a) c h x")
        auxiliary = Auxiliary.of(episode, self.network.bottleneck(self._images(images)))
        fused = self.fused(state, query)
        runs = runs_of(episode, state.branch.levels[-1], fused)
        return self.dual(runs, auxiliary, self.gated)

    def fused(
        self, state: SupportState, query: QueryBranch
    ) -> Float[Tensor, "image dim rows cols"]:
        """The query's bottleneck with the similarity prior, of every pair: z, for the dual loss
        only; the decoder never sees it."""
        support = state.branch.levels[-1]
        masks = rearrange(state.masks, "b w s h x -> (b w s) h x")
        queries = len(query.levels[-1]) // len(support)
        described = self.prior.describe(
            support.repeat_interleave(queries, 0), masks.repeat_interleave(queries, 0)
        )
        coarse = query.levels[-1]
        return self.fuse(torch.cat([coarse, self.prior(described, coarse)], 1))

    def gated(
        self, maps: Float[Tensor, "image dim rows cols"]
    ) -> Float[Tensor, "image dim rows cols"]:
        """Bottleneck maps, each by its own gate."""
        return self.network.gates[-1](maps) * maps

    def _images(self, images: Images) -> Float[Tensor, "image wanted height width"]:
        """With the network's channels. Raises ValueError for what it cannot take."""
        channels, height, width = images.shape[1:]
        if height % STRIDE or width % STRIDE:
            raise ValueError(
                f"aas_dcl needs images whose height and width are multiples of {STRIDE}; "
                f"got {height}x{width}"
            )
        if height == width == STRIDE:
            raise ValueError(f"aas_dcl needs images larger than {STRIDE}x{STRIDE} pixels")
        wanted = self.network.in_channels
        if channels not in (1, wanted):
            raise ValueError(
                f"the images have {channels} channels but aas_dcl was built for {wanted}"
            )
        return images.expand(-1, wanted, -1, -1)
