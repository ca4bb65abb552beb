"""Means and spreads of a study's scores, and what all statistics have in common."""

import importlib
import importlib.util
import math
import time

import pytest

pd = pytest.importorskip("pandas", reason="the extra 'ablation' is not installed")
pytest.importorskip("statsmodels", reason="the extra 'ablation' is not installed")

from statistics_cases import frame, random_grid, row  # noqa: E402

from fewshot_seg.ablation import statistics  # noqa: E402
from fewshot_seg.ablation.statistics import paired, ranks, signs, summary  # noqa: E402
from fewshot_seg.errors import DataError, OptionError  # noqa: E402
from fewshot_seg.evaluation import Protocol, Results  # noqa: E402
from fewshot_seg.evaluation.scores import FoldScores, ScanScore  # noqa: E402

HAND = frame(
    [
        ("a", 0, 0, "liver", "1", 0.8), ("a", 0, 0, "liver", "2", 0.6),  # run 0/0: 0.7
        ("a", 0, 1, "liver", "1", 0.9), ("a", 0, 1, "liver", "2", 0.9),  # run 0/1: 0.9
        ("a", 1, 0, "liver", "3", 0.5), ("a", 1, 0, "liver", "4", 0.5),  # run 1/0: 0.5
        ("a", 0, 0, "spleen", "1", 0.2), ("a", 0, 0, "spleen", "2", 0.4),  # 0.3
        ("a", 0, 1, "spleen", "1", 0.3), ("a", 0, 1, "spleen", "2", 0.5),  # 0.4
    ]
)  # fmt: skip


def test_summary_by_hand() -> None:
    table = summary(HAND)
    liver, spleen, mean = (row(table, "a", name) for name in ("liver", "spleen", "mean"))
    assert liver["mean"] == pytest.approx((0.7 + 0.9 + 0.5) / 3)
    assert liver["sd"] == pytest.approx(0.2)
    assert (liver.n_scans, liver.n_runs, liver.n_classes) == (4, 3, 1)
    assert spleen["mean"] == pytest.approx(0.35)
    assert spleen["sd"] == pytest.approx(math.sqrt(0.005))
    assert (spleen.n_scans, spleen.n_runs) == (2, 2)
    assert mean["mean"] == pytest.approx((0.7 + 0.35) / 2)
    # Run 1/0 has no spleen: its 0.5 is no mean of the same thing as 0.5 and 0.65.
    assert mean["sd"] == pytest.approx(math.sqrt(2 * 0.075**2))
    assert (mean.n_scans, mean.n_runs, mean.n_classes) == (4, 3, 2)


def test_mean_is_that_of_results() -> None:
    scores = random_grid(1, keep=0.6, variants=1, folds=3, seeds=3, classes=3)
    rows = tuple(
        ScanScore(
            fold=int(each.fold), seed=int(each.seed), class_name=each.class_name,
            scan_id=each.scan_id, dice=each.dice, hd95=None, assd=None, unit="mm",
            n_slices=1, n_predicted=1, n_truth=1,
        )
        for each in scores.itertuples()
    )  # fmt: skip
    rules = Protocol(
        dataset="d", matching="middle", uses_query_range=False, setting="setting1", n_shot=1,
        size=(8, 8), intensity="z", n_folds=3, folds=(0, 1, 2), seeds=(0, 1, 2),
    )  # fmt: skip
    results = Results(rules, FoldScores(rows))
    table = summary(scores, n_resamples=10)
    assert len(table) == 4
    for name in results.classes:
        assert row(table, "v0000", name)["mean"] == pytest.approx(results.mean(name))
        assert row(table, "v0000", name)["sd"] == pytest.approx(results.summary()[name].sd_folds)
    assert row(table, "v0000")["mean"] == pytest.approx(results.mean())


