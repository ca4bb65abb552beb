"""Global correlation of a site: the official repository's variants, all from support and query.

Each takes one support map for each pair (support image and way) and one or several query maps in a
row for each of them, and gives the query maps back changed.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import check_choice
from fewshot_seg_gcn_de.attention import NonLocal
from fewshot_seg_gcn_de.gate import Gate, for_tasks, weigh
from fewshot_seg_gcn_de.global_context import GlobalContext

PairMaps = Float[Tensor, "pair dim rows cols"]
TaskMaps = Float[Tensor, "task dim rows cols"]


def half(dim: int) -> int:
    """Channels of the correlation."""
    return max(dim // 2, 1)


@final
class Residual(nn.Module):
    """query + BN(1x1(y)), with weight and bias of the BN starting at zero: at first the identity.

    frame: "query": y = softmax(theta(query) phi(support)) g(support) ("default", nlc_type 1 of
        the later file); "support": theta of the support, phi and g of the query ("swap", first
        file), whose y lies in the support's frame.
    """

    def __init__(self, *, dim: int, frame: str) -> None:
        super().__init__()
        check_choice("frame", frame, ("query", "support"))
        self.frame = frame
        self.correlate = NonLocal(dim=dim, inner=half(dim))
        self.expand = nn.Conv2d(half(dim), dim, kernel_size=1)
        self.norm = start_at_zero(nn.BatchNorm2d(dim))

    def forward(self, support: PairMaps, query: TaskMaps) -> TaskMaps:
        if self.frame == "query":
            y = self.correlate(query, support)
        else:
            y = self.correlate(for_tasks(support, query), query)
        return query + self.norm(self.expand(y))


@final
class CorrelationGate(nn.Module):
    """query * sigmoid(1x1(y) to one channel); weight and bias start at zero: at first query / 2.

    source: "cross": y of query and support, as in the default ("gate", nlc_type 2); "joint": theta,
        phi, g of both maps joined, and twice the channels (nlc_type 4); "self": of the support
        alone (SE_AC_nlc).
    """

    def __init__(self, *, dim: int, source: str) -> None:
        super().__init__()
        check_choice("source", source, ("cross", "joint", "self"))
        self.source = source
        inner = dim if source == "joint" else half(dim)
        self.correlate = NonLocal(dim=2 * dim if source == "joint" else dim, inner=inner)
        self.squeeze = start_at_zero(nn.Conv2d(inner, 1, kernel_size=1))

    def forward(self, support: PairMaps, query: TaskMaps) -> TaskMaps:
        if self.source == "cross":
            y = self.correlate(query, support)
        elif self.source == "joint":
            both = torch.cat([for_tasks(support, query), query], 1)
            y = self.correlate(both, both)
        else:
            y = self.correlate(support, support)
        return weigh(query, self.squeeze(y))


@final
class SelfSumGate(nn.Module):
    """query * sigmoid(1x1(support + 1x1(y))), y of the support alone (SE_AC_nlc2).

    The inner 1x1 gives one channel, starts at zero and is added to every channel of the support.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.correlate = NonLocal(dim=dim, inner=half(dim))
        self.squeeze = start_at_zero(nn.Conv2d(half(dim), 1, kernel_size=1))
        self.gate = Gate(dim=dim)

    def forward(self, support: PairMaps, query: TaskMaps) -> TaskMaps:
        return self.gate(support + self.squeeze(self.correlate(support, support)), query)


def start_at_zero(layer: nn.Module) -> nn.Module:
    """The layer with weight and bias zero, so that its branch adds nothing at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


KINDS: Mapping[str, Any] = {
    "default": partial(Residual, frame="query"),
    "swap": partial(Residual, frame="support"),
    "gate": partial(CorrelationGate, source="cross"),
    "joint": partial(CorrelationGate, source="joint"),
    "self": partial(CorrelationGate, source="self"),
    "self_sum_gate": SelfSumGate,
    "gcnet": GlobalContext,
}
"""The variants of global correlation by name."""


def interaction(kind: str, *, dim: int) -> nn.Module:
    """A site's module for maps of `dim` channels. Raises OptionError for an unknown kind."""
    check_choice("kind", kind, KINDS)
    return KINDS[kind](dim=dim)
