"""Jobs in processes of their own, which are ended without warning (SIGKILL).

A moment is a time by the clock, or one of the job's changes to files: the kill then comes just
before it, so that every state of the disk between two changes is met.
"""

import os
import signal
import sys
import time
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_jobs import JOBS

from fewshot_seg.errors import FewshotSegError

NEEDS_FORK = pytest.mark.skipif("forkserver" not in get_all_start_methods(), reason="needs fork")
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.utime")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
COUNT = "changes"
HERE = Path(__file__).resolve().parent


def server() -> Any:
    """Makes processes in milliseconds: copies of one that has imported what jobs need."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent)])  # for the server
    context = get_context("forkserver")
    context.set_forkserver_preload(["kill_jobs", "killing", "monai.metrics"])
    return context


def start(name: str, root: Path, out: Path, *, at_change: int = 0) -> Any:
    """The process of a job. It ends itself before its `at_change`-th change to a file in `out`."""
    process = server().Process(target=_work, args=(name, root, out, at_change))
    process.start()
    return process


def finish(name: str, root: Path, out: Path) -> float:
    """Do a job to its end; the seconds it took."""
    begun = time.monotonic()
    process = start(name, root, out)
    process.join()
    assert process.exitcode == 0, f"{name} ended with {process.exitcode}"
    return time.monotonic() - begun


def kill_at_change(name: str, root: Path, out: Path, number: int) -> bool:
    """Whether the job was killed: it may have been done before."""
    process = start(name, root, out, at_change=number)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def kill_after(name: str, root: Path, out: Path, seconds: float) -> bool:
    """Kill a job by the clock. Whether it was killed: it may have been done before."""
    process = start(name, root, out)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def changes(name: str, root: Path, out: Path) -> int:
    """How many changes to files a job makes."""
    assert not kill_at_change(name, root, out, sys.maxsize)
    return int((out / COUNT).read_text())


def attempt(name: str, root: Path, out: Path) -> str | None:
    """Do a job in this process; the message where it fails as it should. Any other error shows."""
    prepare_process(out)
    try:
        JOBS[name].work(root, out)
    except FewshotSegError as error:
        return str(error)
    return None


def prepare_process(out: Path) -> None:
    """As many threads as every other process of these tests, for the last bit depends on it."""
    torch.set_num_threads(1)
    os.environ["FEWSHOT_SEG_CACHE"] = str(out / "cache")


def _work(name: str, root: Path, out: Path, at_change: int) -> None:
    prepare_process(out)
    counter = _Counter(out, at_change)
    if at_change:
        sys.addaudithook(counter)
    JOBS[name].work(root, out)
    if at_change:
        (out / COUNT).write_text(str(counter.seen))


class _Counter:
    """Sees what Python is about to do to files; ends the process at the change asked for."""

    def __init__(self, folder: Path, last: int) -> None:
        self.folder, self.last = str(folder), last
        self.seen = 0

    def __call__(self, event: str, details: tuple[Any, ...]) -> None:
        if event != "open" and event not in CHANGES:
            return
        if event == "open" and not (isinstance(details[2], int) and details[2] & WRITING):
            return
        if not str(details[0]).startswith(self.folder):
            return
        self.seen += 1
        if self.seen == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
