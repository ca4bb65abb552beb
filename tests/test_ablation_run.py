"""Running grids: every cell once, whatever is killed, fails, or works beside."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from grid_cases import TINY, scales, tiny
from typer.testing import CliRunner

import fewshot_seg.ablation.runner as runner
from fewshot_seg.ablation import make_plan, read_study, run
from fewshot_seg.ablation.cell import Cell
from fewshot_seg.ablation.folder import DAMAGED, DONE, FAILED, MISSING, StudyFolder
from fewshot_seg.cli.app import app
from fewshot_seg.errors import DataError, OptionError
from fewshot_seg.evaluation import Results

ROWS = [{"label": "short"}, {"label": "long", "set": {"training.steps": 6}}]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    axis = [*scales(20.0), {"name": "at", "key": "test.decoder.scale", "values": [5.0, 20.0]}]
    assert run(tiny(axis=axis), out).ok
    return out


def test_cells_that_differ_at_test_share_a_training(done: Path) -> None:
    study = read_study(done)
    assert list(study.cells.state) == [DONE, DONE]
    assert study.cells.training.nunique() == 1
    assert len(list((done / "trainings").iterdir())) == 1
    assert study.cells.steps.tolist() == [4, 4]
    assert (study.cells.train_seconds > 0).all()
    assert (study.cells.parameters > 1000).all()


def test_results_as_a_table(done: Path) -> None:
    study = read_study(done)
    assert study.axes == ("scale", "at")
    assert set(study.scores.variant) == {"scale=20.0, at=5.0", "scale=20.0, at=20.0"}
    assert study.scores.dice.between(0, 1).all()
    assert study.scores.hd95.isna().all()
    assert (study.scores.fold == 0).all()
    (protocol,) = study.protocols.values()
    assert protocol.matching == "parts-3"
    assert protocol.uses_query_range


def test_what_is_done_is_not_done_again(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tiny())
    monkeypatch.setattr(runner, "do_cell", _never)
    folder = StudyFolder(done)
    before = folder.read_plan()
    axis = [*scales(20.0), {"name": "at", "key": "test.decoder.scale", "values": [5.0, 20.0]}]
    assert run(tiny(axis=axis), done).states == {DONE: 2}
    assert folder.read_plan() == before
    assert len(plan.cells) == 1


def _never(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("a finished cell was worked on")


def test_results_that_were_edited_are_named_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = tiny()
    run(grid, tmp_path)
    (cell,) = make_plan(grid).cells
    folder = StudyFolder(tmp_path)
    right = folder.results(cell.id).read_bytes()
    folder.results(cell.id).write_bytes(right.replace(b'"dice": 0', b'"dice": 1'))
    assert folder.state(cell.id) == DAMAGED
    study = read_study(tmp_path)
    assert study.scores.empty
    assert "not what was written" in study.cells.error[0]
    folder.results(cell.id).write_bytes(right[: len(right) // 2])
    assert read_study(tmp_path).cells.state.tolist() == [DAMAGED]
    monkeypatch.setattr("fewshot_seg.ablation.work.train_fold", _never)  # only tested again
    assert run(grid, tmp_path).ok
    rows = [Results.from_json(folder.results(cell.id)).rows, json.loads(right)["rows"]]
    assert [row.dice for row in rows[0]] == [row["dice"] for row in rows[1]]


def _failing(which: str) -> Any:
    real = runner.do_cell

    def work(cell: Cell, *args: Any, **kwargs: Any) -> None:
        if cell.variant == which:
            raise DataError(f"no luck with {which}")
        real(cell, *args, **kwargs)

    return work


def test_a_failed_cell_is_recorded_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = tiny(variant=ROWS)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "do_cell", _failing("short"))
        told: list[tuple[str, str]] = []
        found = run(grid, tmp_path, on_cell=lambda cell, state: told.append((cell.variant, state)))
    assert not found.ok
    assert found.states == {FAILED: 1, DONE: 1}
    assert list(found.failures.values()) == ["DataError: no luck with short"]
    assert told == [("short", "start"), ("short", FAILED), ("long", "start"), ("long", DONE)]
    study = read_study(tmp_path)
    assert "Traceback" in study.cells.traceback[0]
    assert set(study.scores.variant) == {"long"}
    assert run(grid, tmp_path).ok
    assert not list(tmp_path.glob("cells/*/failure.json"))


def test_it_stops_after_too_many_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "do_cell", _failing("short"))
    found = run(tiny(variant=ROWS), tmp_path, max_failures=1)
    assert found.stopped
    assert found.states == {FAILED: 1, MISSING: 1}


def test_a_cell_that_another_process_is_at_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LOOK_EVERY", 0.05)
    plan = make_plan(tiny(variant=ROWS))
    folder = StudyFolder(tmp_path)
    folder.claim(plan.to_dict(), "")
    first = plan.cells[0]
    lock = folder.lock(folder.cell(first.id))
    lock.acquire()
    worked: list[str] = []

    def work(cell: Cell, *args: Any, **kwargs: Any) -> None:
        worked.append(cell.variant)
        folder.finish(cell.id, b"{}", {})

    monkeypatch.setattr(runner, "do_cell", work)
    found: list[runner.Outcome] = []
    other = threading.Thread(target=lambda: found.append(run(plan, tmp_path)))
    other.start()
    while folder.state(plan.cells[1].id) != DONE:
        time.sleep(0.02)
    assert not found  # it waits for the first
    folder.finish(first.id, b"{}", {})
    lock.release()
    other.join(timeout=20)
    assert found[0].states == {DONE: 2}
    assert worked == ["long"]


KILLED = """
import sys
from pathlib import Path
import torch
from fewshot_seg.ablation import Grid, run
torch.set_num_threads(1)
run(Grid.load(sys.argv[1]), Path(sys.argv[2]))
"""


def test_killed_midway_it_goes_on_to_the_same_result(tmp_path: Path) -> None:
    table = {**TINY, "training": {**TINY["training"], "steps": 30}}
    file = tmp_path / "grid.toml"
    file.write_text(tomli_w.dumps(table), encoding="utf-8")
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(file), str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while (
        not (log := list(out.glob("trainings/*/run/log.jsonl")))
        or len(log[0].read_text().splitlines()) < 5
    ):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    grid = tiny(training=table["training"])
    (cell,) = make_plan(grid).cells
    assert StudyFolder(out).state(cell.id) == MISSING
    assert run(grid, out).ok
    assert run(grid, tmp_path / "whole").ok
    both = [StudyFolder(out), StudyFolder(tmp_path / "whole")]
    first, second = (Results.from_json(one.results(cell.id)).rows for one in both)
    assert first == second
    weights = [one.training(cell.training) / "run" / "final.safetensors" for one in both]
    assert weights[0].read_bytes()[-4096:] == weights[1].read_bytes()[-4096:]


def test_a_folder_of_another_grid_is_refused(done: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="holds the study 'tiny', this grid is 'other'"):
        run(tiny(name="other"), done)
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OptionError, match="holds files that are no study"):
        run(tiny(), tmp_path)
    with pytest.raises(DataError, match="holds no study"):
        read_study(tmp_path)
    with pytest.raises(OptionError, match="engine='clod'"):
        run(tiny(), tmp_path, engine="clod")


def test_a_seed_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tiny(), tmp_path)
    more = tiny(protocol={**TINY["protocol"], "seeds": [0, 1]})
    begun: list[int] = []
    run(more, tmp_path, on_cell=lambda cell, state: begun.append(cell.seed))
    assert set(begun) == {1}
    study = read_study(tmp_path)
    assert sorted(set(study.scores.seed)) == [0, 1]
    (protocol,) = study.protocols.values()
    assert protocol.seeds == (0, 1)


def test_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(tomli_w.dumps({**TINY, "training": {"steps": 1}}), encoding="utf-8")
    out = tmp_path / "out"
    call = ["ablate", str(file), "--out", str(out)]
    planned = CliRunner().invoke(app, [*call, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert "1 cells" in planned.output
    assert "of training left" in planned.output
    assert not out.exists()
    ran = CliRunner().invoke(app, call)
    assert ran.exit_code == 0, ran.output
    assert "1 cells: 1 done" in ran.output
    told = CliRunner().invoke(app, ["report", str(out)])
    assert told.exit_code == 0, told.output
    assert (out / "report" / "index.html").exists()
    lines = (out / "report" / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].endswith("device,date,commit")
    assert len(lines) == 1 + len(read_study(out).scores)
    file.write_text(tomli_w.dumps({**TINY, "axes": 1}), encoding="utf-8")
    wrong = CliRunner().invoke(app, call)
    assert wrong.exit_code == 2
    assert "no entry 'axes'" in wrong.output


def test_a_failure_shows_in_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "do_cell", _failing("as it is"))
    file = tmp_path / "grid.toml"
    file.write_text(tomli_w.dumps(dict(TINY)), encoding="utf-8")
    ran = CliRunner().invoke(app, ["ablate", str(file), "--out", str(tmp_path / "out")])
    assert ran.exit_code == 2
    assert "no luck with as it is" in ran.output
