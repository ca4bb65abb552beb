"""The resampling that all published copies went through, against slow and published truth."""

import json
from collections.abc import Callable
from itertools import product
from math import floor
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from fewshot_seg.data.raw.resample import (
    centre_crop_pad,
    clip_brightest,
    new_size,
    resample,
    resample_image,
    resample_labels,
)

RAW = {  # id: (pixels, slices, mm in plane, mm between slices), as the authors' notebook printed
    "1": (256, 36, 1.54296875, 7.700004577636719),
    "10": (256, 36, 1.69921875, 7.6999969482421875),
    "13": (320, 30, 1.359375, 9.0),
    "15": (256, 26, 1.58203125, 9.0),
    "2": (320, 26, 1.359375, 9.000003814697266),
    "21": (256, 31, 1.66015625, 7.999995231628418),
    "22": (256, 33, 1.73828125, 8.700000762939453),
    "31": (256, 29, 1.62109375, 8.999991416931152),
    "32": (256, 39, 1.81640625, 9.0),
    "34": (256, 30, 1.73828125, 8.79998779296875),
    "36": (256, 38, 1.62109375, 9.0),
    "37": (256, 32, 1.46484375, 9.0),
    "8": (288, 32, 1.40625, 8.0),
}


def volume(values: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1)) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin((3.0, -4.0, 5.0))
    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, -1]])
    image.SetDirection(turn.ravel().tolist())
    return image


def test_sizes_are_those_of_the_published_scans(shared_data: Callable[[str], Path]) -> None:
    """The scans that differ only in the seventh digit of their spacing differ in slices."""
    cases = json.loads((shared_data("chaos_MR_T2_normalized") / "dataset.json").read_text())
    published = {case["id"]: case["shape"][2] for case in cases["cases"]}
    for scan_id, (pixels, slices, plane, between) in RAW.items():
        size = new_size((pixels, pixels, slices), (plane, plane, between), (1.25, 1.25, 7.70))
        assert size[0] == pixels * plane / 1.25 + 1
        assert size[2] == published[scan_id], scan_id


def test_sizes_do_not_hang_on_the_rounding_of_a_product() -> None:
    for spacing in np.linspace(0.5, 1, 101):
        coarser = spacing * 448 / 256
        assert new_size((448, 448, 7), (spacing, spacing, 3.3), (coarser, coarser, 3.3)) == (
            *(257, 257),
            8,
        )


def slow(values: np.ndarray, old: tuple, new: tuple) -> np.ndarray:
    """Trilinear, voxel by voxel; axes (z, y, x), spacings (x, y, z)."""
    old, new = old[::-1], new[::-1]
    size = [floor(n * o / w) + 1 for n, o, w in zip(values.shape, old, new)]
    result = np.zeros(size)
    for place in np.ndindex(*size):
        at = [i * w / o for i, o, w in zip(place, old, new)]
        if any(a >= n - 0.5 for a, n in zip(at, values.shape)):
            continue
        for corner in product((0, 1), repeat=3):
            low = [min(floor(a), n - 1) for a, n in zip(at, values.shape)]
            index = tuple(min(o + c, n - 1) for o, c, n in zip(low, corner, values.shape))
            weight = np.prod([a - o if c else 1 - a + o for a, o, c in zip(at, low, corner)])
            result[place] += weight * values[index]
    return result


OLD, NEW = (1.5, 1.2, 3.0), (1.25, 1.0, 2.1)


def test_images_are_linear_and_zero_outside() -> None:
    values = np.random.default_rng(0).normal(5, 1, (5, 6, 7))
    found = resample_image(volume(values, OLD), NEW)
    expected = slow(values, OLD, NEW)
    np.testing.assert_allclose(sitk.GetArrayFromImage(found), expected, atol=1e-9)
    assert (expected[-1] == 0).all()  # the plane outside is kept, as the field has it
    assert found.GetOrigin() == (3.0, -4.0, 5.0)
    assert found.GetSpacing() == NEW
    assert found.GetDirection() == volume(values).GetDirection()


def test_whole_numbers_stay_whole() -> None:
    values = np.random.default_rng(0).integers(0, 900, (5, 6, 7)).astype(np.int16)
    found = sitk.GetArrayFromImage(resample_image(volume(values, OLD), NEW))
    assert found.dtype == np.int16
    below = slow(values, OLD, NEW) - found  # fractions are cut off, as in the published files
    assert below.min() > -1e-9
    assert below.max() < 1 + 1e-9


def test_each_class_is_linear_and_kept_above_one_half() -> None:
    ids = np.random.default_rng(1).choice([0, 0, 0, 2, 5], (5, 6, 7)).astype(np.uint8)
    expected = np.zeros([floor(n * o / w) + 1 for n, o, w in zip((5, 6, 7), OLD[::-1], NEW[::-1])])
    for value in (2, 5):
        expected[slow(ids == value, OLD, NEW).round(6) > 0.5] = value
    image, labels = resample(volume(ids.astype(np.float32), OLD), volume(ids, OLD), NEW)
    found = sitk.GetArrayFromImage(labels)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8
    assert labels.GetSize() == image.GetSize()
    assert labels.GetOrigin() == image.GetOrigin()


def test_one_half_exactly_is_background_and_ids_never_mix() -> None:
    ids = np.zeros((2, 4, 4), np.uint8)
    ids[:, :, :2], ids[:, :, 2:] = 1, 4
    found = sitk.GetArrayFromImage(resample_labels(volume(ids), (0.5, 1.0, 1.0)))
    assert found[0, 0].tolist() == [1, 1, 1, 0, 4, 4, 4, 0, 0]
    nothing = resample_labels(volume(np.zeros((2, 3, 3), np.uint8)), (0.5, 1.0, 1.0))
    assert not sitk.GetArrayViewFromImage(nothing).any()


@pytest.mark.parametrize("width", [3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("size", [4, 5, 6])
def test_the_middle_stays_in_the_middle_and_every_voxel_in_its_place(width: int, size: int) -> None:
    values = np.arange(2 * 6 * width, dtype=np.int16).reshape(2, 6, width) + 1
    image = volume(values, (1.5, 2, 3))
    found = centre_crop_pad(image, (size, 4), 77)
    assert found.GetSize() == (size, 4, 2)
    array = sitk.GetArrayFromImage(found)
    middle = values[:, 3, width // 2]
    assert array[:, 2, size // 2].tolist() == middle.tolist()
    for x in range(size):
        place = found.TransformIndexToPhysicalPoint((x, 1, 1))
        index = np.rint(image.TransformPhysicalPointToContinuousIndex(place)).astype(int)
        inside = 0 <= index[0] < width
        assert array[1, 1, x] == (values[1, index[1], index[0]] if inside else 77)


def test_the_brightest_are_cut_from_above_only() -> None:
    values = np.arange(1000).reshape(10, 10, 10)
    for given, kind in ((values.astype(np.uint16), np.int16), (values / 7, np.float32)):
        clipped = clip_brightest(volume(given), 0.5)
        found = sitk.GetArrayFromImage(clipped)
        top = np.percentile(given, 99.5)
        assert found.dtype == kind
        assert found.min() == 0
        np.testing.assert_array_equal(found, np.minimum(given, top).astype(kind))
        assert clipped.GetDirection() == volume(given).GetDirection()
    assert sitk.GetArrayFromImage(clip_brightest(volume(values + 40000), 0.5)).dtype == np.float32
