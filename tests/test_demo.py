"""The demonstration, with a budget that teaches nothing: everything must be there all the same."""

import io
import shlex
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from fewshot_seg.cli import app
from fewshot_seg.demo import NOVEL, run_demo
from fewshot_seg.demo.scans import make_scans
from fewshot_seg.errors import CheckpointError, DataError
from fewshot_seg.evaluation import Results
from fewshot_seg.experiment import read_notes
from fewshot_seg.pictures import Panel, draw

TINY = {"steps": 2, "n_scans": 6, "scan_size": 32, "size": 32}


def _run(folder: Path, **options: int) -> tuple[Mapping[str, Results], str]:
    words = io.StringIO()
    console = Console(file=words, width=300)
    return run_demo(folder, **{**TINY, **options}, console=console), words.getvalue()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Results], str]:
    folder = tmp_path_factory.mktemp("demo") / "with space"
    return folder, *_run(folder)


def test_everything_is_there(demo) -> None:
    folder, results, told = demo
    assert set(results) == {"APSCL, trained", "APSCL, untrained", "copy of the example"}
    assert len({str(one.protocol) for one in results.values()}) == 1
    assert "uses the query's ground-truth organ range" in " ".join(told.split())
    for name in ("overlay.png", "prediction.nii.gz", "run/final.safetensors"):
        assert (folder / name).is_file()
        assert str(folder / name) in told
    assert len(list((folder / "results").glob("*.json"))) == 3


def test_the_table_shows_the_measured_numbers(demo) -> None:
    _, results, told = demo
    for name, one in results.items():
        line = next(line for line in told.splitlines() if name in line and "│" in line)
        cells = [cell.strip() for cell in line.split("│")[2:-1]]
        assert cells == [*(f"{100 * row.dice:.1f}" for row in one.rows), f"{100 * one.mean():.1f}"]


def test_the_novel_organ_was_held_out(demo) -> None:
    notes = read_notes(demo[0] / "run" / "final.safetensors")
    assert notes.novel_names == (NOVEL,)
    assert notes.setting == "setting2_any"
    assert not set(notes.novel) & set(notes.base)


def test_the_prediction_lies_on_its_scan(demo) -> None:
    folder, *_ = demo
    prediction = nib.load(folder / "prediction.nii.gz")
    scan = nib.load(folder / "scans" / "image_1.nii.gz")
    assert prediction.shape == scan.shape
    np.testing.assert_array_equal(prediction.affine, scan.affine)


def test_the_printed_command_works_as_printed(demo) -> None:
    folder, _, told = demo
    line = next(line for line in told.splitlines() if line.startswith("fewshot-seg segment"))
    found = CliRunner().invoke(app, shlex.split(line)[1:])
    assert found.exit_code == 0, found.output
    assert list((folder / "segmented").glob("image_*_seg.nii.gz"))


def test_a_second_call_trains_nothing_and_gives_the_same(demo) -> None:
    folder, results, _ = demo
    checkpoint = folder / "run" / "final.safetensors"
    before = checkpoint.stat().st_mtime_ns, (folder / "overlay.png").read_bytes()
    again, _ = _run(folder)
    assert (checkpoint.stat().st_mtime_ns, (folder / "overlay.png").read_bytes()) == before
    assert {name: one.rows for name, one in again.items()} == {
        name: one.rows for name, one in results.items()
    }


def test_the_folder_of_another_demo_is_refused(demo) -> None:
    with pytest.raises(DataError, match=r"seed 0, but .* seed 1 were asked for"):
        _run(demo[0], seed=1)
    with pytest.raises(CheckpointError, match=r"training\.steps was 2, is 3"):
        _run(demo[0], steps=3)


def test_a_missing_scan_is_made_again_the_same(demo) -> None:
    path = demo[0] / "scans" / "image_4.nii.gz"
    before = path.read_bytes()
    path.unlink()
    make_scans(demo[0] / "scans", n_scans=6, size=32, seed=0)
    assert path.read_bytes() == before


def test_pictures_show_their_masks(tmp_path: Path) -> None:
    image = np.linspace(0, 1, 40 * 30).reshape(40, 30)
    mask = np.zeros((40, 30), bool)
    mask[10:20, 10:20] = True
    drawn = {}
    for name, panel in {
        "none": Panel(image),
        "mask": Panel(image, mask=mask, colour="#00ff00"),
        "truth": Panel(image, truth=mask),
        "empty": Panel(image, mask=~mask & mask, truth=~mask & mask),
    }.items():
        draw(tmp_path / f"{name}.png", [[panel, Panel(image)]], title="t", caption="c", legend=())
        drawn[name] = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)
    assert drawn["none"].shape[1] > drawn["none"].shape[0] * 0.9
    np.testing.assert_array_equal(drawn["none"], drawn["empty"])
    green = drawn["mask"] - drawn["none"]
    assert (green[..., 1] > green[..., 0] + 100).sum() > 200
    assert (drawn["truth"] != drawn["none"]).any(-1).sum() > 100
    half = drawn["none"].shape[1] // 2
    np.testing.assert_array_equal(drawn["mask"][:, half + 20 :], drawn["none"][:, half + 20 :])
