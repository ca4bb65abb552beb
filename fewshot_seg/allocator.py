"""Memory that tensors leave is kept for the next ones, and not given back to the system each time.

On Linux the C library (glibc) takes every block of some size from the system and gives it back as
soon as it is free; each tensor of a network then comes as fresh pages that the system must first
fill with zeros, which costs a CPU up to a third of its time (docs/speed.md).
"""

import ctypes
import os
from collections.abc import Mapping

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Options of `mallopt`: free memory to keep, and how many blocks may come from the system apart."""
KEPT = 2**31 - 1
"""Bytes; the most that can be asked for."""
OWN = ("GLIBC_TUNABLES", "LD_PRELOAD")
"""Set by those who choose their own allocator or its options, as every MALLOC_... is."""


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let this process keep up to 2 GiB of freed memory. True where that was done.

    Nothing is done without glibc, or where the environment says how memory is to be managed. For
    the whole process, so a program decides it, not a library: `fewshot-seg` does, at its start.
    """
    chosen = any(name in OWN or name.startswith("MALLOC_") for name in environment)
    if chosen or not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, KEPT))


def _is_glibc() -> bool:
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, ValueError, OSError):  # Windows; other C libraries
        return False
