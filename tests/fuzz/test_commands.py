"""From the command line every damaged file is one clear line and exit code 2."""

from pathlib import Path

import fuzz_checkpoints as checkpoints
import fuzz_scans as scans
import fuzz_tables as tables
import pytest
from typer.testing import CliRunner

from fewshot_seg.cli import app


def damage(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def put(folder: Path) -> None:
    """Whole scans, and a damaged file of each kind."""
    (folder / "scans").mkdir()
    for name in ("image_1.nii", "label_1.nii", "image_2.nii", "label_2.nii"):
        (folder / "scans" / name).write_bytes(scans.nifti()[0])
    files = {
        "cut.nii": scans.nifti()[0],
        "cut.nii.gz": scans.zipped()[0],
        "cut.mha": scans.itk("cut.mha")[0],
        "cut.png": scans.pictures("cut.png")[0],
        "cut.safetensors": checkpoints.copies()[0],
        "cut.toml": tables.TINY,
        "listed/dataset.json": tables.decathlon()[0],
        "series/slice.dcm": scans.dicom()[0],
        "run/final.safetensors": checkpoints.copies()[0],
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(damage(content))


SEGMENT = ["--support", "scans/image_1.nii", "--label", "scans/label_1.nii", "scans/image_2.nii"]
TRAIN = ["--novel", "1", "--out", "runs", "--data"]
COMMANDS = {
    "a scan": ["data", "check", "cut.nii"],
    "a compressed scan": ["data", "check", "cut.nii.gz"],
    "a MetaImage": ["data", "check", "cut.mha"],
    "a picture": ["data", "check", "cut.png"],
    "a series": ["data", "check", "series"],
    "a folder's list": ["data", "check", "listed"],
    "a checkpoint": ["segment", "--checkpoint", "cut.safetensors", *SEGMENT],
    "a support": ["segment", "--checkpoint", "run", "--support", "cut.nii", *SEGMENT[2:]],
    "a run": ["evaluate", "run", "--data", "scans"],
    "a recipe": ["train", "cut.toml", *TRAIN, "scans"],
    "data to train on": ["train", "panet", *TRAIN, "listed"],
    "a grid": ["ablate", "cut.toml", "--out", "study"],
    "a study": ["report", "listed"],
    "scans without labels": ["oneshot", "series", "--label", "cut.nii"],
}


@pytest.mark.parametrize("what", COMMANDS)
def test_one_line_and_code_2(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path)
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, COMMANDS[what], env={"COLUMNS": "300"})
    assert told.exit_code == 2, told.output
    assert "Traceback" not in told.output
    assert isinstance(told.exception, SystemExit)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "x"), MemoryError()])
def test_what_the_system_refuses_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*words: object, **more: object) -> None:
        raise error

    monkeypatch.setattr("fewshot_seg.cli.listing.kinds_of", refuse)
    told = CliRunner().invoke(app, ["list"], env={"COLUMNS": "300"})
    assert told.exit_code == 2
    assert len(told.stderr.splitlines()) == 1
    assert "No space left" in told.stderr or "not enough memory" in told.stderr
