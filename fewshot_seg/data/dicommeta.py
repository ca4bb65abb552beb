"""The first elements of a DICOM file, looked at before GDCM reads them.

Every file begins with elements of group 2 that say how the rest is written. GDCM takes as much
memory as such an element claims to be long, up to 4 GiB for a file of any size, and keeps it.
"""

from pathlib import Path

from fewshot_seg.errors import DataError

PREAMBLE = 128
MAGIC = b"DICM"
META = b"\x02\x00"
"""The group of the elements that GDCM trusts; always little-endian, and with their kind."""
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Kinds of values whose length takes four bytes."""
SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""Kinds whose length takes two."""


def check_meta(path: Path) -> None:
    """Raise DataError unless the elements of group 2 are of known kinds and lie in the file.

    A file without any passes: it is no DICOM file, or one that GDCM reads with care.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        start = PREAMBLE + len(MAGIC) if file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC else 0
        file.seek(start)
        while (element := file.read(12))[:2] == META:
            claimed = _extent(element)
            if claimed is None or start + claimed > length:
                told = "is of no known kind" if claimed is None else f"claims {claimed} bytes"
                raise DataError(
                    f"{path} cannot be read as DICOM: the element at byte {start} of its {length} "
                    f"{told}; it is damaged, copy or export it again"
                )
            start += claimed
            file.seek(start)


def _extent(element: bytes) -> int | None:
    """Bytes of an element with what stands before its value; None for an unknown kind."""
    kind = element[4:6]
    if kind in LONG:
        return 12 + int.from_bytes(element[8:12], "little")
    if kind in SHORT:
        return 8 + int.from_bytes(element[6:8], "little")
    return None
