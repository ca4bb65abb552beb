"""Scans made ready for a network: intensities, sizes, channels, failures."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_seg.data.intensity import Intensity, fit_intensity
from fewshot_seg.data.prepare import prepare, prepare_all
from fewshot_seg.data.resize import resize_images, resize_labels
from fewshot_seg.data.scan import Scan
from fewshot_seg.errors import DataError, OptionError, UnknownNameError


def grey(name="a", shape=(3, 1, 12, 10), seed=0, **changes):
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 20, shape).astype(np.float32)
    labels = rng.integers(0, 3, (shape[0], *shape[2:])).astype(np.int16)
    return Scan(name, changes.get("image", image), changes.get("labels", labels), (7.7, 1.0, 1.0))


@dataclass
class Memory:
    """Scans by id; an exception in a scan's place is raised when it is loaded."""

    scans: Mapping[str, object]
    modality: str = "mr"
    name: str = "memory"

    @property
    def ids(self):
        return tuple(self.scans)

    @property
    def classes(self):
        return {1: "one", 2: "two"}

    def load(self, scan_id):
        scan = self.scans[scan_id]
        if isinstance(scan, Exception):
            raise scan
        return scan


def test_zscore_is_over_the_whole_volume():
    scan = grey()
    prepared = prepare(scan, size=None, intensity=Intensity())
    expected = (scan.image - scan.image.mean()) / scan.image.std()
    assert prepared.images.shape == (3, 3, 12, 10)
    assert prepared.images.dtype == torch.float32
    for channel in range(3):
        np.testing.assert_allclose(prepared.images[:, channel], expected[:, 0], atol=1e-5)
    assert prepared.n_slices == 3
    assert prepared.size == (12, 10)
    assert prepared.spacing == (7.7, 1.0, 1.0)


def test_ct_numbers_are_pooled_over_the_training_scans():
    data = Memory({one: grey(one, (2 + int(one), 1, 8, 8), int(one)) for one in "123"}, "ct")
    intensity = fit_intensity(data, ["1", "3"])
    values = np.concatenate([data.load(one).image.ravel() for one in "13"]).astype(np.float64)
    assert intensity.mean == pytest.approx(values.mean(), rel=1e-9)
    assert intensity.std == pytest.approx(values.std(), rel=1e-9)
    normalised = intensity.normalise(data.load("2").image, name="2")
    expected = (data.load("2").image - values.mean()) / values.std()
    np.testing.assert_allclose(normalised, expected, rtol=1e-4, atol=1e-5)


def test_window_clips_before_fitting():
    data = Memory({"1": grey("1"), "2": grey("2", seed=2)}, "ct")
    intensity = fit_intensity(data, data.ids, window=(90.0, 110.0))
    values = np.concatenate([scan.image.ravel() for scan in data.scans.values()]).clip(90, 110)
    assert intensity.mean == pytest.approx(values.mean(), rel=1e-5)
    low = intensity.normalise(np.full((1, 1, 1, 2), [-1000, 5000], np.float32), name="x")
    assert low.ravel() == pytest.approx((np.array([90, 110]) - values.mean()) / values.std())


@pytest.mark.parametrize("modality", ["mr", "picture"])
def test_other_modalities_are_scored_one_by_one(modality):
    assert fit_intensity(Memory({}, modality), []) == Intensity()


@pytest.mark.parametrize(
    "intensity",
    [
        Intensity(),
        Intensity(3.0, 2.0),
        Intensity(window=(0.0, 1.0)),
        Intensity(1.0, 2.0, (0.0, 9.0)),
    ],
)
def test_intensity_travels_as_plain_numbers(intensity):
    assert Intensity.from_dict(intensity.to_dict()) == intensity
    with pytest.raises(OptionError, match="got sigma"):
        Intensity.from_dict({**intensity.to_dict(), "sigma": 1.0})


def test_colour_is_kept_or_becomes_luminance():
    image = np.random.default_rng(1).uniform(0, 255, (1, 3, 6, 6)).astype(np.float32)
    scan = Scan("p", image)
    colour = prepare(scan, size=None, intensity=Intensity()).images
    np.testing.assert_allclose(colour, (image - image.mean()) / image.std(), atol=1e-5)
    light = 0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2]
    one = prepare(scan, size=None, intensity=Intensity(), channels=1)
    np.testing.assert_allclose(one.images[:, 0], (light - light.mean()) / light.std(), atol=1e-4)
    assert one.labels is None
    assert one.original_labels is None
    assert one.class_slices == {}


def test_resized_but_scored_at_full_resolution():
    scan = grey(shape=(2, 1, 40, 24))
    prepared = prepare(scan, size=16, intensity=Intensity())
    assert prepared.images.shape == (2, 3, 16, 16)
    assert prepared.labels.shape == (2, 16, 16)
    assert prepared.labels.dtype == torch.uint8
    assert prepared.original_labels is scan.labels
    assert prepared.original_size == (40, 24)
    assert prepare(scan, size=(8, 20), intensity=Intensity()).size == (8, 20)


def test_class_slices_come_from_the_original_labels():
    labels = np.zeros((3, 32, 32), np.int16)
    labels[1, 5, 5] = 2  # one pixel: gone at 8 x 8
    labels[2, 8:24, 8:24] = 1
    scan = Scan("a", np.random.default_rng(0).normal(size=(3, 1, 32, 32)), labels)
    prepared = prepare(scan, size=8, intensity=Intensity())
    assert prepared.class_slices == {1: (2,), 2: (1,)}
    assert torch.unique(prepared.labels).tolist() == [0, 1]
    assert int((prepared.labels[2] == 1).sum()) == 16


