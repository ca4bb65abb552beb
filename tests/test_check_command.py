"""`fewshot-seg data check`: its words, files and exit codes."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from fewshot_seg.cli import app
from fewshot_seg.data.check import check
from fewshot_seg.data.folder import open_folder, open_scan
from fewshot_seg.data.known import CHAOS, SYNAPSE

SIDE, DEPTH = 32, 4


def _run(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])


def write_scan(root: Path, name: str, seed: int = 0, spacing: float = 7.7) -> None:
    """A liver on the patient's right and a spleen on the left, bright on dark."""
    root.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((SIDE, SIDE, DEPTH), np.uint8)
    labels[2:14, 8:24, :] = 1
    labels[20:30, 4:16, 1:] = 4
    labels[0, seed, 0] = 1
    image = labels * 50 + np.random.default_rng(seed).integers(0, 40, labels.shape)
    affine = np.diag([-1.25, 1.25, spacing, 1.0])
    for kind, voxels in (("image", image.astype(np.int16)), ("label", labels)):
        nib.save(nib.Nifti1Image(voxels, affine), root / f"{kind}_{name}.nii.gz")


@pytest.fixture
def chaos(tmp_path: Path) -> Path:
    """Four scans of the published folder."""
    root = tmp_path / CHAOS.name
    for number in (1, 2, 3, 5):
        write_scan(root, str(number), number)
    return root


def test_a_published_folder(chaos: Path) -> None:
    told = _run("data", "check", chaos)
    assert told.exit_code == 0, told.output
    for part in (
        "the published set CHAOS-T2",
        "16 of the 20 scans of CHAOS-T2 are missing (8, 10, 13, 15, 19, 20 and 10 more)",
        "class 2 (right kidney) is in no scan",
        "No problems. 3 warnings",
        "Next: fewshot-seg train apscl --data",
        "--n-folds 4",
    ):
        assert part in told.output


def test_scans_that_are_not_of_the_published_set(chaos: Path) -> None:
    write_scan(chaos, "77", 7, spacing=5.0)
    report = check(chaos)
    assert report.title == CHAOS.title
    assert "CHAOS-T2 has no scans 77; folds are not the published ones" in report.warnings
    told = [text for text in report.warnings if "the spacing of scan 77 is not that of" in text]
    assert len(told) == 1
    names = {"1": "liver", "4": "milt"}
    (chaos / "dataset.json").write_text(json.dumps({"labels": names}))
    told = [text for text in check(chaos).warnings if "class names differ" in text]
    assert told == [
        "class names differ from those of CHAOS-T2: 4 is 'milt' here and 'spleen' there"
    ]


