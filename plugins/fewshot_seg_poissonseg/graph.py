"""The graph of PoissonSeg (RECONSTRUCTED, no official code): points, neighbours, edge weights.

The formula of the weights is that of Poisson learning (Calder et al., ICML 2020, and the public
code of GraphLearning); what is a node and every constant are our choice. All functions take several
graphs along the batch axis and keep one shape whatever the data: a node that is not there is
not `present` and has no edge.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Points = Float[Tensor, "batch node axis"]
Weights = Float[Tensor, "batch node node"]
Nodes = Bool[Tensor, "batch node"]

SHARPNESS = 4.0
"""w = exp(-SHARPNESS d^2 / d_k^2), so the k-th neighbour weighs exp(-4)."""
FLOOR = 1e-6
"""Smallest squared distance to the k-th neighbour: equal points have no scale of their own."""
TEMPERATURE = 0.05
"""Of the dense weights exp(cosine / TEMPERATURE)."""
BRIDGE = 1e-3
"""Weight of the edge that joins every node to a labelled one."""
BARRED = 1e9
"""Squared distance to a node that cannot be a neighbour; finite, so that no gradient is NaN."""


def squared_distances(
    points: Float[Tensor, "batch point axis"], others: Float[Tensor, "batch node axis"]
) -> Float[Tensor, "batch point node"]:
    """|x_i - x_j|^2 by one matrix product, not below 0."""
    lengths = points.square().sum(-1, keepdim=True), others.square().sum(-1).unsqueeze(1)
    return (lengths[0] + lengths[1] - 2 * points @ others.mT).clamp_min(0)


def neighbour_weights(
    distances: Float[Tensor, "batch point node"], k: int
) -> Float[Tensor, "batch point node"]:
    """exp(-4 d^2 / d_k^2) to the k nearest nodes, 0 to all others; d_k: distance to the k-th.

    distances: squared, `BARRED` where there can be no edge. With fewer than k candidates, d_k is
    the distance to the last one.
    """
    nearest, index = distances.topk(min(k, distances.shape[-1]), dim=-1, largest=False)
    allowed = nearest < BARRED / 2
    reach = (nearest * allowed).amax(-1, keepdim=True).clamp_min(FLOOR)
    weights = torch.exp(-SHARPNESS * nearest * allowed / reach) * allowed
    return torch.zeros_like(distances).scatter(-1, index, weights)


def pair_distances(points: Points, present: Nodes) -> Weights:
    """Squared distances between the nodes of a graph, `BARRED` to itself and to absent nodes."""
    itself = torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
    pair = present.unsqueeze(1) & present.unsqueeze(2) & ~itself
    return squared_distances(points, points).masked_fill(~pair, BARRED)


def knn_weights(distances: Weights, k: int, hub_limit: int = 0) -> Weights:
    """The k-nearest-neighbour graph, made symmetric by (W + W^T) / 2; no edge to itself.

    distances: see `pair_distances`.
    hub_limit: a node that more than this many others have chosen as neighbour (padding, air) keeps
        only the edges it chose itself; 0 is no limit.
    """
    weights = neighbour_weights(distances, k)
    if hub_limit:
        chosen_by = (weights > 0).sum(1, keepdim=True)  # batch 1 node
        weights = weights * (chosen_by <= hub_limit)
    return (weights + weights.mT) / 2


def dense_weights(distances: Weights) -> Weights:
    """exp(cosine / 0.05) between all nodes, up to a factor that makes the largest weight 1.

    For points of length 1 the cosine is 1 - d^2 / 2. The factor is harmless: it sets the unit of
    u, which the readout divides out, and without it fp32 could not hold the Laplacian.
    """
    allowed = distances < BARRED / 2
    nearest = distances.detach().amin((1, 2), keepdim=True)
    excess = (distances - nearest) * allowed
    return torch.exp(-excess / (2 * TEMPERATURE)) * allowed


def bridge(weights: Weights, distances: Weights, labelled: Nodes, present: Nodes) -> Weights:
    """The graph with every node joined to its nearest labelled node by a weight of 1e-3.

    A labelled node, which is its own nearest, is joined to all m labelled nodes by 1e-3 / m each.
    So every component reaches a label and the graph is connected, which the notes' rule for
    components without a label does not reach alone: labels in two components would have
    no path. Without any label all present nodes count as labelled.
    """
    anchor = torch.where(labelled.any(1, keepdim=True), labelled, present)
    to_anchor = distances.detach().masked_fill(~anchor.unsqueeze(1), BARRED)
    nearest = to_anchor.argmin(-1, keepdim=True)
    single = torch.zeros_like(weights).scatter(-1, nearest, BRIDGE)
    single = single * (present & ~anchor).unsqueeze(-1)
    ends = anchor.to(weights.dtype)
    mesh = ends.unsqueeze(1) * ends.unsqueeze(2)
    mesh = mesh * BRIDGE / ends.sum(1).clamp_min(1)[:, None, None]
    return weights + single + single.mT + mesh - torch.diag_embed(torch.diagonal(mesh, 0, 1, 2))
