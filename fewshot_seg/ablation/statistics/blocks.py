"""A frame of scores as one array whose blocks (fold, class, scan) line up across variants."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from fewshot_seg.ablation.statistics.arrays import known_mean
from fewshot_seg.errors import DataError

KEY = ["variant", "fold", "seed", "class_name", "scan_id"]
RULES = ["protocol", "data_version"]

Dice = Float[np.ndarray, "scan variant label seed"]
Folds = Int[np.ndarray, " scan"]


class Blocks(NamedTuple):
    """The scores of one protocol. Every axis is sorted, so the order of the rows plays no part.

    dice: in [0, 1], "scan variant label seed"; NaN where the scan was not scored. A scan that
        stands in the query sets of two folds is two scans here.
    folds: the fold of each scan.   variants, classes: names along their axes.
    """

    dice: Dice
    folds: Folds
    variants: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def seed_means(self) -> Float[np.ndarray, "scan variant label"]:
        """The mean over the seeds that scored the block; NaN where none did."""
        return known_mean(self.dice, -1)


def blocks(scores: pd.DataFrame) -> Blocks:
    """The array of a frame of scores (columns of `load_results`; others are ignored).

    Raises DataError for a frame that is empty, lacks a column, mixes protocols or data versions,
    holds a Dice outside [0, 1], or scores a block twice.
    """
    _check(scores)
    places = [pd.factorize(scores[name], sort=True) for name in ("variant", "class_name", "seed")]
    (variant, variants), (label, classes), (seed, seeds) = places
    scan, scans = pd.factorize(pd.MultiIndex.from_frame(scores[["fold", "scan_id"]]), sort=True)
    dice = np.full((len(scans), len(variants), len(classes), len(seeds)), np.nan)
    dice[scan, variant, label, seed] = scores["dice"].to_numpy(dtype=float)
    folds = np.array([fold for fold, _ in scans], dtype=np.int64)
    return Blocks(dice, folds, tuple(variants), tuple(classes))


def _check(scores: pd.DataFrame) -> None:
    if missing := [name for name in (*KEY, *RULES, "dice") if name not in scores.columns]:
        raise DataError(
            f"the frame of scores has no column {', '.join(missing)}; load_results makes one"
        )
    if scores.empty:
        raise DataError("no scores: nothing of this study has been evaluated yet")
    if empty := [name for name in KEY if scores[name].isna().any()]:
        raise DataError(f"some scores have no {', '.join(empty)}: nobody can tell whose they are")
    if "mean" in set(scores["class_name"]):
        raise DataError("a class is named 'mean', as the row over all classes is; rename it")
    for rule in RULES:
        if len(found := sorted(map(str, scores[rule].unique()))) > 1:
            raise DataError(
                f"scores of {len(found)} values of {rule} in one frame ({', '.join(found)}): they "
                f"cannot be compared; take one group of scores.groupby({RULES}) at a time"
            )
    if (wrong := ~scores["dice"].between(0.0, 1.0)).any():
        row = scores[wrong].iloc[0]
        raise DataError(f"dice={row['dice']} of {_told(row)} is no fraction from 0 to 1")
    if (double := scores.duplicated(KEY)).any():
        row = scores[double].iloc[0]
        raise DataError(f"{_told(row)} is scored twice: give different variants different labels")


def _told(row: pd.Series) -> str:
    return (
        f"{row['class_name']} in scan {row['scan_id']} (variant {row['variant']}, "
        f"fold {row['fold']}, seed {row['seed']})"
    )
