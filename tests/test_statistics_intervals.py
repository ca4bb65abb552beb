"""Bootstrap intervals over scans."""

import math
import random

import numpy as np
import pytest

pd = pytest.importorskip("pandas", reason="the extra 'ablation' is not installed")
pytest.importorskip("statsmodels", reason="the extra 'ablation' is not installed")

from scipy import stats  # noqa: E402
from statistics_cases import frame, grid, patients, random_grid, row  # noqa: E402

from fewshot_seg.ablation.statistics import paired, summary  # noqa: E402

Z = 1.959963984540054  # the normal distribution's 97.5 % quantile


def test_interval_by_hand() -> None:
    """Two folds of two scans: a draw takes one of each, so four means are equally likely."""
    scores = frame(
        [
            ("a", 0, 0, "liver", "1", 0.50), ("a", 0, 0, "liver", "2", 0.54),
            ("a", 1, 0, "liver", "3", 0.60), ("a", 1, 0, "liver", "4", 0.70),
        ]
    )  # fmt: skip
    found = row(summary(scores), "a", "liver")
    wider = 4.302652729911275 / Z  # t with 4 scans less 2 folds
    assert found["mean"] == pytest.approx(0.585)
    assert found.low == pytest.approx(0.585 - (0.585 - 0.55) * wider)
    assert found.high == pytest.approx(0.585 + (0.62 - 0.585) * wider)


def test_three_of_four_scans_are_drawn() -> None:
    """Thrice the worst comes 1 time in 64, twice the worst and once the next 3 times in 64."""
    scores = frame(("a", 0, 0, "liver", str(i), d) for i, d in enumerate((0.3, 0.4, 0.6, 0.7)))
    found = row(summary(scores), "a", "liver")
    wider = 3.182446305284263 / Z  # t with 4 scans less 1 fold
    assert found.low == pytest.approx(0.5 - (0.5 - (0.3 + 0.3 + 0.4) / 3) * wider)
    assert found.high == pytest.approx(0.5 + ((0.7 + 0.7 + 0.6) / 3 - 0.5) * wider)


def test_interval_against_a_slow_loop() -> None:
    scores = random_grid(3, keep=0.85, variants=1, folds=2, seeds=2, classes=2, scans=6)
    value = {
        (each.fold, each.seed, each.class_name, each.scan_id): each.dice
        for each in scores.itertuples()
    }
    scans = {fold: sorted(set(group.scan_id)) for fold, group in scores.groupby("fold", sort=True)}
    draw = random.Random(5)
    means = []
    for _ in range(4000):
        chosen = {fold: draw.choices(ids, k=len(ids) - 1) for fold, ids in scans.items()}
        classes = []
        for name in ("organ0", "organ1"):
            runs = []
            for fold, ids in chosen.items():
                for seed in (0, 1):
                    got = [value[key] for i in ids if (key := (fold, seed, name, i)) in value]
                    runs.append(sum(got) / len(got) if got else math.nan)
            classes.append(sum(runs) / len(runs))
        means.append(sum(classes) / len(classes))
    found = row(summary(scores), "v0000")
    wider = stats.t.ppf(0.975, sum(map(len, scans.values())) - 2) / Z
    low, high = np.nanquantile(means, (0.025, 0.975))
    assert found.low == pytest.approx(found["mean"] + (low - found["mean"]) * wider, abs=0.006)
    assert found.high == pytest.approx(found["mean"] + (high - found["mean"]) * wider, abs=0.006)


