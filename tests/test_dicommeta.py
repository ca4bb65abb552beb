"""Elements of DICOM files are walked as they are written, and none may claim more than the file."""

import struct
from pathlib import Path

import pytest
import SimpleITK as sitk

from fewshot_seg.data.dicommeta import BIG, DEFLATED, IMPLICIT, MAGIC, PREAMBLE, check_elements
from fewshot_seg.errors import DataError

EXPLICIT = "1.2.840.10008.1.2.1"
UNDEFINED = 0xFFFFFFFF


def element(group: int, number: int, kind: str, value: bytes, length: int | None = None) -> bytes:
    """Little-endian with its kind; `length` is what it claims, where that is not the truth."""
    claimed = len(value) if length is None else length
    head = struct.pack("<HH2s", group, number, kind.encode())
    if kind in ("OB", "OW", "SQ", "UN"):
        return head + struct.pack("<HI", 0, claimed) + value
    return head + struct.pack("<H", claimed) + value


def bare(group: int, number: int, value: bytes = b"", length: int | None = None) -> bytes:
    """Without a kind: as in implicit files, and as items of sequences are written everywhere."""
    claimed = len(value) if length is None else length
    return struct.pack("<HHI", group, number, claimed) + value


def swapped(group: int, number: int, kind: str, value: bytes, length: int | None = None) -> bytes:
    """Big-endian with its kind."""
    claimed = len(value) if length is None else length
    return struct.pack(">HH2sH", group, number, kind.encode(), claimed) + value


def file(syntax: str, *elements: bytes) -> bytes:
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    return b"\0" * PREAMBLE + MAGIC + element(2, 0x10, "UI", uid) + b"".join(elements)


def item(*elements: bytes, length: int | None = None) -> bytes:
    return bare(0xFFFE, 0xE000, b"".join(elements), length)


SEQUENCE_END = bare(0xFFFE, 0xE0DD)
ITEM_END = bare(0xFFFE, 0xE00D)
NAME = element(0x10, 0x10, "PN", b"Doe^Jane")
PIXELS = element(0x7FE0, 0x10, "OW", bytes(8))

WHOLE = {
    "explicit": file(EXPLICIT, NAME, PIXELS),
    "implicit": file(IMPLICIT, bare(0x10, 0x10, b"Doe^Jane"), bare(0x7FE0, 0x10, bytes(8))),
    "big": file(BIG, swapped(0x10, 0x10, "PN", b"Doe^Jane")),
    "deflated": file(DEFLATED, b"\x78\x9c\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    "sequence": file(EXPLICIT, element(8, 0x1140, "SQ", item(NAME)), NAME, PIXELS),
    "sequence to its mark": file(
        EXPLICIT,
        element(8, 0x1140, "SQ", item(NAME, ITEM_END, length=UNDEFINED), UNDEFINED),
        SEQUENCE_END,
        NAME,
        PIXELS,
    ),
    "compressed": file(
        EXPLICIT,
        NAME,
        element(0x7FE0, 0x10, "OB", item() + item() + b"\xff\xd8\xff\xe0" * 4, UNDEFINED),
    ),
    "a kind of zeros": file(EXPLICIT, struct.pack("<HHHH", 9, 1, 0, 0), NAME),
    "private, to its mark": file(EXPLICIT, NAME, element(9, 1, "UN", b"??" * 8, UNDEFINED)),
    "nothing after the mark": b"\0" * PREAMBLE + MAGIC,
    "padded": file(EXPLICIT, NAME) + bytes(64),
    "old": element(8, 0x16, "UI", b"1.2.3.0\0") + NAME,
    "text": b"from the archive, and more of it than twelve bytes",
    "nothing": b"",
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_pass(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(WHOLE[name])
    check_elements(path)


LIES = {
    "explicit": (file(EXPLICIT, element(0x10, 0x10, "PN", b"Doe", 4000)), "claims 4000 bytes"),
    "long": (file(EXPLICIT, element(9, 1, "OB", b"", 3 << 30)), "claims 3221225472 bytes"),
    "implicit": (file(IMPLICIT, bare(0x10, 0x10, b"Doe", 1 << 30)), "claims 1073741824 bytes"),
    "big": (file(BIG, swapped(0x10, 0x10, "PN", b"Doe", 4000)), "claims 4000 bytes"),
    "second": (file(EXPLICIT, NAME, element(9, 1, "UN", b"", 1 << 30)), "claims 1073741824"),
    "in a sequence": (
        file(EXPLICIT, element(8, 0x1140, "SQ", item(element(9, 1, "OB", b"", 1 << 30)))),
        "claims 1073741824",
    ),
    "in one to its mark": (
        file(EXPLICIT, element(8, 0x1140, "SQ", item(length=1 << 30), UNDEFINED)),
        "claims 1073741824",
    ),
    "after one": (
        file(EXPLICIT, element(8, 0x1140, "SQ", item(NAME)), element(9, 1, "OB", b"", 1 << 30)),
        "claims 1073741824",
    ),
    "pixels": (file(EXPLICIT, element(0x7FE0, 0x10, "OW", bytes(8), 9000)), "claims 9000 bytes"),
    "old": (element(8, 0x16, "UI", b"1.2.3", 4000) + NAME, "claims 4000 bytes"),
    "another group": (
        b"\0" * PREAMBLE + MAGIC + element(3, 0, "UL", bytes(4)),
        "begins with group 0003 instead of 0002",
    ),
    "no kind": (file(EXPLICIT, NAME, element(9, 1, "!?", b"1234")), "is of no known kind"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_refused(name: str, tmp_path: Path) -> None:
    content, message = LIES[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        check_elements(path)
    assert str(path) in str(error.value)
    assert "copy or export it again" in str(error.value)


def test_every_element_of_a_written_file_is_seen(tmp_path: Path) -> None:
    """A file that is cut within a value is refused; where an element begins it is left to GDCM."""
    path = tmp_path / "slice.dcm"
    sitk.WriteImage(sitk.Image(4, 3, sitk.sitkUInt8), str(path))
    content = path.read_bytes()
    check_elements(path)
    passed = []
    for end in range(PREAMBLE + len(MAGIC), len(content)):
        path.write_bytes(content[:end])
        try:
            check_elements(path)
        except DataError:
            continue
        passed.append(end)
    assert len(content) - 12 > passed[-1] > len(content) - 12 - 12  # the pixels' own header
    assert len(passed) < len(content) / 2