def test_a_damaged_scan_is_a_problem_and_the_others_are_checked(chaos: Path) -> None:
    whole = (chaos / "image_2.nii.gz").read_bytes()
    (chaos / "image_2.nii.gz").write_bytes(whole[: len(whole) // 2])
    told = _run("data", "check", chaos, "--json", chaos / "found.json", "--sheet", chaos / "a.png")
    assert told.exit_code == 2, told.output
    assert "image_2.nii.gz is truncated" in told.output
    assert "1 problem." in told.output
    assert "Next: put this right, then check again." in told.output
    found = json.loads((chaos / "found.json").read_text())
    assert (found["format"], found["ok"], found["title"]) == (1, False, "CHAOS-T2")
    assert [row["error"] is None for row in found["rows"]] == [True, False, True, True]
    assert found["rows"][0]["shown"] == {"1": [0, 1, 2, 3], "4": [1, 2, 3]}
    with Image.open(chaos / "a.png") as sheet:
        assert sheet.height > 4 * 176


def test_the_sheet_outlines_each_class_on_every_scan(chaos: Path, tmp_path: Path) -> None:
    told = _run("data", "check", chaos, "--sheet", tmp_path / "sheet.png")
    assert told.exit_code == 0
    first = (tmp_path / "sheet.png").read_bytes()
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    for line in range(4):
        cells = pixels[70 + 180 * line : 70 + 180 * line + 176, 150:]
        for colour in ((255, 89, 94), (255, 202, 58)):  # the first class and the fourth
            assert (cells == colour).all(axis=2).sum() > 100
    _run("data", "check", chaos, "--sheet", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes() == first


def test_a_sheet_of_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(10):
        labels = np.zeros((20, 30), np.uint8)
        labels[5:15, number : number + 10] = 1
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(
            tmp_path / "images" / f"{number}.png"
        )
        Image.fromarray(labels).save(tmp_path / "labels" / f"{number}.png")
    told = _run("data", "check", tmp_path, "--sheet", tmp_path / "sheet.png")
    assert told.exit_code == 0, told.output
    assert "superpixels only" in told.output
    assert "train alpnet" in told.output  # one class leaves none to learn from
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 8 * 176


@pytest.mark.parametrize("labelled", [True, False])
def test_a_single_scan(chaos: Path, labelled: bool) -> None:
    words = ("--label", chaos / "label_1.nii.gz") if labelled else ()
    told = _run("data", "check", chaos / "image_1.nii.gz", *words)
    assert told.exit_code == 0, told.output
    assert "1 scan" in told.output
    assert "folds" not in told.output
    assert f"--support {chaos / 'image_1.nii.gz' if labelled else 'LABELLED'}" in (
        " ".join(told.output.split())
    )


def test_labels_of_another_scan_are_a_problem(chaos: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.uint8), np.eye(4)), chaos / "other.nii.gz")
    told = _run("data", "check", chaos / "image_1.nii.gz", "--label", chaos / "other.nii.gz")
    assert told.exit_code == 2
    assert "resample the labels" in " ".join(told.output.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("no/such/folder",), "neither a folder nor a data set"),
        (("no/such.nii.gz", "--label", "labels.nii.gz"), "does not exist"),
        (("CHAOS", "--sheet", "sheet.pdf"), "a contact sheet is a .png file"),
        (("SCAN", "--data-option", "layout=pairs"), "takes --data-option modality"),
        (("SCAN", "--data-option", "modality=us"), "unknown modality 'us'"),
    ],
)
def test_bad_requests_end_in_one_line(chaos: Path, words: tuple[str, ...], message: str) -> None:
    places = {"CHAOS": chaos, "SCAN": chaos / "image_1.nii.gz"}
    told = _run("data", "check", *(places.get(word, word) for word in words))
    assert told.exit_code == 2
    assert message in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1


def test_a_disk_that_takes_no_file(chaos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = _run("data", "check", chaos, "--json", tmp_path / "file" / "found.json")
    assert told.exit_code == 2
    assert "found.json cannot be written" in told.stderr


def test_one_labelled_scan_among_others(chaos: Path) -> None:
    for number in (2, 3, 5):
        (chaos / f"label_{number}.nii.gz").unlink()
    report = check(chaos)
    assert report.next_step == (
        f"Next: fewshot-seg oneshot {chaos} --label {chaos / 'label_1.nii.gz'} --scan 1 "
        "--out answers"
    )


def test_ct_gets_a_window(tmp_path: Path) -> None:
    for number in range(3):
        write_scan(tmp_path / "ct", str(number), number)
        path = tmp_path / "ct" / f"image_{number}.nii.gz"
        image = nib.load(path)
        voxels = np.asarray(image.dataobj).astype(np.int16)
        voxels[-1, -1] = -1000
        nib.save(nib.Nifti1Image(voxels, image.affine), path)
    report = check(open_folder(root=tmp_path / "ct", modality="ct"))
    assert report.next_step.endswith("--n-folds 3 --window -125 275")


def test_the_command_after_a_check_parses(chaos: Path) -> None:
    """Each next step is a command that exists, with options that it has."""
    alone = open_scan(image=chaos / "image_1.nii.gz", labels=chaos / "label_1.nii.gz")
    for report in (check(chaos), check(alone)):
        words = report.next_step.split()[2:]
        told = _run(words[0], "--help")
        options = [word for word in words if word.startswith("--")]
        assert options
        for option in options:
            assert option in told.output


def test_the_real_folders(shared_data) -> None:
    heart = check(shared_data("sunnybrook_cine_mr"))
    assert heart.ok
    assert len(heart.serves.folds) == 4
    cells = check(shared_data("wbc_dataset1_2d"))
    assert cells.ok
    assert cells.serves.pseudo == ("superpixel",)
    folder = shared_data("totalsegmentator_examples")
    scan = check(open_scan(image=folder / "ct_image.nii.gz", labels=folder / "ct_label.nii.gz"))
    assert scan.ok
    assert len(scan.classes) == 41
    assert SYNAPSE.title not in " ".join(scan.warnings)
