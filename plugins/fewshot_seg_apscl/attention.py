"""SIM, the spatial interaction module: queries, keys and values of images, and cross-attention."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.errors import check_choice
from fewshot_seg.functional import normalise

MASK_EPS = 1e-6
"""Keeps log(mask) finite; a key outside the mask has a millionth of the weight of one inside."""
COSINE_EPS = 1e-8


class Projected(NamedTuple):
    """Q, K, V of images, positions in row-major order."""

    query: Float[Tensor, "*image position sim_dim"]
    key: Float[Tensor, "*image position sim_dim"]
    value: Float[Tensor, "*image position sim_dim"]

    def map_images(self, *shape: int) -> "Projected":
        """The same with the leading axes reshaped."""
        return Projected(*(item.reshape(*shape, *item.shape[-2:]) for item in self))

    def pick(self, images: Tensor) -> "Projected":
        """Images by index along the axis before the positions."""
        return Projected(*(item.index_select(-3, images) for item in self))

    def detach(self) -> "Projected":
        return Projected(*(item.detach() for item in self))


class Projections(nn.Module):
    """g_q, g_k, g_v, shared by support and query; in 16 bits where the maps are.

    qkv: "conv", the paper's 1x1 convolutions, or "mlp", the two bias-free linear layers with a
        ReLU of the code that the loss comes from (yassouali/SCL).
    """

    def __init__(self, *, dim: int, sim_dim: int, qkv: str) -> None:
        super().__init__()
        check_choice("qkv", qkv, ("conv", "mlp"))
        self.query, self.key, self.value = (_projection(dim, sim_dim, qkv) for _ in range(3))

    def forward(self, maps: Float[Tensor, "image dim rows cols"]) -> Projected:
        return Projected(
            *(
                rearrange(project(maps), "i e r c -> i (r c) e")
                for project in (self.query, self.key, self.value)
            )
        )


def _projection(dim: int, sim_dim: int, qkv: str) -> nn.Module:
    if qkv == "conv":
        return nn.Conv2d(dim, sim_dim, 1)
    return nn.Sequential(
        nn.Conv2d(dim, dim, 1, bias=False), nn.ReLU(), nn.Conv2d(dim, sim_dim, 1, bias=False)
    )


def attend(
    query: Float[Tensor, "*pair position sim_dim"],
    key: Float[Tensor, "*pair cell sim_dim"],
    value: Float[Tensor, "*pair cell value_dim"],
    key_mask: Float[Tensor, "*pair cell"] | None = None,
) -> Float[Tensor, "*pair position value_dim"]:
    """softmax(Q K^T / sqrt(E') + log(mask + 1e-6)) V, one row for each query position.

    With two leading axes memory is linear in the positions; with any other number, and on CPUs
    also where `value_dim` is not `sim_dim`, torch holds all weights at once.
    """
    bias = None
    if key_mask is not None:
        bias = torch.log(key_mask.float() + MASK_EPS).unsqueeze(-2).to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def agreement(
    own: Float[Tensor, "*#pair position sim_dim"], carried: Float[Tensor, "*#pair position sim_dim"]
) -> Float[Tensor, "*#pair position"]:
    """Cosine at each position, in [-1, 1], in 32 bits."""
    carried = carried.float()
    along = (normalise(own.float(), -1, COSINE_EPS) * carried).sum(-1)
    return along / torch.linalg.vector_norm(carried, dim=-1).clamp_min(COSINE_EPS)
