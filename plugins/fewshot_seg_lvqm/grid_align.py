"""Alignment from grid prototypes alone: SSL-ALPNet's regularisation, as LVQM trains with it."""

from dataclasses import replace
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.interfaces import QueryLogits, QueryMaps, Step, SupportMaps, SupportMasks
from fewshot_seg.registry import Registry
from fewshot_seg_lvqm.decoder import VQ, Codebooks


@final
class GridAlign(nn.Module):
    """Swap roles: grid prototypes of what the query was predicted to be must segment the support.

    The query's labels come from the step's own decoder, with all its prototypes; what they describe
    is quantised by the grid only. Thresholds and windows are those of a `vq` decoder where the step
    has one, and `vq`'s defaults with any other decoder. A way that the prediction does not contain
    is not skipped.

    Loss: "grid_align", as "align": unweighted cross-entropy over ways times shots.
    """

    def __init__(self) -> None:
        super().__init__()
        self.align = Registry("contrastive").build("align", skip_empty=False)
        self.fallback = VQ(sovq=False, rovq="none")

    def forward(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        rule = step.decoder if isinstance(step.decoder, VQ) else self.fallback
        losses = self.align(replace(step, decoder=_GridOnly(step, rule)))
        return {"grid_align": losses["align"]}


class _GridOnly:
    """A decoder that describes by the grid; the step's own state is left to its own decoder."""

    def __init__(self, step: Step, rule: VQ) -> None:
        self.step, self.rule = step, rule

    def describe(
        self, maps: SupportMaps, masks: SupportMasks, backgrounds: SupportMasks | None = None
    ) -> Codebooks:
        return self.rule.describe_grid(maps, masks, backgrounds)

    def forward(self, maps: QueryMaps, state: Any, size: tuple[int, int]) -> QueryLogits:
        if state is self.step.state:
            return self.step.decoder(maps, state, size)
        return self.rule(maps, state, size)

    def __call__(self, maps: QueryMaps, state: Any, size: tuple[int, int]) -> QueryLogits:
        return self.forward(maps, state, size)
