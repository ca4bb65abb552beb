"""Turning scans the way another one runs, and their labels back."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_seg.data.nifti import read_scan
from fewshot_seg.data.orientation import axis_codes, reorient, restore, same_slicing
from fewshot_seg.data.scan import Geometry, Scan
from fewshot_seg.errors import DataError, OptionError

ALL_CODES = [
    "".join(pair[flip] for pair, flip in zip(order, flips))
    for order in permutations(("LR", "PA", "IS"))
    for flips in product((0, 1), repeat=3)
]
codes = st.sampled_from(ALL_CODES)
shapes = st.tuples(*[st.integers(1, 4)] * 3)


def geometry(
    codes: str, shape: tuple[int, int, int] = (2, 3, 4), axis: int = 2, tilt: float = 0.0
) -> Geometry:
    """Axes that run along `codes`, all of another spacing, turned by `tilt` radians."""
    affine = np.eye(4)
    for column, code in enumerate(codes):
        row = next(index for index, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        affine[:3, column] = 0
        affine[row, column] = (column + 1.5) * (1 if code in "RAS" else -1)
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ np.roll(np.roll(turn, 1, 0), 1, 1) @ affine[:3, :3]
    affine[:3, 3] = (10, -20, 30)
    return Geometry(affine, shape, axis)


def numbered(where: Geometry, channels: int = 1) -> Scan:
    """Each voxel holds its own number, in the image and in the labels."""
    stored = np.arange(np.prod(where.shape)).reshape(where.shape)
    slices = where.to_slices(stored)
    image = np.stack([slices + 1000.0 * c for c in range(channels)], axis=1).astype(np.float32)
    return Scan("s", image, slices, where.spacing, where)


def places(scan: Scan) -> dict[int, tuple[float, ...]]:
    """Where in the patient each numbered voxel lies."""
    assert scan.geometry is not None
    assert scan.labels is not None
    stored = scan.geometry.to_stored(scan.labels)
    return {
        int(value): tuple(np.round(scan.geometry.affine @ (*index, 1), 6))
        for index, value in np.ndenumerate(stored)
    }


def test_there_are_48_orientations() -> None:
    assert len(set(ALL_CODES)) == 48


@pytest.mark.parametrize("code", ALL_CODES)
def test_axis_codes(code: str) -> None:
    assert "".join(axis_codes(geometry(code))) == code
    assert "".join(axis_codes(geometry(code, tilt=0.3))) == code


@settings(deadline=None, max_examples=25)
@given(
    start=codes,
    end=codes,
    shape=shapes,
    axis=st.integers(0, 2),
    end_axis=st.integers(0, 2),
    tilt=st.sampled_from([0.0, 0.3, -0.2]),
    keep=st.booleans(),
)
def test_turned_voxels_keep_their_place_and_come_back(
    start: str,
    end: str,
    shape: tuple[int, int, int],
    axis: int,
    end_axis: int,
    tilt: float,
    keep: bool,
) -> None:
    scan = numbered(geometry(start, shape, axis, tilt), channels=2)
    to = geometry(end, (5, 6, 7), end_axis)
    seen = reorient(scan, to, keep_slices=keep)
    assert seen.labels is not None
    assert seen.geometry is not None
    assert seen.image.flags.c_contiguous
    assert seen.geometry.slice_axis == end_axis
    if not keep:
        assert axis_codes(seen.geometry) == axis_codes(to)
    if keep:
        assert seen.image.shape[0] == scan.image.shape[0]
        same_way = seen.geometry.affine[:3, end_axis] @ to.affine[:3, end_axis]
        assert same_way > -1e-9
    assert seen.spacing == seen.geometry.spacing
    assert places(seen) == places(scan)
    np.testing.assert_array_equal(seen.image[:, 0], seen.labels)
    np.testing.assert_array_equal(seen.image[:, 1], seen.labels + 1000)
    back = restore(seen.labels, seen=seen, original=scan)
    assert scan.labels is not None
    np.testing.assert_array_equal(back, scan.labels)
    assert back.flags.c_contiguous


@pytest.mark.parametrize("start", ALL_CODES)
def test_every_orientation_can_become_every_kind_of_target(start: str) -> None:
    scan = numbered(geometry(start, (2, 3, 5), axis=1))
    for end in ("LAS", "SPR", "ASL"):
        seen = reorient(scan, end)
        assert seen.geometry is not None
        assert seen.labels is not None
        assert "".join(axis_codes(seen.geometry)) == end
        assert seen.image.shape[0] == 3  # the slice axis is followed
        assert places(seen) == places(scan)
        assert scan.labels is not None
        np.testing.assert_array_equal(restore(seen.labels, seen=seen, original=scan), scan.labels)


def test_the_turn_is_that_of_nibabel() -> None:
    scan = numbered(geometry("PIL", (3, 4, 5)))
    assert scan.geometry is not None
    assert scan.labels is not None
    image = nib.Nifti1Image(
        scan.geometry.to_stored(scan.labels).astype(np.int16), scan.geometry.affine
    )
    expected = nib.as_closest_canonical(image)
    seen = reorient(scan, ("R", "A", "S"))
    assert seen.geometry is not None
    assert seen.labels is not None
    np.testing.assert_array_equal(seen.geometry.to_stored(seen.labels), expected.dataobj)
    np.testing.assert_allclose(seen.geometry.affine, expected.affine)


def test_the_same_orientation_changes_nothing() -> None:
    scan = numbered(geometry("LAS"))
    assert scan.geometry is not None
    seen = reorient(scan, scan.geometry)
    assert seen.geometry is not None
    np.testing.assert_array_equal(seen.image, scan.image)
    np.testing.assert_array_equal(seen.geometry.affine, scan.geometry.affine)


def test_a_scan_without_labels_stays_without() -> None:
    where = geometry("LAS")
    scan = Scan("s", numbered(where).image, None, where.spacing, where)
    assert reorient(scan, "RPI").labels is None


def test_same_slicing_asks_for_the_axis_not_its_direction() -> None:
    axial = geometry("LAS", axis=2)
    assert same_slicing(axial, geometry("RPI", axis=2))
    assert same_slicing(axial, geometry("SLA", axis=0))
    assert not same_slicing(axial, geometry("LAS", axis=1))
    assert not same_slicing(axial, geometry("SLA", axis=2))


@pytest.mark.parametrize("to", ["LA", "LAX", "LRS", "las", "", ("LP", "A", "S"), "LASS"])
def test_codes_that_are_none(to: object) -> None:
    with pytest.raises((OptionError, TypeError), match="no orientation"):
        reorient(numbered(geometry("LAS")), to)  # type: ignore[arg-type]


def test_pictures_have_no_orientation() -> None:
    picture = Scan("p", np.zeros((1, 3, 4, 5), np.float32))
    with pytest.raises(DataError, match="scan p has no geometry"):
        reorient(picture, "LAS")


def test_restore_refuses_what_does_not_belong_together() -> None:
    scan = numbered(geometry("LAS"))
    seen = reorient(scan, "SPR")
    assert seen.labels is not None
    with pytest.raises(DataError, match="the labels are"):
        restore(seen.labels[1:], seen=seen, original=scan)
    for other in (
        geometry("LAS", (2, 3, 5)),
        geometry("LAS", tilt=0.3),
        Geometry(geometry("LAS").affine + _shift(), (2, 3, 4)),
    ):
        with pytest.raises(DataError, match="not a reorientation"):
            restore(seen.labels, seen=seen, original=numbered(other))


def _shift() -> np.ndarray:
    shift = np.zeros((4, 4))
    shift[0, 3] = 1.0
    return shift


def test_cardiac_stacks_keep_their_slices(shared_data) -> None:
    """Short-axis stacks of different patients, whose closest axes differ."""
    root = shared_data("sunnybrook_cine_mr")
    support, query = (
        read_scan(root / f"images/{name}.nii.gz", root / f"labels/{name}.nii.gz")
        for name in ("SC-HF-I-1", "SC-HF-I-5")
    )
    assert support.geometry is not None
    assert query.geometry is not None
    assert query.labels is not None
    assert axis_codes(support.geometry)[2] != axis_codes(query.geometry)[2]
    assert same_slicing(support.geometry, query.geometry)
    seen = reorient(query, support.geometry)
    assert seen.image.shape[0] == query.image.shape[0]
    assert seen.labels is not None
    np.testing.assert_array_equal(restore(seen.labels, seen=seen, original=query), query.labels)
    assert seen.geometry is not None
    directions = [g.affine[:3, :3] / g.spacing[0] for g in (seen.geometry, support.geometry)]
    assert (np.diag(directions[0].T @ directions[1]) > 0).all()
