"""Means and standard deviations that leave out NaN, without a warning where nothing is left."""

import numpy as np


def ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """total / count, NaN where there is nothing to divide by."""
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def known_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of the numbers along an axis; NaN where there are none."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis), known.sum(axis))


def known_sd(values: np.ndarray) -> np.ndarray:
    """The standard deviation (n - 1) of the numbers along the last axis; NaN for fewer than two."""
    known = ~np.isnan(values)
    away = np.where(known, values - known_mean(values, -1)[..., None], 0.0)
    return np.sqrt(ratio((away**2).sum(-1), known.sum(-1) - 1))
