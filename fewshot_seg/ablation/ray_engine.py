"""Cells on a Ray cluster: many at once, on many GPUs or nodes, whichever of them die."""

import inspect
import os
import platform
import secrets
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import PicklingError
from typing import Any

from filelock import Timeout

from fewshot_seg.ablation.cell import Cell
from fewshot_seg.ablation.folder import DONE, FAILED, StudyFolder
from fewshot_seg.ablation.plan import Source
from fewshot_seg.ablation.ray_cluster import Needs, check_room, connected, device_for, room
from fewshot_seg.ablation.runner import BUSY, START, attempt
from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.errors import DataError, FewshotSegError, OptionError

RETRIES = 3
"""How often a cell is taken up again after its worker or node died."""
AHEAD = 2
"""Cells handed to Ray for each that fits on the cluster: an autoscaler sees that more are wanted,
and ten thousand cells do not lie in Ray's memory."""
GRACE = 60.0
"""Seconds that interrupted cells have to write their checkpoint."""


@dataclass(frozen=True)
class Place:
    """Where a worker does cells. sign: a file by which it knows that it sees the same folder."""

    root: Path
    sign: Path
    cwd: Path
    device: str
    threads: int


def _left(until: float) -> float:
    """Seconds until then; not below 0, which for a lock means for ever."""
    return max(0.0, until - time.monotonic())


@dataclass
class Task:
    """A cell that was handed to Ray. begun: a worker is at it."""

    cell: Cell
    begun: bool = False


@contextmanager
def ray_engine(
    sources: Mapping[str, Source], folder: StudyFolder, *, device: str | None, needs: Needs
) -> Iterator["RayEngine"]:
    """An engine on a Ray cluster, see `connected`; cells at hand when it ends are interrupted.

    folder: must be the same on every node.   device: "cpu", "cuda", or None for what `needs` says.
    Raises OptionError when Ray is missing, no cluster is reached, none of its nodes is large enough
    for a cell, or a data set cannot be sent to other processes.
    """
    root = folder.root.absolute()
    with connected() as ray:
        check_room(ray, needs)
        device = device_for(ray, needs, device)
        place = Place(root, root / f".ray-{secrets.token_hex(4)}", Path.cwd(), device, needs.cpus)
        write_bytes(place.sign, b"")
        engine = RayEngine(ray, place, _sent(ray, sources), needs)
        try:
            yield engine
        finally:
            engine.interrupt()
            place.sign.unlink(missing_ok=True)


