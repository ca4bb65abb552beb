"""Files in, files out: whatever the orientation, spacing and size, answers lie on the scan."""

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image
from scipy.ndimage import zoom
from torch import Tensor, nn

from fewshot_seg.data.intensity import Intensity
from fewshot_seg.episode import Episode, Output, Support
from fewshot_seg.errors import DataError, OptionError, UnknownNameError
from fewshot_seg.evaluation.metrics import dice
from fewshot_seg.inference import Frame, Placement, segment_scans

SPACING = (2.0, 2.0, 6.0)
GREY = Intensity(mean=0.0, std=1.0)
"""Leaves intensities as they are, so that the stand-in method can tell organs by them."""


class ByIntensity(nn.Module):
    """Foreground is what has the mean intensity of the support's mask, to within a half."""

    def __init__(self, *, only_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.only_size = only_size
        self.encoded: list[tuple[int, ...]] = []
        self.seen: list[int] = []

    def encode_support(self, support: Support) -> Float[Tensor, "batch way"]:
        self.encoded.append(tuple(support.images.shape))
        weights = support.masks[:, :, :, None]
        total = (support.images * weights).sum((2, 3, 4, 5))
        return total / weights.sum((2, 3, 4, 5)).clamp(min=1)

    def segment(
        self, state: Tensor, query_images: Float[Tensor, "batch query channel height width"]
    ) -> Float[Tensor, "batch query label height width"]:
        size = (query_images.shape[-2], query_images.shape[-1])
        if self.only_size not in (None, size):
            raise ValueError(f"images are {size} but must be {self.only_size}")
        self.seen.append(query_images.shape[1])
        near = 0.5 - (query_images[:, :, :1] - state[:, :, None, None, None]).abs()
        return torch.cat([torch.zeros_like(near), 20 * near], 2)

    def forward(self, episode: Episode) -> Output:
        return Output(self.segment(self.encode_support(episode.support), episode.query_images))


def _ball(shape: Sequence[int], centre: Sequence[float], radius: Sequence[float]) -> np.ndarray:
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radius)) < 1


