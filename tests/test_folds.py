"""Folds and settings, against the numbers of the field's CHAOS split."""

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_seg.data.folds import RULES, make_folds
from fewshot_seg.data.settings import SETTINGS, class_ids, kept_slices
from fewshot_seg.errors import DataError, OptionError, UnknownNameError

CHAOS = [
    str(one) for one in (1, 2, 3, 5, 8, 10, 13, 15, *range(19, 23), *range(31, 35), *range(36, 40))
]
CLASSES = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}


def test_chaos_folds_are_the_fields():
    folds = make_folds(CHAOS)
    assert [(" ".join(fold.query), *fold.support) for fold in folds] == [
        ("1 2 3 5", "8"),
        ("8 10 13 15", "19"),
        ("19 20 21 22", "31"),
        ("31 32 33 34", "36"),
        ("36 37 38 39", "1"),
    ]
    assert [len(fold.train) for fold in folds] == [15] * 5
    assert [fold.index for fold in folds] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("count", "sizes"), [(30, (23, 1, 6)), (35, (27, 1, 7))])
def test_synapse_and_cardiac_sizes(count, sizes):
    for fold in make_folds([str(one) for one in range(count)]):
        assert (len(fold.train), len(fold.support), len(fold.query)) == sizes


def test_adnet_rule_differs_in_the_last_fold_only():
    ours, theirs = make_folds(CHAOS), make_folds(CHAOS, rule="adnet")
    assert ours[:4] == theirs[:4]
    assert theirs[4].support == ("39",)
    assert theirs[4].query == ("1", "36", "37", "38")


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(4, 40),
    n_folds=st.integers(2, 8),
    n_support=st.integers(1, 5),
    rule=st.sampled_from(RULES),
)
def test_folds_are_disjoint_and_cover(count, n_folds, n_support, rule):
    ids = [f"s{one}" for one in range(count)]
    try:
        folds = make_folds(ids, n_folds=n_folds, n_support=n_support, rule=rule)
    except DataError:
        assert n_folds > count or -(-count // n_folds) + n_support >= count
        return
    for fold in folds:
        together = [*fold.train, *fold.support, *fold.query]
        assert sorted(together) == sorted(ids)
        assert len(fold.support) == n_support
        assert fold.train
    if rule == "alpnet":
        assert [one for fold in folds for one in fold.query] == ids


@pytest.mark.parametrize(
    ("ids", "options", "error", "message"),
    [
        (CHAOS, {"n_folds": 0}, OptionError, "n_folds must be at least 1; got 0"),
        (CHAOS, {"n_support": 0}, OptionError, "n_support must be at least 1"),
        (CHAOS, {"rule": "alpnt"}, UnknownNameError, "did you mean 'alpnet'"),
        (["1", "2", "1", "3"], {"n_folds": 2}, DataError, "1 appear more than once"),
        (["1", "2"], {"n_folds": 2}, DataError, "2 scans cannot make 2 folds"),
        (["1", "2", "3"], {"n_folds": 5}, DataError, "3 scans cannot make 5 folds"),
        ([], {}, DataError, "0 scans cannot make 5 folds"),
        (CHAOS, {"n_support": 16}, DataError, "at least one more to train on"),
    ],
)
def test_wrong_folds_are_refused(ids, options, error, message):
    with pytest.raises(error, match=message):
        make_folds(ids, **options)


SLICES = {1: (1, 2, 3), 2: (3, 4)}


@pytest.mark.parametrize(
    ("novel", "setting", "kept"),
    [
        ([1], "leave_one_organ", (0, 1, 2, 3, 4, 5)),
        ([1, 2], "setting1", (0, 1, 2, 3, 4, 5)),
        ([1], "setting2_any", (0, 4, 5)),
        ([1, 2], "setting2_any", (0, 5)),
        ([1, 2], "setting2_all", (0, 1, 2, 4, 5)),
        ([1, 9], "setting2_all", (0, 1, 2, 3, 4, 5)),
        ([1, 9], "setting2_any", (0, 4, 5)),
        ([], "setting2_all", (0, 1, 2, 3, 4, 5)),
    ],
)
def test_kept_slices(novel, setting, kept):
    assert kept_slices(SLICES, 6, novel, setting) == kept


@pytest.mark.parametrize(
    ("novel", "setting", "error", "message"),
    [
        ([1], "setting2_ani", UnknownNameError, "did you mean 'setting"),
        ([1], "zebra", UnknownNameError, "leave_one_organ, setting1, setting2_any, setting2_all"),
        ([1, 2], "leave_one_organ", OptionError, "holds out one class"),
        ([0], "setting1", OptionError, "start at 1"),
    ],
)
def test_wrong_settings_are_refused(novel, setting, error, message):
    with pytest.raises(error, match=message):
        kept_slices(SLICES, 6, novel, setting)


def test_classes_by_name_or_id():
    assert class_ids(CLASSES, ["Left Kidney", 1]) == (3, 1)
    with pytest.raises(UnknownNameError, match="unknown class 'splen'; did you mean 'spleen'"):
        class_ids(CLASSES, ["splen"])
    with pytest.raises(UnknownNameError, match=r"unknown class '7'\. This data set has: 1 liver"):
        class_ids(CLASSES, [7])


def test_chaos_setting2_counts(shared_data):
    folder = shared_data("chaos_MR_T2_normalized")
    kept = {}
    total = 0
    groups = {"kidneys": (2, 3), "liver and spleen": (1, 4), "all": (1, 2, 3, 4)}
    for scan_id in make_folds(CHAOS)[0].train:
        labels = np.asarray(nibabel.load(folder / f"label_{scan_id}.nii.gz").dataobj)
        shown = {value: np.flatnonzero((labels == value).any((0, 1))).tolist() for value in CLASSES}
        total += labels.shape[2]
        for name, novel in groups.items():
            for setting in SETTINGS[2:]:
                count = len(kept_slices(shown, labels.shape[2], novel, setting))
                kept[name, setting] = kept.get((name, setting), 0) + count
    assert total == 544
    assert kept == {
        ("kidneys", "setting2_any"): 303,
        ("kidneys", "setting2_all"): 349,
        ("liver and spleen", "setting2_any"): 202,
        ("liver and spleen", "setting2_all"): 343,
        ("all", "setting2_any"): 120,
        ("all", "setting2_all"): 490,
    }
