"""Pseudo-labels kept on disk, because a scan's supervoxels take seconds.

One file a scan, named by a hash of all that decides its content: a file is right or not found,
never out of date. Files are written whole or not at all, so processes may share a folder.
"""

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.errors import DataError

AUTO = "auto"
"""Stands for `default_folder()` where a cache folder is asked for."""
DIGEST = 32
"""Bytes at the end of a file that hold the SHA-256 of the rest."""

log = logging.getLogger(__name__)
_complained: set[Path] = set()


def default_folder() -> Path:
    """`FEWSHOT_SEG_CACHE` where it is set, else `fewshot-seg` in the user's cache folder
    (`XDG_CACHE_HOME`, else `~/.cache`)."""
    own = os.environ.get("FEWSHOT_SEG_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "fewshot-seg"


def cache_folder(folder: str | Path | None) -> Path | None:
    """The folder, AUTO being `default_folder()`; None for no cache, or where the user has no home,
    which is said."""
    try:
        folder = default_folder() if folder == AUTO else folder
        return None if folder is None else Path(folder).expanduser()
    except RuntimeError as error:  # the user has no home
        complain(Path("~"), error)
        return None


class PseudoCache:
    """Label arrays in a folder.

    folder: AUTO for `default_folder()`, None for no cache at all.

    A folder that cannot be read or written is no error: it is said once, through `logging`, and
    everything is computed as if there were no cache.
    """

    def __init__(self, folder: str | Path | None = AUTO) -> None:
        self.folder = cache_folder(folder)

    def labels(
        self,
        image: np.ndarray,
        compute: Callable[[], Integer[np.ndarray, "..."]],
        *,
        kind: str,
        version: int,
        **parameters: int | float | str | None,
    ) -> Integer[np.ndarray, "..."]:
        """What `compute` gives for `image`, from the disk where it was computed before, in the
        smallest unsigned type that holds it.

        image: the prepared intensities; labels have its shape.
        kind, version, parameters: all else that decides the labels. Rise `version` when `compute`
            would give others.
        """
        if self.folder is None:
            return _smallest(compute())
        path = self.folder / f"{kind}-{_key(image, kind, version, parameters)}.npz"
        found = _read(path, image.shape)
        if found is None:
            found = _smallest(compute())
            _write(path, found)
        return found


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The labels in a file; None when there is none or it is not whole."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        complain(path.parent, error)
        return None
    payload, digest = content[:-DIGEST], content[-DIGEST:]
    if hashlib.sha256(payload).digest() != digest:
        log.info("%s is damaged and is made anew", path)
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        found: np.ndarray = arrays["labels"]
    return found if found.shape == shape else None


def _write(path: Path, labels: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, labels=labels)
    payload = buffer.getvalue()
    try:  # readers of zip archives overlook what follows the archive
        write_bytes(path, payload + hashlib.sha256(payload).digest())
    except (DataError, OSError) as error:
        complain(path.parent, error)


def complain(folder: Path, error: Exception) -> None:
    """Say, once for each folder, that nothing can be kept there."""
    if folder not in _complained:
        _complained.add(folder)
        log.warning(
            "prepared scans and pseudo-labels cannot be kept in %s and are computed anew by every "
            "run (%s). Set FEWSHOT_SEG_CACHE to a folder that can be written to.", folder, error,
        )  # fmt: skip


def _key(
    image: np.ndarray, kind: str, version: int, parameters: Mapping[str, int | float | str | None]
) -> str:
    about = {"kind": kind, "version": version, "dtype": str(image.dtype), "shape": image.shape}
    text = json.dumps({**parameters, **about}, sort_keys=True)
    key = hashlib.sha256(text.encode())
    key.update(np.ascontiguousarray(image).data)
    return key.hexdigest()[:32]


def _smallest(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.min_scalar_type(int(labels.max(initial=0))))
