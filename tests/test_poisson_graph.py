"""The graph of the reconstructed PoissonSeg: slow loops, bridges, hubs and gradients."""

import math

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from fewshot_seg_poissonseg.graph import (
    bridge,
    dense_weights,
    knn_weights,
    pair_distances,
)
from fewshot_seg_poissonseg.solver import poisson_dense, sources


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


def everyone(points: Tensor) -> Tensor:
    return torch.ones(points.shape[:2], dtype=torch.bool)


def one_hot(nodes: int, labelled: dict[int, int], classes: int = 2) -> Tensor:
    """node -> class, as one graph."""
    labels = torch.zeros(1, nodes, classes)
    for node, label in labelled.items():
        labels[0, node, label] = 1
    return labels


def slow_knn(points: np.ndarray, k: int) -> np.ndarray:
    n = len(points)
    weights = np.zeros((n, n))
    for i in range(n):
        apart = [(float(((points[i] - points[j]) ** 2).sum()), j) for j in range(n) if j != i]
        nearest = sorted(apart)[:k]
        for distance, j in nearest:
            weights[i, j] = math.exp(-4 * distance / nearest[-1][0])
    return (weights + weights.T) / 2


def test_knn_weights_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2, 12, 3))
    got = knn_weights(pair_distances(torch.from_numpy(points), everyone(torch.empty(2, 12))), 4)
    for graph in range(2):
        close(got[graph], torch.from_numpy(slow_knn(points[graph], 4)))


def test_dense_weights_are_exponentials_of_the_cosine() -> None:
    rng = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(1, 8, 4, generator=rng), dim=-1)
    got = dense_weights(pair_distances(points, everyone(points)))[0]
    wanted = torch.exp(points[0] @ points[0].T / 0.05).fill_diagonal_(0)
    close(got, wanted / wanted.max(), atol=1e-4)


def test_bridges_against_a_loop() -> None:
    rng = torch.Generator().manual_seed(1)
    points = torch.randn(1, 9, 2, generator=rng)
    labelled = torch.zeros(1, 9, dtype=torch.bool)
    labelled[0, [2, 5, 6]] = True
    distances = pair_distances(points, everyone(points))
    got = bridge(torch.zeros(1, 9, 9), distances, labelled, everyone(points))[0]
    wanted = torch.zeros(9, 9)
    for i in range(9):
        if i in (2, 5, 6):
            for j in (2, 5, 6):
                wanted[i, j] += 0.0 if i == j else 1e-3 / 3
        else:
            j = min((2, 5, 6), key=lambda j: (points[0, i] - points[0, j]).norm().item())
            wanted[i, j] += 1e-3
            wanted[j, i] += 1e-3
    close(got, wanted, atol=1e-9)


def test_components_are_joined_and_each_follows_its_own_label() -> None:
    """Four far clusters, two with a label; without bridges the system would be singular."""
    rng = torch.Generator().manual_seed(0)
    centres = torch.tensor([0.0, 1, 1000, 1001]).repeat_interleave(12)
    points = torch.randn(1, 48, 2, generator=rng) * 0.01 + centres[None, :, None]
    labels = one_hot(48, {0: 0, 12: 0, 24: 1, 36: 1})
    distances, present = pair_distances(points, everyone(points)), everyone(points)
    weights = knn_weights(distances, 5)
    assert connected_components(weights[0].numpy())[0] == 4
    weights = bridge(weights, distances, labels.sum(-1) > 0, present)
    assert connected_components(weights[0].numpy())[0] == 1
    u = poisson_dense(weights, sources(labels), present)
    assert torch.equal(u[0].argmax(-1), (torch.arange(48) >= 24).long())


def test_a_hub_keeps_only_its_own_choices() -> None:
    """Eight points around a ninth, which is everybody's nearest neighbour."""
    angle = torch.arange(8) * (2 * math.pi / 8)
    ring = (
        torch.stack([torch.cos(angle), torch.sin(angle)], -1)
        * (1 + torch.arange(8) * 0.01)[:, None]
    )
    points = torch.cat([torch.zeros(1, 2), 1.4 * ring])[None]
    distances = pair_distances(points, everyone(points))
    free, held = knn_weights(distances, 3)[0], knn_weights(distances, 3, hub_limit=5)[0]
    assert (free[0] > 0).sum() == 8
    assert (held[0] > 0).sum() == 3
    assert torch.equal(free[1:, 1:], held[1:, 1:])


def test_gradients_of_the_weights() -> None:
    rng = torch.Generator().manual_seed(2)
    points = torch.randn(1, 8, 3, generator=rng, dtype=torch.float64, requires_grad=True)

    def weigh(points: Tensor) -> Tensor:
        return knn_weights(pair_distances(points, everyone(points)), 3)

    assert torch.autograd.gradcheck(weigh, (points,))
