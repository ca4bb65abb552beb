"""The discriminative embedding as a contrastive term of any pipeline."""

from typing import final

from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.binary import way_labels
from fewshot_seg.errors import check_choice
from fewshot_seg.functional import EMPTY, area_average, full_precision, masked_average
from fewshot_seg.interfaces import Step
from fewshot_seg_gcn_de.losses import MEANS, discriminative_embedding


@final
class Discriminative(nn.Module):
    """Features of a way must lie nearer to its own in the query than to those of other ways.

    mean: "spatial" compares a way's mean feature under its mask, "channel" and "none" the masked
        maps position by position, averaged over channels or not.

    A pipeline encodes a query once for all ways, so without masks d(s_c, q_c) and d(s_c, q_k) would
    be equal and the loss log 2 without a gradient: each way's features are therefore cut out by its
    mask, in the query by its label. A way that either side lacks is not compared; an episode of one
    way, or with one way present, adds 0.

    Loss: "discriminative".
    """

    def __init__(self, *, mean: str = "spatial") -> None:
        super().__init__()
        check_choice("mean", mean, MEANS)
        self.mean = mean

    def forward(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        features, labels = step.features, step.episode.query_labels
        assert labels is not None  # contrastive terms are called in training only
        way, shot = features.support.shape[1:3]
        own = way_labels(labels, way)
        masks = area_average((own == 1).float(), features.grid)
        with full_precision(features.query):
            support = self._cut(features.support.float(), features.support_masks.float())
            query = self._cut(
                repeat(features.query.float(), "b q d r c -> b w q d r c", w=way), masks
            )
            present = (features.support_masks.sum((2, 3, 4)) > EMPTY) & (
                masks.sum((2, 3, 4)) > EMPTY
            )
            loss = discriminative_embedding(
                support,
                repeat(query, "b w q d r c -> b w s q d r c", s=shot),
                mean=self.mean,
                present=present,
            )
        return {"discriminative": loss}

    def _cut(
        self,
        maps: Float[Tensor, "batch way image dim rows cols"],
        masks: Float[Tensor, "batch way image rows cols"],
    ) -> Float[Tensor, "batch way image dim _rows _cols"]:
        """Maps under their mask; for "spatial" the mean under it, as a map of one position."""
        if self.mean == "spatial":
            return rearrange(masked_average(maps, masks), "b w i d -> b w i d 1 1")
        return maps * masks.unsqueeze(3)
