"""Channel attention of the mutual guidance decoder (APSCL Eq. 9-10).

Maps are matrices of channels by positions here. Named `chan_attn`, as the paper's alpha is also
the letter of the FiLM shift.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.functional import normalise

NORM_EPS = 1e-5
SOFTMAX_GAIN = 10.0


def guide(
    support: Float[Tensor, "batch way shot dim position"], norm: str
) -> Float[Tensor, "batch way dim position"]:
    """The support's side of the cross Gram matrix, mean over shots (the Gram is linear in it)."""
    return channel_normalised(support, norm).mean(2)


def channel_normalised(
    maps: Float[Tensor, "*#batch dim position"], norm: str
) -> Float[Tensor, "*#batch dim position"]:
    """Each channel over its length across positions where correlations are wanted."""
    return normalise(maps, -1, NORM_EPS) if norm in ("corr", "softmax") else maps


def gram(
    left: Float[Tensor, "*#batch dim position"],
    right: Float[Tensor, "*#batch dim position"],
    norm: str,
) -> Float[Tensor, "*#batch dim dim"]:
    """Rows: channels of `left`, columns: channels of `right`; both already channel-normalised.

    norm: "corr": correlations over the number of channels; "softmax": row softmax of ten times
    the correlations; "mean": products over positions and channels; "none": the bare Gram matrix.
    """
    product = left @ right.transpose(-1, -2)
    if norm == "softmax":
        return torch.softmax(SOFTMAX_GAIN * product, dim=-1)
    dim, positions = left.shape[-2:]
    scale = {"corr": dim, "mean": dim * positions, "none": 1}[norm]
    return product / scale


def chan_attn(
    query: Float[Tensor, "*#batch dim position"],
    guide_maps: Float[Tensor, "*#batch dim position"],
    norm: str,
    combine: str,
) -> Float[Tensor, "*#batch dim dim"]:
    """Eq. 9: the query's own channel relations combined with those to the support."""
    normalised = channel_normalised(query, norm)
    if combine == "sum" and norm != "softmax":
        return gram(normalised + guide_maps, normalised, norm)  # linear: one product serves both
    own = gram(normalised, normalised, norm)
    cross = gram(guide_maps, normalised, norm)
    return own + cross if combine == "sum" else own * cross


def reweigh(
    query: Float[Tensor, "*#batch dim position"],
    attention: Float[Tensor, "*#batch dim dim"],
    side: str,
) -> Float[Tensor, "*#batch dim position"]:
    """Eq. 10 without its residual. side "left": output in the support's channels (rows)."""
    matrix = attention if side == "left" else attention.transpose(-1, -2)
    return matrix @ query
