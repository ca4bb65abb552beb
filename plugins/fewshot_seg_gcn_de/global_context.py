"""Global context pooling (GCNet1 in the official code): one vector of the whole pair, added."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.functional import full_precision
from fewshot_seg_gcn_de.gate import for_tasks


@final
class GlobalContext(nn.Module):
    """query + transform(context), the same vector at every position.

    context: mean of the joined maps (support, query) weighted by a softmax over positions.
    transform: 1x1, layer norm over the channels, ReLU, 1x1; `dim`/2 channels inside.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        inner = max(dim // 2, 1)
        self.score = nn.Conv2d(2 * dim, 1, kernel_size=1)
        self.transform = nn.Sequential(
            nn.Conv2d(2 * dim, inner, kernel_size=1),
            nn.LayerNorm([inner, 1, 1]),
            nn.ReLU(),
            nn.Conv2d(inner, dim, kernel_size=1),
        )

    def forward(
        self,
        support: Float[Tensor, "pair dim rows cols"],
        query: Float[Tensor, "task dim rows cols"],
    ) -> Float[Tensor, "task dim rows cols"]:
        both = torch.cat([for_tasks(support, query), query], 1)
        scores = rearrange(self.score(both), "t 1 r c -> t (r c)")
        with full_precision(query):
            weights = torch.softmax(scores.float(), -1)
            flat = rearrange(both.float(), "t d r c -> t d (r c)")
            context = torch.einsum("tdp,tp->td", flat, weights)
        return query + self.transform(rearrange(context, "t d -> t d 1 1"))
