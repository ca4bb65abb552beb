"""What else can be wrong with somebody's own files: each is named, with what to do."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from fewshot_seg.data.memory import memory
from fewshot_seg.data.nifti import read_labels, read_scan
from fewshot_seg.errors import DataError

DIM, DATATYPE, SROW_X = 40, 70, 280
"""Where these fields begin in a NIfTI-1 header."""


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine, dtype=data.dtype), path)
    return path


def patch(path: Path, offset: int, values: np.ndarray) -> Path:
    content = bytearray(path.read_bytes())
    content[offset : offset + values.nbytes] = values.tobytes()
    path.write_bytes(bytes(content))
    return path


def numbers(dtype: type = np.float32) -> np.ndarray:
    return np.arange(60).reshape(4, 5, 3).astype(dtype)


def shear(angle: float) -> np.ndarray:
    """Slices 5 mm apart that drift aside by an angle in degrees, as under a tilted gantry."""
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[1, 2] = 5 * np.tan(np.radians(angle))
    return affine


@pytest.mark.parametrize(("angle", "fits"), [(0.0, True), (1.0, True), (5.0, False), (30.0, False)])
def test_axes_that_are_not_at_right_angles(tmp_path: Path, angle: float, fits: bool) -> None:
    path = save(tmp_path / "tilted.nii.gz", numbers(), shear(angle))
    if fits:
        assert read_scan(path).image.shape == (3, 1, 5, 4)
        return
    with pytest.raises(DataError, match=r"tilted\.nii\.gz .*not at right angles.*resample it"):
        read_scan(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_a_volume_too_large_for_memory_is_refused_before_it_is_read(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"huge{suffix}"
    if "nii" in suffix:
        save(path, numbers())
    else:
        sitk.WriteImage(sitk.GetImageFromArray(numbers()), str(path))
    assert read_scan(path).image.size == 60
    monkeypatch.setattr("fewshot_seg.data.grid.memory", lambda: 60 * 8 - 1)
    monkeypatch.setattr("fewshot_seg.data.niftifile._read", None)
    monkeypatch.setattr(sitk.ImageFileReader, "Execute", None)
    with pytest.raises(DataError, match=r"huge.* 480 bytes of memory, but there are 479; crop"):
        read_scan(path)


def test_the_memory_there_is() -> None:
    assert 2**28 < memory() < 2**50


@pytest.mark.parametrize(
    ("offset", "values", "message"),
    [
        (DIM + 2, np.array([-4], "<i2"), "cannot be read|without voxels|not a NIfTI|truncated"),
        (DIM, np.array([0], "<i2"), "an axis without voxels"),
        (DIM + 2, np.array([32767, 32767, 32767], "<i2"), "voxels; at most"),
        (SROW_X, np.array([1e30] * 12, "<f4"), "cannot be inverted|not finite|right angles"),
        (DATATYPE, np.array([9999], "<i2"), "cannot be read|not a NIfTI|complex|truncated"),
    ],
)
def test_headers_full_of_nonsense(
    tmp_path: Path, offset: int, values: np.ndarray, message: str
) -> None:
    path = patch(save(tmp_path / "a.nii", numbers()), offset, values)
    with pytest.raises(DataError, match=message) as error:
        read_scan(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((4, 5, 3), 2**63, np.uint64), "labels up to 9223372036854775808; class ids end"),
        (np.full((4, 5, 3), 2**31, np.int64), "labels up to 2147483648; class ids end"),
        (np.full((4, 5, 3), -1, np.int8), "labels down to -1"),
        (np.full((4, 5, 3), 1.5, np.float64), "60 voxels that are not whole numbers"),
    ],
)
def test_labels_that_would_overflow(tmp_path: Path, data: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(save(tmp_path / "l.nii.gz", data))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_large_whole_numbers_are_intensities_like_others(tmp_path: Path, dtype: type) -> None:
    data = numbers(dtype) * 2**50
    image = read_scan(save(tmp_path / "i.nii.gz", data)).image
    np.testing.assert_array_equal(image[:, 0], data.transpose(2, 1, 0).astype(np.float32))


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.nii").symlink_to(tmp_path / "gone.nii")
    with pytest.raises(DataError, match=r"a\.nii does not exist"):
        read_scan(tmp_path / "a.nii")


def test_names_with_spaces_and_other_letters(tmp_path: Path) -> None:
    for suffix in (".nii.gz", ".mha", ".nrrd"):
        path = tmp_path / "Ordner Ä" / f"scan 日本 é{suffix}"
        path.parent.mkdir(exist_ok=True)
        if suffix == ".nii.gz":
            save(path, numbers())
        else:
            sitk.WriteImage(sitk.GetImageFromArray(numbers()), str(path))
        assert read_scan(path).id == "scan 日本 é"
