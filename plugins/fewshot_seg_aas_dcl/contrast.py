"""Dual contrastive learning: prototypes against prototypes, contexts against contexts."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, final

from einops import rearrange, repeat
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from fewshot_seg.binary import way_labels
from fewshot_seg.episode import Episode
from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import full_precision
from fewshot_seg_aas_dcl.cells import Cells, contexts, local_prototypes
from fewshot_seg_aas_dcl.compat import Quirks
from fewshot_seg_aas_dcl.losses import context_loss, global_loss, local_loss
from fewshot_seg_aas_dcl.similarity import PROTOTYPES, class_prototypes

Gating = Callable[[Float[Tensor, "image dim rows cols"]], Float[Tensor, "image dim rows cols"]]


class Auxiliary(NamedTuple):
    """Images without the organ, and a superpixel of each that plays the organ.

    masks: superpixel ids, 0 outside the body.   ids: the drawn one.
    """

    maps: Float[Tensor, "batch auxiliary dim rows cols"]
    masks: Int[Tensor, "batch auxiliary height width"]
    ids: Int[Tensor, "batch auxiliary"]

    @classmethod
    def of(cls, episode: Episode, maps: Float[Tensor, "image dim rows cols"]) -> "Auxiliary":
        """An episode's, with the maps of its images in one row."""
        masks, ids = episode.extras["auxiliary_masks"], episode.extras["auxiliary_ids"]
        return cls(maps.reshape(*masks.shape[:2], *maps.shape[1:]), masks, ids)


class Runs(NamedTuple):
    """One support image of one way each, with the queries that face it; run = (batch way shot).

    query_foreground, query_background: of the query's labels; only `prototype="concat"` reads them.
    """

    query: Float[Tensor, "run query dim rows cols"]
    support: Float[Tensor, "run dim rows cols"]
    masks: Float[Tensor, "run height width"]
    query_foreground: Float[Tensor, "run query height width"]
    query_background: Float[Tensor, "run query height width"]


class DualTerms(NamedTuple):
    """The three losses before their factors."""

    overall: Float[Tensor, ""]
    local: Float[Tensor, ""]
    context: Float[Tensor, ""]


@final
class DualLoss(nn.Module):
    """0.4 L_g + 0.6 L_l + 0.3 L_c.

    factors: of the global, local and context loss.   cells: rows and columns of local vectors, one
    number for both.   prototype: "sum" (official) or "concat", which compares with the query's
    features under its own labels.   quirks: the official code's, all off.
    """

    def __init__(
        self,
        *,
        factors: Sequence[float] = (0.4, 0.6, 0.3),
        temperature: float = 0.1,
        cells: int | Sequence[int] = 4,
        prototype: str = "sum",
        quirks: Quirks | None = None,
    ) -> None:
        super().__init__()
        check_choice("prototype", prototype, PROTOTYPES)
        if len(factors) != 3 or min(factors) < 0:
            raise OptionError(
                f"factors={factors!r} must be three numbers of at least 0: global, local, context"
            )
        if temperature <= 0:
            raise OptionError(f"temperature={temperature} must be positive")
        self.factors, self.temperature = tuple(factors), temperature
        self.cells = _two(cells)
        self.prototype = prototype
        self.quirks = quirks or Quirks()

    def forward(self, runs: Runs, auxiliary: Auxiliary, gate: Gating | None = None) -> DualTerms:
        """gate: applied to maps before contexts are taken from them."""
        with full_precision(runs.query):
            runs = runs._replace(query=runs.query.float(), support=runs.support.float())
            auxiliary = auxiliary._replace(maps=auxiliary.maps.float())
            return DualTerms(
                self._overall(runs, auxiliary),
                self._local(runs, auxiliary),
                self._context(runs, auxiliary, gate),
            )

    def total(self, terms: DualTerms) -> Float[Tensor, ""]:
        """The weighted sum."""
        first, second, third = self.factors
        return first * terms.overall + second * terms.local + third * terms.context

    def _overall(self, runs: Runs, auxiliary: Auxiliary) -> Float[Tensor, ""]:
        drawn = _drawn(auxiliary)
        rest = 1 - drawn
        if self.quirks.drop_label_1:
            rest = rest * (auxiliary.masks != 1)
        negatives = class_prototypes(auxiliary.maps, drawn, rest, self.prototype)
        positive = class_prototypes(runs.support, runs.masks, 1 - runs.masks, self.prototype)
        query = runs.query.mean((-2, -1))
        if self.prototype == "concat":
            query = class_prototypes(
                runs.query, runs.query_foreground, runs.query_background, "concat"
            )
        spread = _for_runs(negatives, positive)
        return global_loss(query, positive, spread, temperature=self.temperature)

    def _local(self, runs: Runs, auxiliary: Auxiliary) -> Float[Tensor, ""]:
        raw = self.quirks.raw_superpixels
        masks = auxiliary.masks.float() if raw else _drawn(auxiliary)
        support = local_prototypes(runs.support, runs.masks, self.cells)
        others = local_prototypes(auxiliary.maps, masks, self.cells)
        return local_loss(
            runs.query.mean((-2, -1)),
            support,
            Cells(*(_for_runs(part, runs.support) for part in others)),
            temperature=self.temperature,
            compat_scrambled_negatives=self.quirks.scrambled_negatives,
            compat_last_only=self.quirks.last_only,
        )

    def _context(self, runs: Runs, auxiliary: Auxiliary, gate: Gating | None) -> Float[Tensor, ""]:
        def vectors(maps: Tensor) -> Tensor:
            flat = maps.reshape(-1, *maps.shape[-3:])
            gated = flat if gate is None else gate(flat)
            found = contexts(gated, self.cells, mixed=self.quirks.mixed_contexts)
            return found.reshape(*maps.shape[:-3], *found.shape[1:])

        others = _for_runs(vectors(auxiliary.maps), runs.support)
        return context_loss(
            vectors(runs.query), vectors(runs.support), others, temperature=self.temperature
        )


def runs_of(
    episode: Episode,
    support: Float[Tensor, "run dim rows cols"],
    query: Float[Tensor, "pair dim rows cols"],
) -> Runs:
    """From maps of every support image and of every pair of it and a query, and the labels."""
    assert episode.query_labels is not None
    masks = episode.support.masks
    labels = way_labels(episode.query_labels, episode.support.n_way)
    labels = repeat(labels, "b w q h x -> (b w s) q h x", s=episode.support.n_shot)
    return Runs(
        query.reshape(len(support), -1, *query.shape[1:]),
        support,
        rearrange(masks, "b w s h x -> (b w s) h x").float(),
        (labels == 1).float(),
        (labels == 0).float(),
    )


def _two(cells: int | Sequence[int]) -> tuple[int, int]:
    both = (cells, cells) if isinstance(cells, int) else tuple(cells)
    if len(both) != 2 or min(both) < 1:
        raise OptionError(f"cells={cells!r} must be a positive number, or rows and columns")
    return both[0], both[1]


def _drawn(auxiliary: Auxiliary) -> Float[Tensor, "batch auxiliary height width"]:
    """1 on the drawn superpixel."""
    return (auxiliary.masks == auxiliary.ids[..., None, None]).float()


def _for_runs(
    tensor: Shaped[Tensor, "batch *rest"],  # noqa: F821
    like: Float[Tensor, "run *other"],  # noqa: F821
) -> Shaped[Tensor, "run *rest"]:  # noqa: F821
    """An episode's auxiliary images serve all its runs."""
    return tensor.repeat_interleave(len(like) // len(tensor), 0)
