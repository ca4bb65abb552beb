"""Paired tests and ranks."""

import itertools
import math

import numpy as np
import pytest

pd = pytest.importorskip("pandas", reason="the extra 'ablation' is not installed")
pytest.importorskip("statsmodels", reason="the extra 'ablation' is not installed")

from statistics_cases import frame, patients, random_grid  # noqa: E402

from fewshot_seg.ablation.statistics import paired, ranks  # noqa: E402
from fewshot_seg.ablation.statistics.paired import holm, signed_rank  # noqa: E402
from fewshot_seg.errors import OptionError  # noqa: E402


def liver(**dice: list[float]) -> pd.DataFrame:
    """Scores of one organ in one fold, a list for each variant."""
    return frame(
        (name, 0, 0, "liver", f"s{i}", value)
        for name, values in dice.items()
        for i, value in enumerate(values)
    )


def enumerated(differences: list[float]) -> float:
    """The two-sided signed-rank p-value by going through all signs; zeros are left out."""
    moved = [value for value in differences if value != 0]
    size = [abs(value) for value in moved]
    rank = [
        sum(other < own for other in size) + (sum(other == own for other in size) + 1) / 2
        for own in size
    ]
    seen = sum(r for r, value in zip(rank, moved) if value > 0)
    sums = [
        sum(r for r, positive in zip(rank, signs) if positive)
        for signs in itertools.product((False, True), repeat=len(moved))
    ]
    tails = (
        sum(total <= seen for total in sums) / len(sums),
        sum(total >= seen for total in sums) / len(sums),
    )
    return min(1.0, 2 * min(tails))


def test_paired_by_hand() -> None:
    """Five scans, all better by different amounts: p is 2 / 2^5."""
    table = paired(liver(ref=[0.5] * 5, better=[0.51, 0.52, 0.53, 0.54, 0.55]), "ref")
    assert list(table.variant) == ["better"]
    assert table.difference.item() == pytest.approx(0.03)
    assert table.p.item() == table.p_holm.item() == pytest.approx(0.0625)
    assert table.n_pairs.item() == 5
    assert 0 < table.low.item() < 0.03 < table.high.item()


def test_difference_follows_scans_then_folds_then_classes() -> None:
    values = {("liver", 0): [0.1, 0.3], ("liver", 1): [0.4], ("spleen", 0): [0.0]}
    rows = [
        (name, fold, 0, organ, f"s{fold}{i}", 0.5 + (change if name == "new" else 0.0))
        for (organ, fold), changes in values.items()
        for i, change in enumerate(changes)
        for name in ("ref", "new")
    ]
    found = paired(frame(rows), "ref")
    assert found.difference.item() == pytest.approx(((0.2 + 0.4) / 2 + 0.0) / 2)
    assert found.n_pairs.item() == 3


def test_the_organs_of_a_scan_are_one_witness() -> None:
    """Five scans with two organs each: p is 2 / 2^5, not 2 / 2^10."""
    rows = [
        (name, 0, 0, organ, f"s{i}", 0.5 + (0.01 * (i + 1) if name == "new" else 0.0))
        for name in ("ref", "new")
        for organ in ("liver", "spleen")
        for i in range(5)
    ]
    found = paired(frame(rows), "ref")
    assert found.p.item() == pytest.approx(0.0625)
    assert found.n_pairs.item() == 5


def test_only_blocks_both_have_and_seeds_first() -> None:
    rows = [
        ("ref", 0, 0, "liver", "1", 0.4), ("ref", 0, 0, "liver", "2", 0.5),
        ("ref", 0, 0, "liver", "3", 0.9),
        ("new", 0, 0, "liver", "1", 0.6), ("new", 0, 1, "liver", "1", 0.8),
        ("new", 0, 0, "liver", "2", 0.6), ("new", 0, 0, "spleen", "3", 0.1),
    ]  # fmt: skip
    found = paired(frame(rows), "ref")
    assert found.difference.item() == pytest.approx(((0.7 - 0.4) + (0.6 - 0.5)) / 2)
    assert found.n_pairs.item() == 2


