"""Small frames of scores for the tests of the statistics."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

Row = tuple[str, int, int, str, str, float]  # variant, fold, seed, class_name, scan_id, dice
COLUMNS = ["variant", "fold", "seed", "class_name", "scan_id", "dice"]


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Scores of one protocol and data version."""
    return pd.DataFrame(list(rows), columns=COLUMNS).assign(protocol="p1", data_version="d1")


def grid(
    dice: Callable[[tuple[int, ...]], np.ndarray],
    *,
    variants: int = 3,
    folds: int = 2,
    seeds: int = 1,
    classes: int = 2,
    scans: int = 4,
) -> pd.DataFrame:
    """Scores of every combination; `dice(shape)` gives "variant fold seed class scan"."""
    shape = (variants, folds, seeds, classes, scans)
    table = pd.DataFrame(np.stack([axis.ravel() for axis in np.indices(shape)], axis=1))
    variant, fold, seed, label, scan = (table[i] for i in range(5))
    return pd.DataFrame(
        {
            "variant": "v" + variant.astype(str).str.zfill(4),
            "fold": fold,
            "seed": seed,
            "class_name": "organ" + label.astype(str),
            "scan_id": "scan" + fold.astype(str) + "_" + scan.astype(str),
            "dice": dice(shape).ravel(),
            "protocol": "p1",
            "data_version": "d1",
        }
    )


def random_grid(seed: int, *, keep: float = 1.0, **sizes: int) -> pd.DataFrame:
    """Random scores, of which only the share `keep` is there."""
    generator = np.random.default_rng(seed)
    scores = grid(lambda shape: generator.uniform(0.2, 0.9, shape), **sizes)
    return scores[generator.random(len(scores)) < keep].reset_index(drop=True)


def patients(seed: int, *, share: float, low: float, high: float, **sizes: int) -> pd.DataFrame:
    """Uniform scores in which a patient's classes move together: correlation about `share`."""
    generator = np.random.default_rng(seed)

    def dice(shape: tuple[int, ...]) -> np.ndarray:
        common = (*shape[:3], 1, shape[4])
        normal = np.sqrt(share) * generator.normal(size=common)
        normal = normal + np.sqrt(1 - share) * generator.normal(size=shape)
        ranks = normal.ravel().argsort().argsort().reshape(shape)
        return low + (high - low) * (ranks + 0.5) / ranks.size

    return grid(dice, **sizes)


def row(table: pd.DataFrame, variant: str, class_name: str = "mean") -> pd.Series:
    """The only row of a variant and class in a summary."""
    found = table[(table.variant == variant) & (table.class_name == class_name)]
    assert len(found) == 1
    return found.iloc[0]
