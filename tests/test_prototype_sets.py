"""Prototype sets against slow loops, and that padding takes no part."""

import numpy as np
import pytest
import torch
from apscl_cases import close, generator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewshot_seg.errors import OptionError
from fewshot_seg.prototype_sets import (
    PrototypeSets,
    cell_averages,
    cell_purity,
    set_similarity,
    to_grid,
)


def random_sets(seed: int = 0, *, size: int = 4, dim: int = 5) -> PrototypeSets:
    vectors = torch.randn(2, 3, size, dim, generator=generator(seed))
    present = torch.rand(2, 3, size, generator=generator(seed + 1)) > 0.4
    present[0, 0], present[1, 2] = False, True
    return PrototypeSets(vectors, present)


def random_maps(seed: int = 0, dim: int = 5) -> Tensor:
    return torch.randn(2, 2, dim, 3, 4, generator=generator(seed + 2))


def slow_similarity(query: np.ndarray, prototypes: np.ndarray, scale: float) -> float:
    """One position and the prototypes that are there."""
    if not len(prototypes):
        return 0.0
    lengths = np.maximum(np.linalg.norm(prototypes, axis=1), 1e-4)
    d = scale * prototypes @ query / lengths / max(np.linalg.norm(query), 1e-4)
    weight = np.exp(d - d.max())
    return float((weight * d).sum() / weight.sum())


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 20.0]))
def test_similarity_against_a_loop(seed: int, scale: float) -> None:
    sets, maps = random_sets(seed), random_maps(seed)
    got = set_similarity(maps, sets, scale=scale)
    assert got.shape == (2, 2, 3, 3, 4)
    for b, q, k, r, c in np.ndindex(*got.shape):
        there = sets.vectors[b, k][sets.present[b, k]].double().numpy()
        wanted = slow_similarity(maps[b, q, :, r, c].double().numpy(), there, scale)
        assert got[b, q, k, r, c].item() == pytest.approx(wanted, abs=1e-5 * scale)


def test_what_is_absent_takes_no_part() -> None:
    sets, maps = random_sets(), random_maps()
    vectors = sets.vectors.clone().requires_grad_()
    scores = set_similarity(maps, PrototypeSets(vectors, sets.present))
    scores.square().sum().backward()
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
    assert vectors.grad[~sets.present].abs().max() == 0
    assert vectors.grad[sets.present].abs().sum(-1).min() > 0
    other = torch.where(sets.present.unsqueeze(3), sets.vectors, 1e6)
    close(set_similarity(maps, PrototypeSets(other, sets.present)), scores.detach())
    assert scores[0, :, 0].abs().max() == 0, "a label without prototypes scores 0"


def test_a_single_prototype_is_the_scaled_cosine() -> None:
    maps, vector = random_maps(), torch.randn(2, 1, 1, 5, generator=generator(9))
    sets = PrototypeSets(vector, torch.ones(2, 1, 1, dtype=torch.bool))
    wanted = 20 * torch.cosine_similarity(maps, vector.view(2, 1, 5, 1, 1), dim=2)
    close(set_similarity(maps, sets)[:, :, 0], wanted, atol=1e-4)


def test_zero_vectors_score_zero_with_a_finite_gradient() -> None:
    maps = torch.zeros(2, 2, 5, 3, 4, requires_grad=True)
    scores = set_similarity(maps, random_sets())
    scores.sum().backward()
    assert maps.grad is not None
    assert scores.abs().max() == 0
    assert torch.isfinite(maps.grad).all()


def test_the_union_joins_label_by_label() -> None:
    a, b = random_sets(0), random_sets(5, size=2)
    both = a.joined(b)
    assert both.vectors.shape == (2, 3, 6, 5)
    assert torch.equal(both.vectors[:, :, 4:], b.vectors)
    assert torch.equal(both.present, torch.cat([a.present, b.present], 2))


@pytest.mark.parametrize("window", [1, 2, 3, 7])
def test_cells_against_a_loop(window: int) -> None:
    maps = torch.randn(2, 3, 5, 6, 7, generator=generator(0))
    got = cell_averages(maps, window)
    high, wide = min(window, 6), min(window, 7)
    rows, cols = 6 // high, 7 // wide
    assert got.shape == (2, 3, rows * cols, 5)
    for cell, (r, c) in enumerate(np.ndindex(rows, cols)):
        part = maps[..., r * high : (r + 1) * high, c * wide : (c + 1) * wide]
        close(got[:, :, cell], part.mean((-2, -1)))


def test_purity_is_the_share_of_a_cell() -> None:
    mask = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 1]])
    assert cell_purity(mask, 2).tolist() == [1.0, 0.25]


def test_masks_come_to_the_grid_by_reading_or_averaging() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[0, :2, :2] = 1
    assert to_grid(mask, (2, 2)).max() == 0
    assert to_grid(mask, (2, 2), "area").tolist() == [[[4 / 64, 0], [0, 0]]]
    assert torch.equal(to_grid(mask, (16, 16)), mask)
    with pytest.raises(OptionError, match="mask_resize='nearest'"):
        to_grid(mask, (2, 2), "nearest")
