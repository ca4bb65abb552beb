"""What a zip may hold before a single byte of it is unpacked."""

import stat
from pathlib import Path, PurePosixPath
from zipfile import ZipFile, ZipInfo

from fewshot_seg.errors import DataError

MAX_FILE = 4 * 2**30
"""Bytes of one unpacked file; the largest scan of the three benchmarks has under 0.2 GiB."""

MAX_RATIO = 100
"""How many times its packed size an archive may hold; scans reach 2 to 5, bombs thousands."""

ENCRYPTED = 0x1


def check_archive(path: Path, archive: ZipFile) -> dict[PurePosixPath, ZipInfo]:
    """The files of a zip by their place in it.

    Raises DataError for names that are absolute or lead out of the archive, for links, special
    and encrypted files, for two files of one name, and for sizes no scan archive has.
    """
    found: dict[PurePosixPath, ZipInfo] = {}
    for entry in archive.infolist():
        place = _place(path, entry)
        _check_kind(path, entry)
        if entry.is_dir():
            continue
        if place in found:
            raise DataError(f"{path} holds {place} twice; it is damaged, download it again")
        found[place] = entry
    _check_sizes(path, found)
    return found


def _place(path: Path, entry: ZipInfo) -> PurePosixPath:
    place = PurePosixPath(entry.filename.replace("\\", "/"))  # as some Windows programs write it
    drive = bool(place.parts) and place.parts[0].endswith(":")
    if place.is_absolute() or drive or ".." in place.parts or not place.parts:
        raise DataError(
            f"{path} holds the name {entry.filename!r}, which leads out of the archive; nothing "
            "was unpacked. Get the archive from its publisher"
        )
    return place


def _check_kind(path: Path, entry: ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "a special file"
        raise DataError(
            f"{path} holds {what}, {entry.filename!r}; nothing was unpacked. Get the archive from "
            "its publisher, or pack the folder again with the files themselves"
        )
    if entry.flag_bits & ENCRYPTED:
        raise DataError(f"{path} is encrypted; unpack it with its password and name the folder")


def _check_sizes(path: Path, entries: dict[PurePosixPath, ZipInfo]) -> None:
    for place, entry in entries.items():
        if entry.file_size > MAX_FILE:
            raise DataError(
                f"{path}: {place} would unpack to {entry.file_size / 2**30:.3g} GiB, more than "
                "any scan; nothing was unpacked. Get the archive from its publisher"
            )
    packed, held = path.stat().st_size, sum(entry.file_size for entry in entries.values())
    if held > MAX_RATIO * packed:
        raise DataError(
            f"{path} has {packed / 2**20:.3g} MiB but would unpack to {held / 2**20:.3g} MiB, "
            f"over {MAX_RATIO} times as much; nothing was unpacked. Get the archive from its "
            "publisher, or unpack it yourself if you trust it"
        )
