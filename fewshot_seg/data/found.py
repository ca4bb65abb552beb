"""The classes of a dataset that nobody named: those its label files hold."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fewshot_seg.data.nifti import read_labels
from fewshot_seg.data.pictures import is_picture, read_picture_labels
from fewshot_seg.errors import DataError


def found_classes(files: Iterable[Path]) -> dict[int, str]:
    """Class id -> "class <id>", for all ids in these label files, which are all read."""
    found = {value for path in files for value in _class_ids(path)}
    return {value: f"class {value}" for value in sorted(found)}


def _class_ids(path: Path) -> set[int]:
    try:
        labels = read_picture_labels(path) if is_picture(path) else read_labels(path)[0]
    except DataError:
        # Loading its scan says so; here one damaged file must not hide the other scans.
        return set()
    return {int(value) for value in np.unique(labels) if value}
