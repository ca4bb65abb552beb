"""One process at a time in a folder.

The operating system holds the lock, so it ends with its process, however that ends; the file's text
only says whose it is. (A POSIX record lock, unlike `flock`, is not inherited by loader workers that
outlive a killed run.)
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewshot_seg.errors import CheckpointError, FewshotSegError

_held: set[Path] = set()  # record locks do not see a second run within the process


@contextmanager
def locked(
    path: Path, *, doing: str, refusal: type[FewshotSegError] = CheckpointError
) -> Iterator[None]:
    """Hold the file `path`, which is made. Raises `refusal` when another living process does.

    doing: what for, and where, as in "training into runs/a", for the message.
    """
    path = path.resolve()
    if path in _held:
        raise refusal(f"this process is already {doing}")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            _take(descriptor)
        except OSError as error:
            os.lseek(descriptor, 0, os.SEEK_SET)
            owner = os.read(descriptor, 200).decode(errors="replace") or "another process"
            raise refusal(
                f"{owner} is {doing}; wait for it, end it, or choose another folder"
            ) from error
        _held.add(path)
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        _held.discard(path)
        os.close(descriptor)


def _take(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # a locked byte cannot be read, so one far off
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
