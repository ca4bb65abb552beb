"""The raw MS-CMRSeg download: prepared to known ground truth, and every known mistake refused."""

import re
import shutil
from collections.abc import Callable
from functools import cache
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from fewshot_seg.data.facts import describe
from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.nifti import read_scan
from fewshot_seg.data.orientation import axis_codes
from fewshot_seg.data.raw.heart import contrasts, facing, ring
from fewshot_seg.data.raw.runner import RawReport, prepare_raw
from fewshot_seg.errors import DataError

Edit = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

WAYS = {"PSR": np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]]),
        "LSP": np.array([[-1, 0, 0], [0, 0, -1], [0, 1, 0]])}  # fmt: skip
"""Columns: where the stored axes run to, in RAS+."""


def grid(
    way: str = "PSR",
    size: tuple[int, int, int] = (320, 320, 6),
    spacing: tuple[float, float, float] = (1.1875, 1.1875, 8.0),
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The affine of an oblique stack around the patient's origin, and its size."""
    turn = np.radians(20)
    oblique = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = oblique @ WAYS[way] * spacing
    affine[:3, 3] = -affine[:3, :3] @ (np.array(size) / 2) + (3, -5, 8)
    return affine, size


def heart(affine: np.ndarray, shape: tuple[int, ...], frame: np.ndarray) -> np.ndarray:
    """Class ids at a grid's voxels; frame: the affine whose directions the heart's axes have."""
    index = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    places = np.stack(index, axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    directions = frame[:3, :3] / np.linalg.norm(frame[:3, :3], axis=0)
    across, down, along = np.moveaxis(places @ directions, -1, 0)
    across, down = across - 15 - 0.2 * along, down + 20
    ids = np.zeros(shape, np.uint8)
    ids[(across + 42) ** 2 / 28**2 + down**2 / 36**2 < 1] = 3
    ids[across**2 + down**2 < 33**2] = 1
    ids[across**2 + down**2 < 22**2] = 2
    ids[np.abs(along) > 30] = 0
    return ids


@cache
def patient(way: str = "PSR", size: int = 320, depth: int = 6, thick: float = 8.0) -> tuple:
    """Image and raw label values of one stack, and its affine."""
    pixel = 1.1875 if size == 320 else 1.3
    affine, shape = grid(way, (size, size, depth), (pixel, pixel, thick))
    ids = heart(affine, shape, affine)
    noise = np.random.default_rng(0).normal(0, 15, shape)
    image = (np.array([250, 140, 600, 580])[ids] + noise).clip(20).astype(np.int16)
    image[40:44, 40:60] = 3000  # a bright artefact of less than half a percent
    return image, np.array([0, 200, 500, 600], np.int16)[ids], affine


def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def write(
    root: Path, number: int, image: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    save(root / "c0t2lge" / f"patient{number}_C0.nii.gz", image, affine)
    save(root / "c0gt" / f"patient{number}_C0_manual.nii.gz", labels, affine)


def prepared(report: RawReport, scan_id: str) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    assert report.ok, report.failed
    image, labels = (
        nib.load(report.folder / f"{kind}_{scan_id}.nii.gz") for kind in ("image", "label")
    )
    return image, labels


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RawReport]:
    """Patients 2 (cropped), 10 (another way round, padded); the other sequences of 2 as well."""
    root = tmp_path_factory.mktemp("cmr")
    write(root / "raw", 2, *patient())
    write(root / "raw", 10, *patient("LSP", 240, 5, 9.0))
    image, labels, affine = patient()
    for sequence in ("LGE", "T2"):
        save(root / "raw" / "c0t2lge" / f"patient2_{sequence}.nii.gz", image[:9], affine)
        save(root / "raw" / "gt" / f"patient2_{sequence}_manual.nii.gz", labels[:9], affine)
    save(root / "raw" / "c0t2lge" / "patient36_C0.nii.gz", image, affine)  # has no labels
    return root / "raw", prepare_raw("ms-cmrseg", root / "raw", root / "out")


# What comes out


def test_the_folder_is_the_fields_and_opens_as_a_data_set(
    reference: tuple[Path, RawReport],
) -> None:
    report = reference[1]
    assert report.ok, report.failed
    assert report.folder.name == "cmr_MR_normalized"
    assert len(report.missing) == 33
    folder = open_folder(root=report.folder)
    assert folder.ids == ("2", "10")
    assert folder.modality == "mr"
    assert dict(folder.classes) == {
        1: "left ventricular myocardium", 2: "left ventricular blood pool", 3: "right ventricle",
    }  # fmt: skip
    for scan_id, slices in (("2", 7), ("10", 6)):  # floor(6 * 8 / 7.99) + 1 and of 5 * 9
        scan = folder.load(scan_id)
        assert scan.image.shape == (slices, 1, 256, 256)
        assert scan.spacing == pytest.approx((7.99, 1.25, 1.25))
        assert set(scan.class_slices) == {1, 2, 3}


def test_axes_stay_as_stored(reference: tuple[Path, RawReport]) -> None:
    """Turning oblique stacks to the closest patient axis would cut some along another plane."""
    for scan_id, way in (("2", "PSR"), ("10", "LSP")):
        scan = read_scan(reference[1].folder / f"image_{scan_id}.nii.gz")
        assert scan.geometry is not None
        assert "".join(axis_codes(scan.geometry)) == way
        assert scan.geometry.slice_axis == 2


@pytest.mark.parametrize(
    ("scan_id", "args"), [("2", ()), ("10", ("LSP", 240, 5, 9.0))], ids=["cropped", "padded"]
)
def test_labels_lie_where_the_header_says_they_do(
    reference: tuple[Path, RawReport], scan_id: str, args: tuple
) -> None:
    _, labels = prepared(reference[1], scan_id)
    truth = heart(labels.affine, labels.shape, patient(*args)[2])
    found = np.asarray(labels.dataobj)
    inner = slice(1, -2)  # planes that lie between two that show the heart
    for value in (1, 2, 3):
        assert dice(found[..., inner] == value, truth[..., inner] == value) > 0.95


def test_voxels_are_the_clipped_scan_between_its_voxels(
    reference: tuple[Path, RawReport],
) -> None:
    image, _ = prepared(reference[1], "2")
    raw = patient()[0]
    clipped = np.minimum(raw, int(np.percentile(raw, 99.5)))
    first = 305 // 2 - 128  # of floor(320 * 1.1875 / 1.25) + 1 pixels
    steps = (first + np.arange(256)) * 1.25 / 1.1875
    grid_ = np.meshgrid(steps, steps, np.arange(6) * 7.99 / 8, indexing="ij")
    expected = map_coordinates(clipped.astype(np.float64), grid_, order=1)
    below = expected - image.get_fdata()[..., :6]  # whole numbers lose their fraction
    assert below.min() > -1e-3
    assert below.max() < 1 + 1e-3
    assert image.get_fdata().max() < 700


def test_stacks_of_8_mm_end_in_an_empty_plane_as_published(
    reference: tuple[Path, RawReport],
) -> None:
    """474 slices over 35 patients, which published folds count, include these planes."""
    image, labels = prepared(reference[1], "2")
    assert not image.get_fdata()[..., 6].any()
    assert not labels.get_fdata()[..., 6].any()


def test_padding_has_the_lowest_value_and_no_label(reference: tuple[Path, RawReport]) -> None:
    image, labels = prepared(reference[1], "10")
    values = image.get_fdata()
    assert values.min() > 0  # no pixel of this one lies outside the scan
    assert (values[:3] == values.min()).all()
    assert not labels.get_fdata()[:3].any()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_folder_zip_and_a_second_run_give_the_same_bytes(
    reference: tuple[Path, RawReport], tmp_path: Path
) -> None:
    raw, report = reference
    zipped = shutil.make_archive(str(tmp_path / "C0LET2 für Späteres"), "zip", raw)
    again = prepare_raw("ms-cmrseg", zipped, tmp_path / "out")
    assert files_of(again.folder) == files_of(report.folder)
    once_more = prepare_raw("ms-cmrseg", raw, tmp_path / "out")
    assert [one.status for one in once_more.outcomes] == ["unchanged", "unchanged"]


# Wrong downloads


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "no file is called patient1_C0"),
        (("patient1_LGE.nii.gz", "patient1_T2_manual.nii.gz"), "LGE or T2"),
        (("patient1_C0.nii.gz", "patient1_LGE_manual.nii.gz"), "without their labels"),
        (("patient1_C0_manual.nii.gz",), "labels without their scans"),
        (("image_1.nii.gz", "label_1.nii.gz"), "prepared already"),
        (("myops_training_101_C0.nii.gz",), "MyoPS"),
        (("slices/patient1_3.npz",), "another project"),
    ],
)
def test_another_download_is_named_with_the_right_one(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    for name in (*files, "readme.txt"):
        path = tmp_path / "download" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    with pytest.raises(DataError, match=f"{message}.*patient<k>_C0_manual.nii.gz"):
        prepare_raw("ms-cmrseg", tmp_path / "download", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Scans that cannot be right


def values(myocardium: int, pool: int, right: int) -> Edit:
    def edit(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        table = dict(zip((0, 200, 500, 600), (0, myocardium, pool, right)))
        return image, np.vectorize(table.get)(labels).astype(np.int16)

    return edit


def only_labels(change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    return lambda image, labels: (image, change(labels))


def only_image(change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    return lambda image, labels: (change(image), labels)


WRONG: dict[str, tuple[Edit, str]] = {
    **{
        f"swapped to {changed}": (values(*changed), "is ringed by .*The values were swapped")
        for changed in permutations((200, 500, 600))
        if changed != (200, 500, 600)
    },
    "200 and 600": (values(600, 500, 200), r"here 500 is ringed by 600 \(100%"),
    "mapped already": (values(1, 2, 3), r"holds the ids \[1, 2, 3\], not 200, 500 and 600"),
    "no right ventricle": (values(200, 500, 0), r"holds the values \[200, 500\]"),
    "a fourth value": (values(200, 500, 1220), r"holds the values \[200, 500, 1220\]"),
    "empty": (values(0, 0, 0), r"holds the values \[\]"),
    "shuffled": (
        only_labels(lambda labels: np.random.default_rng(0).permuted(labels, axis=0)),
        "not ringed by the myocardium",
    ),
    "another sequence": (
        only_image(lambda image: (900 - image).clip(1).astype(np.int16)),
        "not brighter than the myocardium",
    ),
    **{
        f"labels flipped along {axis}": (
            only_labels(lambda labels, axis=axis: np.flip(labels, axis)),
            f"fits its image better {name} flipped",
        )
        for axis, name in enumerate(("columns", "rows", "slices"))
    },
    "labels turned": (only_labels(lambda labels: labels.swapaxes(0, 1)), "fits .* better turned"),
    "image upside down": (only_image(lambda image: image[:, ::-1]), "fits .* better rows flipped"),
    "another patient": (
        only_labels(lambda labels: np.roll(labels, (90, 60), axis=(0, 1))),
        "not brighter than the myocardium",
    ),
    "another shape": (
        only_labels(lambda labels: labels[:-1]),
        r"shape \(319, 320, 6\) but its image .*\(320, 320, 6\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_scan_that_cannot_be_right_is_refused_and_leaves_nothing(
    tmp_path: Path, case: str
) -> None:
    edit, message = WRONG[case]
    image, labels, affine = patient()
    image, labels = (np.ascontiguousarray(voxels) for voxels in edit(image, labels))
    write(tmp_path / "raw", 7, image, labels, affine)
    report = prepare_raw("ms-cmrseg", tmp_path / "raw", tmp_path / "out")
    (failed,) = report.failed
    assert failed.id == "7"
    assert failed.error is not None
    assert "patient7_C0_manual.nii.gz" in failed.error
    assert re.search(message, failed.error, re.DOTALL), failed.error
    assert [path.name for path in report.folder.iterdir()] == ["dataset.json"]


def test_a_stack_that_was_turned_is_refused(tmp_path: Path) -> None:
    image, labels, affine = patient()
    order = [2, 0, 1]
    turned = affine[:, [*order, 3]]
    write(tmp_path, 1, image.transpose(order), labels.transpose(order), turned)
    (failed,) = prepare_raw("ms-cmrseg", tmp_path, tmp_path / "out").failed
    assert "patient1_C0.nii.gz has its slices along stored axis 1, not 3" in str(failed.error)


def test_one_bad_scan_stops_no_other(tmp_path: Path) -> None:
    image, labels, affine = patient()
    write(tmp_path / "raw", 1, image, labels, affine)
    save(tmp_path / "raw" / "patient3_C0.nii.gz", image, affine)
    write(tmp_path / "raw", 4, image, labels, affine)
    broken = tmp_path / "raw" / "c0gt" / "patient4_C0_manual.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-100])
    report = prepare_raw("ms-cmrseg", tmp_path / "raw", tmp_path / "out")
    errors = {one.id: one.error or "" for one in report.failed}
    assert set(errors) == {"3", "4"}
    assert "no label file beside it" in errors["3"]
    assert "patient4_C0_manual.nii.gz is truncated" in errors["4"]
    assert (report.folder / "image_1.nii.gz").is_file()


# Hearts


def test_real_hearts_are_ringed_and_bright(shared_data: Callable[[str], Path]) -> None:
    root = shared_data("sunnybrook_cine_mr")
    for path in sorted((root / "images").iterdir()):
        scan = read_scan(path, root / "labels" / path.name)
        row = describe(scan, scan.id)
        assert ring(row)[:2] == (2, 1)
        assert facing(row, 2, 1) > 0.97
        found = contrasts(scan, pool=2, muscle=1)
        assert found.pop("as given") > max(found.values()) + 0.5


def test_shares_of_a_border_are_counted_by_hand(tmp_path: Path) -> None:
    labels = np.zeros((7, 6, 1), np.uint8)
    labels[1:4, 1:5] = 1
    labels[2, 2:4] = 2  # two pixels, six sides, all to class 1
    labels[4, 1:3] = 3  # six sides: two to class 1, four to the background
    save(tmp_path / "image.nii", np.arange(42, dtype=np.int16).reshape(7, 6, 1), np.eye(4))
    save(tmp_path / "label.nii", labels, np.eye(4))
    scan = read_scan(tmp_path / "image.nii", tmp_path / "label.nii")
    row = describe(scan, "a")
    assert ring(row) == (2, 1, 1.0)
    assert facing(row, 3, 1) == pytest.approx(2 / 6)
    assert facing(row, 1, 2) == pytest.approx(6 / 20)
