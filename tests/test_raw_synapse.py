"""The raw Synapse download: prepared to known ground truth, and every known mistake refused."""

import re
import shutil
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy.ndimage import map_coordinates

from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.raw.anatomy import fault, measure
from fewshot_seg.data.raw.runner import RawReport, find_raw, prepare_raw
from fewshot_seg.data.raw.synapse import Synapse
from fewshot_seg.errors import DataError

Edit = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

# Ellipsoids by class id: centre and half axes, millimetres to the patient's left, back and head.
ORGANS = {
    1: ((90, 30, 45), (30, 35, 35)),
    2: ((-60, 50, -40), (22, 22, 40)),
    3: ((60, 50, -35), (22, 22, 40)),
    4: ((-45, -80, 0), (14, 14, 18)),
    5: ((5, 20, 80), (9, 9, 20)),
    6: ((-70, -20, 45), (60, 60, 55)),
    7: ((45, -45, 40), (30, 25, 35)),
    8: ((8, 35, 0), (10, 10, 90)),
    9: ((-16, 32, 0), (10, 10, 60)),
    10: ((0, 5, 10), (8, 7, 14)),
    11: ((25, -5, -5), (30, 9, 14)),
    12: ((-35, 36, -5), (8, 6, 14)),
    13: ((38, 40, 20), (8, 6, 14)),
}
SHAPE = (512, 512, 10)
LPS = np.array([[-0.75, 0, 0, 191], [0, -0.75, 0, 191], [0, 0, 20.0, -90], [0, 0, 0, 1]])
TURN = np.radians(8)
OBLIQUE = (
    np.array(
        [
            [np.cos(TURN), -np.sin(TURN), 0, 0],
            [np.sin(TURN), np.cos(TURN), 0, 0],
            [0, 0, 1, 0],
            [0, 0, 0, 1],
        ]
    )
    @ LPS
)


