"""What a scan is made of, so that work on it can be kept on disk and used as long as it is right.

`where` names the work, `state` says whether it still holds: a scan whose file was replaced keeps
its place and gets another state, so that work out of date is overwritten and not piled up.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from fewshot_seg._version import __version__
from fewshot_seg.data.scan import Dataset

DETACHED = (".mhd", ".nhdr")
"""Headers whose voxels lie in another file of the same folder."""


@runtime_checkable
class FromFiles(Protocol):
    """A data set that reads files, and says which: see `Folder.reads`. What is prepared from other
    data sets is not kept on disk."""

    def reads(self, scan_id: str) -> tuple[Sequence[Path], Mapping[str, Any]]:
        """The files (or folders of files) behind one scan, and everything else that decides what
        `load` makes of them, in plain values."""
        ...


class Identity(NamedTuple):
    """A scan on disk.   where: its files and how they are read.   state: a hash that changes with
    the files' content, as far as the file system tells (size and times), and with this library."""

    where: str
    state: str


def identity(dataset: Dataset, scan_id: str) -> Identity | None:
    """None for a scan that is not read from files, or whose files cannot be found: loading it
    says so."""
    if not isinstance(dataset, FromFiles) or scan_id not in dataset.ids:
        return None
    paths, how = dataset.reads(scan_id)
    try:
        files = [path.resolve() for path in paths]
        found = [_state(file) for path in files for file in _with_parts(path)]
    except OSError:
        return None
    reader = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
    where = json.dumps([reader, scan_id, [str(path) for path in files], how], sort_keys=True)
    return Identity(where, digest(json.dumps([__version__, found])))


def digest(text: str) -> str:
    """A name for a text, fit for a file: 32 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _with_parts(path: Path) -> list[Path]:
    """A file, or all files of a folder of DICOM slices or beside a detached header."""
    folder = path.parent if path.suffix.lower() in DETACHED else path
    return sorted(folder.rglob("*")) if folder.is_dir() else [path]


def _state(path: Path) -> tuple[str, int, int, int]:
    """The change time is there because tools that unpack archives may set the modification time."""
    found = path.stat()
    return path.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns
