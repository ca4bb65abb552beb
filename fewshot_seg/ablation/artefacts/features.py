"""Features of pixels with their true class: the points of a t-SNE picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from fewshot_seg.ablation.artefacts.datafile import read_data, unusable, write_data
from fewshot_seg.errors import DataError

KIND = "features"


@dataclass(frozen=True, eq=False)
class FeatureSample:
    """Some cells of the test slices' feature maps, as the decoder compares them with prototypes.

    labels: 0 for background (other organs too), k for classes[k - 1].
    note: why there are none, for a method that has no such maps; else empty.
    """

    features: Float[np.ndarray, "point dim"]
    labels: UInt8[np.ndarray, " point"]
    classes: tuple[str, ...]
    note: str = ""


def write_features(path: Path, sample: FeatureSample) -> None:
    """Write a file, half as large as single precision. Raises DataError when that is refused."""
    scale = float(np.abs(sample.features).max(initial=0)) or 1.0
    arrays = {
        # within [-1, 1], as 16 bits end at 65504
        "features": (sample.features / scale).astype(np.float16),
        "labels": sample.labels,
    }
    table = {"classes": list(sample.classes), "note": sample.note, "scale": scale}
    write_data(path, KIND, arrays, table)


def read_features(path: Path) -> FeatureSample:
    """What `write_features` wrote, to 3 digits. Raises DataError for anything else."""
    arrays, table = read_data(path, KIND)
    try:
        classes = _words(table["classes"])
        scale, note = float(table["scale"]), str(table["note"])
        features, labels = arrays["features"], arrays["labels"]
        if features.ndim != 2 or features.dtype != np.float16:
            raise ValueError(f"its features are {features.dtype} of shape {features.shape}")
        if labels.shape != features.shape[:1] or labels.dtype != np.uint8:
            raise ValueError(f"its {len(features)} points have labels of shape {labels.shape}")
        if labels.max(initial=0) > len(classes):
            raise ValueError(f"label {labels.max()} is none of {len(classes)} classes")
        if not (np.isfinite(features).all() and np.isfinite(scale)):
            raise ValueError("its features are not finite")
    except (KeyError, TypeError, ValueError) as error:
        raise unusable(path, KIND, error) from error
    return FeatureSample(features.astype(np.float32) * np.float32(scale), labels, classes, note)


def no_features(classes: Sequence[str], note: str) -> FeatureSample:
    """Of a method that has none to show."""
    return FeatureSample(np.zeros((0, 0), np.float32), np.zeros(0, np.uint8), tuple(classes), note)


def _words(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{values!r} are no names of classes")
    return tuple(values)
