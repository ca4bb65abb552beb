"""Prepared scans kept on disk and mapped into memory: opened in milliseconds, read where needed,
shared by all processes that use them.

One safetensors file a scan, right or made anew. Its name is a hash of all that decides which scan
it is, and its header holds the state of the source, so that a changed source is noticed; files are
written whole or not at all, so processes may share a folder. Each holds a checksum. Reading
everything to compare it would cost what mapping saves, so that is done only when the file's time
is not the one in its header, as after any change: see `_seal`.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewshot_seg.data.identity import digest, identity
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.kept import kept
from fewshot_seg.data.prepared import PreparedScan
from fewshot_seg.data.pseudo_cache import cache_folder
from fewshot_seg.data.scan import Dataset
from fewshot_seg.errors import CheckpointError, DataError
from fewshot_seg.parsing import parse_json
from fewshot_seg.tensorfile import load_tensors, save_tensors

VERSION = 1
"""Rises when the same arguments give another prepared scan, so that stored ones are not used."""
FOLDER = "prepared"
TICK = 2_000_000_000
"""Nanoseconds to which the coarsest file systems round times."""

log = logging.getLogger(__name__)


def stored(
    dataset: Dataset,
    scan_id: str,
    make: Callable[[], PreparedScan],
    *,
    size: int | tuple[int, int] | None,
    intensity: Intensity,
    channels: int,
    cache: str | Path | None,
) -> PreparedScan:
    """What `make` gives for a scan, from the disk where it was made before: the same numbers.

    size, intensity, channels: how `make` prepares it.
    cache: the folder, whose subfolder "prepared" is used; see `PseudoCache`.

    A folder that cannot be read or written is no error: it is said once, through `logging`.
    """
    root = cache_folder(cache)
    source = identity(dataset, scan_id)
    if root is None or source is None:
        return make()
    pair = (size, size) if isinstance(size, int) else size
    about = [source.where, pair, intensity.to_dict(), channels]
    name = f"{digest(json.dumps(about, sort_keys=True))}.safetensors"
    path = (root / FOLDER / name).absolute()  # for workers, wherever they are
    state = f"{VERSION} {source.state}"

    def write(path: Path, made: PreparedScan) -> PreparedScan:
        _write(path, made, state)
        return open_scan(path, state)  # so that what was made leaves memory

    return kept(root, path, make=make, read=lambda path: _opened(path, state), write=write)


def open_scan(path: Path, state: str) -> PreparedScan:
    """A scan of the store, as views of its file. Writing to them changes this process's copy only.

    state: of the scan's source; the file may since have been made anew of another.
    Raises DataError for another file than that, or for one that is gone or cut off.
    """
    try:
        words, tensors = _mapped(path)
        if words.get("state") != state:
            raise DataError(f"{path}: the scan's file was changed while it was used; start again")
        return _scan(path, words, tensors)
    except (SafetensorError, CheckpointError, OSError) as error:
        raise DataError(
            f"the prepared scan {path} cannot be opened: {error}; start again to make it anew"
        ) from error


def _opened(path: Path, state: str) -> PreparedScan | None:
    """The scan in a file; None when there is none, or it is of another state or not whole."""
    try:
        words, tensors = _mapped(path)
        if words.get("state") != state:
            log.info("%s was made of another state of its scan and is made anew", path)
            return None
        if not _is_sealed(path, words):
            load_tensors(path)  # compares the checksum
            _seal(path, int(words["sealed"]))
        return _scan(path, words, tensors)
    except FileNotFoundError:
        return None
    except (SafetensorError, CheckpointError) as error:
        log.info("%s is damaged and is made anew: %s", path, error)
        return None


def _write(path: Path, scan: PreparedScan, state: str) -> None:
    tensors = {"images": scan.images[:, :1] if _is_grey(scan) else scan.images}
    if scan.labels is not None:
        tensors["labels"] = scan.labels
    if scan.original_labels is not None:
        tensors["original_labels"] = _native(scan.original_labels)
    about = {
        "id": scan.id,
        "channels": scan.images.shape[1],
        "original_size": scan.original_size,
        "spacing": scan.spacing,
        "class_slices": list(scan.class_slices.items()),
    }
    sealed = time.time_ns() // TICK * TICK
    header = {"state": state, "scan": json.dumps(about), "sealed": str(sealed)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(tensors, path, header)
    _seal(path, sealed)


def _mapped(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header's words and the tensors; nothing but the header is read."""
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return file.metadata() or {}, {name: file.get_tensor(name) for name in names}


def _scan(path: Path, words: dict[str, str], tensors: dict[str, Tensor]) -> PreparedScan:
    """The scan in a file. Raises CheckpointError when the file's header is damaged."""
    try:
        return _described(path, words, tensors)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"its header is damaged ({type(error).__name__}: {error})") from error


def _described(path: Path, words: dict[str, str], tensors: dict[str, Tensor]) -> PreparedScan:
    about: dict[str, Any] = parse_json(words["scan"])
    original = tensors.get("original_labels")
    height, width = about["original_size"]
    found = PreparedScan(
        id=about["id"],
        images=tensors["images"].expand(-1, about["channels"], -1, -1),
        labels=tensors.get("labels"),
        original_labels=None if original is None else original.numpy(),
        original_size=(height, width),
        spacing=None if about["spacing"] is None else tuple(about["spacing"]),
        class_slices={value: tuple(slices) for value, slices in about["class_slices"]},
    )
    object.__setattr__(found, "reopen", partial(open_scan, path, words["state"]))
    return found


def _seal(path: Path, sealed: int) -> None:
    """Set the file's time to the one in its header, which whoever writes to the file changes."""
    with contextlib.suppress(OSError):  # somebody else's file: its checksum is compared each time
        os.utime(path, ns=(sealed, sealed))


def _is_sealed(path: Path, words: dict[str, str]) -> bool:
    return str(path.stat().st_mtime_ns) == words.get("sealed")


def _is_grey(scan: PreparedScan) -> bool:
    return scan.images.shape[1] > 1 and scan.images.stride(1) == 0


def _native(labels: np.ndarray) -> Tensor:
    """In this machine's byte order, as torch wants it."""
    kind = np.dtype(f"{labels.dtype.kind}{labels.dtype.itemsize}")
    return torch.from_numpy(np.ascontiguousarray(labels, dtype=kind))
