"""The law that every reader obeys: success or an error meant for the user, soon and with little.

`obey` is what all fuzzers call.
"""

import faulthandler
import logging
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fewshot_seg.errors import FewshotSegError

SECONDS = 5.0
"""Of computing, for one input; the slowest one takes a tenth."""
HANGS = 240.0
"""Seconds by the clock after which the process ends and says where it stands: a hang in C."""
MEBIBYTES = 64
"""Of resident memory beyond what the process had, for inputs of at most `LARGEST` bytes. As much
as gzip and PNG can honestly unfold from that size, eight times over."""
LARGEST = 8192

STATUS = Path("/proc/self/status")
PEAK = Path("/proc/self/clear_refs")

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)


class TooSlow(BaseException):
    """Not an Exception, so that no reader takes it for damage."""


def obey(name: str, read: Callable[[Path], object], content: bytes) -> bool:
    """Give `read` a file; whether it could use it. Raises AssertionError where the law is broken.

    name: of the file; the folder it is in is its own, and empty.
    """
    assert len(content) <= LARGEST, "an input larger than the bounds are stated for"
    with tempfile.TemporaryDirectory(dir=_memory_disk()) as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        before = _start()
        refusal = None
        try:
            with _bounded(), warnings.catch_warnings(action="ignore"):
                read(path)
        except FewshotSegError as error:
            refusal = str(error)
        taken = _peak() - before
    assert taken < MEBIBYTES, f"{taken} MiB for {len(content)} bytes"
    assert refusal is None or len(refusal) > 10, f"an error that says nothing: {refusal!r}"
    return refusal is None


@contextmanager
def _bounded() -> Iterator[None]:
    """Raise TooSlow when what is within computes too long; the clock of a busy machine is no
    measure."""
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {SECONDS} s of computing")

    before = signal.signal(signal.SIGPROF, stop)
    faulthandler.dump_traceback_later(HANGS, exit=True)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    start = time.process_time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGPROF, before)
    assert time.process_time() - start < SECONDS


def _start() -> int:
    """Begin a new peak of resident memory; what there is now, in MiB."""
    if not PEAK.exists():
        return 0
    PEAK.write_text("5")
    return _resident("VmRSS")


def _peak() -> int:
    return _resident("VmHWM") if PEAK.exists() else 0


def _resident(entry: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) >> 10
    raise AssertionError(f"{STATUS} does not tell {entry}")


def _memory_disk() -> str | None:
    """Where a file costs no disk, so that thousands of inputs take seconds."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and os.access(shared, os.W_OK) else None
