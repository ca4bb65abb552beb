"""The dual contrastive losses for any pipeline."""

from collections.abc import Sequence
from typing import ClassVar, final

from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import check_choice
from fewshot_seg.interfaces import Step
from fewshot_seg.needs import require
from fewshot_seg_aas_dcl.contrast import Auxiliary, DualLoss, runs_of


@final
class DualContrast(nn.Module):
    """Support prototypes and contexts attract the query's, those of auxiliary images repel them.

    query: "enriched" takes the query's features after the pipeline's enrichment and those of the
        support before, as AAS-DCL does; "encoded" takes both before. Auxiliary images are encoded
        only, so both agree without an enrichment.
    prototype, cells, temperature, factors: see `DualLoss`. A pipeline has no gates, so contexts are
        taken from the maps as they are.

    Loss: "dual", the weighted sum of the global, local and context loss, mean over episodes, ways,
    shots and queries. Needs auxiliary images (EpisodeError), any decoder, any number of ways.
    """

    needs: ClassVar[tuple[str, ...]] = ("auxiliary",)

    def __init__(
        self,
        *,
        query: str = "enriched",
        prototype: str = "sum",
        cells: int | Sequence[int] = 4,
        temperature: float = 0.1,
        factors: Sequence[float] = (0.4, 0.6, 0.3),
    ) -> None:
        super().__init__()
        check_choice("query", query, ("enriched", "encoded"))
        self.query = query
        self.dual = DualLoss(
            prototype=prototype, cells=cells, temperature=temperature, factors=factors
        )

    def forward(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        require(step.episode, "auxiliary", by="contrastive 'dual'")
        features = step.features if self.query == "enriched" else step.before
        support = rearrange(step.before.support, "b w s d r c -> (b w s) d r c")
        runs = step.before.support.shape[1] * step.before.support.shape[2]
        pairs = repeat(features.query, "b q d r c -> (b n q) d r c", n=runs)
        terms = self.dual(runs_of(step.episode, support, pairs), _auxiliary(step))
        return {"dual": self.dual.total(terms)}


def _auxiliary(step: Step) -> Auxiliary:
    """Encoded once, however many latent samples repeat the episodes."""
    if step.encode is None:
        raise ValueError("the dual contrastive loss needs `Step.encode` for its auxiliary images")
    images = step.episode.extras["auxiliary_images"]
    distinct = images[: len(images) // step.samples]
    maps = step.encode(rearrange(distinct, "b a c h x -> (b a) c h x"))
    return Auxiliary.of(step.episode, maps.repeat(step.samples, 1, 1, 1))
