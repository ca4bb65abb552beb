"""GLVQ: a few vectors per class, drawn to their own class and away from the other.

A. Sato, K. Yamada, "Generalized Learning Vector Quantization", NIPS 1995. The objective is
sum_x phi(mu(x)) with mu = (d+ - d-) / (d+ + d-), d+ and d- the squared distances to the nearest
vector of the point's own and of the other class, phi(z) = 1 / (1 + exp(-beta z)).
"""

from typing import NamedTuple

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from torch import Tensor

TINY = 1e-12
LONGEST, LENGTHS = 8.0, 12
"""Of the step lengths that are tried at once, each half the one before; 1 moves a vector by its
weighted mean pull."""

Codebook = Float[Tensor, "batch way vector dim"]


class Points(NamedTuple):
    """Training points of each way; those in neither class count for nothing."""

    vectors: Float[Tensor, "batch way point dim"]
    in_background: Bool[Tensor, "batch way point"]
    in_foreground: Bool[Tensor, "batch way point"]


class _Pull(NamedTuple):
    """How the objective looks from a codebook, and what each point does to each vector.

    weights: derivative of the objective by the squared distance of point and vector.
    """

    objective: Float[Tensor, "*batch"]
    weights: Float[Tensor, "*batch point vector"]


def objective(points: Points, codebook: Codebook, beta: float = 2.0) -> Float[Tensor, "batch way"]:
    """Sum over the points. The codebook holds background's vectors, then as many foreground's."""
    return _pull(points, codebook, beta).objective


def gradient(points: Points, codebook: Codebook, beta: float = 2.0) -> Codebook:
    """Of `objective` by the codebook; where two vectors are equally near, of the first."""
    return 2 * _move(points, codebook, _pull(points, codebook, beta).weights)


def fit_gradient(
    points: Points, initial: Codebook, *, beta: float = 2.0, iterations: int = 10
) -> Codebook:
    """Descent with a parallel line search: of several step lengths, and no step, the best.

    The objective never rises. Each vector's gradient is scaled by its total pull, so that length 1
    brings a vector that is only drawn to the mean of what draws it.
    """
    points = Points(points.vectors.detach().float(), *points[1:])
    codebook = initial.detach().float()
    halvings = torch.arange(LENGTHS + 1, device=codebook.device)
    lengths = torch.where(halvings < LENGTHS, LONGEST * 0.5**halvings, 0.0)
    lengths = rearrange(lengths, "t -> t 1 1 1 1")
    for _ in range(iterations):
        weights = _pull(points, codebook, beta).weights
        total = weights.abs().sum(-2).unsqueeze(-1).clamp_min(TINY)
        tried = codebook - lengths * _move(points, codebook, weights) / total
        values = _pull(points, tried, beta).objective
        best = rearrange(values.argmin(0), "b w -> 1 b w 1 1").expand(1, *codebook.shape)
        codebook = tried.gather(0, best)[0]
    return codebook


def fit_lbfgs(
    points: Points, initial: Codebook, *, beta: float = 2.0, iterations: int = 10
) -> Codebook:
    """SciPy's L-BFGS-B, handed the sum as objective and the gradient of the mean.

    That is what sklearn-lvq does (without its random gradient noise), so its codebooks come out.
    Runs on the host, way by way, which a GPU has to wait for.
    """
    vectors, back, fore, starts = (t.detach().cpu() for t in (*points, initial))
    fitted = torch.empty(initial.shape, dtype=torch.float64)
    for place in np.ndindex(*initial.shape[:2]):
        one = Points(vectors[place].double(), back[place], fore[place])
        fitted[place] = _lbfgs(one, starts[place].double(), beta, iterations)
    return fitted.to(initial)


def _lbfgs(points: Points, initial: Tensor, beta: float, iterations: int) -> Tensor:
    """Of one way; nothing has batch axes."""
    count = max(1, int((points.in_background | points.in_foreground).sum()))

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        codebook = torch.from_numpy(flat).view(initial.shape)
        pull = _pull(points, codebook, beta)
        slope = 2 * _move(points, codebook, pull.weights) / count
        return float(pull.objective), slope.flatten().numpy()

    options = {"maxiter": iterations, "gtol": 1e-5}
    found = minimize(value, initial.flatten().numpy(), jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(found.x).view(initial.shape)


def _pull(points: Points, codebook: Tensor, beta: float) -> _Pull:
    """Closed form: d phi / d d+ = phi' 2 d- / (d+ + d-)^2, d phi / d d- = -phi' 2 d+ / (...)^2."""
    half = codebook.shape[-2] // 2
    apart = rearrange(points.vectors, "... p d -> ... p 1 d") - codebook.unsqueeze(-3)
    distance = apart.square().sum(-1)
    to_background, first = distance[..., :half].min(-1)
    to_foreground, second = distance[..., half:].min(-1)
    fore = points.in_foreground
    same = torch.where(fore, to_foreground, to_background)
    other = torch.where(fore, to_background, to_foreground)
    both = (same + other).clamp_min(TINY)
    phi = torch.sigmoid(beta * (same - other) / both)
    known = (points.in_background | fore).to(phi.dtype)
    slope = known * beta * phi * (1 - phi) * 2 / both.square()
    near, far = slope * other, -slope * same
    vectors = torch.arange(half, device=codebook.device)
    weights = [
        torch.where(fore, far, near).unsqueeze(-1) * (first.unsqueeze(-1) == vectors),
        torch.where(fore, near, far).unsqueeze(-1) * (second.unsqueeze(-1) == vectors),
    ]
    return _Pull((known * phi).sum(-1), torch.cat(weights, -1))


def _move(points: Points, codebook: Tensor, weights: Tensor) -> Tensor:
    """Half the gradient: sum over the points of weight * (vector - point)."""
    pulled = einsum(weights, points.vectors, "... p v, ... p d -> ... v d")
    return weights.sum(-2).unsqueeze(-1) * codebook - pulled
