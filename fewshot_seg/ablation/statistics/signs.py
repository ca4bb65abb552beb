"""Do the differences that a paper published have the same sign here, and how surely?"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from fewshot_seg.ablation.statistics.blocks import Blocks, blocks
from fewshot_seg.ablation.statistics.bootstrap import N_RESAMPLES, Estimate, estimate
from fewshot_seg.ablation.statistics.paired import differences
from fewshot_seg.errors import DataError, OptionError, did_you_mean

Published = Mapping[str, Mapping[str, float]]
Verdict = Literal[
    "reproduced", "same sign, unsure", "opposite sign, unsure", "contradicted", "not run"
]


class Ours(NamedTuple):
    """What was measured of a comparison, as in `paired`; as it stands here: nothing."""

    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n_pairs: int = 0


COLUMNS = ("variant", "against", "class_name", "paper", *Ours._fields, "verdict")


def signs(
    scores: pd.DataFrame,
    paper: Published,
    reference: str | None,
    *,
    pairs: Sequence[tuple[str, str]] = (),
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """One row for each comparison and each class (or "mean") that both sides were published for.

    paper: variant -> {class name or "mean": Dice in per cent}.
    reference: every published variant is compared with it; None for the listed pairs only.
    pairs: more comparisons, (variant, against).
    Columns: variant, against, class_name; paper: the published difference, variant less against,
    as a fraction like ours; difference, low, high, n_pairs: ours, see `paired`; verdict.
    "not run": no scan that both variants have, or a "mean" over other classes than the paper lists.
    Raises OptionError for an unknown reference or pair, DataError as `blocks` does and when the
    published figures are no per cent.
    """
    found = blocks(scores)
    _check_paper(paper)
    listed = [(name, reference) for name in paper if name != reference] if reference else []
    asked = list(dict.fromkeys([*listed, *pairs]))
    _check_names(asked, {*paper, *found.variants})
    run = [pair for pair in asked if set(pair) <= set(found.variants)]
    changes = differences(found, run)
    means = estimate(changes, found.folds, least=-1.0, seed=seed, n_resamples=n_resamples)
    ours = {pair: _ours(found, changes[:, i], means, i) for i, pair in enumerate(run)}
    rows = [
        (*pair, label, change, *own, verdict(change, own))
        for pair in asked
        for label, change in _published(paper, pair).items()
        for own in [_comparable(ours.get(pair, {}), label, paper, pair)]
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def verdict(paper: float, ours: Ours) -> Verdict:
    """Whether our difference has the paper's sign; sure when its interval does not hold 0.

    Where the paper's is 0, a sure difference contradicts it and any other agrees, unsure. An
    interval that could not be had (NaN) is unsure.
    """
    if math.isnan(ours.difference):
        return "not run"
    sure = ours.low > 0 or ours.high < 0
    if paper == 0:
        return "contradicted" if sure else "same sign, unsure"
    if paper * ours.difference > 0:
        return "reproduced" if sure else "same sign, unsure"
    return "contradicted" if sure else "opposite sign, unsure"


def _ours(found: Blocks, changes: np.ndarray, means: Estimate, pair: int) -> dict[str, Ours]:
    """What was measured of a pair for each class that was run, and for their "mean"."""
    known = ~np.isnan(changes)
    n_pairs = np.append(known.sum((0, 2)), known.any((1, 2)).sum())
    return {
        label: Ours(
            float(means.mean[pair, i]),
            float(means.low[pair, i]),
            float(means.high[pair, i]),
            int(n_pairs[i]),
        )
        for i, label in enumerate((*found.classes, "mean"))
        if n_pairs[i]
    }


def _published(paper: Published, pair: tuple[str, str]) -> dict[str, float]:
    """The published differences of a pair as fractions, in the paper's order."""
    first, second = (paper.get(name, {}) for name in pair)
    return {
        label: round(value - second[label], 9) / 100
        for label, value in first.items()
        if label in second
    }


def _comparable(
    ours: Mapping[str, Ours], label: str, paper: Published, pair: tuple[str, str]
) -> Ours:
    """Our figure for a published one; a mean over other classes is none."""
    classes = _published(paper, pair).keys() - {"mean"}
    if label == "mean" and classes and classes != ours.keys() - {"mean"}:
        return Ours()
    return ours.get(label, Ours())


def _check_paper(paper: Published) -> None:
    values = [value for row in paper.values() for value in row.values()]
    if values and not (min(values) >= 0 and 1 < max(values) <= 100):
        raise DataError(
            "published Dice are given in per cent, from 0 to 100; "
            f"these go from {min(values)} to {max(values)}"
        )


def _check_names(asked: Sequence[tuple[str, str]], known: set[str]) -> None:
    for name in dict.fromkeys(name for pair in asked for name in pair):
        if name not in known:
            raise OptionError(
                f"'{name}' is neither a published nor an evaluated variant"
                f"{did_you_mean(name, known)}; there are: {', '.join(sorted(known))}"
            )
