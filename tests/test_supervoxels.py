"""Supervoxels: the segmentation of volumes."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fewshot_seg.data import felzenszwalb3d
from fewshot_seg.data.felzenszwalb3d import segment
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import PreparedScan, prepare
from fewshot_seg.data.superpixels import body_mask
from fewshot_seg.data.supervoxels import spacing_ratio, supervoxels
from fewshot_seg.errors import OptionError


@pytest.fixture(scope="module")
def scans() -> list[PreparedScan]:
    dataset = abdomen(n_scans=2, size=64, n_slices=10)
    return [prepare(dataset.load(one), size=None, intensity=Intensity()) for one in dataset.ids]


def slow_segment(volume: np.ndarray, ratio: float, scale: float, min_size: int) -> np.ndarray:
    """Section 9 of the data notes, edge by edge, with every edge sorted."""
    shape = volume.shape
    edges = []
    half = [d for d in product((0, 1), (-1, 0, 1), (-1, 0, 1)) if d > (0, 0, 0)]
    for direction, (dz, dy, dx) in enumerate(half):
        beside = abs(dy) + abs(dx)
        weight = (ratio**2 + beside) / (1 + beside) if dz else 1.0
        for voxel in np.ndindex(shape):
            there = (voxel[0] + dz, voxel[1] + dy, voxel[2] + dx)
            if all(0 <= a < b for a, b in zip(there, shape, strict=True)):
                cost = abs(volume[there] - volume[voxel]) * np.sqrt(weight)
                edges.append((cost, direction, voxel, there))
    edges.sort()
    member = {voxel: index for index, voxel in enumerate(np.ndindex(shape))}
    groups = {index: [voxel] for voxel, index in member.items()}
    inner = dict.fromkeys(groups, 0.0)

    def join(a: int, b: int) -> int:
        low, high = min(a, b), max(a, b)
        for voxel in groups.pop(high):
            member[voxel] = low
            groups[low].append(voxel)
        return low

    for cost, _, one, two in edges:
        a, b = member[one], member[two]
        limit = min(inner[a] + scale / len(groups[a]), inner[b] + scale / len(groups[b]))
        if a != b and cost < limit:
            inner[join(a, b)] = cost
    for _, _, one, two in edges:
        a, b = member[one], member[two]
        if a != b and min(len(groups[a]), len(groups[b])) < min_size:
            join(a, b)
    found = np.array([member[voxel] for voxel in np.ndindex(shape)])
    return np.unique(found, return_inverse=True)[1].reshape(shape)


def volumes() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(draw.standard_normal((5, 8, 7)), 1), 2)
    return {
        "continuous": draw.random((4, 7, 6)) * 255,
        "smooth": smooth,
        "whole numbers": draw.integers(0, 6, (4, 6, 7)).astype(float),
        "flat parts": np.where(draw.random((5, 6, 6)) < 0.5, 0.0, draw.random((5, 6, 6))),
        "one slice": draw.random((1, 9, 9)),
        "one column": draw.random((9, 1, 1)),
        "one voxel": np.zeros((1, 1, 1)),
    }


@pytest.mark.parametrize("portion", [felzenszwalb3d.PORTION, 40])
@pytest.mark.parametrize(
    ("ratio", "scale", "min_size"),
    [(1.0, 1 / 255, 1), (6.16, 1 / 255, 20), (0.4, 3.0, 1), (2.0, 40.0, 15), (6.16, 1e4, 10**6)],
)
@pytest.mark.parametrize("name", list(volumes()))
def test_segments_equal_a_slow_loop(
    name: str, ratio: float, scale: float, min_size: int, portion: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(felzenszwalb3d, "PORTION", portion)
    volume = volumes()[name]
    got = segment(volume, spacing_ratio=ratio, scale=scale, min_size=min_size)
    assert np.array_equal(got, slow_segment(volume, ratio, scale, min_size))


def test_the_first_pass_goes_on_above_its_scale() -> None:
    # two pairs of inner cost 0.9 stay open up to 0.9 + 1/2, so the edge of 1.2 joins them
    row = np.array([[[0.0, 0.9, 2.1, 3.0, 5.0]]])
    assert segment(row, scale=1.0).tolist() == [[[0, 0, 0, 0, 1]]]
    assert segment(row, scale=1.0, min_size=2).max() == 0


def test_supervoxels_equal_the_official_code(golden: Callable[[str], Path]) -> None:
    want = np.load(golden("adnet") / "supervoxels.npz")
    z, y, x = want["spacing_zyx"]
    assert y == x
    options = {
        "spacing_ratio": float(z / x),
        "min_size": int(want["min_size"]),
        "threshold": float(want["body_threshold"]),
        "reference": None,
    }
    official = supervoxels(want["volume"], **options, consecutive=False)
    assert np.array_equal(official, want["pseudo_labels"])
    ours = supervoxels(want["volume"], **options)
    assert np.array_equal(ours > 0, want["body_mask"] > 0)
    pairs = {(a, b) for a, b in zip(ours.ravel().tolist(), want["pseudo_labels"].ravel().tolist())}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert np.unique(ours).tolist() == list(range(ours.max() + 1))


def test_supervoxels_are_consecutive_large_and_inside_the_body(scans: list[PreparedScan]) -> None:
    image = scans[0].images[:, 0].numpy()
    found = supervoxels(image, spacing_ratio=4.0)
    assert np.unique(found).tolist() == list(range(found.max() + 1))
    assert found.max() >= 5
    scaled = (image - image.min()) / (image.max() - image.min()) * 255
    inside = np.stack([body_mask(plane, 10.0) for plane in scaled])
    assert not found[~inside].any()
    # min_size is for 256x256: 64x64 has a sixteenth of the pixels
    raw = segment(scaled.astype(np.float64), spacing_ratio=4.0, min_size=5000 // 16)
    assert np.bincount(raw.ravel()).min() >= 5000 // 16
    assert supervoxels(image, min_size=1000).max() > found.max()


def test_the_unit_of_the_intensities_does_not_matter(scans: list[PreparedScan]) -> None:
    image = scans[0].images[:4, 0].numpy().astype(np.float64)
    assert np.array_equal(supervoxels(image), supervoxels(image * 1024))


def test_a_constant_volume_has_none() -> None:
    assert not supervoxels(np.full((3, 8, 8), 7.0)).any()


def test_spacing_ratio_is_that_of_the_network_size(scans: list[PreparedScan]) -> None:
    scan = replace(scans[0], spacing=(8.0, 2.0, 2.0), original_size=(64, 64))
    assert spacing_ratio(scan) == pytest.approx(4.0)
    assert spacing_ratio(replace(scan, original_size=(128, 128))) == pytest.approx(2.0)
    assert spacing_ratio(replace(scan, spacing=(8.0, 1.0, 4.0))) == pytest.approx(4.0)
    assert spacing_ratio(replace(scan, spacing=None)) is None
    assert spacing_ratio(replace(scan, spacing=(0.0, 1.0, 1.0))) is None


@pytest.mark.parametrize("wrong", [{"spacing_ratio": 0.0}, {"scale": -1.0}, {"min_size": 0},
                                   {"spacing_ratio": float("nan")}])  # fmt: skip
def test_wrong_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        supervoxels(np.random.default_rng(0).random((2, 4, 4)), **wrong)


def test_values_that_are_not_finite_are_refused() -> None:
    volume = np.zeros((2, 4, 4))
    volume[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="only finite values"):
        segment(volume)


def test_numba_is_imported_on_first_use_only() -> None:
    code = "import sys, fewshot_seg.data.supervoxel_source; print('numba' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "False", answer.stderr
