"""Reading scans from volume files and writing label volumes back."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_seg.data.nifti import read_image, read_labels, read_scan, stem, write_labels
from fewshot_seg.data.orientation import axis_codes
from fewshot_seg.data.scan import Geometry
from fewshot_seg.data.values import as_labels
from fewshot_seg.data.volume import choose_slice_axis
from fewshot_seg.errors import DataError, OptionError

AFFINE = np.array(
    [[-1.25, 0.0, 0.0, 90.0], [0.0, 1.25, 0.0, -126.0], [0.0, 0.0, 7.7, -72.5], [0, 0, 0, 1.0]]
)


def numbers(shape: tuple[int, ...] = (4, 5, 3), dtype: type = np.float32) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE, **fields: object) -> Path:
    image = nib.Nifti1Image(data, affine)
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def patched(path: Path, offset: int, values: np.ndarray) -> Path:
    """Overwrite header bytes, as damage does; nibabel itself would refuse to."""
    content = bytearray(path.read_bytes())
    content[offset : offset + values.nbytes] = values.tobytes()
    path.write_bytes(bytes(content))
    return path


DIM, PIXDIM, SCL_SLOPE, QFORM_CODE, SROW_X = 40, 76, 112, 252, 280
"""Where these fields begin in a NIfTI-1 header."""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return (
        save(tmp_path / "image.nii.gz", numbers()),
        save(tmp_path / "label.nii.gz", numbers(dtype=np.uint8) % 4),
    )


# Reading


def test_a_scan_has_slices_first_and_knows_where_it_lies(pair: tuple[Path, Path]) -> None:
    scan = read_scan(*pair)
    assert scan.id == "image"
    assert scan.image.shape == (3, 1, 5, 4)
    assert scan.image.dtype == np.float32
    assert scan.spacing == pytest.approx((7.7, 1.25, 1.25))
    assert scan.labels is not None
    assert scan.geometry is not None
    assert axis_codes(scan.geometry) == ("L", "A", "S")
    for x, y, z in ((0, 0, 0), (3, 4, 2), (1, 2, 1)):
        assert scan.image[z, 0, y, x] == numbers()[x, y, z]
        assert scan.labels[z, y, x] == numbers()[x, y, z] % 4


def test_the_order_of_axes_is_that_of_simpleitk(pair: tuple[Path, Path]) -> None:
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(pair[0])))
    np.testing.assert_array_equal(read_image(pair[0])[0][:, 0], reference)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nii", ".nii.gz"])
def test_all_formats_say_the_same(tmp_path: Path, suffix: str) -> None:
    nifti = save(tmp_path / "source.nii.gz", numbers(dtype=np.int16))
    other = tmp_path / f"other{suffix}"
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(other))
    expected, found = read_scan(nifti), read_scan(other)
    np.testing.assert_array_equal(found.image, expected.image)
    assert found.geometry is not None
    assert expected.geometry is not None
    np.testing.assert_allclose(found.geometry.affine, expected.geometry.affine, atol=1e-5)
    assert found.id == "other"


def write_dicom(folder: Path, data: np.ndarray, positions: list[float], series: str = "1") -> None:
    """One file a slice, as a scanner writes them; data is (z, y, x)."""
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index, z in enumerate(positions):
        image = sitk.GetImageFromArray(data[index])
        image.SetSpacing((1.5, 2.0))
        for tag, value in {
            "0008|0060": "MR",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"1.2.3.{series}.{index}",
            "0020|000d": "1.2.3",
            "0020|000e": f"1.2.3.{series}",
            "0020|0013": str(index),
            "0020|0032": f"-10\\-20\\{z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0018|0050": "5",
        }.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{series}_{index}.dcm"))
        writer.Execute(image)


def test_a_dicom_folder_is_a_scan(tmp_path: Path) -> None:
    data = numbers((3, 4, 5), np.int16)
    write_dicom(tmp_path, data, [0.0, 5.0, 10.0])
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.image[:, 0], data)
    assert scan.geometry is not None
    assert axis_codes(scan.geometry) == ("L", "P", "S")
    np.testing.assert_allclose(
        scan.geometry.affine, [[-1.5, 0, 0, 10], [0, -2, 0, 20], [0, 0, 5, 0], [0, 0, 0, 1]]
    )


def test_dicom_folders_that_hold_no_single_stack(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no DICOM series"):
        read_scan(tmp_path / "none")
    (tmp_path / "two").mkdir()
    write_dicom(tmp_path / "two", numbers((2, 4, 5), np.int16), [0.0, 5.0])
    write_dicom(tmp_path / "two", numbers((2, 4, 5), np.int16), [0.0, 5.0], series="2")
    with pytest.raises(DataError, match="2 DICOM series"):
        read_scan(tmp_path / "two")
    (tmp_path / "gap").mkdir()
    write_dicom(tmp_path / "gap", numbers((3, 4, 5), np.int16), [0.0, 5.0, 20.0])
    with pytest.raises(DataError, match="not evenly spaced"):
        read_scan(tmp_path / "gap")


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((9, 9, 9), (1.0, 1.0, 1.0), 2),
        ((9, 9, 9), (1.4, 1.0, 1.0), 2),  # not clearly larger
        ((9, 9, 9), (8.0, 1.0, 1.0), 0),
        ((9, 9, 9), (1.0, 8.0, 1.0), 1),
        ((9, 9, 9), (8.0, 8.0, 1.0), 2),
        ((9, 9, 9), (8.0, 7.0, 1.0), 2),
        ((1, 9, 9), (1.0, 1.0, 1.0), 0),
        ((9, 1, 9), (1.0, 1.0, 8.0), 1),
        ((1, 1, 9), (1.0, 1.0, 1.0), 2),
    ],
)
def test_the_slice_axis_chosen(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], axis: int
) -> None:
    assert choose_slice_axis(shape, spacing) == axis


def test_a_thick_first_axis_is_cut_along_unless_told_otherwise(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", numbers(), np.diag([6.0, 1.0, 1.5, 1.0]))
    scan = read_scan(path)
    assert scan.image.shape == (4, 1, 3, 5)
    assert scan.spacing == (6.0, 1.5, 1.0)
    assert read_scan(path, slice_axis=1).image.shape == (5, 1, 3, 4)
    with pytest.raises(OptionError, match="slice_axis is 3"):
        read_scan(path, slice_axis=3)


def test_trailing_axes_of_one_and_flat_images_are_accepted(tmp_path: Path) -> None:
    four = save(tmp_path / "four.nii.gz", numbers((4, 5, 3, 1)))
    assert read_scan(four).image.shape == (3, 1, 5, 4)
    flat = save(tmp_path / "flat.nii.gz", numbers((4, 5)))
    assert read_scan(flat).image.shape == (1, 1, 5, 4)
    assert read_scan(save(tmp_path / "x.nii", numbers((1, 5, 3)))).image.shape == (1, 1, 3, 5)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    path = save(tmp_path / "scaled.nii", numbers(dtype=np.int16))
    patched(path, SCL_SLOPE, np.asarray([2, -1000], "<f4"))
    expected = numbers().transpose(2, 1, 0) * 2 - 1000
    np.testing.assert_array_equal(read_image(path)[0][:, 0], expected)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_units_become_millimetres_and_stay_in_the_file(
    tmp_path: Path, unit: str, factor: float
) -> None:
    image = nib.Nifti1Image(numbers(), AFFINE)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    scan = read_scan(tmp_path / "a.nii.gz")
    assert scan.geometry is not None
    np.testing.assert_allclose(scan.geometry.affine[:3], AFFINE[:3] * factor, rtol=1e-6)
    out = tmp_path / "out.nii.gz"
    write_labels(out, np.ones((3, 5, 4), np.int16), scan.geometry, tmp_path / "a.nii.gz")
    assert nib.load(out).header.get_xyzt_units()[0] == unit
    np.testing.assert_array_equal(nib.load(out).affine, nib.load(tmp_path / "a.nii.gz").affine)


def test_nifti_2_and_big_endian_files_are_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(numbers(), AFFINE), tmp_path / "two.nii")
    big = nib.Nifti1Image(numbers(), AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(big, tmp_path / "big.nii")
    for name in ("two.nii", "big.nii"):
        np.testing.assert_array_equal(
            read_image(tmp_path / name)[0][:, 0], numbers().transpose(2, 1, 0)
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.b.nii.gz", "a.b"), ("A.NII.GZ", "A"), ("c.nii", "c"), ("d.mha", "d"), ("007.png", "007")],
)
def test_stem(name: str, expected: str) -> None:
    assert stem(Path(name)) == expected


# Labels


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_whole_labels_of_any_type_become_signed_ints(tmp_path: Path, dtype: type) -> None:
    image = nib.Nifti1Image(numbers(dtype=dtype), AFFINE, dtype=dtype)
    nib.save(image, tmp_path / "label.nii.gz")
    labels, geometry = read_labels(tmp_path / "label.nii.gz")
    assert labels.dtype == np.int16
    assert geometry.shape == (4, 5, 3)
    np.testing.assert_array_equal(labels, numbers(dtype=int).transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, "3 voxels that are not whole numbers"),
        (np.nan, "3 voxels that are not whole numbers"),
        (-2.0, "labels down to -2"),
        (np.inf, "labels up to inf"),
        (3e9, "labels up to 3"),
    ],
)
def test_labels_that_are_no_class_ids(tmp_path: Path, value: float, message: str) -> None:
    data = np.zeros((4, 5, 3))
    data[0, 0] = value
    path = save(tmp_path / "label.nii.gz", data)
    with pytest.raises(DataError, match=message) as error:
        read_labels(path)
    assert str(path) in str(error.value)


def test_large_ids_survive() -> None:
    ids = as_labels(Path("x"), np.array([0, 40_000, 2**31 - 1], dtype=np.uint32))
    assert ids.dtype == np.int32
    assert ids.tolist() == [0, 40_000, 2**31 - 1]


# Refusals


def corrupt(content: bytes) -> bytes:
    """Flip the last data byte inside a gzip stream, so that only its checksum can tell."""
    plain = bytearray(gzip.decompress(content))
    plain[-1] ^= 1
    wrong = bytearray(gzip.compress(bytes(plain)))
    wrong[-8:] = gzip.compress(gzip.decompress(content))[-8:]
    return bytes(wrong)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("a.nii.gz", lambda good: b"", "is empty"),
        ("a.nii.gz", lambda good: good[: len(good) // 2], "truncated"),
        ("a.nii.gz", lambda good: good[:30], "truncated|not a NIfTI"),
        ("a.nii.gz", lambda good: good[:-4], "truncated or corrupt"),
        ("a.nii.gz", corrupt, "truncated or corrupt"),
        ("a.nii.gz", lambda good: good[:900] + b"\xff" * 40 + good[940:], "truncated or corrupt"),
        ("a.nii.gz", lambda good: gzip.decompress(good), "not gzip-compressed"),
        ("a.nii", lambda good: good, "rename it to a.nii.gz"),
        ("a.nii", lambda good: gzip.decompress(good)[:-1], "truncated"),
        ("a.nii", lambda good: gzip.decompress(good)[:100], "not a NIfTI|cannot be read"),
        ("a.nii.gz", lambda good: gzip.compress(b"hello " * 200), "not a NIfTI"),
        ("a.nii", lambda good: b"hello " * 200, "not a NIfTI"),
        ("a.mha", lambda good: b"hello " * 200, "it is damaged"),
        ("a.nrrd", lambda good: b"NRRD0004\ntype: float\n", "cannot be read"),
        ("a.txt", lambda good: good, "no volume this library reads; it takes .nii"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, damage: object, message: str) -> None:
    rng = np.random.default_rng(0)
    good = save(tmp_path / "good.nii.gz", rng.random((8, 8, 8)).astype(np.float32)).read_bytes()
    path = tmp_path / name
    path.write_bytes(damage(good))  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as error:
        read_scan(path)
    assert str(path) in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.nii\.gz does not exist"):
        read_scan(tmp_path / "nowhere.nii.gz")


def test_a_truncated_metaimage(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(numbers((8, 8, 8))), str(path), useCompression=False)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(DataError, match="cannot be read"):
        read_scan(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (numbers((4, 5, 3, 2)), r"shape \(4, 5, 3, 2\).*three axes.*3-D file"),
        (numbers((4, 5, 3, 1, 2)), "three axes"),
        (np.full((4, 5, 3), 7.0), "the value 7 in every voxel"),
        (np.where(numbers() < 4, np.nan, numbers()), "4 of 60 voxels that are NaN or infinite"),
        (np.where(numbers() < 1, 1e300, numbers(dtype=np.float64)), "1 of 60 voxels"),
        (numbers(dtype=np.complex64), "complex"),
    ],
)
def test_images_that_are_no_scans(tmp_path: Path, data: np.ndarray, message: str) -> None:
    path = save(tmp_path / "image.nii.gz", data)
    with pytest.raises(DataError, match=message) as error:
        read_scan(path)
    assert str(path) in str(error.value)


def test_colours_and_time_in_other_formats(tmp_path: Path) -> None:
    sitk.WriteImage(
        sitk.GetImageFromArray(numbers((3, 4, 5, 3), np.uint8), isVector=True),
        str(tmp_path / "colour.mha"),
    )
    with pytest.raises(DataError, match="3 values a voxel"):
        read_scan(tmp_path / "colour.mha")
    four = sitk.GetImageFromArray(numbers((2, 3, 4, 5)), isVector=False)
    sitk.WriteImage(four, str(tmp_path / "time.nrrd"))
    with pytest.raises(DataError, match="three axes"):
        read_scan(tmp_path / "time.nrrd")
    one = sitk.GetImageFromArray(numbers((1, 3, 4, 5)), isVector=False)
    sitk.WriteImage(one, str(tmp_path / "one.nrrd"))
    assert read_scan(tmp_path / "one.nrrd").image.shape == (3, 1, 4, 5)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(12), "spacing 0 x 0 x 0 mm"),
        ([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], "spacing 1 x 1 x 0 mm"),
        ([1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0], "cannot be inverted"),
        ([np.nan, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0], "not finite"),
        ([1, 0, 0, np.inf, 0, 1, 0, 0, 0, 0, 1, 0], "not finite"),
    ],
)
def test_affines_that_place_nothing(tmp_path: Path, rows: list[float], message: str) -> None:
    path = save(tmp_path / "a.nii", numbers())
    patched(path, SROW_X, np.asarray(rows, dtype="<f4"))
    with pytest.raises(DataError, match=message) as error:
        read_scan(path)
    assert str(path) in str(error.value)


def test_a_spacing_of_zero_without_any_affine(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", numbers())
    patched(path, QFORM_CODE, np.zeros(2, "<i2"))
    patched(path, PIXDIM + 4, np.asarray([1, 0, 1], "<f4"))
    with pytest.raises(DataError, match=r"a\.nii has the spacing 1 x 0 x 1 mm"):
        read_scan(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2000, 2000, 2000), r"8e\+09 voxels"),
        ((500, 500, 500), "truncated.*holds at most"),
        ((4, 0, 3), "without"),
    ],
)
def test_headers_that_claim_too_much_are_refused_before_memory_is_taken(
    tmp_path: Path, suffix: str, shape: tuple[int, int, int], message: str
) -> None:
    plain = patched(
        save(tmp_path / "plain.nii", numbers()), DIM + 2, np.asarray(shape, "<i2")
    ).read_bytes()
    path = tmp_path / f"claim{suffix}"
    path.write_bytes(gzip.compress(plain) if suffix == ".nii.gz" else plain)
    with pytest.raises(DataError, match=message) as error:
        read_scan(path)
    assert str(path) in str(error.value)


def test_a_metaimage_that_claims_too_much(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    path.write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 9000 9000 9000\n"
        b"ElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
    )
    with pytest.raises(DataError, match=r"7.29e\+11 voxels"):
        read_scan(path)


def test_image_and_labels_of_different_shape(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    other = save(tmp_path / "other.nii.gz", np.zeros((4, 5, 2), np.uint8))
    with pytest.raises(DataError, match=r"\(4, 5, 3\).*\(4, 5, 2\)") as error:
        read_scan(pair[0], other)
    assert str(pair[0]) in str(error.value)
    assert str(other) in str(error.value)


@pytest.mark.parametrize(("shift", "fits"), [(0.0, True), (1e-3, True), (0.2, False), (7.7, False)])
def test_image_and_labels_in_different_places(
    tmp_path: Path, pair: tuple[Path, Path], shift: float, fits: bool
) -> None:
    affine = AFFINE.copy()
    affine[2, 3] += shift
    other = save(tmp_path / "other.nii.gz", np.ones((4, 5, 3), np.uint8), affine)
    if fits:
        assert read_scan(pair[0], other).labels is not None
        return
    with pytest.raises(DataError, match=f"{shift:.1f}.* mm apart") as error:
        read_scan(pair[0], other)
    assert str(other) in str(error.value)


def test_flipped_labels_are_noticed(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    affine = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (AFFINE @ [3, 0, 0, 1])[:3]
    other = save(tmp_path / "other.nii.gz", np.ones((4, 5, 3), np.uint8), affine)
    with pytest.raises(DataError, match=r"3\.75 mm apart"):
        read_scan(pair[0], other)


# Writing

FIELDS = ("qform_code", "sform_code", "pixdim", "xyzt_units", "srow_x", "quatern_b", "qoffset_z")


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 3), (0, 0), (1, 4)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_labels_lie_exactly_where_the_scan_lies(
    tmp_path: Path, codes: tuple[int, int], kind: type
) -> None:
    source = kind(numbers(), None)
    source.set_qform(AFFINE if codes[0] else None, code=codes[0])
    source.set_sform(AFFINE if codes[1] else None, code=codes[1])
    source.header.set_xyzt_units("mm", "sec")
    source.header["descrip"] = b"Jane Doe"
    nib.save(source, tmp_path / "scan.nii.gz")
    geometry = read_image(tmp_path / "scan.nii.gz")[1]
    labels = numbers((3, 5, 4), np.int16) % 3
    write_labels(tmp_path / "out.nii.gz", labels, geometry, tmp_path / "scan.nii.gz")
    scan, out = nib.load(tmp_path / "scan.nii.gz"), nib.load(tmp_path / "out.nii.gz")
    assert out.shape == scan.shape
    assert out.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(out.affine, scan.affine)
    for field in FIELDS:
        np.testing.assert_array_equal(out.header[field], scan.header[field], err_msg=field)
    np.testing.assert_array_equal(np.asanyarray(out.dataobj), labels.transpose(2, 1, 0))
    assert b"Jane" not in bytes(out.header["descrip"])
    np.testing.assert_array_equal(read_labels(tmp_path / "out.nii.gz")[0], labels)


@settings(deadline=None, max_examples=15)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    axis=st.integers(0, 2),
    highest=st.sampled_from([1, 255, 256, 65_536]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    axis: int,
    highest: int,
    suffix: str,
) -> None:
    geometry = Geometry(AFFINE, shape, axis)
    labels = geometry.to_slices(np.random.default_rng(0).integers(0, highest + 1, shape))
    path = tmp_path_factory.mktemp("out") / f"label{suffix}"
    write_labels(path, labels, geometry)
    found, again = read_labels(path, slice_axis=axis)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_allclose(again.affine, AFFINE, rtol=1e-6)
    assert nib.load(path).get_data_dtype() == np.min_scalar_type(int(labels.max()))


def test_labels_of_a_scan_in_another_format(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(numbers((3, 5, 4)))
    image.SetOrigin((3.0, 4.0, 5.0))
    image.SetSpacing((1.0, 2.0, 6.0))
    sitk.WriteImage(image, str(tmp_path / "scan.mha"))
    scan = read_scan(tmp_path / "scan.mha")
    assert scan.geometry is not None
    write_labels(
        tmp_path / "out.nii.gz", np.ones((3, 5, 4), np.int16), scan.geometry, tmp_path / "scan.mha"
    )
    out = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    assert out.GetOrigin() == pytest.approx((3.0, 4.0, 5.0))
    assert out.GetSpacing() == pytest.approx((1.0, 2.0, 6.0))
    assert out.GetDirection() == pytest.approx(image.GetDirection())


def test_equal_labels_give_equal_bytes(tmp_path: Path) -> None:
    geometry = Geometry(AFFINE, (4, 5, 3))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels(tmp_path / name, np.ones((3, 5, 4), np.uint8), geometry)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path, geometry = tmp_path / "out.nii.gz", Geometry(AFFINE, (4, 5, 3))
    write_labels(path, np.ones((3, 5, 4), np.uint8), geometry)
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    if fails == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match=r"out\.nii\.gz cannot be written: No space left"):
        write_labels(path, np.zeros((3, 5, 4), np.uint8), geometry)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_never_seen_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "new" / "out.nii.gz", []

    def fsync(number: int) -> None:
        synced.append(path.exists())

    monkeypatch.setattr(os, "fsync", fsync)
    write_labels(path, np.ones((3, 5, 4), np.uint8), Geometry(AFFINE, (4, 5, 3)))
    assert synced == [False]
    assert read_labels(path)[0].shape == (3, 5, 4)


def test_labels_that_cannot_be_written(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    geometry, labels = Geometry(AFFINE, (4, 5, 3)), np.ones((3, 5, 4), np.int16)
    other = save(tmp_path / "other.nii.gz", numbers((4, 5, 2)))
    moved = save(tmp_path / "moved.nii.gz", numbers(), AFFINE @ np.diag([2.0, 1.0, 1.0, 1.0]))
    for path, given_labels, source, message in (
        (tmp_path / "a.png", labels, None, "written as .nii.gz"),
        (tmp_path / "a.nii.gz", labels[:2], None, r"\(2, 5, 4\), the scan has \(3, 5, 4\)"),
        (tmp_path / "a.nii.gz", labels - 2, None, "hold -1"),
        (pair[0], labels, pair[0], "is the scan itself"),
        (tmp_path / "a.nii.gz", labels, other, "not the scan these labels belong to"),
        (tmp_path / "a.nii.gz", labels, moved, "3.75 mm apart"),
        (tmp_path / "a.nii.gz", labels, tmp_path / "nowhere.nii.gz", "nowhere"),
    ):
        with pytest.raises(DataError, match=message):
            write_labels(path, given_labels, geometry, source)
    assert not (tmp_path / "a.nii.gz").exists()


# Real scans


def test_real_labels_go_round_on_the_scans_own_grid(shared_data, tmp_path: Path) -> None:
    for folder, image, label in (
        ("sunnybrook_cine_mr", "images/SC-HF-I-1.nii.gz", "labels/SC-HF-I-1.nii.gz"),
        ("totalsegmentator_examples", "ct_image.nii.gz", "ct_label.nii.gz"),
        ("totalsegmentator_examples", "mr_image.nii.gz", "mr_label.nii.gz"),
        (
            "msd_hippocampus_mr",
            "imagesTr/hippocampus_015.nii.gz",
            "labelsTr/hippocampus_015.nii.gz",
        ),
    ):
        root = shared_data(folder)
        scan = read_scan(root / image, root / label)
        assert scan.labels is not None
        assert scan.geometry is not None
        out = tmp_path / "out.nii.gz"
        write_labels(out, scan.labels, scan.geometry, root / image)
        source, written = nib.load(root / label), nib.load(out)
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), np.asanyarray(source.dataobj))
        np.testing.assert_array_equal(written.affine, nib.load(root / image).affine)
