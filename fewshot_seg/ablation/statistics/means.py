"""Means over scans, then folds and seeds, then classes, of any weighting of the scans.

The scores as they are (every scan once) and each bootstrap draw of them go the same way.
"""

import numpy as np
from jaxtyping import Float

from fewshot_seg.ablation.statistics.arrays import ratio
from fewshot_seg.ablation.statistics.blocks import Dice, Folds

Values = Float[np.ndarray, "variant figure"]  # a figure: of a class, the last of their mean
Draws = Float[np.ndarray, "variant figure draw"]
Weights = list[tuple[slice, Float[np.ndarray, "draw _"]]]  # of each fold: its scans


def means(dice: Dice, weights: Weights) -> Draws:
    """The means of each draw; the last figure is the mean over the classes.

    A draw that leaves a run without any of its scans has no mean.
    """
    n_draws = weights[0][1].shape[0]
    total = np.zeros((*dice.shape[1:3], n_draws))
    n_runs = np.zeros((*dice.shape[1:3], 1))
    for rows, weight in weights:
        there = ~np.isnan(dice[rows]).all(0)  # variant label seed
        found = _fold_means(dice[rows], weight)
        total += np.where(there[..., None], found, 0.0).sum(2)
        n_runs += there.sum(-1, keepdims=True)
    classes = ratio(total, n_runs)
    known = n_runs > 0
    mean = ratio(np.where(known, classes, 0.0).sum(1), known.sum(1).astype(float))
    return np.concatenate([classes, mean[:, None]], axis=1)


def run_means(dice: Dice, folds: Folds) -> Float[np.ndarray, "variant label run"]:
    """The mean over the scans of each run (a fold with a seed); NaN for one without scores."""
    found = [_fold_means(dice[rows], weight)[..., 0] for rows, weight in once(folds)]
    return np.concatenate(found, axis=-1)


def once(folds: Folds) -> Weights:
    """The weights of the scores as they are: every scan once, in a single draw."""
    return [(rows, np.ones((1, rows.stop - rows.start))) for rows in fold_rows(folds)]


def fold_rows(folds: Folds) -> list[slice]:
    """Where each fold stands in ascending `folds`."""
    starts = np.flatnonzero(np.diff(folds, prepend=folds[0] - 1))
    return [slice(int(a), int(b)) for a, b in zip(starts, [*starts[1:], len(folds)])]


def _fold_means(
    dice: Dice, weight: Float[np.ndarray, "draw scan"]
) -> Float[np.ndarray, "variant label seed draw"]:
    known = ~np.isnan(dice)
    total = np.tensordot(np.where(known, dice, 0.0), weight, (0, 1))
    if known.all():
        return ratio(total, weight.sum(1))
    return ratio(total, np.tensordot(known.astype(float), weight, (0, 1)))
