"""Cells on a Ray cluster of this machine: the same numbers, whoever dies."""

import gc
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("ray", reason="Ray (extra `cluster`) is not installed")

import ray

from fewshot_seg.ablation import Grid, make_plan, run, runner
from fewshot_seg.ablation.cell import Cell
from fewshot_seg.ablation.folder import DONE, FAILED, MISSING, StudyFolder, read_json
from fewshot_seg.ablation.plan import Plan
from fewshot_seg.ablation.ray_cluster import Needs, connected, device_for, room
from fewshot_seg.ablation.ray_engine import Queue
from fewshot_seg.ablation.request import Protocols
from fewshot_seg.ablation.runner import BUSY, START
from fewshot_seg.errors import DataError, OptionError
from fewshot_seg.evaluation import Results
from fewshot_seg.recipe import Recipe

pytestmark = pytest.mark.xdist_group("ray")  # one cluster for all

GRID = """
name = "tiny"
method = "panet"
[data]
phantom = {source = "phantom_abdomen", n_scans = 6, size = 32, n_slices = 8}
[set]
encoder = {name = "timm", backbone = "test_resnet", dim = 8, in_channels = 1}
[training]
steps = 4
checkpoint_every = 2
[protocol]
novel = ["liver"]
n_folds = 3
size = 32
"""
SCALES = '[[axis]]\nkey = "test.decoder.scale"\nvalues = [20.0, 10.0]\n'
BROKEN = """
[[variant]]
label = "good"
[[variant]]
label = "too many shots"
set = {"episodes.n_shot" = 9}
[[variant]]
label = "copy"
method = "copy"
"""
LONG = "steps = 9000\ncheckpoint_every = 9000\nlog_every = 1"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers on this machine, started as the engine starts a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 2}')
        with ExitStack() as held:
            for last in (False, False, True):  # Ray gives up after 30 s, too few on a busy machine
                try:
                    held.enter_context(connected())
                    break
                except OptionError:
                    if last:
                        raise
            yield
    with warnings.catch_warnings():  # Ray forgets the processes that it ended without a look
        warnings.filterwarnings("ignore", "subprocess .* is still running", ResourceWarning)
        gc.collect()


@cache
def plan_of(text: str) -> Plan:
    return make_plan(Grid.from_toml(text))


def scores(plan: Plan, folder: Path) -> dict[str, str]:
    """Every score of every cell; written out, as those not measured are not a number."""
    place = StudyFolder(folder)
    return {one.id: repr(Results.from_json(place.results(one.id)).rows) for one in plan.cells}


def local_scores(plan: Plan, folder: Path) -> dict[str, str]:
    """Of the local engine, in a process that has as many threads as Ray's workers, since the last
    bits of a sum depend on them, and the weights on those."""

    def go() -> None:
        torch.set_num_threads(1)
        assert run(plan, folder, device="cpu").ok

    ray.get(ray.remote(go).remote())
    return scores(plan, folder)


def wait_for(found: Callable[[], Any]) -> Any:
    """The first result that is something, within two minutes."""
    for _ in range(1200):
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError("nothing happened for two minutes")


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r'pip install "fewshot-seg\[cluster\]"'):
        run(plan_of(GRID), tmp_path, engine="ray")


def test_ray_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(OptionError, match="RAY_ADDRESS=ray://head:10001.* RAY_ADDRESS=auto"):
        connected().__enter__()


