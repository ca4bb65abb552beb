"""Run a plan: every cell once, whoever else works in the same folder, whatever fails."""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from filelock import Timeout
from rich.console import Console

from fewshot_seg.ablation.cell import Cell
from fewshot_seg.ablation.folder import DAMAGED, DONE, FAILED, StudyFolder
from fewshot_seg.ablation.grid import Grid
from fewshot_seg.ablation.plan import Plan, Source, make_plan
from fewshot_seg.ablation.work import do_cell
from fewshot_seg.errors import OptionError, check_choice

ENGINES = ("local", "ray")
START, BUSY = "start", "busy"
"""Of a cell that is begun, and of one that another process works on."""
LOOK_EVERY = 2.0
"""Seconds between looks at cells that others work on."""

OnCell = Callable[[Cell, str], None]
"""Called with a cell and its new state: START, DONE or FAILED."""


@dataclass(frozen=True)
class Outcome:
    """How a run of a grid ended: cells by state, and the first line of each failure."""

    states: Mapping[str, int]
    failures: Mapping[str, str]
    stopped: bool = False

    @property
    def ok(self) -> bool:
        return not self.failures and not self.stopped


@runtime_checkable
class Engine(Protocol):
    """Works through cells."""

    def work(self, cells: Iterable[Cell]) -> Iterator[tuple[Cell, str]]:
        """Yields each cell with START when it is begun, and its state when it is through."""
        ...

    def stop(self) -> None:
        """Begin no further cell; those that are begun come to their end."""
        ...


def run(
    grid: Grid | Plan,
    out: Path | str,
    *,
    data: Mapping[str, str] | None = None,
    engine: str = "local",
    gpus_per_run: float = 0.0,
    cpus_per_run: int = 1,
    max_failures: int | None = None,
    device: str | None = None,
    console: Console | None = None,
    on_cell: OnCell | None = None,
) -> Outcome:
    """Do every cell of `grid` that is not done yet, into the folder `out`.

    data: see `make_plan`.
    engine: "local" works in this process; "ray" on a Ray cluster (extra `cluster`), where each
        cell has `gpus_per_run` of a GPU and `cpus_per_run` cores.
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
    with ExitStack() as held:
        if engine == "ray":
            from fewshot_seg.ablation.ray_cluster import Needs
            from fewshot_seg.ablation.ray_engine import ray_engine

            needs = Needs(gpus=gpus_per_run, cpus=cpus_per_run)
            workers = held.enter_context(
                ray_engine(plan.sources, folder, device=device, needs=needs)
            )
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
        moved = stopped = False
        for cell, state in engine.work(waiting):
            if state == BUSY:
                continue
            moved = True
            if state == FAILED:
                failed.add(cell.id)
                if max_failures is not None and len(failed) >= max_failures:
                    stopped = True
                    engine.stop()
            on_cell(cell, state)
        if stopped:
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

    def work(self, cells: Iterable[Cell]) -> Iterator[tuple[Cell, str]]:
        self.stopped = False
        for cell in cells:
            if self.stopped:
                return
            source = self.sources[cell.data]
            for state in attempt(
                cell, source, self.folder, device=self.device, console=self.console
            ):
                yield cell, state

    def stop(self) -> None:
        self.stopped = True


def attempt(
    cell: Cell, source: Source, folder: StudyFolder, *, device: str | None, console: Console | None
) -> Iterator[str]:
    """Do a cell unless somebody is at it or has done it; yields START if so, and its state then.

    Whatever goes wrong in it is written down, and is no reason for others not to be done.
    """
    try:
        held = folder.lock(folder.cell(cell.id)).acquire(timeout=0)
    except Timeout:
        yield BUSY
        return
    with held:
        state = folder.state(cell.id)
        if state != DONE:  # else by another process, since the plan was looked at
            if state == DAMAGED:
                folder.clear(cell.id)
            yield START
            state = _done(cell, source, folder, device, console)
    yield state


def _done(
    cell: Cell, source: Source, folder: StudyFolder, device: str | None, console: Console | None
) -> str:
    try:
        do_cell(cell, source, folder, device=device, console=console)
    except Exception as error:
        folder.fail(cell.id, f"{type(error).__name__}: {error}", traceback.format_exc())
        return FAILED
    return DONE
