"""How much memory there is, so that what cannot fit is refused and not begun."""

import os
from functools import cache
from pathlib import Path

CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where Linux tells the limit of a container, new way and old."""

UNKNOWN = 2**63 - 1


@cache
def memory() -> int:
    """Bytes of memory of this machine, or of its container; huge where nobody tells."""
    return min(_physical(), *(_limit(path) for path in CGROUP_LIMITS))


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return UNKNOWN


def _limit(path: Path) -> int:
    try:
        words = path.read_text().strip()
    except OSError:
        return UNKNOWN
    return int(words) if words.isdecimal() else UNKNOWN  # "max" is none
