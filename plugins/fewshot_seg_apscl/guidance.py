"""The mutual guidance decoder (MGD, APSCL Eq. 9-12)."""

import copy
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import (
    area_average,
    full_precision,
    masked_average,
    normalise,
    resize,
)
from fewshot_seg_apscl.attention import attend
from fewshot_seg_apscl.background import fused_score, local_prototypes
from fewshot_seg_apscl.channel_attention import chan_attn, guide, reweigh

COSINE_EPS = 1e-4


class Described(NamedTuple):
    """What the decoder keeps of the support; `None` where an option does not need it."""

    maps: Float[Tensor, "batch way shot dim position"]
    guides: Float[Tensor, "batch way dim position"]
    foreground: Float[Tensor, "batch way dim"]
    background: Float[Tensor, "batch cell dim"]
    counts: Float[Tensor, "batch cell"]
    key: Float[Tensor, "batch way shot sim_dim position"] | None


class MutualGuidance(nn.Module):
    """Channel attention on the query, masked-average prototypes of the support, cosine.

    Given by `build`: dim (channels).

    scale: factor on the cosine (the paper's formula has none, so 1 is the literal value).
    chan_attn: False leaves Eq. 9-10 out, which is a cosine decoder after h_s, h_q.
    alpha_norm, alpha_combine ("sum", "product"), alpha_side ("left", "right"): see
        `channel_attention`.   alpha_gain: learn a factor on the attention, starting at 1.
    alpha_per_way: attend once for each way instead of once for the mean of all supports.
    cross_source: "raw", or "aligned": the support is laid out on the query's grid by attention
        (with g_q, g_k of the decoder's own) before channels are correlated.   sim_dim: their size.
    h_init: "tied" (two convolutions that start equal), "shared" (one), "independent".
    bg: "prototype" (one mean vector), "grid" (ALPNet's local prototypes), "threshold" (a learned
        cosine, after ADNet).   bg_window: side of the grid's windows in cells.
    map: "mask_down" (area-average the mask) or "feat_up" (bilinear features at mask size).
    """

    def __init__(
        self,
        *,
        dim: int,
        scale: float = 20.0,
        chan_attn: bool = True,
        alpha_norm: str = "corr",
        alpha_combine: str = "sum",
        alpha_side: str = "left",
        alpha_gain: bool = False,
        alpha_per_way: bool = False,
        cross_source: str = "raw",
        sim_dim: int = 64,
        h_init: str = "tied",
        bg: str = "prototype",
        bg_window: int = 4,
        map: str = "mask_down",
    ) -> None:
        super().__init__()
        check_choice("alpha_norm", alpha_norm, ("corr", "softmax", "mean", "none"))
        check_choice("alpha_combine", alpha_combine, ("sum", "product"))
        check_choice("alpha_side", alpha_side, ("left", "right"))
        check_choice("cross_source", cross_source, ("raw", "aligned"))
        check_choice("h_init", h_init, ("tied", "shared", "independent"))
        check_choice("bg", bg, ("prototype", "grid", "threshold"))
        check_choice("map", map, ("mask_down", "feat_up"))
        if scale <= 0 or bg_window < 1 or sim_dim < 1:
            raise OptionError(
                f"scale={scale}, bg_window={bg_window} and sim_dim={sim_dim} must be positive"
            )
        self.scale, self.chan_attn = scale, chan_attn
        self.alpha_norm, self.alpha_combine, self.alpha_side = alpha_norm, alpha_combine, alpha_side
        self.alpha_per_way, self.cross_source = alpha_per_way, cross_source
        self.bg, self.bg_window, self.map = bg, bg_window, map
        self.support_head = nn.Conv2d(dim, dim, 1)
        self.query_head = _second_head(self.support_head, h_init)
        self.gain = nn.Parameter(torch.ones(())) if alpha_gain and chan_attn else None
        self.threshold = nn.Parameter(torch.tensor(0.5)) if bg == "threshold" else None
        aligned = cross_source == "aligned" and chan_attn
        self.align_query = nn.Conv2d(dim, sim_dim, 1) if aligned else None
        self.align_key = nn.Conv2d(dim, sim_dim, 1) if aligned else None

    def describe(
        self,
        maps: Float[Tensor, "batch way shot dim rows cols"],
        masks: Float[Tensor, "batch way shot height width"],
        backgrounds: Float[Tensor, "batch way shot height width"] | None = None,
    ) -> Described:
        """Prototypes and channel statistics of labelled maps."""
        batch, way = maps.shape[:2]
        flat = rearrange(maps, "b w s d r c -> (b w s) d r c")
        heads = self.support_head(flat.float()).float()  # in 16 bits under autocast
        with full_precision(flat):
            z = rearrange(heads, "(b w s) d r c -> b w s d r c", b=batch, w=way)
            others = 1 - masks if backgrounds is None else backgrounds
            fg, bg = self._pool(z, masks), self._pool(z, others)
            cells, counts = bg.mean((1, 2)).unsqueeze(1), z.new_ones(batch, 1)
            if self.bg == "grid":
                grid = (z.shape[-2], z.shape[-1])
                cells, counts = local_prototypes(z, area_average(others, grid), self.bg_window)
            vectors = rearrange(z, "b w s d r c -> b w s d (r c)")
            key = None
            if self.align_key is not None:
                key = rearrange(
                    self.align_key(flat.float()), "(b w s) e r c -> b w s e (r c)", b=batch, w=way
                )
            return Described(
                vectors, guide(vectors, self.alpha_norm), fg.mean(2), cells, counts, key
            )

    def forward(
        self,
        maps: Float[Tensor, "batch query dim rows cols"],
        state: Described,
        size: tuple[int, int],
    ) -> Float[Tensor, "batch query label height width"]:
        """Logits at `size`. Raises ValueError when support and query grids differ (Eq. 9)."""
        batch, rows = maps.shape[0], maps.shape[-2]
        flat = rearrange(maps, "b q d r c -> (b q) d r c")
        heads = self.query_head(flat.float()).float()
        with full_precision(flat):
            vectors = rearrange(heads, "(b q) d r c -> b 1 q d (r c)", b=batch)
            if self.chan_attn:
                vectors = vectors + self._attended(vectors, maps.float(), state)
            views = rearrange(vectors, "b v q d (r c) -> b v q d r c", r=rows)
            return resize(self._scores(views, state), size)

    def _attended(
        self,
        vectors: Float[Tensor, "batch 1 query dim position"],
        maps: Float[Tensor, "batch query dim rows cols"],
        state: Described,
    ) -> Float[Tensor, "batch view query dim position"]:
        """Eq. 9-10; one view for all ways, or one for each way."""
        if state.maps.shape[-1] != vectors.shape[-1] and self.cross_source == "raw":
            raise ValueError(
                f"the support has {state.maps.shape[-1]} feature cells but the query "
                f"{vectors.shape[-1]}: Eq. 9 correlates equal positions, so images must have "
                "one size (or cross_source='aligned')"
            )
        guides = self._guides(maps, state)
        attention = chan_attn(vectors, guides, self.alpha_norm, self.alpha_combine)
        change = reweigh(vectors, attention, self.alpha_side)
        return change if self.gain is None else self.gain * change

    def _guides(
        self, maps: Float[Tensor, "batch query dim rows cols"], state: Described
    ) -> Float[Tensor, "batch view some_query dim position"]:
        """The support's side of the cross term, for each view and query (or one for all)."""
        per_way = state.guides.unsqueeze(2)
        if self.align_query is not None:
            per_way = self._aligned(maps, state)
        return per_way if self.alpha_per_way else per_way.mean(1, keepdim=True)

    def _aligned(
        self, maps: Float[Tensor, "batch query dim rows cols"], state: Described
    ) -> Float[Tensor, "batch way query dim position"]:
        """The support's features carried to the grid of each query by attention (Eq. 4)."""
        assert self.align_query is not None
        assert state.key is not None
        flat = rearrange(maps, "b q d r c -> (b q) d r c")
        n_query, (n_way, n_shot) = maps.shape[1], state.key.shape[1:3]
        query = repeat(
            self.align_query(flat), "(b q) e r c -> b (w s) (q r c) e", q=n_query, w=n_way, s=n_shot
        )
        key = rearrange(state.key, "b w s e l -> b (w s) l e")
        value = rearrange(state.maps, "b w s d l -> b (w s) l d")
        carried = attend(query, key, value)
        carried = rearrange(carried, "b (w s) (q l) d -> (b q) w s d l", q=n_query, w=n_way)
        return rearrange(
            guide(carried, self.alpha_norm), "(b q) w d l -> b w q d l", b=maps.shape[0]
        )

    def _scores(
        self, views: Float[Tensor, "batch view query dim rows cols"], state: Described
    ) -> Float[Tensor, "batch query label rows cols"]:
        """scale x cosine with background and ways; the background is the mean over views."""
        prototypes = rearrange(state.foreground, "b (v w) d -> b v w d", v=views.shape[1])
        cosines = torch.einsum(
            "bvqdrc,bvwd->bqvwrc",
            normalise(views, 3, COSINE_EPS),
            normalise(prototypes, 3, COSINE_EPS),
        )
        ways = self.scale * rearrange(cosines, "b q v w r c -> b q (v w) r c")
        if self.threshold is not None:
            background = (self.scale * self.threshold).expand_as(ways[:, :, :1])
            return torch.cat([background, ways], 2)
        flat = rearrange(views, "b v q d r c -> b (v q) d r c")
        score = fused_score(flat, state.background, state.counts, self.scale, COSINE_EPS)
        background = rearrange(score, "b (v q) r c -> b v q 1 r c", v=views.shape[1]).mean(1)
        return torch.cat([background, ways], 2)

    def _pool(self, z: Tensor, masks: Tensor) -> Float[Tensor, "batch way shot dim"]:
        if self.map == "feat_up":
            return masked_average(resize(z, (masks.shape[-2], masks.shape[-1])), masks)
        return masked_average(z, area_average(masks, (z.shape[-2], z.shape[-1])))


def _second_head(first: nn.Conv2d, init: str) -> nn.Conv2d:
    """h_q. Cosines between two unrelated random maps would be noise, so "tied" starts equal."""
    if init == "shared":
        return first
    if init == "tied":
        return copy.deepcopy(first)
    return nn.Conv2d(first.in_channels, first.out_channels, 1)
