"""The mean of each variant with its two spreads: over runs, and over scans."""

import numpy as np
import pandas as pd

from fewshot_seg.ablation.statistics.arrays import known_mean, known_sd
from fewshot_seg.ablation.statistics.blocks import Blocks, blocks
from fewshot_seg.ablation.statistics.bootstrap import N_RESAMPLES, estimate
from fewshot_seg.ablation.statistics.means import Values, run_means

COLUMNS = (
    "variant", "class_name", "mean", "sd", "low", "high", "n_scans", "n_runs", "n_classes",
)  # fmt: skip


def summary(scores: pd.DataFrame, *, seed: int = 0, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """One row for each variant and class, and one with class_name "mean" over its classes.

    mean: Dice in [0, 1] over query scans, then folds and seeds, then classes (`Results.mean`).
    sd: standard deviation (n - 1) of the runs' means, a run being a fold with a seed; NaN for a
        single run. The mean over classes counts the runs that have all classes of the variant.
    low, high: 95 % bootstrap interval (INTERVAL_RULE); NaN where some run has a single scan.
    n_scans: query scans (of a fold) with a score.   n_runs: runs with a score.
    n_classes: classes behind the row; "mean" rows of different counts are not comparable.
    seed, n_resamples: of the bootstrap's draws.
    Raises DataError for scores that do not belong in one table, see `blocks`.
    """
    found = blocks(scores)
    means = estimate(found.dice, found.folds, least=0.0, seed=seed, n_resamples=n_resamples)
    known = ~np.isnan(means.mean)
    counts = _counts(found)
    variants = np.array(found.variants, dtype=object)[:, None]
    labels = np.array([*found.classes, "mean"], dtype=object)[None]
    names = (np.broadcast_to(each, known.shape) for each in (variants, labels))
    columns = (*names, means.mean, _sd(found), means.low, means.high, *counts)
    return pd.DataFrame({name: each[known] for name, each in zip(COLUMNS, columns)})


def _sd(found: Blocks) -> Values:
    runs = run_means(found.dice, found.folds)  # variant label run
    wanted = ~np.isnan(runs).all(-1, keepdims=True)  # the classes of each variant
    incomplete = (np.isnan(runs) & wanted).any(1)  # variant run
    means = np.where(incomplete, np.nan, known_mean(runs, 1))
    return known_sd(np.concatenate([runs, means[:, None]], axis=1))


def _counts(found: Blocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scans, runs and classes behind each figure, "variant label" with the mean as last label."""
    runs = ~np.isnan(run_means(found.dice, found.folds))
    scans = (~np.isnan(found.dice)).any(-1)  # scan variant label
    n_scans = np.concatenate([scans.sum(0), scans.any(2).sum(0)[:, None]], axis=1)
    n_runs = np.concatenate([runs.sum(2), runs.any(1).sum(1)[:, None]], axis=1)
    n_classes = np.ones_like(n_runs)
    n_classes[:, -1] = runs.any(2).sum(1)
    return n_scans, n_runs, n_classes
