"""Mean and variance of a scan's intensities, kept on disk: CT is normalised by those of all
training scans, which every run would otherwise have to read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.data.identity import digest, identity
from fewshot_seg.data.kept import kept
from fewshot_seg.data.pseudo_cache import cache_folder
from fewshot_seg.data.scan import Dataset

VERSION = 1
"""Rises when the same arguments give other numbers, so that stored ones are not used."""
FOLDER = "moments"


class Moments(NamedTuple):
    """The number of a scan's voxels, their mean and population variance."""

    voxels: int
    mean: float
    variance: float


def stored_moments(
    dataset: Dataset,
    scan_id: str,
    make: Callable[[], Moments],
    *,
    window: tuple[float, float] | None,
    cache: str | Path | None,
) -> Moments:
    """What `make` gives for a scan clipped to `window`, from the disk where it was made before.

    cache: the folder; kept and made anew as `fewshot_seg.data.store` does.
    """
    root, source = cache_folder(cache), identity(dataset, scan_id)
    if root is None or source is None:
        return make()
    state = f"{VERSION} {source.state}"

    def write(path: Path, made: Moments) -> Moments:
        body = json.dumps([state, *made])
        write_bytes(path, f"{digest(body)} {body}".encode())
        return made

    return kept(
        root,
        root / FOLDER / digest(json.dumps([source.where, window])),
        make=make,
        read=lambda path: _read(path, state),
        write=write,
    )


def _read(path: Path, state: str) -> Moments | None:
    try:
        checksum, _, body = path.read_bytes().partition(b" ")
    except FileNotFoundError:
        return None
    text = body.decode(errors="replace")
    if digest(text).encode() != checksum:
        return None
    held, *numbers = json.loads(text)
    return Moments(*numbers) if held == state else None
