"""What the background is compared with: one prototype, a grid of them, or a threshold."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.functional import EPS, masked_average, normalise

INSIDE = 0.95
"""A cell's share of background from which it becomes a local prototype (ALPNet)."""
BARRED = -1e4


def local_prototypes(
    maps: Float[Tensor, "batch way shot dim rows cols"],
    backgrounds: Float[Tensor, "batch way shot rows cols"],
    window: int,
) -> tuple[Float[Tensor, "batch cell dim"], Float[Tensor, "batch cell"]]:
    """Mean features of the windows that lie in the background, and 1 where a window counts.

    The last "cell" is the global background prototype, which counts only where no window does;
    so the shapes never depend on the masks.
    """
    rows, cols = maps.shape[-2:]
    window = min(window, rows, cols)
    pooled = F.avg_pool2d(rearrange(maps, "b w s d r c -> (b w s) d r c"), window)
    share = F.avg_pool2d(rearrange(backgrounds, "b w s r c -> (b w s) 1 r c"), window)
    batch = maps.shape[0]
    cells = rearrange(pooled, "(b i) d r c -> b (i r c) d", b=batch)
    counts = (rearrange(share, "(b i) 1 r c -> b (i r c)", b=batch) > INSIDE).to(maps.dtype)
    overall = masked_average(maps, backgrounds).mean((1, 2)).unsqueeze(1)
    none = (counts.sum(1, keepdim=True) < EPS).to(maps.dtype)
    return torch.cat([cells, overall], 1), torch.cat([counts, none], 1)


def fused_score(
    maps: Float[Tensor, "batch query dim rows cols"],
    prototypes: Float[Tensor, "batch cell dim"],
    counts: Float[Tensor, "batch cell"],
    scale: float,
    eps: float,
) -> Float[Tensor, "batch query rows cols"]:
    """scale x cosine with each prototype, joined by a softmax-weighted sum (ALPNet)."""
    scores = scale * torch.einsum(
        "bqdrc,bnd->bqnrc", normalise(maps, 2, eps), normalise(prototypes, 2, eps)
    )
    barred = rearrange(counts < 0.5, "b n -> b 1 n 1 1")
    weights = torch.softmax(scores.masked_fill(barred, BARRED), dim=2)
    return (weights * scores).sum(2)