def test_a_constant_shift_is_sure() -> None:
    base = [0.2, 0.5, 0.6, 0.9]
    found = paired(liver(ref=base, new=[value + 0.05 for value in base]), "ref").iloc[0]
    assert (found.low, found.high) == (pytest.approx(0.05), pytest.approx(0.05))


def test_reference_and_variant_swapped() -> None:
    scores = random_grid(1, keep=0.9, variants=2, scans=6)
    one, other = paired(scores, "v0000").iloc[0], paired(scores, "v0001").iloc[0]
    assert one.difference == pytest.approx(-other.difference)
    assert (one.low, one.high) == (pytest.approx(-other.high), pytest.approx(-other.low))
    assert (one.p, one.n_pairs) == (pytest.approx(other.p), other.n_pairs)


def test_without_pairs_there_is_nothing_to_tell() -> None:
    rows = [("ref", 0, 0, "liver", "1", 0.4), ("ref", 0, 0, "liver", "2", 0.4)]
    rows += [("one", 0, 0, "liver", "1", 0.6), ("none", 1, 0, "liver", "9", 0.6)]
    rows += [("two", 0, 0, "liver", "1", 0.6), ("two", 0, 0, "liver", "2", 0.7)]
    table = paired(frame(rows), "ref").set_index("variant")
    assert list(table.n_pairs) == [0, 1, 2]  # none, one, two
    assert table.loc["none"].drop("n_pairs").isna().all()
    assert table.loc["one"].difference == pytest.approx(0.2)
    assert table.loc["one", ["low", "high", "p", "p_holm"]].isna().all()
    assert table.loc["two"].p == table.loc["two"].p_holm == pytest.approx(0.5)


def test_the_reference_alone() -> None:
    table = paired(liver(ref=[0.5, 0.6]), "ref")
    assert table.empty
    assert list(table.columns) == [
        "variant", "difference", "low", "high", "p", "p_holm", "n_pairs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "differences",
    [
        [0.1, -0.2, 0.3, 0.4, 0.5, -0.6],
        [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, -0.08],
        [0.1, 0.1, 0.2, -0.2, 0.3],
        [0.0, 0.0, 0.1, 0.2, -0.3, 0.4],
        [0.1, -0.1],
        [0.0, 0.3],
    ],
    ids=["plain", "nearly all", "ties", "zeros", "two", "one that differs"],
)
def test_signed_rank_against_all_signs(differences: list[float]) -> None:
    assert signed_rank(np.array(differences)) == pytest.approx(enumerated(differences))


def test_signed_rank_at_its_ends() -> None:
    assert signed_rank(np.zeros(4)) == 1.0
    assert math.isnan(signed_rank(np.array([0.3])))
    assert math.isnan(signed_rank(np.array([0.3, np.nan])))
    assert math.isnan(signed_rank(np.array([])))


def test_rounding_errors_are_no_differences() -> None:
    seeds = (0.1, 0.2, 0.3)
    rows = [
        (name, 0, seed, "liver", f"s{i}", value)
        for name, values in (("ref", seeds), ("new", seeds[::-1]))
        for i in range(4)
        for seed, value in enumerate(values)
    ]
    assert np.mean([0.1, 0.2, 0.3]) != np.mean([0.3, 0.2, 0.1])
    found = paired(frame(rows), "ref").iloc[0]
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_holm_by_hand() -> None:
    """0.01 x 4, 0.02 x 3, 0.03 x 2, then never less than the one before; NaN is no test."""
    corrected = holm(np.array([0.03, np.nan, 0.01, 0.5, 0.02, np.nan]))
    np.testing.assert_allclose(corrected, [0.06, np.nan, 0.04, 0.5, 0.06, np.nan])
    assert np.isnan(holm(np.array([np.nan]))).all()
    assert holm(np.array([])).shape == (0,)


