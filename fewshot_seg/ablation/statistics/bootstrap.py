"""Bootstrap intervals of means over scans, folds and classes.

One draw takes from each fold's n query scans n - 1, with replacement, and the mean is computed anew
as `Results.mean` does. All classes, seeds and variants of a scan go with it: the organs of one
patient are no independent evidence, and a difference of two variants is one of pairs.

Percentiles of such draws are too close together when scans are few, for two reasons. n draws from n
scans have (n - 1) / n of the variance that a mean has: hence n - 1 (McCarthy and Snowden 1985, The
Bootstrap and Finite Population Sampling; Rao and Wu 1988). And the spread itself is uncertain,
which a t-distribution allows for and percentiles do not: hence both ends are moved away from the
mean by the ratio of the t-quantile to the normal one. (Hesterberg 2015, What Teachers Should Know
About the Bootstrap, takes further percentiles instead; of four scans there are none.) The degrees
of freedom are the scans less the folds. docs/statistics.md has the measured coverage.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from fewshot_seg.ablation.statistics.blocks import Dice, Folds
from fewshot_seg.ablation.statistics.means import Draws, Values, Weights, fold_rows, means, once
from fewshot_seg.errors import OptionError

N_RESAMPLES = 10_000
INTERVAL_RULE = (
    "95 % bootstrap interval over query scans: in each fold n - 1 of its n scans are drawn with "
    "replacement, each with all its classes and seeds; percentiles widened by t / z"
)
_TAIL = 0.025
_CHUNK = 2**20  # numbers in the largest array, 8 MiB: it stays in the cache


class Estimate(NamedTuple):
    """Means and the ends of their 95 % intervals; the last figure is the mean over the classes.

    A mean without scores is NaN, and so is the interval of one that rests, in any of its folds, on
    a single scan: one scan says nothing about the spread.
    """

    mean: Values
    low: Values
    high: Values


def estimate(dice: Dice, folds: Folds, *, least: float, seed: int, n_resamples: int) -> Estimate:
    """Means over scans, then folds and seeds, then classes, with their intervals.

    folds: ascending.   least: the smallest value there can be; the largest is 1.
    seed: of the draws, which are the same for every variant.
    """
    if n_resamples < 1:
        raise OptionError(f"n_resamples={n_resamples}: at least 1 draw is needed, better 10000")
    mean = means(dice, once(folds))[..., 0]
    weights = _draw(folds, np.random.default_rng(seed), n_resamples)
    ends = [_percentiles(means(part, weights)) for part in _chunks(dice, n_resamples)]
    wide = mean + (np.concatenate(ends, axis=1) - mean) * _widening(dice, folds)
    low, high = np.clip(wide, least, 1.0)
    # Where all scores are equal, the ends differ from the mean by rounding errors only.
    return Estimate(mean, np.minimum(low, mean), np.maximum(high, mean))


def _draw(folds: Folds, generator: np.random.Generator, n_resamples: int) -> Weights:
    """For each fold, how often each of its scans is drawn, "draw scan"."""
    drawn: Weights = []
    for rows in fold_rows(folds):
        n = rows.stop - rows.start
        counts = generator.multinomial(n - 1, np.full(n, 1 / n), size=n_resamples)
        drawn.append((rows, counts.astype(float)))
    return drawn


def _percentiles(drawn: Draws) -> Float[np.ndarray, "2 variant figure"]:
    """The outer percentiles of the draws that have a mean."""
    ends = np.quantile(drawn, (_TAIL, 1 - _TAIL), axis=-1)
    for place in zip(*np.nonzero(np.isnan(ends[0]))):
        known = drawn[place][~np.isnan(drawn[place])]
        if known.size:
            ends[(slice(None), *place)] = np.quantile(known, (_TAIL, 1 - _TAIL))
    return ends


def _widening(dice: Dice, folds: Folds) -> Values:
    """t / z; NaN where some run has scores of a single scan."""
    known = [~np.isnan(dice[rows]) for rows in fold_rows(folds)]
    thin = np.any([(each.sum(0) == 1).any(-1) for each in known], axis=0)  # variant label
    scans = [each.any(-1) for each in known]  # scan variant label
    figures = [np.concatenate([each, each.any(2, keepdims=True)], axis=2) for each in scans]
    freedom = sum(each.sum(0) - each.any(0) for each in figures)
    thin = np.concatenate([thin, thin.any(1, keepdims=True)], axis=1)
    usable = np.where(thin | (freedom < 1), np.nan, freedom)
    return stats.t.ppf(1 - _TAIL, usable) / stats.norm.ppf(1 - _TAIL)


def _chunks(dice: Dice, n_resamples: int) -> Iterator[Dice]:
    """The variants in groups whose draws fit in memory."""
    each = max(1, _CHUNK // (dice.shape[2] * dice.shape[3] * n_resamples))
    for start in range(0, max(dice.shape[1], 1), each):
        yield dice[:, start : start + each]
