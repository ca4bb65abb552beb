"""Poisson learning on a graph: sources at labelled nodes (RECONSTRUCTED, see the package).

    (D - W) u = b,   b_j = y_j - mean of the labels at a labelled node j, 0 elsewhere

Sources instead of clamped values avoid the spikes of Laplace label propagation when few nodes are
labelled. Equations: Calder, Cook, Thorpe, Slepcev, "Poisson Learning", ICML 2020. All functions
take several graphs along the batch axis and keep the dtype they are given; callers leave autocast.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Weights = Float[Tensor, "batch node node"]
Values = Float[Tensor, "batch node label"]
Nodes = Bool[Tensor, "batch node"]

RIDGE = 1e-6
MIN_STEPS = 50
MAX_STEPS = 1000


def sources(labels: Values) -> Values:
    """b: one-hot labels less their mean over the labelled nodes; 0 at nodes without a label.

    labels: one-hot at labelled nodes, all 0 elsewhere. Every column of b sums to 0, so the
    injected mass is balanced however rare the foreground is. With one class only, b is 0.
    """
    labelled = labels.sum(-1, keepdim=True)
    mean = labels.sum(1, keepdim=True) / labelled.sum(1, keepdim=True).clamp_min(1)
    return (labels - mean) * labelled


def poisson_dense(weights: Weights, b: Values, present: Nodes) -> Values:
    """Solve (D - W + 1 1^T / n + 1e-6 I) u = b by Cholesky, then subtract the weighted mean.

    Nodes that are not `present` must have no edges and no source; their u is 0. The factor carries
    no gradient. One step of iterative refinement, which does, gives the exact gradient of
    the solution for a matrix product instead of the backward pass of a Cholesky factor (and
    a more accurate u). First derivatives only.
    """
    there = present.to(weights.dtype)
    degree = weights.sum(-1)
    flat = there.unsqueeze(1) * there.unsqueeze(2) / there.sum(1).clamp_min(1)[:, None, None]
    system = torch.diag_embed(degree + (1 - there) + RIDGE) - weights + flat
    # check_errors would wait for the device; `bridge` keeps the matrix positive definite
    factor, _ = torch.linalg.cholesky_ex(system.detach())
    first = torch.cholesky_solve(b.detach(), factor)
    u = first + torch.cholesky_solve(b - system @ first, factor)
    return _centred(u, degree)


def poisson_iterative(weights: Weights, b: Values, steps: int) -> Values:
    """u <- D^-1 (b + W u) from u = 0, `steps` times; it tends to what `poisson_dense` gives.

    steps: 0 follows the stopping rule: for each graph, from 50 steps on, stop when the random walk
        from the labelled nodes is everywhere within 1/n of its limit, after 1000 steps at the
        latest. All 1000 are computed (no look at the data decides on the work); a graph
        that has stopped just stays as it is.
    """
    degree = weights.sum(-1, keepdim=True)
    linked = degree > 0
    inverse = linked / torch.where(linked, degree, 1.0)
    start = b * inverse
    u = torch.zeros_like(b)
    if steps:
        for _ in range(steps):
            u = start + inverse * (weights @ u)
        return _centred(u, degree.squeeze(-1))
    walk = _walk_start(b)
    limit = degree / degree.sum(1, keepdim=True)
    within = 1 / linked.sum(1).clamp_min(1)
    for step in range(MAX_STEPS):
        far = (walk - limit).abs().amax(1) > within
        going = (far | (step < MIN_STEPS)).unsqueeze(-1)
        u = torch.where(going, start + inverse * (weights @ u), u)
        with torch.no_grad():
            walk = torch.where(going, weights @ (inverse * walk), walk)
    return _centred(u, degree.squeeze(-1))


def _walk_start(b: Values) -> Float[Tensor, "batch node 1"]:
    """A random walk that starts at any of the labelled nodes alike."""
    labelled = (b != 0).any(-1, keepdim=True).to(b.dtype)
    return labelled / labelled.sum(1, keepdim=True).clamp_min(1)


def _centred(u: Values, degree: Float[Tensor, "batch node"]) -> Values:
    """u less its degree-weighted mean: sum_i d_i u_i = 0, a constant that L u = b leaves open.

    0 at a node without edges, which is an absent one.
    """
    share = degree / degree.sum(1, keepdim=True).clamp_min(torch.finfo(u.dtype).tiny)
    centred = u - (share.unsqueeze(-1) * u).sum(1, keepdim=True)
    return centred * (degree > 0).unsqueeze(-1)
