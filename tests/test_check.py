"""The report on a dataset."""

import io
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from fewshot_seg.data.check import Report, check
from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.scan import Scan

AFFINE = np.diag([1.5, 1.5, 6.0, 1.0])


LABELS = np.eye(4, 5, dtype=np.uint8)[..., None] * np.array([1, 1, 0], np.uint8)


class Made:
    """A dataset in memory."""

    name = "made"
    modality = "mr"
    classes = {1: "liver", 2: "spleen"}  # noqa: RUF012

    def __init__(self, **scans: Scan) -> None:
        self.scans = scans
        self.ids = tuple(scans)

    def load(self, scan_id: str) -> Scan:
        return self.scans[scan_id]


def scan(seed: int, *ids: int, spacing: float = 6.0, channels: int = 1) -> Scan:
    """Two slices; the k-th of `ids` has k + 1 voxels in the first and one in the second."""
    image = np.random.default_rng(seed).random((2, channels, 4, 5)).astype(np.float32)
    labels = np.zeros((2, 4, 5), np.int16)
    for index, value in enumerate(ids):
        labels[0, index, seed : seed + index + 1] = value
        labels[1, index, seed] = value
    return Scan(str(seed), image, labels, (spacing, 1.5, 1.5))


def drawn(report: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(report.table())
    return console.file.getvalue()  # type: ignore[attr-defined]


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    nib.save(nib.Nifti1Image(data, affine), path)


def test_a_sound_dataset() -> None:
    report = check(Made(a=scan(0, 1, 2), b=scan(1, 1, 2)))
    assert report.ok
    assert report.warnings == ()
    assert report.class_slices == {1: 4, 2: 4}
    assert report.class_voxels == {1: 4, 2: 6}
    assert report.class_scans == {1: 2, 2: 2}
    row = report.rows[0]
    assert (row.id, row.shape, row.channels, row.spacing) == ("a", (2, 4, 5), 1, (6.0, 1.5, 1.5))
    assert row.slices == {1: 2, 2: 2}
    assert row.voxels == {1: 2, 2: 3}
    image = scan(0).image
    assert (row.low, row.high) == (float(image.min()), float(image.max()))
    text = drawn(report)
    for part in ("made, mr, 2 scans", "2 x 4 x 5", "6 x 1.5 x 1.5", "spleen", "No problems"):
        assert part in text


def unlabelled(seed: int) -> Scan:
    return Scan(str(seed), scan(seed).image)


@pytest.mark.parametrize(
    ("scans", "warning"),
    [
        ({"a": scan(0, 1, 2), "b": scan(1, 1)}, r"class 2 \(spleen\) is in one scan only"),
        ({"a": scan(0, 1), "b": scan(1, 1)}, r"class 2 \(spleen\) is in no scan"),
        ({"a": scan(0, 1, 2, 9), "b": scan(1, 1, 2)}, "ids without a name: 9"),
        ({"a": scan(0, 1, 2), "b": scan(1, 1, 2), "c": scan(2)}, "are empty: c"),
        ({"a": scan(0, 1, 2), "b": scan(0, 1, 2)}, "scans a, b are one image"),
        ({"a": scan(0, 1, 2), "b": scan(1, 1, 2, spacing=7.0)}, "along slice runs from 6 to 7 mm"),
        ({"a": scan(0, 1, 2), "b": scan(1, 1, 2, channels=3)}, "numbers of channels: 1 in 1, 3"),
    ],
)
def test_what_is_warned_of(scans: dict[str, Scan], warning: str) -> None:
    report = check(Made(**scans))
    assert report.ok
    assert len(report.warnings) == 1
    assert re.search(warning, report.warnings[0])
    assert f"warning: {report.warnings[0]}" in drawn(report)


def test_unlabelled_scans_are_listed_and_all_of_them_are_a_problem() -> None:
    report = check(Made(a=scan(0, 1, 2), b=unlabelled(1), c=scan(2, 1, 2)))
    assert report.ok
    assert report.unlabelled == ("b",)
    assert "Without labels: b" in drawn(report)
    report = check(Made(a=unlabelled(0)))
    assert not report.ok
    assert report.problems == ("no scan has a labelled voxel, so there is nothing to learn from",)


def test_scans_that_fail_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        save(tmp_path / f"image_{number}.nii.gz", rng.random((4, 5, 3)).astype(np.float32))
        save(tmp_path / f"label_{number}.nii.gz", LABELS)
    (tmp_path / "image_2.nii.gz").write_bytes(b"")
    (tmp_path / "label_4.nii.gz").write_bytes(b"")
    save(tmp_path / "label_5.nii.gz", np.ones((4, 5, 2), np.uint8))
    seen: list[str] = []
    report = check(tmp_path, on_scan=lambda row: seen.append(row.id))
    assert seen == ["1", "2", "3", "4", "5"]
    assert [row.error is None for row in report.rows] == [True, False, True, False, False]
    assert [problem.split(":")[0] for problem in report.problems] == ["scan 2", "scan 4", "scan 5"]
    assert "image_2.nii.gz is empty" in report.problems[0]
    assert report.class_slices == {1: 4}
    assert report.classes == {1: "class 1"}
    assert (report.layout, report.rows[0].axes, report.rows[0].slice_axis) == (
        "benchmark",
        "RAS",
        2,
    )
    assert "3 problems." in drawn(report)
    assert "does not load" in drawn(report)


def test_orientations_and_slice_axes_that_differ(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, affine in enumerate((AFFINE, AFFINE @ np.diag([-1, 1, 1, 1]), AFFINE)):
        save(tmp_path / f"image_{number}.nii", rng.random((4, 5, 3)).astype(np.float32), affine)
        save(tmp_path / f"label_{number}.nii", np.roll(LABELS, number, axis=0), affine)
    thick = np.diag([6.0, 1.5, 1.5, 1.0])
    save(tmp_path / "image_9.nii", rng.random((4, 5, 3)).astype(np.float32), thick)
    report = check(tmp_path)
    assert report.ok
    assert report.warnings == (
        "scans have different stored orientations: RAS in 3, LAS in 1",
        "scans have different slice axes: 2 in 3, 0 in 1",
    )


def test_a_folder_that_cannot_be_opened(tmp_path: Path) -> None:
    report = check(tmp_path)
    assert not report.ok
    assert report.rows == ()
    assert "no layout" in report.problems[0]
    assert "1 problem." in drawn(report)


def test_faults_of_the_code_are_not_hidden() -> None:
    class Broken(Made):
        def load(self, scan_id: str) -> Scan:
            raise AttributeError("a bug")

    with pytest.raises(AttributeError, match="a bug"):
        check(Broken(a=scan(0)))


def test_names_in_brackets_are_printed_as_they_are() -> None:
    assert "[red]a[/red]" in drawn(check(Made(**{"[red]a[/red]": scan(0, 1)})))


@pytest.fixture(scope="module")
def chaos(shared_data) -> Report:
    return check(shared_data("chaos_MR_T2_normalized"))


def test_chaos_has_the_published_slices(chaos: Report) -> None:
    report = chaos
    assert report.ok
    assert report.warnings == (
        "left kidney has holes between the slices that show it: scan 3 misses slice 16",
    )
    named = {report.classes[value]: count for value, count in report.class_slices.items()}
    assert named == {"liver": 461, "right kidney": 285, "left kidney": 300, "spleen": 274}
    assert {row.axes for row in report.rows} == {"LAS"}
    assert sum(row.shape[0] for row in report.rows if row.shape) == 718


def test_protocols_of_the_real_chaos_folder(chaos: Report) -> None:
    found = chaos.serves
    assert [fold.query for fold in found.folds][:2] == [
        ("1", "2", "3", "5"),
        ("8", "10", "13", "15"),
    ]
    assert [fold.support for fold in found.folds] == [("8",), ("19",), ("31",), ("36",), ("1",)]
    assert found.train_slices[0] == 544
    first = {
        entry.classes: tuple(entry.slices[name][0] for name in ("setting2_any", "setting2_all"))
        for entry in found.held_out
    }
    assert first == {(2, 3): (303, 349), (1, 4): (202, 343), (1, 2, 3, 4): (120, 490)}
    assert found.pseudo == ("superpixel", "supervoxel")


def test_the_twins_among_the_blood_cells_are_found(shared_data) -> None:
    report = check(open_folder(root=shared_data("wbc_dataset1_2d")))
    assert [text for text in report.warnings if "one image" in text] == [
        "scans 112, 139 are one image; in two folds it would be trained and tested on. "
        "Keep one of them"
    ]


def test_the_other_real_folders_are_sound(shared_data) -> None:
    report = check(shared_data("sunnybrook_cine_mr"))
    assert report.ok
    assert "scans have different stored orientations: LIA in 2, IRA in 1, PIL in 1" in (
        report.warnings
    )
    assert check(shared_data("msd_hippocampus_mr")).ok
