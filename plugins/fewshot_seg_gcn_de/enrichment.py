"""Global correlation as an enrichment of any pipeline."""

from dataclasses import replace
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.episode import Features
from fewshot_seg.errors import check_choice
from fewshot_seg.interfaces import Latent
from fewshot_seg_gcn_de.attention import NonLocal, attend
from fewshot_seg_gcn_de.correlation import half, start_at_zero

SMALLEST = 1e-4
"""Share of foreground that a key counts with at least, so that an empty mask leaves the softmax as
it is without a mask."""


@final
class GlobalCorrelation(nn.Module):
    """Every query position gathers from all support positions what resembles it.

    query + BN(1x1(softmax(theta(query) phi(support)) g(support))), BN starting at zero: at first
    the identity. The support's features stay as they are.

    mask: how the support mask is used. "channel": phi and g see it beside the features, as the
        conditioner sees it beside the image; "keys": a position counts by its share of foreground;
        "none": not at all.
    supports: "joint": one softmax over the positions of all shots and ways; "average": one for each
        support image, then the mean.

    Grids are at least 2x2 (keys are pooled): ValueError otherwise.
    """

    def __init__(self, *, dim: int, mask: str = "channel", supports: str = "joint") -> None:
        super().__init__()
        check_choice("mask", mask, ("channel", "keys", "none"))
        check_choice("supports", supports, ("joint", "average"))
        self.dim, self.mask, self.supports = dim, mask, supports
        source_dim = dim + 1 if mask == "channel" else dim
        self.correlate = NonLocal(dim=dim, inner=half(dim), source_dim=source_dim)
        self.expand = nn.Conv2d(half(dim), dim, kernel_size=1)
        self.norm = start_at_zero(nn.BatchNorm2d(dim))

    def forward(self, features: Features, latent: Latent) -> Features:
        rows, cols = features.grid
        if min(rows, cols) < 2:
            raise ValueError(f"global_correlation needs a grid of 2x2 or more; got {rows}x{cols}")
        batch, queries = features.query.shape[:2]
        flat = rearrange(features.query, "b q d r c -> (b q) d r c")
        theta = self.correlate.at_places(flat, batch)
        gathered = self._gather(theta, features).to(flat.dtype)
        y = rearrange(gathered, "b (q r c) i -> (b q) i r c", q=queries, r=rows, c=cols)
        richer = flat + self.norm(self.expand(y))
        return replace(features, query=rearrange(richer, "(b q) d r c -> b q d r c", b=batch))

    def _gather(
        self, theta: Float[Tensor, "batch position inner"], features: Features
    ) -> Float[Tensor, "batch position inner"]:
        batch, way, shot = features.support.shape[:3]
        phi, g = self.correlate.of_sources(self._sources(features))
        bias = self._bias(features) if self.mask == "keys" else None
        if self.supports == "joint":
            phi, g = (rearrange(t, "(b n) k i -> b (n k) i", b=batch) for t in (phi, g))
            bias = None if bias is None else rearrange(bias, "(b n) k -> b (n k)", b=batch)
            return attend(theta, phi, g, bias)
        each = attend(theta.repeat_interleave(way * shot, 0), phi, g, bias)
        return reduce(each, "(b n) p i -> b p i", "mean", b=batch)

    def _sources(self, features: Features) -> Float[Tensor, "image dim rows cols"]:
        maps = rearrange(features.support, "b w s d r c -> (b w s) d r c")
        if self.mask != "channel":
            return maps
        masks = rearrange(features.support_masks, "b w s r c -> (b w s) 1 r c")
        return torch.cat([maps, masks.to(maps.dtype)], 1)

    def _bias(self, features: Features) -> Float[Tensor, "image key"]:
        """log of the share of foreground in the 2x2 cells behind each key."""
        masks = rearrange(features.support_masks, "b w s r c -> (b w s) 1 r c")
        share = F.avg_pool2d(masks.float(), 2).clamp_min(SMALLEST)
        return rearrange(share.log(), "n 1 r c -> n (r c)")