def test_only_classes_with_scores_have_rows() -> None:
    scores = random_grid(2)
    scores = scores[(scores.variant != "v0001") | (scores.class_name == "organ1")]
    table = summary(scores, n_resamples=50)
    assert list(table[table.variant == "v0001"].class_name) == ["organ1", "mean"]
    assert row(table, "v0001").n_classes == 1
    assert row(table, "v0000").n_classes == 2


def test_the_order_of_rows_does_not_matter() -> None:
    scores = random_grid(4, keep=0.9, seeds=2)
    shuffled = scores.sample(frac=1.0, random_state=0)
    paper = {"v0000": {"mean": 40.0}, "v0001": {"mean": 50.0}}
    for table in (summary, ranks):
        pd.testing.assert_frame_equal(table(scores), table(shuffled))
    pd.testing.assert_frame_equal(paired(scores, "v0001"), paired(shuffled, "v0001"))
    pd.testing.assert_frame_equal(signs(scores, paper, "v0000"), signs(shuffled, paper, "v0000"))


def test_names_do_not_matter() -> None:
    scores = random_grid(5, keep=0.9)
    names = {"v0000": "z", "v0001": "m", "v0002": "a"}
    renamed = scores.assign(variant=scores.variant.map(names))
    for plain, other in (
        (summary(scores), summary(renamed)),
        (ranks(scores), ranks(renamed)),
        (paired(scores, "v0001"), paired(renamed, "m")),
    ):
        keys = [key for key in ("variant", "class_name") if key in plain]
        expected = plain.assign(variant=plain.variant.map(names))
        pd.testing.assert_frame_equal(
            expected.set_index(keys).sort_index(), other.set_index(keys).sort_index()
        )


def test_a_variant_does_not_change_the_others() -> None:
    scores = random_grid(6)
    fewer = scores[scores.variant != "v0002"]
    alone = summary(fewer)
    beside = summary(scores)
    pd.testing.assert_frame_equal(alone, beside[beside.variant != "v0002"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: f.drop(columns=["protocol", "scan_id"]), "no column scan_id, protocol"),
        (lambda f: f.iloc[:0], "no scores"),
        (lambda f: f.assign(protocol=["p1", "p2"] * 24), r"2 values of protocol.*\(p1, p2\)"),
        (lambda f: f.assign(data_version=["x", "y"] * 24), r"data_version.*\(x, y\)"),
        (lambda f: f.assign(dice=f.dice * 100), "dice=.*organ0 in scan scan0_0.*no fraction"),
        (lambda f: f.assign(dice=math.nan), "dice=nan"),
        (lambda f: pd.concat([f, f.iloc[3:4]]), "scan0_3 .*v0000, fold 0, seed 0.* scored twice"),
        (lambda f: f.assign(class_name=None), "no class_name"),
        (lambda f: f.replace({"class_name": {"organ0": "mean"}}), "a class is named 'mean'"),
    ],
)
def test_wrong_scores(change, told: str) -> None:
    wrong = change(random_grid(9))
    for table in (summary, ranks, lambda s: paired(s, "v0000"), lambda s: signs(s, {}, None)):
        with pytest.raises(DataError, match=told):
            table(wrong)


def test_wrong_number_of_draws() -> None:
    with pytest.raises(OptionError, match="n_resamples=0: at least 1"):
        summary(random_grid(9), n_resamples=0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "statsmodels" else real(name)
    )
    with pytest.raises(
        OptionError, match=r'need statsmodels.*pip install "fewshot-seg\[ablation\]"'
    ):
        importlib.reload(statistics)
    monkeypatch.undo()
    importlib.reload(statistics)


def test_ten_thousand_cells_take_seconds() -> None:
    """100 variants, 5 folds, 5 seeds, 4 organs of their own cells, 4 scans in each."""
    scores = random_grid(10, variants=100, folds=5, seeds=5, classes=4)
    start = time.process_time()
    assert len(summary(scores)) == 500
    assert len(paired(scores, "v0000")) == 99
    assert len(ranks(scores)) == 100
    assert time.process_time() - start < 10
