"""The gate of a site (SE_AC in the official code): the support says where the query matters."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn


@final
class Gate(nn.Module):
    """query * sigmoid(1x1 convolution of the support's map to one channel).

    Position by position: the method relies on anatomy lying alike in both images.
    support: one map for each pair of support image and way; query: one or several in a row for each
    of them. `dim` channels.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, 1, kernel_size=1)

    def forward(
        self,
        support: Float[Tensor, "pair dim rows cols"],
        query: Float[Tensor, "task dim rows cols"],
    ) -> Float[Tensor, "task dim rows cols"]:
        return weigh(query, self.conv(support))


def weigh(
    query: Float[Tensor, "task dim rows cols"], logits: Float[Tensor, "pair 1 rows cols"]
) -> Float[Tensor, "task dim rows cols"]:
    """The query times the sigmoid of its pair's gate."""
    return query * for_tasks(logits.sigmoid(), query)


def for_tasks(
    maps: Float[Tensor, "pair any rows cols"], query: Float[Tensor, "task dim rows cols"]
) -> Float[Tensor, "task any rows cols"]:
    """Maps of the pairs, repeated for the queries in a row that belong to each."""
    times = query.shape[0] // maps.shape[0]
    return maps if times == 1 else maps.repeat_interleave(times, 0)
