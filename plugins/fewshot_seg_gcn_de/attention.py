"""Correlation of all positions of one map with all of another: the non-local operation.

The affinities of a map with P positions are P x P/4 numbers: 1 MB for each sample on a 32x32 grid,
268 MB at 128x128. So they are never asked for: `scaled_dot_product_attention` sums them up block by
block wherever it has a kernel for that, which is on the CPU and on most GPUs.
"""

from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.functional import full_precision


def attend(
    theta: Float[Tensor, "group position inner"],
    phi: Float[Tensor, "group key inner"],
    g: Float[Tensor, "group key inner"],
    bias: Float[Tensor, "group key"] | None = None,
) -> Float[Tensor, "group position inner"]:
    """softmax over the keys of theta phi^T (+ bias), times g; no 1/sqrt scaling; float32."""
    with full_precision(theta):
        query, key, value = (tensor.float().unsqueeze(1) for tensor in (theta, phi, g))
        mask = None
        if bias is not None:
            mask = repeat(bias.float(), "n k -> n 1 p k", p=theta.shape[1])
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
        return y.squeeze(1)


@final
class NonLocal(nn.Module):
    """y = softmax(theta(places) phi(sources)^T) g(sources), one vector for each place.

    theta, phi, g: 1x1 convolutions to `inner` channels; phi and g are then max-pooled 2x2, which
    leaves a quarter of the keys.   dim: channels of places and sources; source_dim: of the
    sources, where they have others.
    """

    def __init__(self, *, dim: int, inner: int, source_dim: int | None = None) -> None:
        super().__init__()
        self.theta = nn.Conv2d(dim, inner, kernel_size=1)
        self.phi = nn.Conv2d(source_dim or dim, inner, kernel_size=1)
        self.g = nn.Conv2d(source_dim or dim, inner, kernel_size=1)

    def forward(
        self,
        places: Float[Tensor, "task dim rows cols"],
        sources: Float[Tensor, "pair other_dim rows cols"],
    ) -> Float[Tensor, "task inner rows cols"]:
        """Every source serves as many places in a row as come to it."""
        rows, cols = places.shape[-2:]
        theta = self.at_places(places, sources.shape[0])
        y = attend(theta, *self.of_sources(sources))
        return rearrange(
            y.to(places.dtype),
            "p (n r c) i -> (p n) i r c",
            n=places.shape[0] // sources.shape[0],
            r=rows,
            c=cols,
        )

    def at_places(
        self, places: Float[Tensor, "task dim rows cols"], groups: int
    ) -> Float[Tensor, "group position inner"]:
        """theta; the places of a group stand one after the other."""
        return rearrange(self.theta(places), "(p n) i r c -> p (n r c) i", p=groups)

    def of_sources(
        self, sources: Float[Tensor, "pair dim rows cols"]
    ) -> tuple[Float[Tensor, "pair key inner"], Float[Tensor, "pair key inner"]]:
        """phi and g, row by row."""
        phi, g = (F.max_pool2d(layer(sources), 2) for layer in (self.phi, self.g))
        return rearrange(phi, "p i r c -> p (r c) i"), rearrange(g, "p i r c -> p (r c) i")

    @torch.no_grad()
    def affinity(
        self,
        places: Float[Tensor, "task dim rows cols"],
        sources: Float[Tensor, "pair other_dim rows cols"],
    ) -> Float[Tensor, "pair position key"]:
        """The weights that `forward` never writes down, for looking at: rows sum to 1."""
        theta = self.at_places(places, sources.shape[0])
        phi, _ = self.of_sources(sources)
        with full_precision(theta):
            return torch.softmax(theta.float() @ phi.float().mT, -1)
