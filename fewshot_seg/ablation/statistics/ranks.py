"""Which variant is ahead most often: mean ranks over the scans."""

import math

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from fewshot_seg.ablation.statistics.blocks import blocks

_LEVEL = 0.05
_DIGITS = 12  # scores that are equal but for rounding errors share a rank


def ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """One row for each variant; 1 is the rank of the best.

    mean_rank: over the blocks (fold, class, scan) that every variant has, of the Dice averaged over
        seeds; equal scores share the mean of their ranks.
    friedman_p: of the hypothesis that all variants are alike (Friedman's test); NaN for fewer than
        three variants or two blocks, 1 when all variants tie everywhere.
    critical_difference: two mean ranks that lie further apart differ at the 5 % level (Nemenyi,
        Demšar 2006 section 3.2.2); NaN where friedman_p is.
    n_blocks: complete blocks.   n_dropped: blocks that some variant lacks. Without a complete block
        all figures are NaN.
    Raises DataError as `blocks` does.
    """
    found = blocks(scores)
    rows = np.round(found.seed_means, _DIGITS).swapaxes(1, 2).reshape(-1, len(found.variants))
    rows = rows[~np.isnan(rows).all(1)]
    complete = rows[~np.isnan(rows).any(1)]
    n_blocks, n_variants = complete.shape
    ordered = stats.rankdata(-complete, axis=1)
    mean = ordered.mean(0) if n_blocks else np.full(n_variants, np.nan)
    enough = n_variants >= 3 and n_blocks >= 2
    return pd.DataFrame(
        {
            "variant": np.array(found.variants, dtype=object),
            "mean_rank": mean,
            "friedman_p": _friedman(complete) if enough else np.nan,
            "critical_difference": _nemenyi(n_variants, n_blocks) if enough else np.nan,
            "n_blocks": n_blocks,
            "n_dropped": len(rows) - n_blocks,
        }
    )


def _friedman(rows: Float[np.ndarray, "block variant"]) -> float:
    if (rows == rows[:, :1]).all():
        return 1.0  # the statistic is 0 / 0
    return float(stats.friedmanchisquare(*rows.T).pvalue)


def _nemenyi(n_variants: int, n_blocks: int) -> float:
    studentized = stats.studentized_range.ppf(1 - _LEVEL, n_variants, math.inf) / math.sqrt(2)
    return float(studentized * math.sqrt(n_variants * (n_variants + 1) / (6 * n_blocks)))
