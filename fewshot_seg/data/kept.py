"""Work that is kept on disk where that is possible, and done anew where it is not."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from fewshot_seg.data.pseudo_cache import complain
from fewshot_seg.errors import CheckpointError, DataError

Work = TypeVar("Work")


def kept(
    root: Path,
    path: Path,
    *,
    make: Callable[[], Work],
    read: Callable[[Path], Work | None],
    write: Callable[[Path, Work], Work],
) -> Work:
    """What `make` gives, from the file `path` where it is there.

    root: the cache folder, for the complaint when the disk refuses, which is no error.
    read: gives None for a file that is missing, out of date or damaged.
    write: gives what is to be used, in place of what was made.
    """
    try:
        found = read(path)
    except OSError as error:
        complain(root, error)
        return make()
    if found is not None:
        return found
    made = make()
    try:
        return write(path, made)
    except (OSError, SafetensorError, CheckpointError, DataError) as error:
        complain(root, error)
        return made
