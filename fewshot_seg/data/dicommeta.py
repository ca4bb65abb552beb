"""The elements of a DICOM file, looked at before GDCM reads them.

GDCM takes as much memory as an element claims to be long, up to 4 GiB for a file of any size.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from fewshot_seg.errors import DataError

PREAMBLE = 128
MAGIC = b"DICM"
META = 0x0002
"""The group of the first elements of every file, which say how the rest is written."""
OLD = (0x0002, 0x0008)
"""What a file without preamble begins with, if it is DICOM at all."""
ITEMS = 0xFFFE
"""The group of what holds the entries of sequences together: no kind, and a length of 4 bytes."""
PIXELS = (0x7FE0, 0x0010)
UNDEFINED = 0xFFFFFFFF
"""The length of what ends with a mark."""
SYNTAX = (0x0002, 0x0010)
IMPLICIT, DEFLATED, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Kinds of values whose length takes four bytes."""
SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""Kinds whose length takes two."""


class Element(NamedTuple):
    """Where an element begins, what it is, the bytes before its value, and those of its value."""

    start: int
    tag: tuple[int, int]
    kind: bytes
    header: int
    length: int


def check_elements(path: Path) -> None:
    """Raise DataError unless every element lies in the file, and the first ones are of group 2.

    Entries of sequences are looked at too. A file without any element, and one that does not begin
    as DICOM does, passes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        whole = file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC
        start = PREAMBLE + len(MAGIC) if whole else 0
        file.seek(start)
        tag = file.read(2)
        first = int.from_bytes(tag, "little")
        if whole and tag and first != META:
            raise _damaged(path, f"begins with group {first:04x} instead of 0002")
        if whole or first in OLD:
            for one in _elements(file, start, path):
                claimed = 0 if one.length == UNDEFINED else one.length
                if one.start + one.header + claimed > size:
                    told = f"the element at byte {one.start} of its {size} claims {claimed} bytes"
                    raise _damaged(path, told)


def _elements(file: BinaryIO, start: int, path: Path) -> Iterator[Element]:
    """All elements up to the pixels, those in sequences after the sequence."""
    order: Literal["little", "big"] = "little"
    syntax = ""
    while True:
        file.seek(start)
        head = file.read(12)
        meta = int.from_bytes(head[:2], "little") == META
        if not meta:
            order = "big" if syntax == BIG else "little"
        if len(head) < 8 or (not meta and syntax == DEFLATED):
            return
        one = _element(head, start, order, implicit=not meta and syntax == IMPLICIT)
        if one is None:
            raise _damaged(path, f"the element at byte {start} is of no known kind")
        yield one
        if one.tag == SYNTAX:
            file.seek(start + one.header)
            syntax = file.read(one.length).rstrip(b"\0 ").decode("ascii", "replace")
        if one.tag == PIXELS or (one.kind == b"UN" and one.length == UNDEFINED):
            return
        inside = one.length == UNDEFINED or one.kind == b"SQ" or one.tag[0] == ITEMS
        start += one.header + (0 if inside else one.length)


def _element(
    head: bytes, start: int, order: Literal["little", "big"], *, implicit: bool
) -> Element | None:
    """None for an unknown kind."""
    group, number = (int.from_bytes(head[at : at + 2], order) for at in (0, 2))
    kind = head[4:6]
    if implicit or group == ITEMS or kind == b"\0\0":
        return Element(start, (group, number), b"", 8, int.from_bytes(head[4:8], order))
    if kind in SHORT:
        return Element(start, (group, number), kind, 8, int.from_bytes(head[6:8], order))
    if kind in LONG and len(head) == 12:
        return Element(start, (group, number), kind, 12, int.from_bytes(head[8:12], order))
    return None


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} cannot be read as DICOM: {why}; it is damaged, copy or export it again"
    )
