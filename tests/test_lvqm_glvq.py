"""Learning vector quantisation: the package's arrays, its gradient, and that it only descends."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lvqm_cases import files
from torch import Tensor

from fewshot_seg.errors import OptionError
from fewshot_seg.prototype_sets import PrototypeSets
from fewshot_seg_lvqm import glvq
from fewshot_seg_lvqm.glvq import Points
from fewshot_seg_lvqm.residual import refine
from fewshot_seg_lvqm.rovq import GLVQ, points_of
from fewshot_seg_lvqm.scene import Scene


def official(data: dict) -> tuple[Points, Tensor]:
    """The package's problem in double precision, one way of one episode."""
    labels = data["data_labels"][None, None]
    points = Points(data["data"].double()[None, None], labels == 0, labels == 1)
    assert data["codebook_labels"].diff().min() >= 0
    return points, data["codebook_initial"].double()[None, None]


def test_official_glvq(golden: Callable[[str], Path]) -> None:
    for _, data in files(golden("lvqm"), "glvq*"):
        points, initial = official(data)
        beta, most = float(data["beta"]), data["max_iterations"]
        before = glvq.objective(points, initial, beta).item()
        assert before == pytest.approx(data["objective_initial"], abs=1e-4)
        slope = glvq.gradient(points, initial, beta)[0, 0] / len(data["data"])
        torch.testing.assert_close(slope, data["gradient_initial"].double(), atol=1e-6, rtol=1e-5)
        found = glvq.fit_lbfgs(points, initial, beta=beta, iterations=most)
        after = glvq.objective(points, found, beta).item()
        assert after == pytest.approx(data["objective_final"], abs=1e-4)
        torch.testing.assert_close(found[0, 0], data["codebook_final"], atol=1e-4, rtol=1e-4)
        long = glvq.fit_lbfgs(points, initial, beta=beta, iterations=200)
        settled = glvq.objective(points, long, beta).item()
        assert settled == pytest.approx(data["objective_final_200"], abs=2e-4)
        # the batched solver reaches most of what the package's does
        fast = glvq.fit_gradient(points, initial.float(), beta=beta, iterations=most)
        reached = before - glvq.objective(points, fast.double(), beta).item()
        assert reached > 0.9 * (before - after)


# --- an independent loop, and laws ---------------------------------------------------------------


def problem(
    seed: int, *, batch: int = 2, way: int = 2, points: int = 15, dim: int = 4, vectors: int = 2
) -> tuple[Points, Tensor]:
    """Two overlapping clouds; some points belong to neither class."""
    rng = torch.Generator().manual_seed(seed)
    fore = torch.rand(batch, way, points, generator=rng) < 0.4
    back = ~fore & (torch.rand(batch, way, points, generator=rng) < 0.9)
    cloud = torch.randn(batch, way, points, dim, generator=rng) + 1.5 * fore.unsqueeze(-1)
    start = torch.randn(batch, way, 2 * vectors, dim, generator=rng)
    start[:, :, vectors:] += 1.5
    return Points(cloud, back, fore), start


def slow_objective(points: Points, codebook: Tensor, beta: float, b: int, w: int) -> float:
    rows = codebook[b, w].double().numpy()
    sides = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    total = 0.0
    for n, x in enumerate(points.vectors[b, w].double().numpy()):
        label = int(points.in_foreground[b, w, n])
        if not label and not points.in_background[b, w, n]:
            continue
        same, other = (((side - x) ** 2).sum(1).min() for side in (sides[label], sides[1 - label]))
        total += 1 / (1 + np.exp(-beta * (same - other) / (same + other)))
    return total


@pytest.mark.parametrize("beta", [2.0, 5.0])
def test_objective_against_a_loop(beta: float) -> None:
    points, codebook = problem(0)
    got = glvq.objective(points, codebook, beta)
    for b, w in np.ndindex(2, 2):
        assert got[b, w].item() == pytest.approx(slow_objective(points, codebook, beta, b, w), 1e-5)


def test_gradient_is_the_objectives() -> None:
    points, codebook = problem(1)
    points = points._replace(vectors=points.vectors.double())
    leaf = codebook.double().requires_grad_()
    (wanted,) = torch.autograd.grad(glvq.objective(points, leaf, 3.0).sum(), leaf)
    torch.testing.assert_close(glvq.gradient(points, leaf.detach(), 3.0), wanted)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), vectors=st.integers(1, 3))
def test_the_objective_never_rises(seed: int, vectors: int) -> None:
    points, codebook = problem(seed, vectors=vectors)
    before = glvq.objective(points, codebook)
    for _ in range(6):
        codebook = glvq.fit_gradient(points, codebook, iterations=1)
        after = glvq.objective(points, codebook)
        assert (after <= before + 1e-5).all()
        before = after


@pytest.mark.parametrize("solver", [glvq.fit_gradient, glvq.fit_lbfgs])
def test_both_solvers_descend_and_draw_from_the_same_start_alike(solver: Callable) -> None:
    points, codebook = problem(2)
    found = solver(points, codebook)
    before, after = (glvq.objective(points, c) for c in (codebook, found))
    assert (after < 0.9 * before).all()
    assert torch.equal(found, solver(points, codebook))


def test_the_batched_solver_keeps_up_with_lbfgs() -> None:
    """The default's excuse: over many problems it ends about as low after 10 iterations."""
    points, codebook = problem(3, batch=8, points=49, dim=32)
    start = glvq.objective(points, codebook).mean()
    fast, slow = (
        start - glvq.objective(points, solver(points, codebook)).mean()
        for solver in (glvq.fit_gradient, glvq.fit_lbfgs)
    )
    assert fast > 0.95 * slow


