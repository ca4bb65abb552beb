"""Prototypes of a masked map, and the similarity prior that is made of them."""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import check_choice
from fewshot_seg.functional import full_precision, masked_average, resize

MINMAX = ("global", "per_column")
PROTOTYPES = ("sum", "concat")
TINY = 1e-7
"""Guard of the min-max scaling of a constant map."""


def min_max(
    maps: Float[Tensor, "*batch rows cols"], kind: str = "global"
) -> Float[Tensor, "*batch rows cols"]:
    """Scaled to [0, 1] over the whole map, or within each column ("per_column", official)."""
    axes = (-2, -1) if kind == "global" else (-2,)
    low, high = maps.amin(axes, keepdim=True), maps.amax(axes, keepdim=True)
    return (maps - low) / (high - low + TINY)


def nearest(
    masks: Float[Tensor, "*batch height width"], grid: tuple[int, int]
) -> Float[Tensor, "*batch rows cols"]:
    """Masks at the grid's size without interpolation."""
    flat = masks.reshape(-1, 1, *masks.shape[-2:])
    return F.interpolate(flat, grid, mode="nearest").reshape(*masks.shape[:-2], *grid)


def class_prototypes(
    maps: Float[Tensor, "*batch dim rows cols"],
    foreground: Float[Tensor, "*batch height width"],
    background: Float[Tensor, "*batch height width"],
    combine: str = "sum",
) -> Float[Tensor, "*batch vector"]:
    """One vector of both classes; masks are resized bilinearly, an empty one gives zeros.

    combine: "sum" (official) adds the two prototypes, which forgets which is which; "concat" puts
        them one after the other (vector = 2 dim, foreground first).
    """
    grid = (maps.shape[-2], maps.shape[-1])
    pair = [masked_average(maps, resize(masks, grid)) for masks in (foreground, background)]
    return pair[0] + pair[1] if combine == "sum" else torch.cat(pair, -1)


class Described(NamedTuple):
    """What the prior keeps of a support map: its foreground, and the prototype of both classes."""

    foreground: Float[Tensor, "image dim rows cols"]
    prototypes: Float[Tensor, "image vector"]


@final
class SimPrior(nn.Module):
    """How alike support foreground and query are at the same place, with the support's prototype.

    minmax: "global" scales the cosine over the map, "per_column" within each column (official,
        where it looks like an oversight: it blows up noise in columns without the organ).
    prototype: "sum" (official) or "concat", see `class_prototypes`.
    """

    def __init__(self, *, minmax: str = "global", prototype: str = "sum") -> None:
        super().__init__()
        check_choice("minmax", minmax, MINMAX)
        check_choice("prototype", prototype, PROTOTYPES)
        self.minmax, self.prototype = minmax, prototype

    def channels(self, dim: int) -> int:
        """Of the prior of maps with `dim` channels."""
        return 1 + (dim if self.prototype == "sum" else 2 * dim)

    def describe(
        self,
        maps: Float[Tensor, "image dim rows cols"],
        masks: Float[Tensor, "image height width"],
    ) -> Described:
        """The support's share; masks of any resolution."""
        with full_precision(maps):
            exact = maps.float()
            small = nearest(masks, (maps.shape[-2], maps.shape[-1]))
            prototypes = class_prototypes(exact, masks, 1 - masks, self.prototype)
            return Described(exact * small.unsqueeze(1), prototypes)

    def forward(
        self, support: Described, query: Float[Tensor, "image dim rows cols"]
    ) -> Float[Tensor, "image channels rows cols"]:
        """Channel 0 the scaled cosine, then the prototype at every position."""
        with full_precision(query):
            cosine = F.cosine_similarity(support.foreground, query.float(), dim=1)
            scaled = min_max(cosine, self.minmax).unsqueeze(1)
            rows, cols = query.shape[-2:]
            tiled = repeat(support.prototypes, "i v -> i v r c", r=rows, c=cols)
            return torch.cat([scaled, tiled], 1)
