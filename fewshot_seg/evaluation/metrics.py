"""How well a predicted volume fits the truth: pooled Dice, 95 % Hausdorff and surface distance."""

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

# Underscored axes are not compared by jaxtyping: `_same_shape` says it in plain words.
Volume = Bool[np.ndarray, "_slice _height _width"]
Unit = Literal["mm", "px"]


@dataclass(frozen=True)
class Counts:
    """Voxels of a scan, pooled over all its scored slices."""

    true_positive: int
    false_positive: int
    false_negative: int

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN), in [0, 1]; 1 when both masks are empty (they are equal)."""
        total = 2 * self.true_positive + self.false_positive + self.false_negative
        return 2 * self.true_positive / total if total else 1.0


def count(prediction: Volume, truth: Volume) -> Counts:
    """Compare two masks voxel by voxel. Raises ValueError when their shapes differ."""
    _same_shape(prediction, truth)
    overlap = int(np.count_nonzero(prediction & truth))
    return Counts(overlap, int(np.count_nonzero(prediction)) - overlap, int(truth.sum()) - overlap)


def dice(prediction: Volume, truth: Volume) -> float:
    """Dice over all voxels of the volume, in [0, 1]; see `Counts.dice`."""
    return count(prediction, truth).dice


def mean_slice_dice(prediction: Volume, truth: Volume) -> float:
    """The mean Dice of single slices, in [0, 1].

    A slice that is empty in both is left out: counted as 1 it would reward a scan for having many
    slices without the organ. One that is empty in prediction or truth alone counts as 0. NaN when
    no slice is left. Raises ValueError when the shapes differ.
    """
    _same_shape(prediction, truth)
    in_plane = (1, 2)
    overlap = np.count_nonzero(prediction & truth, axis=in_plane)
    total = np.count_nonzero(prediction, axis=in_plane) + np.count_nonzero(truth, axis=in_plane)
    kept = total > 0
    return float((2 * overlap[kept] / total[kept]).mean()) if kept.any() else math.nan


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces; NaN when prediction or truth is empty.

    hd95: the larger of the two directed 95th percentiles.
    assd: the mean over both surfaces of the distance to the other one.
    unit: "mm", or "px" when the scan's spacing is unknown.
    """

    hd95: float
    assd: float
    unit: Unit


def surface_distances(
    prediction: Volume, truth: Volume, spacing: tuple[float, float, float] | None
) -> SurfaceDistances:
    """HD95 and ASSD of two volumes, by MONAI.

    spacing: millimetres along (slice, height, width); None counts pixels. A volume of one slice
    is compared in its plane (otherwise each of its pixels would be surface).
    Raises ValueError when the shapes differ.
    """
    _same_shape(prediction, truth)
    unit: Unit = "px" if spacing is None else "mm"
    if not prediction.any() or not truth.any():
        return SurfaceDistances(math.nan, math.nan, unit)
    steps = (1.0, 1.0, 1.0) if spacing is None else spacing
    if prediction.shape[0] == 1:
        return SurfaceDistances(*_monai(prediction[0], truth[0], steps[1:]), unit)
    return SurfaceDistances(*_monai(prediction, truth, steps), unit)


def _monai(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]
) -> tuple[float, float]:
    # Here and not on top: importing MONAI takes seconds, and most callers want Dice only.
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    masks = [torch.from_numpy(mask[None, None]) for mask in (prediction, truth)]
    options = {"include_background": True, "spacing": spacing}
    with warnings.catch_warnings():
        # MONAI 1.5 and 1.6 call a deprecated option of their own, which no caller can help.
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        hd95 = compute_hausdorff_distance(*masks, percentile=95, **options)
        assd = compute_average_surface_distance(*masks, symmetric=True, **options)
    return float(hd95), float(assd)


def _same_shape(prediction: np.ndarray, truth: np.ndarray) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(
            f"the prediction has shape {prediction.shape} but the truth {truth.shape} "
            "(slice, height, width)"
        )
