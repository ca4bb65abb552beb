"""Means and spreads of the scores of one class."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fewshot_seg.evaluation.scores import ScanScore

Metric = Literal["dice", "slice_dice", "hd95", "assd"]


@dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """One class over scans and folds; a figure without any score behind it is NaN.

    dice: mean over query scans, then folds and seeds, in [0, 1].   slice_dice: the same of the
    mean Dice of single slices.   median: of all scans (what
    SE-Net reports).   sd_scans: standard deviation over all scans; sd_folds: of the folds' means;
    both with n - 1, NaN for fewer than two.
    hd95, assd: means in `unit` over the scans that have a distance; `n_without_surface` scans
    have none, because nothing was predicted.
    """

    dice: float
    median: float
    sd_scans: float
    sd_folds: float
    hd95: float
    assd: float
    unit: str
    n_scans: int
    n_folds: int
    n_without_surface: int
    slice_dice: float = math.nan
    n_failed: int = 0
    n_skipped: int = 0


def summarise(rows: Sequence[ScanScore], *, n_failed: int = 0, n_skipped: int = 0) -> ClassSummary:
    """The summary of one class's scores.

    Raises ValueError when some distances are in millimetres and some in pixels.
    """
    units = sorted({row.unit for row in rows if _known(row.hd95)})
    if len(units) > 1:
        raise ValueError(
            f"distances of '{rows[0].class_name}' are in {' and in '.join(units)}: give every "
            "scan a spacing, or evaluate the scans with and without one apart"
        )
    folds = _fold_means(rows, "dice")
    dices = [row.dice for row in rows]
    return ClassSummary(
        dice=_mean(folds),
        median=statistics.median(dices) if dices else math.nan,
        sd_scans=_sd(dices),
        sd_folds=_sd(folds),
        hd95=fold_mean(rows, "hd95"),
        assd=fold_mean(rows, "assd"),
        unit=units[0] if units else "mm",
        n_scans=len(rows),
        n_folds=len({row.fold for row in rows}),
        n_without_surface=sum(row.hd95 is not None and math.isnan(row.hd95) for row in rows),
        slice_dice=fold_mean(rows, "slice_dice"),
        n_failed=n_failed,
        n_skipped=n_skipped,
    )


def fold_mean(rows: Sequence[ScanScore], metric: Metric) -> float:
    """Mean over the scans of a fold (and seed), then over those; NaN without any value."""
    return _mean(_fold_means(rows, metric))


def _fold_means(rows: Sequence[ScanScore], metric: Metric) -> list[float]:
    folds: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        value = getattr(row, metric)
        if _known(value):
            folds.setdefault((row.seed, row.fold), []).append(value)
    return [_mean(values) for values in folds.values()]


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan
