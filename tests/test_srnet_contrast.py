"""The contrastive term of SRNet (RECONSTRUCTED) against a slow loop, and its laws."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from apscl_cases import episode, features_of, step_of

from fewshot_seg.episode import Episode, Support
from fewshot_seg.errors import OptionError
from fewshot_seg.interfaces import Step
from fewshot_seg.prototype_sets import PrototypeSets
from fewshot_seg_srnet.class_contrast import ClassContrast
from fewshot_seg_srnet.samples import at_most


def random_step(size: int = 16, **shape: int) -> Step:
    task = episode(size=size, **shape)
    return step_of(task, features_of(task, grid=size, dim=5))


def slow_vectors(maps: np.ndarray, mask: np.ndarray, level: str) -> list[np.ndarray]:
    """Of one class in one image."""
    if level == "mean":
        return [(maps * mask).sum((1, 2)) / mask.sum()] if mask.any() else []
    found = []
    for r, c in np.ndindex(mask.shape[0] // 2, mask.shape[1] // 2):
        part = np.s_[..., 2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
        if mask[part].mean() > 0.95:
            found.append(maps[part].mean((1, 2)))
    return found


def slow_contrast(step: Step, level: str, pos_mode: str, bg_positive: bool, tau: float) -> float:
    support, labels = step.episode.support, step.episode.query_labels
    assert labels is not None
    n_batch, n_way, n_shot = support.masks.shape[:3]
    episodes = []
    for b in range(n_batch):
        samples: list[tuple[int, int, np.ndarray]] = []  # side, class, vector
        for w, s in np.ndindex(n_way, n_shot):
            maps = step.features.support[b, w, s].double().numpy()
            pairs = ((0, support.backgrounds[b, w, s]), (w + 1, support.masks[b, w, s]))
            for label, mask in pairs:
                samples += [(0, label, v) for v in slow_vectors(maps, mask.numpy(), level)]
        for q in range(labels.shape[1]):
            maps = step.features.query[b, q].double().numpy()
            for label in range(n_way + 1):
                mask = (labels[b, q] == label).double().numpy()
                samples += [(1, label, v) for v in slow_vectors(maps, mask, level)]
        terms = []
        for side, label, a in samples:

            def similar(v: np.ndarray, a: np.ndarray = a) -> float:
                return float(np.exp(a @ v / np.linalg.norm(a) / np.linalg.norm(v) / tau))

            positive = [similar(v) for t, k, v in samples if k == label and t != side]
            negative = sum(similar(v) for _, k, v in samples if k != label)
            if not positive or not negative or (label == 0 and not bg_positive):
                continue
            total = sum(positive) + negative
            inside = -np.log(sum(positive) / total)
            terms.append(inside if pos_mode == "in" else -np.mean(np.log(positive) - np.log(total)))
        episodes.append(np.mean(terms) if terms else 0.0)
    return float(np.mean(episodes))


@pytest.mark.parametrize("bg_positive", [True, False])
@pytest.mark.parametrize("pos_mode", ["in", "out"])
@pytest.mark.parametrize("level", ["cell", "mean"])
def test_contrast_against_a_loop(level: str, pos_mode: str, bg_positive: bool) -> None:
    step = random_step(size=12, batch=2, way=2, shot=2, query=2)
    labels = step.episode.query_labels
    assert labels is not None
    labels[:, :, :3] = 255
    term = ClassContrast(
        tau=0.3,
        level=level,
        most=1000,
        cell=2,
        without_cells="skip",
        pos_mode=pos_mode,
        bg_positive=bg_positive,
    )
    got = term(step)["class_contrast"].item()
    wanted = slow_contrast(step, level, pos_mode, bg_positive, 0.3)
    assert wanted > 0
    assert got == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("level", ["cell", "mean"])
@pytest.mark.parametrize("pos_mode", ["in", "out"])
@pytest.mark.parametrize("value", [0, 1])
def test_a_single_class_in_both_images_gives_no_gradient(
    value: int, pos_mode: str, level: str
) -> None:
    task = episode(size=16)
    masks = torch.full_like(task.support.masks, float(value))
    labels = torch.full((1, 1, 16, 16), value)
    task = Episode(Support(task.support.images, masks), task.query_images, labels)
    features = features_of(task, grid=16)
    maps = features.maps().requires_grad_()
    loss = ClassContrast(pos_mode=pos_mode, level=level)(step_of(task, features.with_maps(maps)))[
        "class_contrast"
    ]
    loss.backward()
    assert loss.item() == 0
    assert maps.grad is not None
    assert maps.grad.abs().max() == 0


def test_a_class_that_fills_no_cell_has_its_mean() -> None:
    """A way of 2x2 positions in both images, cells of 4x4."""
    mask = torch.zeros(1, 1, 1, 8, 8)
    mask[..., 3:5, 3:5] = 1
    task = episode(size=8)
    task = Episode(Support(task.support.images, mask), task.query_images, mask[:, 0].long())
    step = step_of(task, features_of(task, grid=8))
    both = {
        name: ClassContrast(without_cells=name)(step)["class_contrast"].item()
        for name in ("mean", "skip")
    }
    assert both["skip"] == 0
    assert both["mean"] == pytest.approx(
        ClassContrast(level="mean")(step)["class_contrast"].item(), rel=1e-5
    ), "the background has no pure cell either"


def test_a_draw_takes_present_vectors_and_all_where_there_are_few() -> None:
    present = torch.zeros(1, 2, 50, dtype=torch.bool)
    present[0, 0, ::2], present[0, 1, :3] = True, True
    sets = PrototypeSets(torch.arange(100.0).view(1, 2, 50, 1), present)
    torch.manual_seed(0)
    drawn = at_most(sets, 8)
    assert drawn.present[0, 0].all()
    numbers = drawn.vectors[0, 0, :, 0].tolist()
    assert len(set(numbers)) == 8
    assert all(number % 2 == 0 for number in numbers)
    assert sorted(drawn.vectors[0, 1, drawn.present[0, 1], 0].tolist()) == [50, 51, 52]
    assert at_most(sets, 8).vectors[0, 0, :, 0].tolist() != numbers
    assert at_most(sets, 50) is sets


def test_one_step_down_the_gradient_lowers_the_loss() -> None:
    step = random_step(size=16)
    maps = step.features.maps().requires_grad_()
    term = ClassContrast(most=1000)
    loss = term(replace(step, features=step.features.with_maps(maps)))["class_contrast"]
    (grad,) = torch.autograd.grad(loss, maps)
    lower = term(replace(step, features=step.features.with_maps(maps - grad)))["class_contrast"]
    assert lower < loss


def test_a_class_that_fills_a_cell_does_not_have_its_mean() -> None:
    step = random_step()
    both = [
        ClassContrast(without_cells=name, cell=2, most=1000)(step)["class_contrast"].item()
        for name in ("mean", "skip")
    ]
    assert both[1] > 0
    assert both[0] == pytest.approx(both[1], rel=1e-5)


WRONG = [
    ({"tau": 0.0}, "tau=0.0"),
    ({"level": "cells"}, "level='cells'"),
    ({"pos_mode": "sum"}, "pos_mode='sum'"),
    ({"without_cells": "keep"}, "without_cells='keep'"),
    ({"most": 0}, "most=0"),
    ({"purity": 1.0}, "purity=1.0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(o) for o, _ in WRONG])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ClassContrast(**options)