def test_images_are_smoothed_when_they_shrink():
    image = torch.zeros(1, 1, 64, 64)
    image[..., ::4] = 1  # lines of one pixel, which sampling without smoothing misses
    small = resize_images(image, (16, 16))[..., 2:-2]
    torch.testing.assert_close(small, torch.full_like(small, 0.25), atol=0.05, rtol=0)


def majority(labels, size):
    """Slow: each new pixel counts a fine raster of points that fall into it."""
    rows, cols = labels.shape
    fine = labels.repeat_interleave(size[0], 0).repeat_interleave(size[1], 1)
    found = torch.zeros(size, dtype=labels.dtype)
    for row in range(size[0]):
        for col in range(size[1]):
            patch = fine[row * rows : (row + 1) * rows, col * cols : (col + 1) * cols]
            counts = torch.bincount(patch.flatten().long(), minlength=5)
            order = sorted(range(5), key=lambda value: (-int(counts[value]), value == 0, value))
            found[row, col] = order[0]
    return found


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 1000),
)
def test_labels_by_majority_of_area(rows, cols, size, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (2, rows, cols), generator=generator)
    found = resize_labels(labels, size)
    for plane in range(2):
        assert torch.equal(found[plane], majority(labels[plane], size))


def test_many_classes_keep_their_ids():
    labels = np.full((1, 4, 4), 300, np.int32)
    prepared = prepare(grey(shape=(1, 1, 4, 4), labels=labels), size=2, intensity=Intensity())
    assert prepared.labels.dtype == torch.int64
    assert torch.unique(prepared.labels).tolist() == [300]


NAN = np.ones((1, 1, 4, 4), np.float32)
NAN[0, 0, 1, 1:3] = np.nan
FLAT = np.full((2, 1, 4, 4), 7, np.float32)
TWO = np.random.default_rng(0).normal(size=(1, 2, 4, 4))


@pytest.mark.parametrize(
    ("scan", "options", "error", "message"),
    [
        (Scan("n", NAN), {}, DataError, "scan n has 2 intensities that are not finite"),
        (Scan("f", FLAT), {}, DataError, "scan f has the same intensity 7 everywhere"),
        (Scan("f", FLAT), {"intensity": Intensity(1.0, 2.0)}, DataError, "scan f has the same"),
        (grey("w"), {"intensity": Intensity(window=(-9.0, -8.0))}, DataError, "within the window"),
        (Scan("e", FLAT[:0]), {}, DataError, "scan e is empty"),
        (Scan("t", TWO), {}, DataError, "scan t has 2 channels"),
        (grey("l", labels=-np.ones((3, 12, 10), int)), {}, DataError, "negative class id -1"),
        (grey(), {"size": 0}, OptionError, "size must be at least 1"),
        (grey(), {"channels": 0}, OptionError, "channels must be at least 1"),
    ],
)
def test_unfit_scans_are_refused(scan, options, error, message):
    with pytest.raises(error, match=message):
        prepare(scan, **{"size": None, "intensity": Intensity(), **options})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, None), "both mean and std"),
        ((1.0, 0.0), "std must be positive"),
        ((None, None, (2.0, 2.0)), "low < high"),
    ],
)
def test_wrong_intensities_are_refused(arguments, message):
    with pytest.raises(OptionError, match=message):
        Intensity(*arguments)


def test_fitting_says_what_is_wrong():
    with pytest.raises(UnknownNameError, match="unknown modality 'mri'; did you mean 'mr'"):
        fit_intensity(Memory({}, "mri"), [])
    with pytest.raises(DataError, match="no scan of memory"):
        fit_intensity(Memory({}, "ct"), [])
    with pytest.raises(DataError, match="scan n has 2"):
        fit_intensity(Memory({"n": Scan("n", NAN)}, "ct"), ["n"])


def test_bad_scans_are_listed_and_the_others_used():
    data = Memory(
        {
            "1": grey("1"),
            "2": Scan("2", FLAT),
            "3": DataError("image_3.nii.gz: truncated"),
            "4": OSError("disc"),
            "5": grey("5"),
        }
    )
    scans, failures = prepare_all(data, data.ids, size=8, intensity=Intensity())
    assert [scan.id for scan in scans] == ["1", "5"]
    assert [failed.id for failed in failures] == ["2", "3", "4"]
    assert failures[1].message == "image_3.nii.gz: truncated"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["2"], "none of the 1 scans asked of memory can be used. 2: scan 2 has the same"),
        ([], "no scan of memory was asked for"),
        (["11"], "memory has no scan '11'.* It has 2: 1, 2"),
    ],
)
def test_nothing_to_prepare_is_an_error(ids, message):
    data = Memory({"1": grey("1"), "2": Scan("2", FLAT)})
    with pytest.raises(DataError, match=message):
        prepare_all(data, ids, size=8, intensity=Intensity())


def test_programming_errors_are_not_listed_as_bad_scans():
    with pytest.raises(KeyError):
        prepare_all(Memory({"1": KeyError("bug")}), ["1"], size=8, intensity=Intensity())
