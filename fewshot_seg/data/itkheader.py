"""The text at the head of MetaImage and NRRD files, looked at before ITK reads it.

ITK's readers of both were written for honest headers: an absurd number of axes, or a word longer
than their buffers, ends the whole process instead of raising an error.
"""

from collections.abc import Iterator
from pathlib import Path

from fewshot_seg.errors import DataError

LONGEST_WORD = 128
"""Bytes of a word or number; none of either format's own has more than 40."""
LONGEST_NAME = 1024
"""Bytes of a line that names the file with the voxels."""
LONGEST_LINE = 1 << 16
MOST_LINES = 10_000
MOST_AXES = 9

AXES = (b"ndims", b"dimension")
FILES = (b"elementdatafile", b"data file", b"datafile")
"""Lines that name the file with the voxels; MetaImage's is the last one."""


def check_header(path: Path) -> None:
    """Raise DataError unless the header's words and its number of axes are of a sane size."""
    for name, value in _fields(path):
        if name in AXES:
            _check_axes(path, value)
        longest = max((len(word) for word in [name, *_words(value)]), default=0)
        if longest > (LONGEST_NAME if name in FILES else LONGEST_WORD):
            raise DataError(
                f"{path} has a word of {longest} bytes in its header; it is damaged, copy or "
                "export it again"
            )


def _check_axes(path: Path, value: bytes) -> None:
    if not value.isdigit() or not 1 <= int(value[:9]) <= MOST_AXES:
        told = value[:40].decode(errors="replace")
        raise DataError(f"{path} claims to have '{told}' axes, but a scan has three")


def _words(value: bytes) -> list[bytes]:
    for mark in (b",", b"(", b")"):
        value = value.replace(mark, b" ")
    return value.split()


def _fields(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Name and value of each line; without comments and users' own entries (`name:=value`)."""
    with path.open("rb") as file:
        for _ in range(MOST_LINES):
            line = file.readline(LONGEST_LINE)
            text = line.strip()
            if not text:  # NRRD's last line, or the end of the file
                return
            if text.startswith(b"#") or b":=" in text:
                continue
            name, _, value = text.replace(b"=", b":", 1).partition(b":")
            name = name.strip().lower()
            yield name, value.strip()
            if name == FILES[0]:
                return
    raise DataError(f"{path} has a header without an end; it is damaged, copy or export it again")
