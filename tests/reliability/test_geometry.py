"""A label volume lies where its scan lies, however the scan is stored, turned, spaced and sized."""

from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patients import LEFT, RIGHT, Pair, Place, patient
from tiny_methods import Patches
from torch import nn

from fewshot_seg import build
from fewshot_seg.inference import segment_scans

SIZE = 32
TURNS = [
    np.stack([order, flips], axis=1)
    for order in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]
"""Every way to store one volume: 6 orders of its axes, each in 8 directions."""


def network() -> nn.Module:
    """A prototype network with random weights, which no flip or turn of an image leaves alone."""
    torch.manual_seed(0)
    return build("panet", encoder=Patches(), image_size=SIZE, contrastive=None).eval()


METHODS = {"copy": lambda: build("copy"), "a random network": network}


def segmented(
    method: nn.Module, example: Pair, queries: Sequence[nib.Nifti1Image], folder: Path
) -> list[nib.Nifti1Image]:
    """The answers, from files to files as `fewshot-seg segment` does it, each with the affine that
    its scan's file has."""
    paths = [folder / f"query{number}.nii" for number in range(len(queries))]
    for path, query in zip(paths, queries, strict=True):
        nib.save(query, path)
    support = example.save(folder, "example")
    report = segment_scans(method, [support], paths, out=folder / "out", size=SIZE, precision="32")
    assert report.ok, report.failures
    answers = [nib.load(one.labels) for one in report.written]
    for path, answer in zip(paths, answers, strict=True):
        np.testing.assert_array_equal(answer.affine, nib.load(path).affine)
    return answers


def voxels(image: nib.Nifti1Image) -> np.ndarray:
    return np.asarray(image.dataobj)


CASES: dict[str, tuple[Place, Place, tuple[int, int, int]]] = {
    "along the axes": (Place(), Place(), (9, 8, 7)),
    "oblique, uneven, odd": (
        Place((10, -20, 15), (1.0, 1.5, 4.0)), Place((-25, 30, 40), (1.7, 0.9, 3.1)), (5, 11, 7),
    ),
    "halfway between two axes": (Place(), Place((45, 0, 0), (2.5, 1.3, 2.7)), (12, 5, 5)),
    "thick slices across": (
        Place(spacing=(1.5, 1.5, 5.0)), Place(spacing=(5.0, 1.5, 1.5)), (4, 8, 9),
    ),
    "one slice": (Place(), Place((0, 0, 30)), (9, 7, 1)),
}  # fmt: skip
"""Where the example lies, where the scan lies, and the scan's shape."""


RUNS = [
    *(("copy", case) for case in CASES),
    ("a random network", "oblique, uneven, odd"),
    ("a random network", "halfway between two axes"),
]


@pytest.mark.parametrize(("name", "case"), RUNS)
def test_a_turned_scan_gets_the_turned_segmentation(name: str, case: str, tmp_path: Path) -> None:
    example, place, shape = CASES[case]
    scan = patient(place, shape, seed=1).image
    turned = [scan.as_reoriented(turn) for turn in TURNS]
    first, *answers = segmented(METHODS[name](), patient(example), [scan, *turned], tmp_path)
    assert len(np.unique(voxels(first))) > 1
    for turn, answer in zip(TURNS, answers, strict=True):
        np.testing.assert_array_equal(voxels(answer), voxels(first.as_reoriented(turn)))


degrees = st.one_of(st.sampled_from([0.0, 45.0, -45.0, 90.0, 180.0]), st.floats(-180, 180))
places = st.builds(
    Place, st.tuples(degrees, degrees, degrees), st.tuples(*[st.floats(0.5, 8.0)] * 3)
)
shapes = st.tuples(*[st.integers(2, 11)] * 3)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    example=places, place=places, shape=shapes, turn=st.sampled_from(TURNS), seed=st.integers(0, 99)
)
def test_so_does_any_scan_turned_in_any_way(
    tmp_path_factory: pytest.TempPathFactory,
    example: Place,
    place: Place,
    shape: tuple[int, int, int],
    turn: np.ndarray,
    seed: int,
) -> None:
    scan = patient(place, shape, seed).image
    queries = [scan, scan.as_reoriented(turn)]
    folder = tmp_path_factory.mktemp("turned")
    first, answer = segmented(network(), patient(example), queries, folder)
    np.testing.assert_array_equal(voxels(answer), voxels(first.as_reoriented(turn)))