class RayEngine:
    """Works on a Ray cluster; made by `ray_engine`.

    sources: data name -> Ray's reference to it.
    """

    def __init__(self, ray: Any, place: Place, sources: Mapping[str, Any], needs: Needs) -> None:
        self.ray, self.place, self.sources, self.needs = ray, place, sources, needs
        self.queue = Queue([])
        self._tasks: dict[Any, Task] = {}
        given = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "max_retries": RETRIES}
        # In what a checker of types wraps around a generator Ray sees none.
        self._do = ray.remote(**given)(inspect.unwrap(do_at))

    def work(self, cells: Iterable[Cell]) -> Iterator[tuple[Cell, str]]:
        self.queue = Queue(cells)
        while self._fill():
            ready, _ = self.ray.wait(list(self._tasks), fetch_local=False)
            for handle in ready:
                cell, state = self._news(handle)
                if state is not None:
                    yield cell, state

    def stop(self) -> None:
        self.queue = Queue([])
        for handle, task in self._tasks.items():
            if not task.begun:
                self.ray.cancel(handle)

    def interrupt(self) -> None:
        """End the cells at hand, which first write a checkpoint if they are training."""
        if not self._tasks:
            return
        for handle in self._tasks:
            self.ray.cancel(handle)
        # Ray calls a cancelled task done before its worker is, so what is watched are the locks.
        until = time.monotonic() + GRACE
        folder = StudyFolder(self.place.root)
        for handle, task in self._tasks.items():
            if not task.begun:
                continue
            try:
                with folder.lock(folder.cell(task.cell.id)).acquire(timeout=_left(until)):
                    continue
            except Timeout:
                self.ray.cancel(handle, force=True)

    def _fill(self) -> bool:
        """Hand cells to Ray, but not all at once; whether there is something to wait for."""
        most = max(1, AHEAD * room(self.ray, self.needs))
        while self.queue and len(self._tasks) < most:
            cell = self.queue.take()
            handle = self._do.remote(self.place, cell, self.sources[cell.data])
            self._tasks[handle] = Task(cell)
        return bool(self._tasks)

    def _news(self, handle: Any) -> tuple[Cell, str | None]:
        """A cell's new state, None for one that was called off before it began."""
        task = self._tasks[handle]
        errors = self.ray.exceptions
        state: str | None
        try:
            state = self.ray.get(next(handle))
        except StopIteration:  # its worker died, and so quickly its lock is not free again
            state = BUSY
        except errors.TaskCancelledError:
            state = None
        except errors.RayTaskError as error:
            if isinstance(error.cause, FewshotSegError):
                raise error.cause from error
            raise
        except errors.RayError as error:
            self._lost(task.cell, error)
            state = FAILED
        if state == START:
            task.begun = True
        else:
            del self._tasks[handle]
            self.queue.through(task.cell, state)
        return task.cell, state

    def _lost(self, cell: Cell, error: Exception) -> None:
        first = str(error).strip().splitlines()[0]
        told = f"{type(error).__name__}: its worker died {RETRIES + 1} times; {first}"
        StudyFolder(self.place.root).fail(cell.id, told, str(error))


class Queue:
    """Cells in order, of each training one at a time until it is done.

    The others of the training would only wait for it, on a GPU that somebody can use.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._ready: deque[Cell] = deque()
        self._behind: dict[str, deque[Cell]] = {}
        for cell in cells:
            if cell.training in self._behind:
                self._behind[cell.training].append(cell)
            else:
                self._behind[cell.training] = deque()
                self._ready.append(cell)

    def __bool__(self) -> bool:
        return bool(self._ready)

    def take(self) -> Cell:
        return self._ready.popleft()

    def through(self, cell: Cell, state: str | None) -> None:
        """Let go what was behind a cell: all when it is done, one when it failed.

        Behind a busy cell nothing is: whoever does it is at the training, so this is no time.
        """
        behind = self._behind.get(cell.training, deque())
        if state == DONE:
            self._ready.extendleft(reversed(behind))
            behind.clear()
        elif state == FAILED and behind:
            self._ready.appendleft(behind.popleft())


def do_at(place: Place, cell: Cell, source: Source) -> Iterator[str]:
    """`attempt` in a worker. Raises DataError when the study's folder is not the same there."""
    import torch

    # Of a run that was started in the background workers inherit that interrupts are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(place.threads)
    node = platform.node()
    if place.cwd.is_dir():  # what relative paths of data and weights start from
        os.chdir(place.cwd)
    if not place.sign.exists():
        raise DataError(
            f"{node} does not see the study's folder {place.root} as this machine does; all nodes "
            "must share it, under the same path"
        )
    try:
        yield from attempt(cell, source, StudyFolder(place.root), device=place.device, console=None)
    except (OSError, DataError) as error:
        raise DataError(
            f"{node} cannot write into the study's folder {place.root}, which all nodes must be "
            f"able to: {error}"
        ) from error


def _sent(ray: Any, sources: Mapping[str, Source]) -> dict[str, Any]:
    """Put the data sets where every worker finds them, each once."""
    sent = {}
    for name, source in sources.items():
        try:
            sent[name] = ray.put(source)
        except (TypeError, PicklingError) as error:
            raise OptionError(
                f"the data set {source.dataset.name} cannot be sent to other processes: {error}"
            ) from error
    return sent