def _volume(shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A body (intensity 1) with an organ of intensity 3 and another of 5, stored as (x, y, z)."""
    shape = (48, 40, 12)
    labels = np.zeros(shape, np.uint8)
    labels[_ball(shape, (16 + shift, 20, 6), (8, 7, 3.2))] = 1
    labels[_ball(shape, (34, 18, 5), (6, 8, 3.2))] = 4
    image = np.array([0, 3, 0, 0, 5], np.float32)[labels]
    body = _ball(shape, (24, 20, 6), (23, 19, 40))
    image[body & (labels == 0)] = 1
    return image, labels


def _save(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


AFFINE = np.diag([-SPACING[0], SPACING[1], SPACING[2], 1.0])
AFFINE[:3, 3] = 40, -30, 12


@pytest.fixture
def support(tmp_path: Path) -> tuple[Path, Path]:
    image, labels = _volume()
    return (
        _save(tmp_path / "example.nii.gz", image, AFFINE),
        _save(tmp_path / "example_labels.nii.gz", labels, AFFINE),
    )


@pytest.fixture
def query(tmp_path: Path) -> Callable[..., tuple[Path, np.ndarray]]:
    """Writes a scan; gives its path and true labels as stored."""

    def write(
        *,
        codes: str = "LAS",
        scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
        pad: int = 0,
        name: str = "scan",
    ) -> tuple[Path, np.ndarray]:
        image, labels = _volume(shift=3)
        if pad:
            widths = ((pad, 0), (pad, pad), (0, 0))
            image, labels = np.pad(image, widths), np.pad(labels, widths)
        affine = AFFINE @ np.diag([1 / scale[0], 1 / scale[1], 1 / scale[2], 1])
        found = []
        for data in (image, labels):
            volume = nib.Nifti1Image(
                zoom(data, scale, order=0, grid_mode=True, mode="nearest"), affine
            )
            turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(codes)))
            found.append(volume.as_reoriented(turn))
        path = tmp_path / f"{name}.nii.gz"
        nib.save(found[0], path)
        return path, np.asarray(found[1].dataobj)

    return write


def _segment(method: nn.Module, support: object, queries: list[Path], out: Path, **options: object):
    options = {"intensity": GREY, "size": 32, "matching": "spread-3", **options}
    return segment_scans(method, [support], queries, out=out, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("codes", ["LAS", "RAS", "LPI", "SAR", "AIL"])
def test_every_axis_order_is_answered_on_its_own_grid(codes, support, query, tmp_path) -> None:
    path, truth = query(codes=codes)
    report = _segment(ByIntensity(), support, [path], tmp_path / "out")
    assert report.ok
    assert not report.written[0].notes
    answer, scan = nib.load(report.written[0].labels), nib.load(path)
    found = np.asarray(answer.dataobj)
    np.testing.assert_allclose(answer.affine, scan.affine, atol=1e-5)
    assert found.shape == scan.shape
    for value in (1, 4):
        assert dice(found == value, truth == value) > 0.85, value


@pytest.mark.parametrize(
    ("scale", "pad"),
    [((1, 1, 1), 0), ((2, 2, 1), 0), ((1.5, 0.75, 1), 0), ((1, 1, 2), 0), ((1, 1, 1), 14)],
)
def test_other_spacings_and_sizes_are_answered_too(scale, pad, support, query, tmp_path) -> None:
    path, truth = query(scale=scale, pad=pad)
    report = _segment(ByIntensity(), support, [path], tmp_path / "out")
    found = np.asarray(nib.load(report.written[0].labels).dataobj)
    assert found.shape == truth.shape
    for value in (1, 4):
        assert dice(found == value, truth == value) > 0.8, value
    assert report.written[0].voxels == {v: int((found == v).sum()) for v in (1, 4)}


def test_a_larger_field_of_view_gets_a_larger_canvas(support, query, tmp_path) -> None:
    path, _ = query(pad=14)
    method = ByIntensity()
    _segment(method, support, [path], tmp_path / "out")
    assert {shape[-2:] for shape in method.encoded} == {(64, 64)}


def test_a_method_of_one_size_sees_a_larger_scan_shrunk_and_says_so(
    support, query, tmp_path
) -> None:
    path, truth = query(pad=14)
    report = _segment(ByIntensity(only_size=(32, 32)), support, [path], tmp_path / "out")
    assert "times smaller" in report.written[0].notes[0]
    found = np.asarray(nib.load(report.written[0].labels).dataobj)
    assert dice(found == 1, truth == 1) > 0.6


def test_a_method_that_fails_on_every_size_is_a_failure(support, query, tmp_path) -> None:
    report = _segment(ByIntensity(only_size=(8, 8)), support, [query()[0]], tmp_path / "out")
    assert "must be (8, 8)" in report.failures[0].reason


def test_one_bad_file_does_not_take_the_rest_down(support, query, tmp_path) -> None:
    good, _ = query()
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(good.read_bytes()[:200])
    nan = _volume()[0]
    nan[0, 0, 0] = np.nan
    bad = [
        cut,
        tmp_path / "missing.nii.gz",
        _save(tmp_path / "nan.nii.gz", nan, AFFINE),
        _save(tmp_path / "flat.nii.gz", np.ones((9, 9, 3), np.float32), AFFINE),
        _save(
            tmp_path / "film.nii.gz", np.arange(486, dtype=np.float32).reshape(9, 9, 3, 2), AFFINE
        ),
        _grey(tmp_path / "picture.png", np.arange(64, dtype=np.uint8).reshape(8, 8)),
    ]
    report = _segment(ByIntensity(), support, [*bad[:3], good, *bad[3:]], tmp_path / "out")
    assert [one.scan for one in report.written] == [good]
    assert [one.scan for one in report.failures] == bad
    assert all(one.scan.stem.split(".")[0] in one.reason for one in report.failures)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scan_seg.nii.gz"]


def _grey(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_what_is_not_found_is_noted(support, tmp_path) -> None:
    image, _ = _volume()
    image[image > 1] = 1
    path = _save(tmp_path / "healthy.nii.gz", image, AFFINE)
    report = _segment(ByIntensity(), support, [path], tmp_path / "out", names={1: "liver"})
    assert report.written[0].notes == ("liver: nothing was found", "class 4: nothing was found")
    assert not np.asarray(nib.load(report.written[0].labels).dataobj).any()


def test_classes_are_chosen_by_id_or_name(support, query, tmp_path) -> None:
    path, _ = query()
    options = {"names": {1: "liver", 9: "spleen"}}
    one = _segment(ByIntensity(), support, [path], tmp_path / "a", classes=["Liver"], **options)
    assert set(one.written[0].voxels) == {1}
    assert one.classes == {1: "liver"}
    two = _segment(ByIntensity(), support, [path], tmp_path / "b", classes=[4])
    assert set(two.written[0].voxels) == {4}
    with pytest.raises(UnknownNameError, match="did you mean 'liver'"):
        _segment(ByIntensity(), support, [path], tmp_path, classes=["livr"], **options)
    with pytest.raises(DataError, match="no labelled scan shows spleen"):
        _segment(ByIntensity(), support, [path], tmp_path, classes=["spleen"], **options)


def test_several_labelled_scans_are_shots_also_when_turned(support, query, tmp_path) -> None:
    other, truth = query(codes="RPI", name="other")
    labels = tmp_path / "other_labels.nii.gz"
    _save(labels, truth, nib.load(other).affine)
    path, expected = query(codes="SAR")
    method = ByIntensity()
    report = segment_scans(
        method, [support, (other, labels)], [path], out=tmp_path / "o", intensity=GREY, size=32
    )
    found = np.asarray(nib.load(report.written[0].labels).dataobj)
    assert {shape[2] for shape in method.encoded} == {2}
    assert dice(found == 1, expected == 1) > 0.85


def test_the_support_is_encoded_once_for_many_scans_in_batches(support, query, tmp_path) -> None:
    paths = [query(name=name)[0] for name in ("a", "b", "c")]
    method = ByIntensity()
    _segment(method, support, paths, tmp_path / "out", matching="middle", classes=[1], batch=5)
    assert len(method.encoded) == 1
    assert method.seen == [5, 5, 2] * 3


def test_the_mode_of_the_method_is_given_back(support, query, tmp_path) -> None:
    method = ByIntensity().train()
    _segment(method, support, [query()[0]], tmp_path / "out")
    assert method.training


def test_pictures_become_label_pictures(tmp_path) -> None:
    labels = np.zeros((30, 24), np.uint8)
    labels[5:15, 4:14] = 2
    _grey(tmp_path / "a.png", 50 + 100 * (labels > 0).astype(np.uint8))
    _grey(tmp_path / "a_labels.png", labels)
    _grey(tmp_path / "b.png", np.ascontiguousarray(50 + 100 * (labels[::-1] > 0).astype(np.uint8)))
    report = _segment(
        ByIntensity(),
        (tmp_path / "a.png", tmp_path / "a_labels.png"),
        [tmp_path / "b.png"],
        tmp_path / "out",
        size=(30, 24),
    )
    assert report.written[0].labels == tmp_path / "out" / "b_seg.png"
    np.testing.assert_array_equal(np.asarray(Image.open(report.written[0].labels)), labels[::-1])


WRONG = [
    ({"matching": "parts-3"}, UnknownNameError, "only labelled scans tell"),
    ({"matching": "midle"}, UnknownNameError, "did you mean 'middle'"),
    ({"matching": "spread-0"}, UnknownNameError, "unknown matching"),
    ({"batch": 0}, OptionError, "batch must be at least 1"),
    ({"precision": "16"}, OptionError, "precision='16' is not one of auto, 32, bf16"),
    ({"classes": []}, OptionError, "no class was asked for"),
]


@pytest.mark.parametrize(("options", "kind", "message"), WRONG)
def test_wrong_requests_are_refused(options, kind, message, support, query, tmp_path) -> None:
    with pytest.raises(kind, match=message):
        _segment(ByIntensity(), support, [query()[0]], tmp_path / "out", **options)


def test_unusable_supports_are_refused(support, query, tmp_path) -> None:
    path, _ = query()
    empty = _save(tmp_path / "empty.nii.gz", np.zeros((48, 40, 12), np.uint8), AFFINE)
    with pytest.raises(DataError, match="are empty"):
        _segment(ByIntensity(), (support[0], empty), [path], tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        _segment(ByIntensity(), (support[0], tmp_path / "no.nii.gz"), [path], tmp_path / "out")
    with pytest.raises(OptionError, match="at least one labelled scan"):
        segment_scans(ByIntensity(), [], [path], out=tmp_path / "out")


def test_two_scans_of_one_name_are_refused_before_anything_is_written(
    support, query, tmp_path
) -> None:
    path, _ = query()
    (tmp_path / "more").mkdir()
    with pytest.raises(OptionError, match="both be written to"):
        _segment(ByIntensity(), support, [path, tmp_path / "more" / path.name], tmp_path / "out")
    with pytest.raises(OptionError, match="no scan to segment"):
        _segment(ByIntensity(), support, [], tmp_path / "out")


def test_a_stack_of_thick_slices_is_never_cut_across(support, tmp_path) -> None:
    image, _ = _volume()
    sagittal = image.transpose(2, 0, 1)  # thick slices along the patient's left-right axis
    affine = np.diag([-6.0, 2.0, 2.0, 1.0])
    path = _save(tmp_path / "sagittal.nii.gz", sagittal, affine)
    report = _segment(ByIntensity(), support, [path], tmp_path / "out")
    assert any("were kept" in note for note in report.written[0].notes)


@settings(deadline=None, max_examples=25)
@given(
    full=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    more=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_nothing_is_lost_on_the_canvas(full: tuple[int, int], more: tuple[int, int]) -> None:
    placement = Placement(full, full, (full[0] + more[0], full[1] + more[1]))
    images = torch.randn(2, 1, *full)
    placed = placement.put(images)
    assert tuple(placed.shape[-2:]) == placement.canvas
    torch.testing.assert_close(placement.take(placed[:, 0]), images[:, 0])


@settings(deadline=None, max_examples=25)
@given(scaled=st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_a_canvas_holds_the_scan_and_fits_every_stride(scaled: tuple[int, int]) -> None:
    canvas = Frame((96, 128), (1.0, 1.0)).canvas(scaled)
    for length, size, least in zip(canvas, scaled, (96, 128)):
        assert length >= max(size, least)
        assert length == least or length % 32 == 0


def test_the_support_fills_the_network_size(support) -> None:
    from fewshot_seg.data.nifti import read_scan

    scan = read_scan(support[0])
    frame = Frame.of(scan, (64, 80))
    assert frame.scaled(scan) == (64, 80)
    assert frame.pixel == pytest.approx((40 * 2 / 64, 48 * 2 / 80))