def cluster_of(*nodes: tuple[int, int]) -> Any:
    """As much of Ray as tells which nodes, of so many CPUs and GPUs, there are; one is dead."""
    told = [{"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {})} for cpus, gpus in nodes]
    alive = [{"Alive": True, "Resources": one} for one in told]
    return SimpleNamespace(nodes=lambda: [*alive, {"Alive": False, "Resources": {"CPU": 99.0}}])


@pytest.mark.parametrize(
    ("needs", "cells"),
    [
        (Needs(), 10),
        (Needs(cpus=3), 2),
        (Needs(gpus=1.0), 4),
        (Needs(gpus=0.25), 10),
        (Needs(gpus=0.4), 8),  # a GPU holds two, and a fifth of it is left over
        (Needs(gpus=0.1, cpus=8), 1),
        (Needs(gpus=2.0), 1),
        (Needs(gpus=3.0), 1),
    ],
)
def test_how_many_cells_fit(needs: Needs, cells: int) -> None:
    assert room(cluster_of((8, 3), (2, 1), (0, 0)), needs) == cells


@pytest.mark.parametrize(
    ("gpus", "share", "device", "found"),
    [(0, 0.0, None, "cpu"), (0, 0.0, "cpu", "cpu"), (2, 0.0, "cpu", "cpu"), (2, 0.5, None, "cuda"),
     (2, 1.0, "cuda", "cuda")],
)  # fmt: skip
def test_cells_compute_on_what_they_reserve(
    gpus: int, share: float, device: str | None, found: str
) -> None:
    ray = cluster_of((4, gpus))
    assert device_for(ray, Needs(gpus=share), device) == found


@pytest.mark.parametrize(
    ("share", "device", "told"),
    [
        (0.0, None, "gpus_per_run is 0 and the cluster has 2 GPUs"),
        (0.0, "cuda", "gpus_per_run is 0 and the cluster has 2 GPUs"),
        (0.5, "cpu", "device cpu leaves the GPUs idle that gpus_per_run=0.5 reserves"),
        (1.0, "cuda:1", "'cuda:1' is not one of cpu, cuda"),
    ],
)
def test_devices_that_do_not_agree(share: float, device: str | None, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        device_for(cluster_of((4, 2)), Needs(gpus=share), device)


def cell_of(name: str, data: str) -> Cell:
    """A cell called `name`; those on the same data share a training."""
    rules = Protocols(novel=("liver",))
    return Cell(name, {}, Recipe("copy"), rules, "", data, {"decoder.scale": name})


def drained(queue: Queue) -> str:
    names = ""
    while queue:
        names += queue.take().variant
    return names


@pytest.mark.parametrize(("state", "then"), [(DONE, "be"), (FAILED, "b"), (BUSY, "")])
def test_a_training_is_waited_for_in_the_queue(state: str, then: str) -> None:
    cells = [cell_of(*both) for both in zip("abcde", "11231")]
    queue = Queue(cells)
    assert drained(queue) == "acd"
    queue.through(cells[0], state)
    assert drained(queue) == then
    if state == FAILED:  # the next one of the training has another try at it
        queue.through(cells[1], DONE)
        assert drained(queue) == "e"


@pytest.mark.usefixtures("cluster")
class TestRuns:
    def test_same_scores_as_in_one_process(self, tmp_path: Path) -> None:
        plan = plan_of(GRID.replace('["liver"]', '["liver", "spleen"]') + SCALES)
        told: list[tuple[str, str]] = []
        done = run(
            plan, tmp_path / "ray", engine="ray",
            on_cell=lambda cell, state: told.append((cell.id, state)),
        )  # fmt: skip
        assert done.states == {DONE: 4}
        assert done.ok
        assert sorted(told) == sorted(
            (one.id, state) for one in plan.cells for state in (START, DONE)
        )
        assert all(told.index((one.id, START)) < told.index((one.id, DONE)) for one in plan.cells)
        assert scores(plan, tmp_path / "ray") == local_scores(plan, tmp_path / "local")
        assert not list((tmp_path / "ray").glob(".ray-*"))
        assert ray.is_initialized()  # it was not the engine that connected it

    def test_a_failing_cell_does_not_stop_the_rest(self, tmp_path: Path) -> None:
        plan = plan_of(GRID + BROKEN)
        done = run(plan, tmp_path, engine="ray")
        assert done.states == {DONE: 2, FAILED: 1}
        failed = next(cell for cell in plan.cells if cell.variant == "too many shots")
        assert "ask for fewer shots" in done.failures[failed.words]
        failure = read_json(StudyFolder(tmp_path).failure(failed.id))
        assert failure["error"].startswith("DataError")
        assert "Traceback" in failure["traceback"]

    def test_failures_stop_the_run(self, tmp_path: Path) -> None:
        shots = '[[axis]]\nkey = "episodes.n_shot"\nvalues = [5, 6, 7, 8, 9, 10, 11, 12]\n'
        plan = plan_of(GRID + shots)
        done = run(plan, tmp_path, engine="ray", max_failures=1)
        assert done.stopped
        # Who was begun came to its end; two work at once.
        assert 1 <= done.states[FAILED] <= 4
        assert done.states[MISSING] == 8 - done.states[FAILED]

    def test_a_cell_of_another_runner_is_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "LOOK_EVERY", 0.1)
        plan = plan_of(GRID + '[[axis]]\nkey = "method"\nvalues = ["panet", "copy"]\n')
        mine, theirs = plan.cells
        folder = StudyFolder(tmp_path)
        folder.claim(plan.to_dict(), plan.grid.text)
        held = folder.lock(folder.cell(theirs.id))
        told: list[tuple[str, str]] = []

        def on_cell(cell: Cell, state: str) -> None:
            told.append((cell.id, state))
            if told[-1] == (mine.id, DONE):
                held.release()

        with held:
            assert run(plan, tmp_path, engine="ray", on_cell=on_cell).ok
        assert [one for one, _ in told] == [mine.id] * 2 + [theirs.id] * 2

    def test_a_folder_that_is_not_shared(self, tmp_path: Path) -> None:
        plan = plan_of(GRID.replace('["liver"]', '["liver", "spleen", "right kidney"]'))

        def unmount(cell: Cell, state: str) -> None:
            for sign in tmp_path.glob(".ray-*"):
                sign.unlink()

        with pytest.raises(DataError, match="does not see the study's folder"):
            run(plan, tmp_path, engine="ray", on_cell=unmount)

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        plan = plan_of(GRID)
        StudyFolder(tmp_path).claim(plan.to_dict(), plan.grid.text)
        (tmp_path / "cells").write_text("a file where a folder should be")
        with pytest.raises(DataError, match="cannot write into the study's folder"):
            run(plan, tmp_path, engine="ray")

    def test_data_that_cannot_be_sent(self, tmp_path: Path) -> None:
        plan = plan_of(GRID)
        source: Any = plan.sources["phantom"]
        region = replace(source.dataset.region, draw=partial(abs, threading.Lock()))
        dataset = replace(source.dataset, region=region)
        stuck = replace(plan, sources={"phantom": replace(source, dataset=dataset)})
        with pytest.raises(OptionError, match="phantom_abdomen cannot be sent"):
            run(stuck, tmp_path, engine="ray")

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"gpus_per_run": 5.0}, "needs 5 GPUs and 1 CPUs of one node .* at most 0 GPUs"),
            ({"gpus_per_run": 0.5}, "needs 0.5 GPUs"),
            ({"cpus_per_run": 64}, "needs 0 GPUs and 64 CPUs .* and 2 CPUs"),
            ({"gpus_per_run": 1.5}, "a whole number; got 1.5"),
            ({"gpus_per_run": -1.0}, "got -1.0"),
            ({"gpus_per_run": float("nan")}, "got nan"),
            ({"cpus_per_run": 0}, "cpus_per_run is 1 or more; got 0"),
            ({"device": "cuda"}, "the cluster has 0 GPUs"),
            ({"device": "cuda:1"}, "not one of cpu, cuda"),
        ],
    )
    def test_what_the_cluster_does_not_have(
        self, tmp_path: Path, options: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(OptionError, match=told):
            run(plan_of(GRID), tmp_path, engine="ray", **options)

    def test_interrupted_cells_write_a_checkpoint(self, tmp_path: Path) -> None:
        plan = plan_of(GRID.replace("steps = 4\ncheckpoint_every = 2", LONG))
        folder = StudyFolder(tmp_path)
        cell = plan.cells[0]
        run_folder = folder.training(cell.training) / "run"

        def interrupt(cell: Cell, state: str) -> None:
            wait_for(lambda: (run_folder / "log.jsonl").exists())
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(plan, tmp_path, engine="ray", on_cell=interrupt)
        assert list(run_folder.rglob("step_*"))
        assert folder.state(cell.id) == MISSING
        with folder.lock(folder.cell(cell.id)).acquire(timeout=0):
            assert not list(tmp_path.glob(".ray-*"))

    def test_a_killed_worker_is_replaced(self, tmp_path: Path) -> None:
        text = GRID.replace("steps = 4\ncheckpoint_every = 2", "steps = 120\ncheckpoint_every = 10")
        plan = plan_of(text)
        folder = StudyFolder(tmp_path / "ray")
        training = folder.training(plan.cells[0].training) / "run"
        killed: list[int] = []

        def kill() -> None:
            wait_for(lambda: list(training.rglob("step_*")))
            killed.append(int((training / "lock").read_text().split()[1]))
            os.kill(killed[0], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        done = run(plan, folder.root, engine="ray")
        killer.join()
        assert done.ok
        assert killed[0] != os.getpid()
        assert int((training / "lock").read_text().split()[1]) != killed[0]
        assert scores(plan, folder.root) == local_scores(plan, tmp_path / "local")
        cost = read_json(folder.training(plan.cells[0].training) / "cost.json")
        assert "train_seconds" not in cost  # it was taken up, not begun anew

    def test_a_worker_that_always_dies_is_a_failure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fewshot_seg.ablation.ray_engine.RETRIES", 1)

        def die(*given: object) -> Iterator[str]:
            yield START
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr("fewshot_seg.ablation.ray_engine.do_at", die)
        plan = plan_of(GRID)
        done = run(plan, tmp_path, engine="ray")
        assert done.states == {FAILED: 1}
        (told,) = done.failures.values()
        assert told.startswith("WorkerCrashedError: its worker died 2 times")