def test_the_classes_of_a_scan_are_drawn_together() -> None:
    """Two organs whose scores cancel in each patient leave nothing to be unsure of."""
    swings = np.array([[0.1, -0.2, 0.05, 0.15], [-0.1, 0.2, -0.05, -0.15]])
    table = summary(grid(lambda shape: np.broadcast_to(0.5 + swings, shape), variants=1))
    mean = row(table, "v0000")
    assert (mean.low, mean.high) == (pytest.approx(0.5), pytest.approx(0.5))
    assert row(table, "v0000", "organ0").high > 0.55
    alike = summary(grid(lambda shape: np.broadcast_to(0.5 + swings[:1], shape), variants=1))
    one, both = row(alike, "v0000", "organ0"), row(alike, "v0000")
    assert (both.low, both.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_a_draw_without_the_organ_has_no_mean() -> None:
    """Three of six scans show it: 1 draw of 32 has none of them, and 1 of 10 only the worst."""
    scores = frame(("a", 0, 0, "liver", str(i), 0.5) for i in range(6))
    rare = frame(("a", 0, 0, "gall", str(i), d) for i, d in enumerate((0.49, 0.5, 0.51)))
    found = row(summary(pd.concat([scores, rare])), "a", "gall")
    wider = 4.302652729911275 / Z  # t with 3 scans less 1 fold
    assert found.low == pytest.approx(0.5 - 0.01 * wider)
    assert found.high == pytest.approx(0.5 + 0.01 * wider)


@pytest.mark.parametrize(
    ("folds", "scans", "least"),
    [(5, 4, 0.93), (1, 4, 0.89)],
    ids=["20 scans in 5 folds", "one fold of 4 scans"],
)
def test_coverage(folds: int, scans: int, least: float) -> None:
    """The truth is in about 95 of 100 intervals, organs moving together or not."""
    scores = patients(
        7, share=0.4, low=0.3, high=0.8, variants=600, folds=folds, classes=4, scans=scans
    )
    table = summary(scores, n_resamples=1000)
    inside = (table.low <= 0.55) & (table.high >= 0.55)
    share = inside.groupby(table.class_name == "mean").mean()
    assert share[True] >= least
    assert share[False] >= least
    assert share.max() <= 0.975


def test_degenerate_intervals() -> None:
    one = row(summary(frame([("a", 0, 0, "liver", "1", 0.7)])), "a")
    assert one["mean"] == 0.7
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert math.isnan(one.sd)
    assert (one.n_scans, one.n_runs) == (1, 1)
    equal = row(summary(grid(lambda shape: np.full(shape, 0.7), variants=1)), "v0000")
    assert (equal.low, equal.high) == (pytest.approx(0.7), pytest.approx(0.7))
    assert equal.low <= equal["mean"] <= equal.high  # whiskers have no negative length
    assert equal.sd == pytest.approx(0.0)


def test_a_fold_with_one_scan_has_no_interval() -> None:
    scores = grid(lambda shape: np.linspace(0.3, 0.7, math.prod(shape)), variants=1, folds=2)
    thin = scores[
        (scores.fold == 0) | (scores.class_name == "organ1") | (scores.scan_id == "scan1_0")
    ]
    table = summary(thin)
    assert math.isnan(row(table, "v0000", "organ0").low)
    assert math.isnan(row(table, "v0000").low)
    assert row(table, "v0000", "organ1").low < row(table, "v0000", "organ1").high


def test_intervals_stay_inside_what_dice_can_be() -> None:
    scores = frame(
        [("a", 0, 0, "liver", str(i), dice) for i, dice in enumerate((0.0, 0.0, 0.0, 1.0))]
        + [("b", 0, 0, "liver", str(i), dice) for i, dice in enumerate((1.0, 1.0, 1.0, 0.0))]
    )
    table = summary(scores)
    assert row(table, "a").low == 0.0
    assert row(table, "b").high == 1.0
    assert paired(scores, "a").high.item() == 1.0


def test_the_draws_are_seeded() -> None:
    scores = random_grid(8)
    pd.testing.assert_frame_equal(summary(scores), summary(scores))
    other = summary(scores, seed=1)
    assert (other.low != summary(scores).low).any()
    np.testing.assert_allclose(other.low, summary(scores).low, atol=0.01)
