"""Scans in a folder of no particular layout: volumes, DICOM series or pictures, however deep."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fewshot_seg.data.dicom import is_dicom
from fewshot_seg.data.nifti import stem
from fewshot_seg.data.pictures import is_picture
from fewshot_seg.data.volume import volume_suffix
from fewshot_seg.errors import DataError

LABEL_NAME = re.compile(
    r"(?<![a-z])(labels?(tr|ts)?|masks?|segs?|segmentations?|segmented|gt|ground|groundtruth|"
    r"manual|annotations?|contours?)(?![a-z])",
    re.IGNORECASE,
)
"""A word in the name of a file, or of a folder above it, that says: labels, no scan."""


def plain_scans(root: Path) -> tuple[dict[str, Path], list[Path]]:
    """The scans below `root` by id, and the files left out because they are named like labels.

    A volume file is a scan, and so is a folder with DICOM files. Pictures count only where there
    are neither: beside volumes they are screenshots. Links are followed, hidden names are not.
    An id is what tells a scan from the others: its path, less the folders that all have in common.
    Raises DataError for two scans of one id.
    """
    found = list(_walk(root))
    # `root` itself may be called "segmentation": only what is below it is looked at.
    labels = [path for path in found if LABEL_NAME.search(str(path.relative_to(root)))]
    scans = [path for path in found if path not in set(labels)]
    volumes = [path for path in scans if not is_picture(path)]
    return _by_id(root, volumes or scans), labels


def _walk(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for name, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(name)
        if real in seen:  # a link to a folder above would go round for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        paths = [Path(name, file) for file in sorted(files) if not file.startswith(".")]
        yield from (path for path in paths if volume_suffix(path) or is_picture(path))
        others = (path for path in paths if not volume_suffix(path) and not is_picture(path))
        if any(is_dicom(path) for path in others):
            yield Path(name)


def _by_id(root: Path, paths: list[Path]) -> dict[str, Path]:
    names = {path: (*path.relative_to(root).parts[:-1], stem(path)) for path in paths}
    found: dict[str, Path] = {}
    for path, parts in _distinct(names).items():
        scan_id = "_".join(parts)
        if scan_id in found:
            raise DataError(f"{found[scan_id]} and {path} would have one name; rename one of them")
        found[scan_id] = path
    return found


def _distinct(names: Mapping[Path, tuple[str, ...]]) -> dict[Path, tuple[str, ...]]:
    """The parts of each name without those that all begin or end with."""
    left = dict(names)
    for end in (0, -1):
        while left and all(len(parts) > 1 for parts in left.values()):
            if len({parts[end] for parts in left.values()}) > 1:
                break
            left = {path: parts[1:] if end == 0 else parts[:-1] for path, parts in left.items()}
    return left
