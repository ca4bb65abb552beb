"""CHAOS from made-up raw trees to known truth, and every way in which a download goes wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from raw_cases import GREY, LEFT, LIVER, ORGANS, RIGHT, SPLEEN, Patient, patient, write_dicom

from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.orientation import axis_codes
from fewshot_seg.data.raw.chaos import ChaosT2
from fewshot_seg.data.raw.runner import prepare_raw
from fewshot_seg.data.raw.sets import Converted
from fewshot_seg.data.raw.tree import open_tree
from fewshot_seg.data.scan import Scan
from fewshot_seg.errors import DataError

NEW = (1.25, 1.25, 7.70)
OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}


def convert(raw: Path, number: int = 0) -> Converted:
    chaos = ChaosT2()
    with open_tree(raw) as tree:
        return chaos.convert(tree, chaos.find(tree)[number])


def refused(raw: Path, told: str) -> None:
    with pytest.raises(DataError, match=told):
        convert(raw)


def to_las(stored: np.ndarray, lies: str) -> np.ndarray:
    """An array (slice, row, column) of axes that run to `lies` with axes that run to LAS."""
    array = stored.transpose(2, 1, 0)
    order = [next(i for i in range(3) if lies[i] in (w, OPPOSITE[w])) for w in "LAS"]
    array = array.transpose(order)
    flips = [axis for axis, w in enumerate("LAS") if lies[order[axis]] != w]
    return np.flip(array, flips)


def weights(size: int, old: float, new: float) -> np.ndarray:
    """What each new sample takes of each old one, along one axis."""
    count = int(size * (old / new) + 1)
    matrix = np.zeros((count, size))
    for row, at in enumerate(np.arange(count) * new / old):
        if at < size - 0.5:
            low = min(int(at), size - 1)
            matrix[row, low] += 1 - (at - low)
            matrix[row, min(low + 1, size - 1)] += at - low
    return matrix


def truth(one: Patient, lies: str) -> tuple[np.ndarray, np.ndarray]:
    """The prepared arrays (x, y, z), by plain numpy."""
    image, labels = to_las(one.image, lies), to_las(one.labels, lies)
    spacing = [one.grid.GetSpacing()[i] for i in range(3)]
    turned = [next(s for s, c in zip(spacing, lies) if c in (w, OPPOSITE[w])) for w in "LAS"]
    image = np.minimum(image, np.percentile(image, 99.5)).astype(np.int16)
    along = [weights(n, o, w) for n, o, w in zip(image.shape, turned, NEW)]

    def resampled(values: np.ndarray) -> np.ndarray:
        return np.einsum("xyz,ax,by,cz->abc", values.astype(float), *along, optimize=True)

    ids = np.zeros([len(matrix) for matrix in along], np.uint8)
    for value in range(1, 5):
        ids[resampled(labels == value) > 0.5] = value
    image = np.trunc(resampled(image) + 1e-9)
    return centred(image, image.min()), centred(ids, 0)


def centred(values: np.ndarray, fill: float) -> np.ndarray:
    result = np.full((256, 256, values.shape[2]), fill, values.dtype)
    x, y = (128 - n // 2 for n in values.shape[:2])
    result[x : x + values.shape[0], y : y + values.shape[1]] = values
    return result


def same(slices: np.ndarray, expected: np.ndarray) -> None:
    """Labels (slice, row, column) are the expected ones (x, y, z)."""
    np.testing.assert_array_equal(slices.T, expected)


def close(slices: np.ndarray, expected: np.ndarray) -> None:
    """Whole numbers; those whose sum is whole but for the last bit may be one lower."""
    difference = np.abs(slices.T - expected)
    assert float(difference.max()) <= 1
    assert float((difference > 0).mean()) < 1e-3


def prepared(raw: Path) -> Scan:
    report = prepare_raw("chaos-t2", raw, raw / "out")
    assert report.ok, report.failed
    return open_folder(root=report.folder).load("1")


@pytest.mark.parametrize("lies", ["LPS", "LPI", "RPS", "LAS", "PLI", "ARI"])
def test_any_stored_orientation_becomes_las_and_nothing_else_changes(
    tmp_path: Path, lies: str
) -> None:
    one = patient(tmp_path, lies=lies, size=(46, 42, 11) if lies[0] in "LR" else (50, 48, 11))
    scan = prepared(tmp_path)
    assert "".join(axis_codes(scan.geometry)) == "LAS"
    assert scan.spacing == pytest.approx(NEW[::-1], rel=1e-6)
    image, labels = truth(one, lies)
    same(scan.labels, labels)
    close(scan.image[:, 0], image)


@pytest.mark.parametrize("lies", ["LPS", "RAI", "PLI"])
def test_organs_stay_where_they_are_in_the_patient(tmp_path: Path, lies: str) -> None:
    """The origin follows the crop, so labels can be mapped back to the download."""
    patient(tmp_path, lies=lies, spacing=(2.0, 2.0, 5.5), size=(64, 60, 15))
    scan = prepared(tmp_path)
    for value, (centre, _) in ORGANS.items():
        inside = np.argwhere(scan.labels.transpose(2, 1, 0) == value)
        found = nib.affines.apply_affine(scan.geometry.affine, inside).mean(0) * (-1, -1, 1)
        assert found == pytest.approx(centre, abs=2.5)


def test_large_scans_are_cropped_about_their_middle(tmp_path: Path) -> None:
    one = patient(tmp_path, spacing=(1.513, 1.417, 10.9), size=(230, 241, 8), tilt=0)
    image, labels = truth_cropped(one)
    scan = prepared(tmp_path)
    same(scan.labels, labels)
    close(scan.image[:, 0], image)


def truth_cropped(one: Patient) -> tuple[np.ndarray, np.ndarray]:
    big_x, big_y = int(230 * (1.513 / 1.25) + 1), int(241 * (1.417 / 1.25) + 1)
    assert min(big_x, big_y) > 256
    x, y = big_x // 2 - 128, big_y // 2 - 128
    image, labels = to_las(one.image, "LPS"), to_las(one.labels, "LPS")
    image = np.minimum(image, np.percentile(image, 99.5)).astype(np.int16)
    along = [weights(n, o, w) for n, o, w in zip(image.shape, one.grid.GetSpacing(), NEW)]
    along[0], along[1] = along[0][x : x + 256], along[1][y : y + 256]
    einsum = "xyz,ax,by,cz->abc"
    ids = np.zeros([len(matrix) for matrix in along], np.uint8)
    for value in range(1, 5):
        ids[np.einsum(einsum, 1.0 * (labels == value), *along, optimize=True) > 0.5] = value
    return np.trunc(np.einsum(einsum, 1.0 * image, *along, optimize=True) + 1e-9), ids


def test_the_spacing_that_the_scanner_noted_decides_the_size(tmp_path: Path) -> None:
    """11 x 7.70000458 / 7.7 is more than 11, 11 x 7.69999695 / 7.7 less: published files differ."""
    for noted, slices in ((7.70000457763672, 12), (7.69999694824219, 11), (5.0, 12)):
        shutil.rmtree(tmp_path / "Train_Sets", ignore_errors=True)
        patient(tmp_path, scanner_spacing=noted)
        assert convert(tmp_path).image.GetDepth() == slices


def test_an_absent_organ_shifts_no_id(tmp_path: Path) -> None:
    """The pitfall of counting grey levels: without a right kidney, the left one became id 2."""
    one = patient(tmp_path, lacking=(RIGHT,))
    found = convert(tmp_path)
    ids = np.unique(sitk.GetArrayFromImage(found.labels))
    assert ids.tolist() == [0, LIVER, LEFT, SPLEEN]
    assert found.notes == ("no right kidney is labelled",)
    same(sitk.GetArrayFromImage(found.labels), truth(one, "LPS")[1])


@pytest.mark.parametrize("level", [(55, 110, 175, 240), (70, 135, 200, 255)])
def test_grey_levels_are_ranges(
    tmp_path: Path, level: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = patient(tmp_path / "plain")
    for value, grey in enumerate(level, 1):
        monkeypatch.setitem(GREY, value, grey)
    patient(tmp_path / "other")
    same(sitk.GetArrayFromImage(convert(tmp_path / "other").labels), truth(plain, "LPS")[1])


def test_a_series_identifier_in_each_file_is_no_mixture(tmp_path: Path) -> None:
    patient(tmp_path, series=lambda index: f"1.2.{index + 1}")
    assert convert(tmp_path).image.GetDepth() == 12


def test_masks_with_other_numbers_follow_the_slices_from_the_feet(tmp_path: Path) -> None:
    one = patient(tmp_path)
    for file in one.masks:
        file.rename(file.with_name(f"mask {int(file.stem[-5:]) + 90}.png"))
    same(sitk.GetArrayFromImage(convert(tmp_path).labels), truth(one, "LPS")[1])


def test_masks_from_the_feet_are_known_by_their_edges(tmp_path: Path) -> None:
    """File 1 is the topmost slice, but mask 1 the lowest: numbers mislead, edges do not."""
    one = patient(tmp_path, lies="LPI", masks=lambda labels: labels[::-1])
    found = convert(tmp_path)
    assert "not the file numbers" in found.notes[0]
    same(sitk.GetArrayFromImage(found.labels), truth(one, "LPI")[1])


def swapped(first: int, second: int) -> Callable[[np.ndarray], np.ndarray]:
    table = np.arange(5, dtype=np.uint8)
    table[[first, second]] = second, first
    return lambda labels: table[labels]


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        (lambda labels: labels[:, ::-1], "masks in .*Ground fit the image better rows flipped"),
        (lambda labels: labels[:, :, ::-1], "better columns flipped"),
        (lambda labels: labels[::-1], "better slices flipped"),
        (lambda labels: labels[:, ::-1, ::-1], "better rows flipped, columns flipped"),
        (lambda labels: labels.transpose(0, 2, 1), "better turned"),
        (swapped(RIGHT, LEFT), "right kidney and left kidney are exchanged"),
        (swapped(LIVER, SPLEEN), "liver and spleen are exchanged"),
        (swapped(LIVER, RIGHT), "Restore this patient"),
        (lambda labels: 0 * labels, "masks in .*Ground are all empty"),
    ],
)
def test_masks_that_do_not_belong_so_are_refused(
    tmp_path: Path, masks: Callable[[np.ndarray], np.ndarray], told: str
) -> None:
    patient(tmp_path, size=(46, 46, 11), masks=masks)
    refused(tmp_path, told)


def test_a_mirrored_patient_is_refused(tmp_path: Path) -> None:
    """Image and masks agree, but the geometry says that the liver is on the left."""
    one = patient(tmp_path)
    shutil.rmtree(one.folder / "DICOM_anon")
    mirrored = sitk.Image(one.grid)
    mirrored.SetDirection([-one.grid.GetDirection()[0], *one.grid.GetDirection()[1:]])
    mirrored.SetOrigin([-one.grid.GetOrigin()[0], *one.grid.GetOrigin()[1:]])
    write_dicom(one.folder / "DICOM_anon", one.image, mirrored, list(range(1, 12)))
    refused(tmp_path, "left and right are exchanged, so image or masks were mirrored")


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _small(file: Path) -> None:
    Image.open(file).resize((23, 21)).save(file)


def _painted(mode: str, colour: int | tuple[int, ...]) -> Callable[[Path], None]:
    def paint(file: Path) -> None:
        picture = Image.open(file).convert(mode)
        picture.putpixel((3, 4), colour)
        picture.save(file)

    return paint


def _second_stack(file: Path) -> None:
    for other in file.parent.iterdir():
        shutil.copy(other, other.with_name(f"IMG-0003-{int(other.stem[-5:]) + 20:05d}.dcm"))


@pytest.mark.parametrize(
    ("kind", "harm", "told"),
    [
        ("DICOM_anon", Path.unlink, "11 masks .differing in 00006.*Restore"),
        ("Ground", Path.unlink, "11 DICOM files but 10 masks .differing in 00006"),
        ("DICOM_anon", _truncate, "IMG-0002-00006.dcm"),
        ("Ground", _truncate, "IMG-0002-00006.png cannot be read as a picture .*download it"),
        ("Ground", _small, "00006.png is 23 x 21 pixels but its image is 46 x 42"),
        ("Ground", _painted("L", 90), "00006.png has grey levels that stand for no organ: 90"),
        ("Ground", _painted("RGB", (63, 0, 0)), r"00006.png holds colours \(RGB\)"),
        ("DICOM_anon", _second_stack, "22 DICOM files but 11 masks"),
    ],
)
def test_damage_names_the_file(
    tmp_path: Path, kind: str, harm: Callable[[Path], None], told: str
) -> None:
    one = patient(tmp_path / "Raw data é")
    harm((one.folder / kind).joinpath(one.dicom[5].stem + (".dcm" if kind[0] == "D" else ".png")))
    refused(tmp_path, told)


def test_a_missing_slice_shows_in_the_gap(tmp_path: Path) -> None:
    one = patient(tmp_path)
    one.dicom[5].unlink()
    one.masks[5].unlink()
    refused(tmp_path, "not evenly spaced; IMG-0002-00005.dcm and IMG-0002-00007.dcm .* missing")


def test_mixed_series_are_refused(tmp_path: Path) -> None:
    patient(tmp_path / "uid", series=lambda index: "1.2.3" if index < 6 else "1.2.4")
    refused(tmp_path / "uid", "different DICOM series")
    one = patient(tmp_path / "twice")
    for folder in ("DICOM_anon", "Ground"):
        for file in list((one.folder / folder).iterdir()):
            shutil.copy(
                file, file.with_name(f"IMG-0009-{int(file.stem[-5:]) + 11:05d}{file.suffix}")
            )
    refused(tmp_path / "twice", "lie at the same place")
    patient(tmp_path / "coronal", lies="LSP", size=(46, 20, 12), tilt=0)
    refused(tmp_path / "coronal", "is not cut from feet to head")


def test_t1_ct_and_test_scans_are_passed_over(tmp_path: Path) -> None:
    one = patient(tmp_path, 8)
    shutil.copytree(one.folder, one.folder.parent / "T1DUAL")
    shutil.copytree(one.folder.parent, tmp_path / "Test_Sets" / "MR" / "4")
    shutil.copytree(one.folder / "DICOM_anon", tmp_path / "Train_Sets" / "CT" / "1" / "DICOM_anon")
    with open_tree(tmp_path) as tree:
        (scan,) = ChaosT2().find(tree)
    assert scan.id == "8"
    assert len(scan.image) == len(scan.labels) == 11


@pytest.mark.parametrize("inside", ["Train_Sets", "Train_Sets/MR", "Train_Sets/MR/1", "T2SPIR"])
def test_any_folder_above_or_inside_will_do(tmp_path: Path, inside: str) -> None:
    patient(tmp_path, 1)
    root = tmp_path / (f"Train_Sets/MR/1/{inside}" if inside == "T2SPIR" else inside)
    with open_tree(root) as tree:
        (scan,) = ChaosT2().find(tree)
    assert (scan.id, len(scan.image), len(scan.labels)) == ("1", 11, 11)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("CHAOS_Train_Sets.zip", "packed inside; give CHAOS_Train_Sets.zip itself"),
        ("Test_Sets/MR/4/T2SPIR/DICOM_anon/IMG-1.dcm", "test part .* masks are secret"),
        ("image_1.nii.gz", "prepared already"),
        ("Train_Sets/CT/1/DICOM_anon/i0000.dcm", "CT part"),
        ("1/T1DUAL/DICOM_anon/InPhase/IMG-1.dcm", "T1 scans"),
        ("readme.txt", "no folder T2SPIR/DICOM_anon"),
        ("MR/4/T2SPIR/DICOM_anon/IMG-1.dcm", "MR/4/.* of no labelled patient of CHAOS"),
    ],
)
def test_other_downloads_are_named(tmp_path: Path, file: str, told: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"x")
    with open_tree(tmp_path) as tree, pytest.raises(DataError, match=told):
        ChaosT2().find(tree)


def test_a_patient_without_masks_or_twice(tmp_path: Path) -> None:
    one = patient(tmp_path)
    shutil.copytree(tmp_path / "Train_Sets", tmp_path / "Copy")
    with open_tree(tmp_path) as tree, pytest.raises(DataError, match="holds patient 1 twice"):
        ChaosT2().find(tree)
    shutil.rmtree(tmp_path / "Copy")
    shutil.rmtree(one.folder / "Ground")
    refused(tmp_path, r"has no masks \(T2SPIR/Ground\) beside it.*CHAOS_Train_Sets.zip")
