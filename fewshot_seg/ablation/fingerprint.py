"""Which version of a data set a result belongs to."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from fewshot_seg.data.folder import Folder
from fewshot_seg.data.scan import Dataset, Scan
from fewshot_seg.errors import DataError

LETTERS = 12
BLOCK = 1 << 20


def data_version(dataset: Dataset) -> str:
    """A hash of every image and label, the same wherever the data lie.

    A folder's files are hashed as they are; a data set that says its `version` (a word that changes
    with any of its scans) by that; any other by the arrays it loads.
    Raises DataError for a file that cannot be read.
    """
    found = hashlib.sha256()
    found.update(repr((dataset.modality, dict(dataset.classes), tuple(dataset.ids))).encode())
    for piece in _pieces(dataset):
        found.update(piece)
    return found.hexdigest()[:LETTERS]


def _pieces(dataset: Dataset) -> Iterator[bytes]:
    version = getattr(dataset, "version", None)
    if isinstance(version, str):
        yield version.encode()
    elif isinstance(dataset, Folder):
        yield from _folder(dataset)
    else:
        yield from _arrays(dataset)


def _folder(dataset: Folder) -> Iterator[bytes]:
    for scan_id in dataset.ids:
        entry = dataset.files[scan_id]
        for path in (entry.image, entry.labels):
            yield b"\0none" if path is None else b"\0file"
            if path is not None:
                yield from _bytes(Path(path))


def _bytes(path: Path) -> Iterator[bytes]:
    """Of a file, or of all files of a folder (a DICOM series) by name."""
    try:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as opened:
                    while block := opened.read(BLOCK):
                        yield block
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _arrays(dataset: Dataset) -> Iterator[bytes]:
    for scan_id in dataset.ids:
        scan: Scan = dataset.load(scan_id)
        yield repr((scan.image.shape, scan.spacing)).encode()
        yield scan.image.tobytes()
        if scan.labels is not None:
            yield scan.labels.tobytes()
