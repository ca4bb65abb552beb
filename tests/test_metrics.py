"""Dice against three official codes; surface distances against slow distance transforms."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, distance_transform_edt

from fewshot_seg.evaluation.metrics import Counts, count, dice, surface_distances

Golden = Callable[[str], Path]


def blob(seed: int, shape: tuple[int, int, int] = (6, 14, 11)) -> np.ndarray:
    """A lumpy random volume, with holes and islands."""
    rng = np.random.default_rng([seed, 7])
    centre = np.array(shape) / 2 + rng.uniform(-1, 1, 3)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    near = ((grid - centre) / np.array(shape)) ** 2
    mask: np.ndarray = near.sum(-1) + rng.uniform(-0.03, 0.03, shape) < 0.08
    return mask


@pytest.mark.parametrize(
    ("method", "of_slice", "expected"),
    [
        ("alpnet", "scan_of_slice", "dice_per_scan"),
        ("adnet", "volume_of_slice", "dice_per_volume"),
    ],
)
def test_dice_agrees_with_official_code(
    golden: Golden, method: str, of_slice: str, expected: str
) -> None:
    table = np.load(golden(method) / "metric_dice.npz")
    scan = table[of_slice]
    for index, value in enumerate(table[expected]):
        chosen = scan == index
        found = dice(table["predictions"][chosen] > 0, table["targets"][chosen] > 0)
        assert found == pytest.approx(value, abs=1e-6)


def test_dice_agrees_with_senet_up_to_its_epsilon(golden: Golden) -> None:
    table = np.load(golden("senet") / "metric_dice.npz")
    found = [dice(p > 0, t > 0) for p, t in zip(table["predictions"], table["targets"])]
    np.testing.assert_allclose(found, table["dice_per_volume"], atol=1e-5)


def test_counts_and_empty_masks() -> None:
    assert Counts(3, 1, 2).dice == pytest.approx(6 / 9)
    nothing, all_of_it = np.zeros((2, 3, 3), bool), np.ones((2, 3, 3), bool)
    assert dice(nothing, nothing) == 1.0
    assert dice(nothing, all_of_it) == 0.0
    assert count(all_of_it, nothing) == Counts(0, 18, 0)
    assert count(nothing, all_of_it) == Counts(0, 0, 18)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_dice_is_symmetric_and_one_only_for_equal_masks(first: int, second: int) -> None:
    a, b = blob(first), blob(second)
    assert dice(a, b) == dice(b, a)
    assert 0 <= dice(a, b) <= 1
    assert (dice(a, b) == 1) == bool((a == b).all())


def slow(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """HD95 and ASSD from their definitions, with whole-volume distance transforms."""
    edges = [np.pad(mask, 2) & ~binary_erosion(np.pad(mask, 2)) for mask in (a, b)]
    away = [distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    there, back = away[1][edges[0]], away[0][edges[1]]
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hd95), float(np.concatenate([there, back]).mean())


@pytest.mark.parametrize("spacing", [(7.7, 1.25, 1.25), (1.0, 1.0, 1.0), (3.0, 0.7, 1.9)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_surface_distances_agree_with_distance_transforms(
    seed: int, spacing: tuple[float, float, float]
) -> None:
    a, b = blob(seed), np.roll(blob(seed + 50), (1, 2, -1), (0, 1, 2))
    found = surface_distances(a, b, spacing)
    assert (found.hd95, found.assd) == pytest.approx(slow(a, b, spacing), abs=1e-4)
    assert found.unit == "mm"


def test_a_shifted_box_is_as_far_as_it_was_shifted() -> None:
    a = np.zeros((9, 20, 20), bool)
    a[2:7, 5:10, 5:10] = True
    b = np.roll(a, 1, 0)
    assert surface_distances(a, b, (7.7, 1.0, 1.0)).hd95 == pytest.approx(7.7)
    assert surface_distances(a, a, (7.7, 1.0, 1.0)).assd == 0
    assert surface_distances(a, np.roll(a, 3, 2), None).hd95 == pytest.approx(3)


def test_the_edge_of_the_volume_is_surface_as_well() -> None:
    a = np.ones((3, 8, 8), bool)
    b = a.copy()
    b[:, :, 6:] = False
    found = surface_distances(a, b, (1.0, 1.0, 1.0))
    assert (found.hd95, found.assd) == pytest.approx(slow(a, b, (1.0, 1.0, 1.0)), abs=1e-5)


def test_a_picture_is_compared_in_its_plane_and_in_pixels() -> None:
    a, b = blob(3)[2:3], blob(4)[3:4]
    found = surface_distances(a, b, None)
    assert found.unit == "px"
    assert (found.hd95, found.assd) == pytest.approx(slow(a[0], b[0], (1.0, 1.0)), abs=1e-5)


@pytest.mark.parametrize("empty", [0, 1])
def test_an_empty_mask_has_no_distance(empty: int) -> None:
    masks = [blob(0), blob(1)]
    masks[empty] = np.zeros_like(masks[empty])
    found = surface_distances(*masks, (1.0, 1.0, 1.0))
    assert math.isnan(found.hd95)
    assert math.isnan(found.assd)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"prediction has shape \(1, 2, 2\) but the truth \(1, 2"):
        dice(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 3), bool))
    with pytest.raises(ValueError, match="the prediction has shape"):
        surface_distances(np.zeros((1, 2, 2), bool), np.zeros((2, 2, 2), bool), None)
