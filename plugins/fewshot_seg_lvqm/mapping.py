"""LM: a neuron re-expressed by the grid prototypes next to it."""

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from fewshot_seg.prototype_sets import PrototypeSets

LMS = ("inverse", "gaussian", "subtra", "none")
SOFTENER = 0.1
WIDTH = 10.0
CUT, LEAST = 2.0, 0.001


def local_mapping(
    neurons: Float[Tensor, "batch way neuron dim"],
    references: PrototypeSets,
    *,
    lm: str = "inverse",
    k: int = 3,
) -> Float[Tensor, "batch way neuron dim"]:
    """The weighted mean of the `k` nearest references (labels are ways), by distance d.

    lm: "inverse": 1 / (d + 0.1); "gaussian": exp(-d^2 / 200); "subtra": 2 - d, at least 0.001;
        "none": the neuron itself. Weights are normalised to sum 1.
    Every way needs at least one reference. Neighbours are chosen without gradient; the weights and
    the references have one.
    """
    if lm == "none":
        return neurons
    nearest = _nearest(neurons, references, k)
    batch, way = (
        torch.arange(size, device=neurons.device).view(shape)
        for size, shape in zip(neurons.shape[:2], ((-1, 1, 1, 1), (1, -1, 1, 1)), strict=True)
    )
    chosen = references.vectors[batch, way, nearest]
    absent = ~references.present[batch, way, nearest]
    distance = torch.linalg.vector_norm(rearrange(neurons, "b w n d -> b w n 1 d") - chosen, dim=-1)
    weights = _weights(lm, distance, absent)
    return einsum(weights, chosen, "b w n k, b w n k d -> b w n d")


def _nearest(neurons: Tensor, references: PrototypeSets, k: int) -> Tensor:
    """Indices of the nearest references, absent ones last: batch way neuron k."""
    vectors, present = references.vectors, references.present
    mode = "donot_use_mm_for_euclid_dist"
    apart = torch.cdist(neurons.detach(), vectors.detach(), compute_mode=mode)
    apart = apart.masked_fill(rearrange(~present, "b w s -> b w 1 s"), torch.inf)
    return apart.topk(min(k, vectors.shape[2]), dim=-1, largest=False).indices


def _weights(lm: str, distance: Tensor, absent: Tensor) -> Tensor:
    if lm == "gaussian":
        # a softmax, so that far neighbours do not all vanish
        power = (-(distance**2) / (2 * WIDTH**2)).masked_fill(absent, -torch.inf)
        return power.softmax(-1)
    if lm == "inverse":
        weights = 1 / (distance + SOFTENER)
    else:
        weights = torch.where(distance > CUT, torch.full_like(distance, LEAST), CUT - distance)
    weights = weights.masked_fill(absent, 0.0)
    return weights / weights.sum(-1, keepdim=True)
