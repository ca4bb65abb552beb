"""How large what was found is, how right where that is known, and what looks odd."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fewshot_seg.data.nifti import read_labels
from fewshot_seg.data.pictures import is_picture, read_picture_labels
from fewshot_seg.evaluation.metrics import dice
from fewshot_seg.inference import Written

ODD = 3.0
"""A volume so many times larger or smaller than the labelled one is worth a look."""


def sizes_of(labels: Path, classes: Iterable[int]) -> dict[int, float]:
    """Millilitres of each class in a label file; of a picture, per cent of its area."""
    if is_picture(labels):
        ids = read_picture_labels(labels)
        return {value: 100 * float((ids == value).mean()) for value in classes}
    ids, geometry = read_labels(labels)
    voxel = abs(float(np.linalg.det(geometry.affine[:3, :3]))) / 1000
    return {value: voxel * int((ids == value).sum()) for value in classes}


def scores_of(found: Path, truth: Path, classes: Iterable[int]) -> dict[int, float]:
    """Dice of each class that either file shows."""
    ids, right = (
        read_picture_labels(path) if is_picture(path) else read_labels(path)[0]
        for path in (found, truth)
    )
    return {
        value: dice(ids == value, right == value)
        for value in classes
        if (ids == value).any() or (right == value).any()
    }


def odd_ones(
    volumes: Mapping[str, Mapping[int, float]],
    answers: Mapping[str, Written],
    expected: Mapping[int, float],
    classes: Mapping[int, str],
) -> dict[str, str]:
    """Scans with a class that is missing or far larger or smaller than in the examples."""
    odd = {}
    for scan_id, row in volumes.items():
        whys = list(answers[scan_id].notes)
        for value, name in classes.items():
            ratio = row[value] / expected[value]
            if ratio > ODD or 0 < ratio < 1 / ODD:
                whys.append(f"{name} is {ratio:.2g} times as large as in the example")
        if whys:
            odd[scan_id] = "; ".join(whys)
    return odd
