"""The signs of published differences."""

import math

import pytest

pd = pytest.importorskip("pandas", reason="the extra 'ablation' is not installed")
pytest.importorskip("statsmodels", reason="the extra 'ablation' is not installed")

from statistics_cases import frame, random_grid  # noqa: E402

from fewshot_seg.ablation.statistics import paired, signs  # noqa: E402
from fewshot_seg.ablation.statistics.signs import Ours, verdict  # noqa: E402
from fewshot_seg.errors import DataError, OptionError  # noqa: E402


@pytest.mark.parametrize(
    ("paper", "low", "ours", "high", "word"),
    [
        (0.1, 0.01, 0.05, 0.09, "reproduced"),
        (-0.1, -0.09, -0.05, -0.01, "reproduced"),
        (0.1, -0.01, 0.05, 0.09, "same sign, unsure"),
        (0.1, 0.0, 0.05, 0.09, "same sign, unsure"),
        (0.1, math.nan, 0.05, math.nan, "same sign, unsure"),
        (0.1, -0.09, -0.05, 0.01, "opposite sign, unsure"),
        (-0.1, 0.0, 0.0, 0.0, "opposite sign, unsure"),
        (0.1, -0.09, -0.05, -0.01, "contradicted"),
        (-0.1, 0.01, 0.05, 0.09, "contradicted"),
        (0.0, 0.01, 0.05, 0.09, "contradicted"),
        (0.0, -0.01, 0.05, 0.09, "same sign, unsure"),
        (0.1, math.nan, math.nan, math.nan, "not run"),
    ],
)
def test_verdicts(paper: float, low: float, ours: float, high: float, word: str) -> None:
    assert verdict(paper, Ours(ours, low, high, 4)) == word


PAPER = {
    "none": {"liver": 50.0, "spleen": 40.0, "mean": 45.0},
    "FEM": {"liver": 60.0, "spleen": 40.0, "mean": 50.0},
    "all": {"liver": 80.0, "mean": 80.0},
    "gone": {"mean": 90.0},
}


def studied(*organs: str) -> pd.DataFrame:
    """FEM is 0.1 better than none in every scan, all is 0.1 worse."""
    change = {"none": 0.0, "FEM": 0.1, "all": -0.1}
    return frame(
        (name, 0, 0, organ, f"s{i}", 0.5 + i / 100 + more)
        for name, more in change.items()
        for organ in organs
        for i in range(4)
    )


def test_signs_of_a_study() -> None:
    table = signs(studied("liver", "spleen"), PAPER, "none", pairs=[("all", "FEM")])
    told = {(r.variant, r.against, r.class_name): r for r in table.itertuples()}
    assert list(told) == [
        ("FEM", "none", "liver"), ("FEM", "none", "spleen"), ("FEM", "none", "mean"),
        ("all", "none", "liver"), ("all", "none", "mean"), ("gone", "none", "mean"),
        ("all", "FEM", "liver"), ("all", "FEM", "mean"),
    ]  # fmt: skip
    better = told["FEM", "none", "liver"]
    assert (better.paper, better.n_pairs, better.verdict) == (pytest.approx(0.1), 4, "reproduced")
    assert better.difference == pytest.approx(0.1)
    assert (better.low, better.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert told["FEM", "none", "spleen"].verdict == "contradicted"  # the paper saw none
    assert told["FEM", "none", "mean"].n_pairs == 4
    assert told["FEM", "none", "mean"].verdict == "reproduced"
    assert told["all", "none", "liver"].verdict == "contradicted"
    assert told["all", "FEM", "liver"].difference == pytest.approx(-0.2)
    assert told["gone", "none", "mean"].verdict == "not run"
    assert math.isnan(told["gone", "none", "mean"].difference)


def test_a_mean_over_other_organs_is_not_compared() -> None:
    verdicts = signs(studied("liver"), PAPER, "none").set_index(["variant", "class_name"]).verdict
    assert verdicts["FEM", "liver"] == "reproduced"
    assert verdicts["FEM", "spleen"] == "not run"
    assert verdicts["FEM", "mean"] == "not run"
    assert verdicts["all", "mean"] == "contradicted"  # published for the liver alone, as run
    totals = {name: {"mean": values["mean"]} for name, values in PAPER.items()}
    only = signs(studied("liver"), totals, "none").set_index("variant").verdict
    assert only["FEM"] == "reproduced"  # the paper does not tell over which organs


def test_signs_agree_with_paired() -> None:
    scores = random_grid(5, keep=0.9, scans=6, folds=3)
    paper = {name: {"mean": 50.0} for name in ("v0000", "v0001", "v0002")}
    ours = signs(scores, paper, "v0000").set_index("variant")
    test = paired(scores, "v0000").set_index("variant")
    same = ["difference", "low", "high", "n_pairs"]
    pd.testing.assert_frame_equal(ours[same], test[same])


def test_nothing_published_gives_no_rows() -> None:
    scores = studied("liver")
    assert signs(scores, {}, "none").empty
    assert signs(scores, PAPER, None).empty
    assert list(signs(scores, {}, None).columns)[-1] == "verdict"


@pytest.mark.parametrize(
    ("paper", "reference", "pairs", "error", "told"),
    [
        ({"FEM": {"mean": 0.62}, "none": {"mean": 0.49}}, "none", (), DataError, "in per cent"),
        ({"FEM": {"mean": 120.0}, "none": {"mean": 40.0}}, "none", (), DataError, "40.0 to 120.0"),
        ({"FEM": {"mean": -1.0}, "none": {"mean": 40.0}}, "none", (), DataError, "in per cent"),
        (PAPER, "nnoe", (), OptionError, "'nnoe' is neither .*; did you mean 'none'.*FEM, all"),
        (PAPER, "none", [("FME", "all")], OptionError, "'FME' is neither a published nor"),
    ],
)
def test_wrong_papers(paper, reference, pairs, error, told: str) -> None:
    with pytest.raises(error, match=told):
        signs(studied("liver"), paper, reference, pairs=pairs)
