"""What voxel values may be: intensities that can be normalised, labels that are class ids."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, Shaped

from fewshot_seg.errors import DataError

MAX_CLASS_ID = int(np.iinfo(np.int32).max)


def as_image(path: Path, values: Shaped[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
    """Intensities as contiguous float32. Raises DataError for NaN, infinity or a constant image."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, counted below
        image = np.ascontiguousarray(values, dtype=np.float32)
    bad = image.size - int(np.isfinite(image).sum())
    if bad:
        raise DataError(
            f"{path} has {bad} of {image.size} voxels that are NaN or infinite; "
            "replace them, for example with the value of air"
        )
    if image.min() == image.max():
        raise DataError(
            f"{path} has the value {image.min():g} in every voxel; an image needs contrast. "
            "Check that it was exported completely and is not a label file"
        )
    return image


def as_labels(path: Path, values: Shaped[np.ndarray, "*axes"]) -> Integer[np.ndarray, "*axes"]:
    """Class ids as contiguous int16 (int32 above 32767); whole numbers stored as float will do.

    Signed, so that a difference of ids cannot wrap round. Raises DataError for fractions, NaN,
    negative ids and ids above 2**31 - 1.
    """
    if values.dtype.kind == "f":
        fractions = values.size - int((values == np.rint(values)).sum())  # NaN counts, inf below
        if fractions:
            raise DataError(
                f"{path} has {fractions} voxels that are not whole numbers, but labels are class "
                "ids; it may be an image, or labels resampled without nearest neighbour"
            )
    low, high = values.min(), values.max()
    if low < 0:
        raise DataError(f"{path} has labels down to {low}, but class ids start at 0 (background)")
    if high > MAX_CLASS_ID:
        raise DataError(f"{path} has labels up to {high}; class ids end at {MAX_CLASS_ID}")
    kind = np.int16 if high <= np.iinfo(np.int16).max else np.int32
    return np.ascontiguousarray(values, dtype=kind)
