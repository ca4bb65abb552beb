"""Every variant against one, on the scans that both have."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats
from statsmodels.stats.multitest import multipletests

from fewshot_seg.ablation.statistics.arrays import known_mean
from fewshot_seg.ablation.statistics.blocks import Blocks, Dice, blocks
from fewshot_seg.ablation.statistics.bootstrap import N_RESAMPLES, estimate
from fewshot_seg.errors import check_choice

_DIGITS = 12  # differences that are equal but for rounding errors are ties


def paired(
    scores: pd.DataFrame, reference: str, *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """One row for each variant but the reference, from the blocks (fold, class, scan) both have.

    difference: variant less reference, the mean over scans, folds and classes; Dice in [-1, 1].
    low, high: its 95 % bootstrap interval (INTERVAL_RULE, drawing pairs).
    p: two-sided Wilcoxon signed-rank test over the scans of the folds, each with the mean of its
        classes' differences, as the organs of a patient are no independent witnesses; see
        `signed_rank`. p_holm: the same after Holm's correction for all variants that have one.
    n_pairs: scans with a class that both have. With none, everything else is NaN.
    For one organ hand in `scores[scores.class_name == "liver"]`.
    Raises OptionError for a reference without scores, DataError as `blocks` does.
    """
    found = blocks(scores)
    check_choice("reference", reference, found.variants)
    others = [name for name in found.variants if name != reference]
    pairs = differences(found, [(name, reference) for name in others])
    means = estimate(pairs, found.folds, least=-1.0, seed=seed, n_resamples=n_resamples)
    by_scan = known_mean(pairs[..., 0], 2)  # scan pair
    p = np.array([signed_rank(by_scan[:, i]) for i in range(len(others))])
    return pd.DataFrame(
        {
            "variant": np.array(others, dtype=object),
            "difference": means.mean[:, -1],
            "low": means.low[:, -1],
            "high": means.high[:, -1],
            "p": p,
            "p_holm": holm(p),
            "n_pairs": (~np.isnan(by_scan)).sum(0),
        }
    )


def differences(found: Blocks, pairs: Sequence[tuple[str, str]]) -> Dice:
    """First less second variant of each pair, "scan pair label 1"; NaN where either is missing."""
    place = {name: index for index, name in enumerate(found.variants)}
    first, second = ([place[pair[side]] for pair in pairs] for side in (0, 1))
    means = found.seed_means
    return np.round(means[:, first] - means[:, second], _DIGITS)[..., None]


def signed_rank(pairs: np.ndarray) -> float:
    """The p-value of Wilcoxon's two-sided signed-rank test; NaN entries are no pairs.

    Pairs without a difference are left out (Wilcoxon's rule). Exact for up to 50 differences
    without ties and 13 with ties, else the normal approximation (scipy's "auto"). 1 when no pair
    differs, NaN for fewer than two pairs.
    """
    known = pairs[~np.isnan(pairs)]
    if known.size < 2:
        return np.nan
    moved = known[known != 0]
    if moved.size == 0:
        return 1.0
    return float(stats.wilcoxon(moved, zero_method="wilcox", method="auto").pvalue)


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Holm's correction of the p-values that are numbers; NaN stays NaN and is no test."""
    known = ~np.isnan(p)
    corrected = np.full(p.shape, np.nan)
    if known.any():
        corrected[known] = multipletests(p[known], method="holm")[1]
    return corrected