def test_sure_differences_are_rare_where_there_are_none() -> None:
    """300 variants no better than the reference, the organs of a patient moving together."""
    scores = patients(3, share=0.4, low=0.4, high=0.6, variants=300, folds=5, classes=4)
    flat = scores[scores.variant == "v0000"].assign(variant="ref", dice=0.5)
    table = paired(pd.concat([scores, flat]), "ref", n_resamples=1000)
    assert ((table.low > 0) | (table.high < 0)).mean() < 0.08
    assert (table.p < 0.05).mean() < 0.07


@pytest.mark.parametrize("name", ["v000", "none", ""])
def test_unknown_reference(name: str) -> None:
    with pytest.raises(OptionError, match=r"reference=.*is not one of v0000, v0001, v0002"):
        paired(random_grid(1), name)


def test_ranks_by_hand() -> None:
    scores = liver(
        a=[0.9, 0.8, 0.7, 0.9], b=[0.5, 0.6, 0.7, 0.8], c=[0.1, 0.2, 0.3, 0.4]
    )  # ranks 1 2 3, 1 2 3, 1.5 1.5 3, 1 2 3
    table = ranks(scores)
    assert list(table.variant) == ["a", "b", "c"]
    np.testing.assert_allclose(table.mean_rank, [1.125, 1.875, 3.0])
    # 12 n / (k (k + 1)) x sum of (mean rank - 2)^2, over 1 - sum(t^3 - t) / (n (k^3 - k))
    statistic = 4 * (0.875**2 + 0.125**2 + 1.0) / (1 - 6 / (4 * 24))
    assert table.friedman_p.iloc[0] == pytest.approx(math.exp(-statistic / 2))  # chi2, 2 freedoms
    assert set(table.n_blocks) == {4}
    assert set(table.n_dropped) == {0}


@pytest.mark.parametrize(
    ("variants", "q"), [(3, 2.343), (5, 2.728), (10, 3.164)]
)  # the table of Demšar 2006
def test_critical_difference(variants: int, q: float) -> None:
    table = ranks(random_grid(2, variants=variants, folds=3))
    expected = q * math.sqrt(variants * (variants + 1) / (6 * 24))
    assert table.critical_difference.iloc[0] == pytest.approx(expected, rel=1e-3)


def test_incomplete_blocks_are_dropped_and_counted() -> None:
    scores = random_grid(3, variants=4)  # 16 blocks
    lost = (scores.variant == "v0001") & (scores.scan_id == "scan0_0")
    table = ranks(scores[~lost])
    whole = ranks(scores[scores.scan_id != "scan0_0"])
    assert (table.n_blocks.iloc[0], table.n_dropped.iloc[0]) == (14, 2)
    pd.testing.assert_frame_equal(table.drop(columns="n_dropped"), whole.drop(columns="n_dropped"))


def test_an_organ_that_a_scan_does_not_show_is_no_lost_block() -> None:
    scores = random_grid(3)
    unseen = (scores.class_name == "organ1") & (scores.scan_id == "scan1_2")
    table = ranks(scores[~unseen])
    assert (table.n_blocks.iloc[0], table.n_dropped.iloc[0]) == (15, 0)


def test_ranks_at_their_ends() -> None:
    two = ranks(liver(a=[0.9, 0.8], b=[0.5, 0.6]))
    assert list(two.mean_rank) == [1.0, 2.0]
    assert two[["friedman_p", "critical_difference"]].isna().all(axis=None)
    one = ranks(liver(a=[0.9, 0.8]))
    assert list(one.mean_rank) == [1.0]
    single = ranks(liver(a=[0.9], b=[0.8], c=[0.7]))
    assert list(single.mean_rank) == [1.0, 2.0, 3.0]
    assert single.friedman_p.isna().all()
    alike = ranks(liver(a=[0.9, 0.8], b=[0.9, 0.8], c=[0.9, 0.8]))
    assert set(alike.mean_rank) == {2.0}
    assert set(alike.friedman_p) == {1.0}
    apart = ranks(pd.concat([liver(a=[0.5], b=[0.5]), liver(c=[0.1, 0.2]).iloc[1:]]))
    assert apart.mean_rank.isna().all()
    assert (apart.n_blocks.iloc[0], apart.n_dropped.iloc[0]) == (0, 2)
