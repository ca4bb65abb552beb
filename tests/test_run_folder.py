"""The run folder: exact resume after any end, one run and one process a folder, honest logs."""

import io
import json
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_training import (
    TinyMethod,
    TinyRecipe,
    TinySource,
    run,
    same,
    settings,
    trained,
)

from fewshot_seg.checkpoint import load_weights, read_header
from fewshot_seg.episode import Episode
from fewshot_seg.errors import CheckpointError
from fewshot_seg.training import TrainConfig
from fewshot_seg.training.log import read_log

TESTS = Path(__file__).parent

WAYS = [
    {"optimizer": "sgd", "workers": 0},
    {"optimizer": "adamw", "schedule": "one_cycle", "workers": 0},
    {"optimizer": "sgd", "schedule": "one_cycle", "workers": 2},
]


def _start_script(out: Path, changes: dict[str, Any]) -> subprocess.Popen[str]:
    words = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
    command = [sys.executable, str(TESTS / "tiny_training.py"), str(out), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line == f"step {step}\n":
            return
    raise AssertionError(process.stderr.read() if process.stderr else "")


@pytest.mark.parametrize("changes", WAYS, ids=str)
def test_kill_and_resume_change_no_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = {**changes, "steps": 100_000, "checkpoint_every": 7, "log_every": 5}
    process = _start_script(tmp_path, changes)
    _wait_for_step(process, 20 + time.time_ns() % 30)
    process.kill()
    process.communicate()
    with pytest.raises(CheckpointError, match="training"):
        run(TinyMethod(), tmp_path, **{**changes, "lr": 0.01})
    resumed, straight = TinyMethod(seed=9), TinyMethod()
    stops: list[int] = []

    def stop_at_70(done: int) -> bool:
        stops.append(done)
        return done >= 70

    assert not run(resumed, tmp_path, **changes, stop=stop_at_70).finished
    assert stops[0] > 14
    run(straight, **changes, stop=lambda done: done >= 70)
    assert same(resumed, straight)
    steps = [line["step"] for line in read_log(tmp_path / "log.jsonl")]
    assert steps == list(range(5, 71, 5))


@pytest.mark.parametrize("changes", WAYS[:2], ids=str)
@pytest.mark.parametrize("at", [1, 3, 7])
def test_stop_and_resume_change_no_bit(tmp_path: Path, changes: dict[str, Any], at: int) -> None:
    first = run(TinyMethod(), tmp_path, **changes, stop=lambda done: done == at)
    assert (first.finished, first.steps) == (False, at)
    assert not (tmp_path / "final.safetensors").exists()
    second = run(resumed := TinyMethod(seed=5), tmp_path, **changes)
    assert (second.finished, second.steps) == (True, 8)
    seconds = [line["seconds"] for line in read_log(tmp_path / "log.jsonl")]
    assert seconds == sorted(seconds)
    assert same(resumed, trained(**changes))
    sessions = tomllib.loads((tmp_path / "run.toml").read_text())["sessions"]
    assert [session["from_step"] for session in sessions] == [0, at]


def test_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    first = run(method := TinyMethod(), tmp_path)
    log = (tmp_path / "log.jsonl").read_bytes()

    class NoEpisodes(TinySource):
        def episode(self, index: int) -> Episode:
            raise AssertionError("nothing is left to do")

    second = run(again := TinyMethod(seed=8), tmp_path, source=NoEpisodes())
    assert same(method, again)
    assert second.losses == first.losses
    assert (tmp_path / "log.jsonl").read_bytes() == log


@pytest.mark.parametrize("broken", ["model.safetensors", "optimizer.safetensors", "state.toml"])
@pytest.mark.parametrize("how", ["cut", "missing"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, broken: str, how: str) -> None:
    run(TinyMethod(), tmp_path, stop=lambda done: done == 7)
    damaged = tmp_path / "checkpoints" / "step_00000007" / broken
    damaged.write_bytes(damaged.read_bytes()[:-4]) if how == "cut" else damaged.unlink()
    if broken == "state.toml" and how == "cut":
        damaged.write_text("step = ")
    with pytest.warns(UserWarning, match="step_00000007 is passed over"):
        run(resumed := TinyMethod(seed=5), tmp_path, stop=lambda done: done == 7)
    with warnings.catch_warnings(action="error"):
        run(resumed, tmp_path)
    assert same(resumed, trained())


def test_files_of_two_checkpoints_do_not_mix(tmp_path: Path) -> None:
    run(TinyMethod(), tmp_path, stop=lambda done: done == 7)
    old, new = sorted((tmp_path / "checkpoints").iterdir())
    (new / "optimizer.safetensors").write_bytes((old / "optimizer.safetensors").read_bytes())
    with pytest.warns(UserWarning, match="is of another checkpoint"):
        run(resumed := TinyMethod(), tmp_path)
    assert same(resumed, trained())


def test_a_draft_left_by_a_kill_is_cleared(tmp_path: Path) -> None:
    run(TinyMethod(), tmp_path, stop=lambda done: done == 4)
    draft = tmp_path / "checkpoints" / "draft_00000006"
    draft.mkdir()
    (draft / "model.safetensors").write_bytes(b"half")
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "ce": 0.1}\n{"step": 8, "c')
    run(resumed := TinyMethod(), tmp_path)
    assert same(resumed, trained())
    assert not draft.exists()
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [2, 4, 6, 8]


OTHER_RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "config": ({"lr": 0.1, "momentum": 0.5}, "training.lr was 0.05, is 0.1; training.momentum"),
    "notes": ({"notes": {"fold": 1}}, "notes.fold was 0, is 1"),
    "recipe": ({"recipe": TinyRecipe('method = "b"\n')}, "recipe.method was 'tiny', is 'b'"),
    "source": ({"source": TinySource(seed=1)}, "source.seed was 0, is 1"),
}


@pytest.mark.parametrize("case", OTHER_RUNS)
def test_another_run_does_not_go_into_the_folder(tmp_path: Path, case: str) -> None:
    changes, message = OTHER_RUNS[case]
    run(TinyMethod(), tmp_path, notes={"fold": 0}, stop=lambda done: True)
    with pytest.raises(CheckpointError, match=message):
        run(TinyMethod(), tmp_path, **{"notes": {"fold": 0}, **changes})
    run(TinyMethod(), tmp_path, notes={"fold": 0}, workers=0, log_every=4, checkpoint_every=5)


# the run folder


def test_the_run_folder_tells_the_whole_story(tmp_path: Path) -> None:
    result = run(method := TinyMethod(), tmp_path, notes={"fold": 2, "scan": Path("a.nii")})
    record = tomllib.loads((tmp_path / "run.toml").read_text())
    assert record["notes"] == {"fold": 2, "scan": "a.nii"}
    assert record["source"] == {"source": "tiny", "seed": 0}
    assert TrainConfig.from_dict(record["training"]) == settings()
    assert record["sessions"][0]["packages"]["torch"] == torch.__version__
    assert (tmp_path / "recipe.toml").read_text() == TinyRecipe().to_toml()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_00000006", "step_00000008"]
    header = read_header(tmp_path / "final.safetensors")
    assert (header.recipe, header.notes["fold"]) == (TinyRecipe().to_toml(), 2)
    load_weights(again := TinyMethod(seed=4), tmp_path / "final.safetensors")
    assert same(method, again)
    lines = read_log(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert lines[-1].keys() == {
        *("step", "ce", "small", "total", "grad_norm", "lr", "seconds"),
        *("diagnostics/bias/0", "diagnostics/bias/1", "diagnostics/never", "diagnostics/redrawn"),
    }
    assert lines[-1]["diagnostics/redrawn"] == 0.5  # every other episode says 1
    assert lines[-1]["diagnostics/never"] is None  # and did not stop the run
    assert result.losses == {name: lines[-1][name] for name in ("ce", "small", "total")}
    assert lines[0]["total"] == pytest.approx(lines[0]["ce"] + 0.1 * lines[0]["small"], rel=1e-5)


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(TinyMethod(), tmp_path)
    board = EventAccumulator(str(tmp_path / "tb")).Reload()
    shown = [(event.step, event.value) for event in board.Scalars("train/ce")]
    lines = read_log(tmp_path / "log.jsonl")
    assert shown == [(line["step"], pytest.approx(line["ce"])) for line in lines]


def test_the_log_may_fall_out_of_step_with_the_steps(tmp_path: Path) -> None:
    run(TinyMethod(), tmp_path, steps=5, log_every=3)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [3, 5]


# other processes


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:
    process = _start_script(tmp_path, {"steps": 1_000_000, "workers": 2})
    try:
        _wait_for_step(process, 5)
        with pytest.raises(CheckpointError, match=f"process {process.pid} on .* is training into"):
            run(TinyMethod(), tmp_path, steps=1_000_000, workers=2, stop=lambda done: True)
    finally:
        process.kill()
        process.communicate()
    assert str(process.pid) in (tmp_path / "lock").read_text()
    result = run(TinyMethod(), tmp_path, steps=1_000_000, stop=lambda done: True)
    assert result.steps > 3


def test_the_same_process_cannot_train_twice_into_a_folder(tmp_path: Path) -> None:
    messages: list[str] = []

    def inner(done: int) -> bool:
        with pytest.raises(CheckpointError) as caught:
            run(TinyMethod(), tmp_path)
        messages.append(str(caught.value))
        return True

    run(TinyMethod(), tmp_path, stop=inner)
    assert "this process is already training into" in messages[0]
    assert run(TinyMethod(), tmp_path).finished


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_saves_first(tmp_path: Path, workers: int) -> None:
    process = _start_script(tmp_path, {"steps": 1_000_000, "workers": workers})
    _wait_for_step(process, 20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    saved = max(int(path.name[5:]) for path in (tmp_path / "checkpoints").glob("step_*"))
    assert saved >= 20
    assert not list((tmp_path / "checkpoints").glob("draft_*"))


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    screen = Console(file=io.StringIO())

    def press(done: int) -> bool:
        if done == 5:
            signal.raise_signal(signal.SIGINT)
        return False

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(TinyMethod(), tmp_path, stop=press, progress=True, console=screen)
    assert signal.getsignal(signal.SIGINT) is before
    assert f"to go on: train into {tmp_path} again" in screen.file.getvalue()
    again = run(resumed := TinyMethod(), tmp_path, progress=True, console=screen)
    assert again.finished
    assert same(resumed, trained())
    assert "going on from step 6 of 8" in screen.file.getvalue()


def test_a_terminal_gets_a_bar_and_silence_is_kept() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    run(TinyMethod(), progress=True, console=screen)
    assert "8/8" in screen.file.getvalue()
    assert "episodes/s" in screen.file.getvalue()
    quiet = Console(file=io.StringIO(), force_terminal=True)
    run(TinyMethod(), progress=False, console=quiet)
    assert quiet.file.getvalue() == ""
