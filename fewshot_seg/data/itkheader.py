"""The text at the head of MetaImage and NRRD files, looked at before ITK reads it.

ITK's readers of both were written for honest headers: an absurd number of axes, or a line longer
than their buffers, ends the whole process instead of raising an error.
"""

from collections.abc import Iterator
from pathlib import Path

from fewshot_seg.errors import DataError

LONGEST = {b"name": 200}
"""Bytes of a line by its name; MetaImage's reader keeps 255 of this one."""
LONGEST_LINE = 512
"""Of any other; NRRD's reader has room for 1024 with what it says about them."""
READ_AT_ONCE = 1 << 16
MOST_LINES = 10_000
MOST_AXES = 9

META = (".mha", ".mhd")
AXES = (b"ndims", b"dimension")
LAST = b"elementdatafile"
"""The last line of a MetaImage's header."""


def check_header(path: Path) -> None:
    """Raise DataError unless the header's lines and its number of axes are of a sane size."""
    for name, value in _fields(path):
        if name in AXES:
            _check_axes(path, value)
        length = len(name) + len(value)
        if length > LONGEST.get(name, LONGEST_LINE):
            raise DataError(
                f"{path} has a line of {length} bytes in its header, beginning with "
                f"'{name[:40].decode(errors='replace')}'; it is damaged, copy or export it again"
            )


def _check_axes(path: Path, value: bytes) -> None:
    if not value.isdigit() or not 1 <= int(value[:9]) <= MOST_AXES:
        told = value[:40].decode(errors="replace")
        raise DataError(f"{path} claims to have '{told}' axes, but a scan has three")


def _fields(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Name and value of each line, less those that may hold text of any length."""
    free = _free_in_meta if path.name.lower().endswith(META) else _free_in_nrrd
    with path.open("rb") as file:
        for _ in range(MOST_LINES):
            text = file.readline(READ_AT_ONCE).strip()
            if not text:  # NRRD's last line, or the end of the file
                return
            name, _, value = text.replace(b"=", b":", 1).partition(b":")
            name = name.strip().lower()
            if not free(text, name):
                yield name, value.strip()
            if name == LAST:
                return
    raise DataError(f"{path} has a header without an end; it is damaged, copy or export it again")


def _free_in_meta(text: bytes, name: bytes) -> bool:
    """A comment, or an entry that a converter took over from DICOM: `0008|0060 = MR`."""
    return name == b"comment" or b"|" in name


def _free_in_nrrd(text: bytes, name: bytes) -> bool:
    """A comment, or an entry of another program: `name:=value`, without a field's `: ` before."""
    return text.startswith(b"#") or b":=" in text.split(b": ", 1)[0]