def labels_at(affine: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Class ids and the inside of the body at the voxels of a grid (affine in RAS+)."""
    index = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in shape), indexing="ij")
    signs = np.array([-1, -1, 1])
    steps, start = (signs * affine[:3, :3].T).T, signs * affine[:3, 3]
    place = [sum(step[axis] * index[axis] for axis in range(3)) for step in steps]
    place = [axis + np.float32(first) for axis, first in zip(place, start)]
    found = np.zeros(shape, np.uint8)
    for value, (centre, radii) in ORGANS.items():
        found[_ball(place, centre, radii)] = value
    return found, _ball(place, (0, 0, 0), (150, 120, 10_000))


def _ball(place: list, centre: tuple[int, ...], radii: tuple[int, ...]) -> np.ndarray:
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(place, centre, radii)) < 1


@cache
def patient(oblique: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units and class ids."""
    labels, body = labels_at(OBLIQUE if oblique else LPS, SHAPE)
    units = np.where(body, -90, -1000) + np.where(labels > 0, 120 + 8 * (labels % 5), 0)
    noise = np.random.default_rng(0).normal(0, 10, SHAPE)
    units[240:250, 400:420] = 900  # bone, above the window
    return (units + noise).astype(np.int16), labels


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = LPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def write(
    root: Path,
    number: int,
    image: np.ndarray,
    labels: np.ndarray,
    affine: np.ndarray = LPS,
    labels_affine: np.ndarray | None = None,
    *,
    suffix: str = ".nii",
) -> None:
    training = root / "RawData" / "Training"
    save(training / "img" / f"img{number:04d}{suffix}", image, affine)
    other = affine if labels_affine is None else labels_affine
    save(training / "label" / f"label{number:04d}{suffix}", labels, other)


def stored_as(code: str, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The LPS volume with its axes running another way, and the affine that says so."""
    turn = ornt_transform(io_orientation(LPS), axcodes2ornt(tuple(code)))
    turned = nib.orientations.apply_orientation(voxels, turn)
    return np.ascontiguousarray(turned), LPS @ inv_ornt_aff(turn, voxels.shape)


def prepared(report: RawReport, scan_id: str = "0") -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    assert report.ok, report.failed
    image, labels = (
        nib.load(report.folder / f"{kind}_{scan_id}.nii.gz") for kind in ("image", "label")
    )
    return image, labels


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RawReport]:
    """A download with the first patient of each range, prepared."""
    root = tmp_path_factory.mktemp("synapse")
    write(root / "raw", 1, *patient())
    write(root / "raw", 21, *patient(), suffix=".nii.gz")
    write(root / "raw", 61, *patient())  # of the test set; to be passed over
    return root / "raw", prepare_raw("synapse", root / "raw", root / "out")


# What comes out


def test_the_folder_is_the_fields_and_opens_as_a_data_set(
    reference: tuple[Path, RawReport],
) -> None:
    report = reference[1]
    assert report.ok
    assert report.folder.name == "sabs_CT_normalized"
    folder = open_folder(root=report.folder)
    assert folder.ids == ("0", "10")
    assert folder.modality == "ct"
    assert [folder.classes[value] for value in (1, 2, 3, 6)] == [
        "spleen", "right kidney", "left kidney", "liver",
    ]  # fmt: skip
    assert len(folder.classes) == 13
    scan = folder.load("0")
    assert scan.image.shape == (10, 1, 256, 256)
    assert set(scan.class_slices) == set(range(1, 14))


def test_ids_are_places_in_the_published_list_whoever_is_missing(
    reference: tuple[Path, RawReport],
) -> None:
    report = reference[1]
    assert [one.id for one in report.outcomes] == ["0", "10"]
    assert len(report.missing) == 28
    assert {"1", "9", "11", "29"} <= set(report.missing)
    with pytest.raises(DataError, match="lacks 28 of the 30 scans"):
        find_raw("synapse", reference[0], strict=True)


def test_voxels_are_the_windowed_scan_between_its_pixels(
    reference: tuple[Path, RawReport],
) -> None:
    image, _ = prepared(reference[1])
    window = patient()[0].astype(np.float64).clip(-125, 275)
    window = (window - window.min()) / (window.max() - window.min()) * 255
    steps = 32 + 1.75 * np.arange(256)
    grid = np.meshgrid(steps, steps, np.arange(10), indexing="ij")
    expected = map_coordinates(window, grid, order=1)
    np.testing.assert_allclose(image.get_fdata(), expected, atol=1e-3)


def test_neither_a_257th_row_nor_an_empty_last_frame_is_written(
    reference: tuple[Path, RawReport],
) -> None:
    image, labels = prepared(reference[1])
    assert image.shape == labels.shape == (256, 256, 10)
    assert all(image.get_fdata()[..., index].any() for index in range(10))
    assert image.get_fdata().max() == pytest.approx(255)
    assert image.header.get_zooms() == pytest.approx((0.75 * 1.75, 0.75 * 1.75, 20))


def test_labels_lie_where_the_header_says_they_do(reference: tuple[Path, RawReport]) -> None:
    """The origin follows the 32 pixels cut away; published files lack that, 24 mm here."""
    _, labels = prepared(reference[1])
    found, (truth, _) = np.asarray(labels.dataobj), labels_at(labels.affine, labels.shape)
    for value in ORGANS:
        assert dice(found == value, truth == value) > (0.97 if value < 4 or value == 6 else 0.8)
    assert labels.affine[:3, 3] == pytest.approx(LPS[:3, 3] + [-24, -24, 0])


def test_labels_go_back_to_the_raw_grid(reference: tuple[Path, RawReport]) -> None:
    raw = reference[0] / "RawData" / "Training" / "label" / "label0001.nii"
    back = sitk.Resample(
        sitk.ReadImage(str(reference[1].folder / "label_0.nii.gz")),
        sitk.ReadImage(str(raw)),
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
    )
    found, truth = sitk.GetArrayFromImage(back), patient()[1].transpose()
    assert all(dice(found == value, truth == value) > 0.97 for value in (1, 2, 3, 6))


@pytest.mark.parametrize("code", ["LAS", "RAS", "RPI", "SLP", "PIR"])
def test_however_the_axes_are_stored_the_same_comes_out(
    reference: tuple[Path, RawReport], tmp_path: Path, code: str
) -> None:
    (image, affine), (labels, _) = (stored_as(code, voxels) for voxels in patient())
    write(tmp_path, 1, image, labels, affine)
    report = prepare_raw("synapse", tmp_path, tmp_path / "out")
    for found, expected in zip(prepared(report), prepared(reference[1])):
        np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
    assert report.outcomes[0].case is not None
    assert any(code in note and "turned" in note for note in report.outcomes[0].case.notes)


def test_an_oblique_scan_keeps_its_planes_and_its_place(tmp_path: Path) -> None:
    write(tmp_path, 5, *patient(oblique=True), OBLIQUE)
    _, labels = prepared(prepare_raw("synapse", tmp_path, tmp_path / "out"), "4")
    truth, _ = labels_at(labels.affine, labels.shape)
    found = np.asarray(labels.dataobj)
    assert all(dice(found == value, truth == value) > 0.97 for value in (1, 2, 3, 6))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_folder_zip_and_a_second_run_give_the_same_bytes(
    reference: tuple[Path, RawReport], tmp_path: Path
) -> None:
    raw, report = reference
    zipped = shutil.make_archive(str(tmp_path / "RawData"), "zip", raw)
    again = prepare_raw("synapse", zipped, tmp_path / "out")
    assert files_of(again.folder) == files_of(report.folder)
    deeper = prepare_raw("synapse", raw / "RawData" / "Training", tmp_path / "out")
    assert [one.status for one in deeper.outcomes] == ["unchanged", "unchanged"]
    assert files_of(again.folder) == files_of(report.folder)


# Wrong downloads


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "no file is called img0001"),
        (("averaged-training-images/DET0000101_avg.nii.gz",), "averaged"),
        (
            (
                "averaged-training-images/img0001.nii.gz",
                "averaged-training-labels/label0001.nii.gz",
            ),
            "averaged",
        ),
        (("RegData/Training-Training/img/0001/img0002-0001.nii.gz",), "RegData"),
        (("Reg/img0002-0001.nii.gz", "Reg/label0002-0001.nii.gz"), "RegData"),
        (("RawData/Testing/img/img0061.nii.gz",), "without labels, as the challenge's test set"),
        (("img/img0001.nii.gz", "img/img0002.nii.gz"), "without labels"),
        (("label/label0001.nii.gz",), "without their images"),
        (("image_0.nii.gz", "label_0.nii.gz"), "prepared already"),
        (("train_npz/case0005_slice000.npz",), "another project"),
        (("Abdomen/RawData.zip",), "give RawData.zip itself"),
    ],
)
def test_another_download_is_named_with_the_right_one(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    for name in (*files, "readme.txt"):
        path = tmp_path / "download" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    with pytest.raises(DataError, match=f"{message}.*RawData/Training/img/img0001"):
        prepare_raw("synapse", tmp_path / "download", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Scans that cannot be right


def ids(**table: int) -> Edit:
    """Give each class another id: spleen=6 turns every 1 into a 6; 0 empties a class."""
    old = {"spleen": 1, "right": 2, "left": 3, "gallbladder": 4, "liver": 6, "pancreas": 11}

    def edit(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        changed = labels.copy()
        for name, new in table.items():
            changed[labels == old[name]] = new
        return image, changed

    return edit


def both(change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    return lambda image, labels: (change(image), change(labels))


def only_labels(change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    return lambda image, labels: (image, change(labels))


def only_image(change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    return lambda image, labels: (change(image), labels)


# TransUNet's own ids: 1 aorta, 2 gallbladder, 3 left, 4 right kidney, 5 liver, 6 pancreas, 7 spleen
WRONG: dict[str, tuple[Edit, str]] = {
    "liver and spleen": (ids(spleen=6, liver=1), "liver and spleen are exchanged"),
    "kidneys": (ids(right=3, left=2), "right kidney and left kidney are exchanged"),
    "liver and gallbladder": (ids(liver=4, gallbladder=6), "smaller than the right kidney"),
    "ids of CHAOS": (ids(liver=1, spleen=4, gallbladder=0), "no liver.*6 liver"),
    "ids of TransUNet": (
        ids(gallbladder=2, right=4, liver=5, pancreas=6, spleen=7),
        "do not lie side by side|smaller than|exchanged",
    ),
    "no kidneys": (ids(right=0, left=0), "no kidney, like the challenge's averaged"),
    "empty": (only_labels(np.zeros_like), "no liver: it is empty"),
    "an id too many": (ids(gallbladder=14), r"holds the ids \[14\]"),
    "fractions": (only_labels(lambda voxels: voxels * np.float32(0.3)), "not whole numbers"),
    "mirrored": (both(lambda voxels: voxels[::-1]), "left and right are exchanged"),
    "on the face": (both(lambda voxels: voxels[:, ::-1]), "front and back are exchanged"),
    "upside down": (both(lambda voxels: voxels[..., ::-1]), "head and feet are exchanged"),
    "half turn": (
        both(lambda voxels: voxels[::-1, ::-1]),
        "left and right and front and back are exchanged",
    ),
    "quarter turn": (both(lambda voxels: voxels.swapaxes(0, 1)), "do not lie side by side"),
    "labels shifted": (
        only_labels(lambda voxels: np.roll(voxels, 40, axis=1)),
        "do not follow the edges",
    ),
    "labels of another shape": (
        only_labels(lambda voxels: voxels[..., 1:]),
        r"shape \(512, 512, 9\) but its image .*\(512, 512, 10\)",
    ),
    "a cut image": (both(lambda voxels: voxels[32:-32, 32:-32]), "448 x 448 pixels"),
    "windowed": (only_image(lambda voxels: voxels.clip(-125, 275)), "windowed or shifted"),
    "no Hounsfield units": (only_image(lambda voxels: voxels + 1024), "windowed or shifted"),
    "constant": (only_image(np.zeros_like), "the value 0 in every voxel"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_scan_that_cannot_be_right_is_refused_and_leaves_nothing(
    tmp_path: Path, case: str
) -> None:
    edit, message = WRONG[case]
    image, labels = (np.ascontiguousarray(voxels) for voxels in edit(*patient()))
    write(tmp_path / "raw", 3, image, labels)
    report = prepare_raw("synapse", tmp_path / "raw", tmp_path / "out")
    (failed,) = report.failed
    assert failed.id == "2"
    assert failed.error is not None
    assert "0003.nii" in failed.error
    assert re.search(message, failed.error, re.DOTALL), failed.error
    assert [path.name for path in report.folder.iterdir()] == ["dataset.json"]


def test_one_bad_scan_stops_no_other(tmp_path: Path) -> None:
    image, labels = patient()
    write(tmp_path / "raw", 1, image, labels)
    write(tmp_path / "raw", 2, image, np.zeros_like(labels))
    training = tmp_path / "raw" / "RawData" / "Training"
    save(training / "img" / "img0004.nii", image)
    save(training / "label" / "label0006.nii", labels)
    (training / "img" / "img0007.nii.gz").write_bytes(b"\x1f\x8bnot really")
    save(training / "label" / "label0007.nii", labels)
    save(tmp_path / "raw" / "copy" / "img0001.nii", image)
    report = prepare_raw("synapse", tmp_path / "raw", tmp_path / "out")
    errors = {one.id: one.error or "" for one in report.outcomes}
    assert "2 image files of one patient" in errors["0"]
    assert "no liver" in errors["1"]
    assert "no label file beside it" in errors["3"]
    assert "no image file beside it" in errors["5"]
    assert "img0007.nii.gz" in errors["6"]
    shutil.rmtree(tmp_path / "raw" / "copy")
    report = prepare_raw("synapse", tmp_path / "raw", tmp_path / "out")
    assert [one.id for one in report.outcomes if one.error is None] == ["0"]
    assert (report.folder / "image_0.nii.gz").is_file()


def test_organs_that_some_patients_lack_are_noted_not_refused(tmp_path: Path) -> None:
    image, labels = ids(gallbladder=0, right=0)(*patient())
    write(tmp_path, 1, image, labels)
    report = prepare_raw("synapse", tmp_path, tmp_path / "out")
    assert report.ok
    assert report.outcomes[0].case is not None
    assert report.outcomes[0].case.notes == (
        "there is no voxel of 2 right kidney",
        "there is no voxel of 4 gallbladder",
    )


def test_headers_that_differ(tmp_path: Path) -> None:
    beside = LPS.copy()
    beside[2, 3] += 7
    write(tmp_path, 1, *patient(), LPS, beside)
    write(tmp_path, 2, *patient(), LPS, LPS @ np.diag([-1, 1, 1, 1]))
    write(tmp_path, 3, *patient(), LPS, LPS @ np.diag([1, 1, 0.5, 1]))
    report = prepare_raw("synapse", tmp_path, tmp_path / "out")
    noted, flipped, thinner = report.outcomes
    assert noted.case is not None
    assert "a corner 7 mm apart" in noted.case.notes[0]
    assert "axes that run different ways" in (flipped.error or "")
    assert "voxels of different size" in (thinner.error or "")


# Anatomy


def test_every_way_to_turn_a_patient_is_told_from_the_right_one() -> None:
    labels = patient()[1][::4, ::4]
    for flips in product((1, -1), repeat=3):
        turned = np.ascontiguousarray(labels[:: flips[0], :: flips[1], :: flips[2]].transpose())
        image = sitk.GetImageFromArray(turned)
        image.SetSpacing((3, 3, 20))
        wrong = fault(measure(image, Synapse.classes))
        assert (wrong is None) == (flips == (1, 1, 1)), (flips, wrong)


def test_real_patients_are_plausible(shared_data: Callable[[str], Path]) -> None:
    chaos = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
    for path in sorted(shared_data("chaos_MR_T2_normalized").glob("label_*.nii.gz")):
        assert fault(measure(sitk.ReadImage(str(path)), chaos)) is None
    ct = {1: "spleen", 2: "right kidney", 3: "left kidney", 5: "liver"}
    path = shared_data("totalsegmentator_examples") / "ct_label.nii.gz"
    assert fault(measure(sitk.ReadImage(str(path)), ct)) is None
