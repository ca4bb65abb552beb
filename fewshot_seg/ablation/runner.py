"""Run a plan: every cell once, whoever else works in the same folder, whatever fails."""

import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import Timeout
from rich.console import Console

from fewshot_seg.ablation.cell import Cell
from fewshot_seg.ablation.folder import DAMAGED, DONE, FAILED, StudyFolder
from fewshot_seg.ablation.grid import Grid
from fewshot_seg.ablation.plan import Plan, Source, make_plan
from fewshot_seg.ablation.work import do_cell
from fewshot_seg.errors import OptionError, check_choice

ENGINES = ("local", "ray")
BUSY = "busy"
"""State of a cell that another process works on."""
LOOK_EVERY = 2.0
"""Seconds between looks at cells that others work on."""

OnCell = Callable[[Cell, str], None]
"""Called with a cell and its new state: "start", "done" or "failed"."""


@dataclass(frozen=True)
class Outcome:
    """How a run of a grid ended: cells by state, and the first line of each failure."""

    states: Mapping[str, int]
    failures: Mapping[str, str]
    stopped: bool = False

    @property
    def ok(self) -> bool:
        return not self.failures and not self.stopped


class Engine(Protocol):
    """Works through cells; yields each with its state when it is through with it."""

    def work(self, cells: Iterable[Cell], on_cell: OnCell) -> Iterable[tuple[Cell, str]]: ...


def run(
    grid: Grid | Plan,
    out: Path | str,
    *,
    data: Mapping[str, str] | None = None,
    engine: str = "local",
    gpus_per_run: float = 0.0,
    max_failures: int | None = None,
    device: str | None = None,
    console: Console | None = None,
    on_cell: OnCell | None = None,
) -> Outcome:
    """Do every cell of `grid` that is not done yet, into the folder `out`.

    data: see `make_plan`.
    engine: "local" works in this process; "ray" on a Ray cluster (extra `cluster`), where each
        cell has `gpus_per_run` of a GPU.
    max_failures: stop starting cells after so many have failed; None never stops.
    device: "cpu" or "cuda"; a GPU where there is one unless given.
    console: where trainings show their progress.   on_cell: told of each cell.

    A cell that fails is recorded with its traceback, and tried again by the next run. Killed at
    any moment, the next run goes on from the last checkpoint of the cell it was at. Several runs
    may share a folder: none does a cell that another has done or is at; each returns when all are.
    Raises OptionError for a folder of another grid, and what `make_plan` raises.
    """
    check_choice("engine", engine, ENGINES)
    if max_failures is not None and max_failures < 1:
        raise OptionError(f"max_failures is 1 or more; got {max_failures}")
    plan = grid if isinstance(grid, Plan) else make_plan(grid, data)
    folder = StudyFolder(out)
    folder.claim(plan.to_dict(), plan.grid.text)
    workers: Engine
    if engine == "ray":
        from fewshot_seg.ablation.ray_engine import RayEngine

        workers = RayEngine(plan.sources, folder, device=device, gpus_per_run=gpus_per_run)
    else:
        workers = Local(plan.sources, folder, device=device, console=console)
    return _through(plan, folder, workers, max_failures, on_cell or (lambda cell, state: None))


def _through(
    plan: Plan, folder: StudyFolder, engine: Engine, max_failures: int | None, on_cell: OnCell
) -> Outcome:
    failed: set[str] = set()
    while True:
        waiting = [
            cell for cell in plan.cells if cell.id not in failed and folder.state(cell.id) != DONE
        ]
        if not waiting:
            return _outcome(plan, folder, stopped=False)
        moved = False
        for cell, state in engine.work(waiting, on_cell):
            moved = moved or state != BUSY
            if state == FAILED:
                failed.add(cell.id)
                if max_failures is not None and len(failed) >= max_failures:
                    return _outcome(plan, folder, stopped=True)
        if not moved:
            time.sleep(LOOK_EVERY)


def _outcome(plan: Plan, folder: StudyFolder, *, stopped: bool) -> Outcome:
    states = [folder.state(cell.id) for cell in plan.cells]
    failures = {
        cell.words: folder.read_failure(cell.id)
        for cell, state in zip(plan.cells, states)
        if state == FAILED
    }
    return Outcome({one: states.count(one) for one in dict.fromkeys(states)}, failures, stopped)


class Local:
    """Works in this process, one cell after the other."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        folder: StudyFolder,
        *,
        device: str | None,
        console: Console | None,
    ) -> None:
        self.sources, self.folder = sources, folder
        self.device, self.console = device, console

    def work(self, cells: Iterable[Cell], on_cell: OnCell) -> Iterable[tuple[Cell, str]]:
        for cell in cells:
            state = attempt(
                cell, self.sources[cell.data], self.folder,
                device=self.device, console=self.console, on_cell=on_cell,
            )  # fmt: skip
            yield cell, state


def attempt(
    cell: Cell,
    source: Source,
    folder: StudyFolder,
    *,
    device: str | None,
    console: Console | None,
    on_cell: OnCell,
) -> str:
    """Do a cell unless somebody is at it or has done it; its state afterwards.

    Whatever goes wrong in it is written down, and is no reason for others not to be done.
    """
    lock = folder.lock(folder.cell(cell.id))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return BUSY
    with lock:
        state = folder.state(cell.id)
        if state == DONE:  # by another process, since the plan was looked at
            return DONE
        if state == DAMAGED:
            folder.clear(cell.id)
        on_cell(cell, "start")
        try:
            do_cell(cell, source, folder, device=device, console=console)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            folder.fail(cell.id, told, traceback.format_exc())
            on_cell(cell, FAILED)
            return FAILED
        on_cell(cell, DONE)
        return DONE