def test_vectors_separate_two_clouds() -> None:
    """A start on the wrong side of both clouds ends with every point next to its own class."""
    rng = torch.Generator().manual_seed(0)
    fore = torch.arange(40) >= 20
    cloud = 0.3 * torch.randn(40, 2, generator=rng) + torch.where(fore, 2.0, -2.0)[:, None]
    points = Points(cloud[None, None], ~fore[None, None], fore[None, None])
    start = torch.tensor([[0.5, 0.4], [0.4, 0.3], [0.3, 0.2], [0.2, 0.1]])[None, None]
    found = glvq.fit_gradient(points, start, iterations=20)[0, 0]
    nearest = torch.cdist(cloud, found).argmin(1)
    assert torch.equal(nearest >= 2, fore)


def test_points_of_neither_class_count_for_nothing() -> None:
    points, codebook = problem(4)
    strangers = ~points.in_background & ~points.in_foreground
    assert strangers.any()
    moved = points._replace(vectors=points.vectors + 100 * strangers.unsqueeze(-1))
    torch.testing.assert_close(
        glvq.fit_gradient(moved, codebook), glvq.fit_gradient(points, codebook)
    )


@pytest.mark.parametrize("case", ["all equal", "one class only", "no point"])
@pytest.mark.parametrize("solver", [glvq.fit_gradient, glvq.fit_lbfgs])
def test_degenerate_points_give_finite_vectors(solver: Callable, case: str) -> None:
    points, codebook = problem(5)
    if case == "all equal":
        points, codebook = (
            points._replace(vectors=torch.ones_like(points.vectors)),
            codebook * 0 + 1,
        )
    elif case == "one class only":
        points = points._replace(in_foreground=torch.zeros_like(points.in_foreground))
    else:
        nobody = torch.zeros_like(points.in_foreground)
        points = Points(points.vectors, nobody, nobody)
    assert torch.isfinite(solver(points, codebook)).all()


def sets_of(points: Points) -> tuple[PrototypeSets, PrototypeSets]:
    return (
        PrototypeSets(points.vectors, points.in_foreground),
        PrototypeSets(points.vectors, points.in_background),
    )


def test_sets_become_points_and_vectors_become_sets() -> None:
    given, start = problem(6)
    points = points_of(*sets_of(given))
    torch.testing.assert_close(glvq.objective(points, start), glvq.objective(given, start))
    where = torch.tensor([[True, False], [True, True]])
    fore, back = GLVQ()(points, start, where)
    torch.testing.assert_close(
        torch.cat([back.vectors, fore.vectors], 2), glvq.fit_gradient(points, start)
    )
    assert torch.equal(fore.present.all(2), where)
    assert torch.equal(fore.present, back.present)


# --- the paper's residual step -------------------------------------------------------------------


def slow_refine(vectors: np.ndarray, pixels: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """10 sweeps of one present set."""
    moved = vectors.copy()
    for sweep in range(10):
        eta = 0.01 * (1 - sweep / 10)
        nearest = [int(((moved - x) ** 2).sum(1).argmin()) for x in pixels]
        step = np.zeros_like(moved)
        for j in range(len(moved)):
            mine = [
                e * (x - moved[j])
                for x, e, n in zip(pixels, evidence, nearest, strict=True)
                if n == j
            ]
            step[j] = np.mean(mine, 0) if mine else 0
        moved = moved + eta * step
    return moved


def test_residual_against_a_loop() -> None:
    rng = torch.Generator().manual_seed(7)
    pixels, masks = torch.randn(1, 1, 20, 3, generator=rng), torch.rand(1, 1, 20, generator=rng)
    scene = Scene(pixels, masks, 1 - masks)
    present = torch.ones(1, 1, 4, dtype=torch.bool)
    fore, back = (PrototypeSets(torch.randn(1, 1, 4, 3, generator=rng), present) for _ in range(2))
    found = refine(fore, back, scene, torch.ones(1, 1, dtype=torch.bool))
    evidence = (2 * masks - 1)[0, 0].double().numpy()
    for sets, moved, sign in zip((fore, back), found, (1, -1), strict=True):
        rows, points = sets.vectors[0, 0].double().numpy(), pixels[0, 0].double().numpy()
        wanted = torch.from_numpy(slow_refine(rows, points, sign * evidence))
        torch.testing.assert_close(moved.vectors[0, 0].double(), wanted, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(moved.vectors, sets.vectors, atol=1e-3)


def test_residual_keeps_the_gradient_and_skips_small_ways() -> None:
    rng = torch.Generator().manual_seed(8)
    pixels, masks = torch.randn(1, 2, 20, 3, generator=rng), torch.rand(1, 2, 20, generator=rng)
    present = torch.tensor([[[True, True, False], [True, True, True]]])
    vectors = torch.randn(1, 2, 3, 3, generator=rng).requires_grad_()
    sets = PrototypeSets(vectors, present)
    where = torch.tensor([[True, False]])
    fore, back = refine(sets, sets, Scene(pixels, masks, 1 - masks), where)
    assert torch.equal(fore.vectors[:, 1], vectors[:, 1])
    assert torch.equal(fore.vectors[:, 0, 2], vectors[:, 0, 2])
    assert not torch.equal(fore.vectors[:, 0], vectors[:, 0])
    assert torch.equal(fore.present, present)
    (gradient,) = torch.autograd.grad(fore.vectors.sum() + back.vectors.sum(), vectors)
    assert torch.equal(gradient, torch.full_like(gradient, 2.0))


WRONG = [
    ({"rovq_solver": "adam"}, "rovq_solver='adam'"),
    ({"lvq_vectors": 0}, "lvq_vectors=0"),
    ({"lvq_iterations": -1}, "lvq_iterations=-1"),
    ({"beta": 0.0}, "beta=0.0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        GLVQ(**options)
