"""The consistency of two views (reconstructed): a slow loop, worked values and laws."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from apscl_cases import TinyEncoder, close, generator
from torch import Tensor

from fewshot_seg import build
from fewshot_seg.episode import Episode, Features
from fewshot_seg.errors import EpisodeError, OptionError
from fewshot_seg.functional import area_average
from fewshot_seg.interfaces import Latent, Step
from fewshot_seg.testing import check_contrastive, make_episode
from fewshot_seg_panet.cosine import Cosine
from fewshot_seg_poissonseg.consistency import Consistency, Pairs, contrast_loss, near_cells


class Means:
    """Stride 8: local means of each channel, so a moved image gives moved maps."""

    def __call__(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 8)


def affine_views(task: Episode, theta: list[list[float]]) -> Episode:
    """Second views that show the images through an affine map, all alike."""
    images = torch.cat([task.support.images.flatten(1, 2), task.query_images], 1)
    flat = images.flatten(0, 1)
    matrix = torch.tensor(theta).expand(len(flat), 2, 3)
    grid = F.affine_grid(matrix, list(flat.shape), align_corners=False)
    second = F.grid_sample(flat, grid, align_corners=False)
    extras = {
        "second_view_images": second.view_as(images),
        "second_view_grid": grid.view(*images.shape[:2], *grid.shape[1:]),
    }
    return replace(task, extras=extras)


def step_of(task: Episode, samples: int = 1) -> Step:
    """Features as `Means` gives them, the batch `samples` times over."""
    encode = Means()
    support, query = task.support.images, task.query_images
    maps = encode(support.flatten(0, 2))
    features = Features(
        maps.view(*support.shape[:3], *maps.shape[1:]),
        area_average(task.support.masks, (maps.shape[-2], maps.shape[-1])),
        encode(query.flatten(0, 1)).view(*query.shape[:2], *maps.shape[1:]),
    ).repeat(samples)
    if samples > 1:
        task = task.map(lambda t: t.repeat(samples, *[1] * (t.ndim - 1)))
    state = Cosine().describe(features.support, task.support.masks)
    return Step(task, features, features, Latent(), state, Cosine(), samples, None, encode)


MIRROR = [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
SHIFT = [[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]
"""A quarter of the width to the side: 16 of 64 pixels, two cells."""


def smooth(task: Episode) -> Episode:
    """Noise on the scale of a cell, the same in each; mirrored and moved maps are then exact."""
    rng = generator(3)

    def like(images: Tensor) -> Tensor:
        rough = torch.randn(*images.shape[:-2], 8, 8, generator=rng)
        return rough.repeat_interleave(8, -1).repeat_interleave(8, -2)

    support = replace(task.support, images=like(task.support.images))
    return replace(task, support=support, query_images=like(task.query_images))


def task_of(**options: Any) -> Episode:
    return smooth(make_episode(channels=8, **options))


@pytest.mark.parametrize("theta", [MIRROR, SHIFT], ids=["mirror", "shift"])
def test_matching_views_agree(theta: list[list[float]]) -> None:
    step = step_of(affine_views(task_of(n_shot=2), theta))
    close(Consistency(simple=True)(step)["consistency"], torch.zeros(()), atol=1e-5)
    assert Consistency(keep_positive=True)(step)["consistency"] < 0.3
    upside_down = {"second_view_images": step.episode.extras["second_view_images"].flip(-2)}
    other = replace(step.episode, extras={**step.episode.extras, **upside_down})
    assert Consistency(simple=True)(replace(step, episode=other))["consistency"] > 0.5


def slow_loss(
    first: Tensor, second: Tensor, valid: Tensor, tau: float, radius: float, positive: bool
) -> float:
    """One image; maps "dim rows cols" already at the same places."""
    rows, cols = first.shape[-2:]
    cells = [(r, c) for r in range(rows) for c in range(cols) if valid[r, c]]

    def cosine(a: tuple[int, int], b: tuple[int, int]) -> float:
        return F.cosine_similarity(first[:, a[0], a[1]], second[:, b[0], b[1]], dim=0).item()

    terms = []
    for cell in cells:
        far = [c for c in cells if math.dist(c, cell) >= radius or (positive and c == cell)]
        if far:
            total = sum(math.exp(cosine(cell, c) / tau) for c in far)
            terms.append(-math.log(math.exp(cosine(cell, cell) / tau) / total))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("radius", [0.0, 1.0, 2.0])
def test_against_a_loop(radius: float, positive: bool) -> None:
    task = affine_views(task_of(batch=1, n_way=2), SHIFT)
    step = step_of(task)
    term = Consistency(tau=0.3, radius=radius, keep_positive=positive)
    wanted = []
    images = torch.cat([task.support.images.flatten(1, 2), task.query_images], 1)[0]
    for image, view in zip(images, task.extras["second_view_images"][0], strict=True):
        moved = torch.roll(F.avg_pool2d(image, 8), -2, -1)  # what lies at the second view's cells
        valid = (torch.arange(8) < 6)[None].expand(8, 8)
        wanted.append(slow_loss(moved, F.avg_pool2d(view, 8), valid, 0.3, radius, positive))
    close(term(step)["consistency"], torch.tensor(sum(wanted) / len(wanted)), atol=1e-4)


def test_worked_values() -> None:
    """Four orthogonal features in a row, both views alike, radius 2: cells 0 and 1 see two and one
    others at cosine 0; -log(e^(1/tau) / n) = log n - 1 / tau."""
    unit = torch.eye(4)[None]
    pairs = Pairs(unit, unit, torch.ones(1, 4, dtype=torch.bool))
    near = near_cells(1, 4, 2.0, unit)
    loss = contrast_loss(pairs, near, tau=0.5, keep_positive=False)
    close(loss, torch.tensor((2 * math.log(2) + 2 * math.log(1)) / 4 - 2))
    kept = contrast_loss(pairs, near, tau=0.5, keep_positive=True)
    one = math.exp(2)
    wanted = (2 * math.log((one + 2) / one) + 2 * math.log((one + 1) / one)) / 4
    close(kept, torch.tensor(wanted))


def test_nothing_to_compare_is_zero() -> None:
    task = affine_views(task_of(), [[1.0, 0.0, 9.0], [0.0, 1.0, 0.0]])
    step = step_of(task)
    for options in ({}, {"simple": True}, {"keep_positive": True}):
        assert Consistency(**options)(step)["consistency"] == 0
    # every position of a grid is near every other: no negative, no loss
    mirrored = step_of(affine_views(task_of(), MIRROR))
    assert Consistency(radius=99.0)(mirrored)["consistency"] == 0


def test_invalid_images_do_not_dilute_the_others() -> None:
    task = affine_views(task_of(batch=2), MIRROR)
    both = Consistency()(step_of(task))["consistency"]
    grid = task.extras["second_view_grid"].clone()
    grid[1] = 9.0
    half = replace(task, extras={**task.extras, "second_view_grid": grid})
    first = task.map(lambda t: t[:1])
    close(Consistency()(step_of(half))["consistency"], Consistency()(step_of(first))["consistency"])
    assert not torch.allclose(both, Consistency()(step_of(half))["consistency"], atol=1e-4)


def test_latent_samples_change_nothing() -> None:
    task = affine_views(task_of(), MIRROR)
    close(
        Consistency()(step_of(task, 3))["consistency"], Consistency()(step_of(task))["consistency"]
    )


@pytest.mark.parametrize("stop", [True, False])
def test_where_the_gradient_goes(stop: bool) -> None:
    step = step_of(affine_views(task_of(), MIRROR))
    weight = torch.ones((), requires_grad=True)
    step = replace(step, encode=lambda images: F.avg_pool2d(images, 8) * weight)
    maps = step.before.maps().requires_grad_()
    step = replace(step, before=step.before.with_maps(maps))
    Consistency(stop_gradient=stop)(step)["consistency"].backward()
    assert maps.grad is not None
    assert maps.grad.abs().max() > 0
    assert (weight.grad is None) == stop


def test_the_gradient_at_zero_features_is_finite() -> None:
    """Features of length 0 have no direction, and a turned view has corners from nowhere."""
    task = affine_views(task_of(), [[0.7, 0.7, 0.0], [-0.7, 0.7, 0.0]])
    step = step_of(task)
    maps = torch.zeros_like(step.before.maps()).requires_grad_()
    step = replace(step, before=step.before.with_maps(maps))
    Consistency()(step)["consistency"].backward()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()


@pytest.mark.parametrize(
    "options", [{}, {"simple": True}, {"keep_positive": True}, {"stop_gradient": False}], ids=str
)
def test_contract(options: dict[str, Any]) -> None:
    check_contrastive(Consistency(**options), Cosine(), dim=4)


def test_missing_and_wrong_views() -> None:
    task = task_of()
    with pytest.raises(EpisodeError, match="Consistency needs extras"):
        Consistency()(step_of(task))
    task = affine_views(task, MIRROR)
    few = {name: tensor[:, :1] for name, tensor in task.extras.items()}
    with pytest.raises(ValueError, match="second views of 1 images"):
        Consistency()(step_of(replace(task, extras=few)))


@pytest.mark.parametrize(
    ("options", "message"), [({"tau": 0.0}, "tau=0.0"), ({"radius": -1.0}, "radius=-1.0")], ids=str
)
def test_wrong_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Consistency(**options)


def test_borrowed_by_another_method() -> None:
    torch.manual_seed(0)
    model = build("panet", encoder=TinyEncoder(), contrastive="consistency").train()
    task = make_episode(channels=1, needs=("second_view",))
    output = model(task)
    assert set(output.losses) == {"ce", "consistency"}
    output.loss.backward()
    assert not model.eval()(task).losses