# Left and right


def sides(answer: nib.Nifti1Image) -> tuple[float, float]:
    """How far to the patient's right (RAS) the two organs lie, in millimetres."""
    found = []
    for organ in (LEFT, RIGHT):
        index = np.argwhere(voxels(answer) == organ)
        found.append(float((index @ answer.affine[:3, :3].T + answer.affine[:3, 3])[:, 0].mean()))
    return found[0], found[1]


@pytest.mark.parametrize("whose", ["example", "scan"])
def test_left_and_right_are_never_swapped(whose: str, tmp_path: Path) -> None:
    """The body is symmetric but for two organs that differ; each is found on its own side."""
    method = build("copy")
    place, shape = Place((8, -5, 12), (2.0, 2.5, 3.0)), (11, 9, 7)
    here, there = patient(place, shape), patient(Place(), shape, seed=1)
    turned = [Pair(*(one.as_reoriented(turn) for one in here)) for turn in TURNS]
    if whose == "scan":
        answers = segmented(method, there, [pair.image for pair in turned], tmp_path)
    else:
        answers = [segmented(method, pair, [there.image], tmp_path)[0] for pair in turned]
    assert len(answers) == 48
    for answer in answers:
        left, right = sides(answer)
        assert left < -2 < 2 < right


# What a file says of its place

KEPT = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
codes = st.integers(0, 4)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    place=places, other=places, shape=shapes, qform=codes, sform=codes,
    unit=st.sampled_from(["mm", "micron", "meter", "unknown"]),
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    ending=st.sampled_from([".nii", ".nii.gz"]),
)  # fmt: skip
def test_the_answer_has_the_scans_place_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory,
    place: Place,
    other: Place,
    shape: tuple[int, int, int],
    qform: int,
    sform: int,
    unit: str,
    kind: type,
    ending: str,
) -> None:
    """Also where qform and sform place the scan differently, or none of them does."""
    folder = tmp_path_factory.mktemp("codes")
    scan = kind(voxels(patient(place, shape).image), None)
    unit_in_mm = {"micron": 1e-3, "meter": 1e3}.get(unit, 1.0)
    scaling = np.diag([1 / unit_in_mm] * 3 + [1.0])
    scan.set_qform(scaling @ other.affine(shape), code=qform)
    scan.set_sform(scaling @ place.affine(shape), code=sform)
    scan.header.set_xyzt_units(unit)
    nib.save(scan, folder / f"scan{ending}")
    example = patient(Place()).save(folder, "example")
    report = segment_scans(
        build("copy"), [example], [folder / f"scan{ending}"], out=folder / "out", size=SIZE
    )
    assert report.ok, report.failures
    given, answer = nib.load(folder / f"scan{ending}"), nib.load(report.written[0].labels)
    for field in KEPT:
        np.testing.assert_array_equal(answer.header[field], given.header[field], err_msg=field)
    assert answer.shape == given.shape
    np.testing.assert_array_equal(answer.affine, given.affine)
    assert answer.header.get_zooms() == given.header.get_zooms()
    assert nib.aff2axcodes(answer.affine) == nib.aff2axcodes(given.affine)
    assert answer.get_data_dtype() == np.uint8


@settings(deadline=None, max_examples=15, derandomize=True)
@given(place=places, shape=shapes, ending=st.sampled_from([".mha", ".nrrd", ".mhd", ".nhdr"]))
def test_scans_in_other_formats_are_answered_where_they_lie(
    tmp_path_factory: pytest.TempPathFactory,
    place: Place,
    shape: tuple[int, int, int],
    ending: str,
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    nib.save(patient(place, shape).image, folder / "source.nii")
    scan = sitk.ReadImage(str(folder / "source.nii"))
    sitk.WriteImage(scan, str(folder / f"scan{ending}"))
    example = patient(Place()).save(folder, "example")
    report = segment_scans(
        build("copy"), [example], [folder / f"scan{ending}"], out=folder / "out", size=SIZE
    )
    assert report.ok, report.failures
    answer = sitk.ReadImage(str(report.written[0].labels))
    assert answer.GetSize() == scan.GetSize() == shape
    for corner in product(*((0, size - 1) for size in shape)):
        there = scan.TransformIndexToPhysicalPoint(corner)
        assert answer.TransformIndexToPhysicalPoint(corner) == pytest.approx(there, abs=1e-3)
