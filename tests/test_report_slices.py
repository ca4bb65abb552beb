"""The slice viewer's data: which scans, whose masks, and how much of the page they take."""

import base64
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pandas", reason="reports need the extra `ablation`")

from page_cases import DICE, SHIFTS, page_study
from report_cases import square

from fewshot_seg.ablation.artefacts.datafile import read_data, write_data
from fewshot_seg.ablation.artefacts.squeezed import squeeze_mask
from fewshot_seg.ablation.report import shelf
from fewshot_seg.ablation.report.groups import groups
from fewshot_seg.ablation.report.slice_choice import MOST_SCANS, choose
from fewshot_seg.ablation.report.slices import slices_block
from fewshot_seg.ablation.study import Study

ROOM = 10_000_000


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return page_study(tmp_path_factory.mktemp("study"))


def test_the_best_median_and_worst_scan_of_every_class_come_first(study: Study) -> None:
    (group,) = groups(study)
    kept = frozenset(group.scores.loc[group.scores["variant"].isin(SHIFTS), "cell"])
    choices = choose(group, kept)
    assert choices.variants == tuple(name for name in DICE if name in SHIFTS)
    assert choices.n_scans == 8  # both folds score scans 1 to 4, of two classes
    assert [one.role for one in choices.shown] == [
        *("best", "best", "median", "median", "worst", "worst"), "", "",
    ]  # fmt: skip
    scores = group.scores[group.scores["variant"].isin(SHIFTS)]
    for name in ("liver", "spleen"):
        own = scores[scores["class_name"] == name]
        dice = own.groupby(["scan_id", "variant"])["dice"].mean().groupby("scan_id").mean()
        shown = {one.role: one.scan_id for one in choices.shown if one.class_name == name}
        assert shown["best"] == dice.idxmax()
        assert shown["worst"] == dice.idxmin()
        assert shown["median"] == dice.sort_values(ascending=False).index[2]
    first = choices.shown[0]
    cell = scores[scores["cell"] == first.cells["none"]].iloc[0]
    assert (cell["fold"], cell["seed"], cell["variant"]) == (0, 0, "none")
    assert len(choices.shown) <= MOST_SCANS


def test_masks_reach_the_page_bit_by_bit(study: Study) -> None:
    (group,) = groups(study)
    block = slices_block(group, ROOM)
    assert block is not None
    for scan in block.data["scans"]:
        masks = {one["variant"]: one["mask"] for one in scan["predictions"]}
        for shift, text in [(0, scan["truth"]), *((SHIFTS[name], m) for name, m in masks.items())]:
            bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8))
            shape = len(scan["slices"]), scan["height"], scan["width"]
            found = bits[: math.prod(shape)].reshape(shape)
            np.testing.assert_array_equal(found, square(5, 40, 20 + shift, 12))
        assert scan["start"] == 2
        pictures = block.data["pictures"][scan["pictures"]]
        assert set(pictures) == set(scan["slices"])


def test_slices_stay_within_their_budget_and_what_is_left_out_is_said(study: Study) -> None:
    (group,) = groups(study)
    whole, half = slices_block(group, ROOM), slices_block(group, 20_000)
    assert whole is not None
    assert half is not None
    assert len(whole.data["scans"]) == 8
    assert not any("to keep this page small" in line for line in whole.words)
    count = len(half.data["scans"])
    assert 0 < count < 8
    assert len(json.dumps(dict(half.data))) < 20_000 + 1_000 * count
    assert half.data["scans"] == whole.data["scans"][:count]
    assert any(line.startswith(f"{count} of 8 pairs") for line in half.words)


def test_a_damaged_prediction_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    study = page_study(tmp_path)
    (group,) = groups(study)
    own = study.cells[(study.cells["variant"] == "all") & (study.cells["novel"] == "liver")]
    damaged = str(own["cell"].iloc[0])
    file = tmp_path / "cells" / damaged / "predictions.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    block = slices_block(group, ROOM)
    assert block is not None
    assert any(damaged in line for line in block.words)
    shown = {(scan["class"], len(scan["predictions"])) for scan in block.data["scans"]}
    assert shown == {("liver", 2), ("spleen", 3)}


def test_a_prediction_over_another_ground_truth_is_not_shown(tmp_path: Path) -> None:
    study = page_study(tmp_path)
    (group,) = groups(study)
    own = (study.cells["novel"] == "liver") & (study.cells["variant"] == "all")
    for cell in study.cells.loc[own, "cell"]:
        file = tmp_path / "cells" / cell / "predictions.safetensors"
        arrays, table = read_data(file, "predictions")
        arrays["1/truth"] = squeeze_mask(square(5, 40, 22, 12))
        write_data(file, "predictions", arrays, table)
    block = slices_block(group, ROOM)
    assert block is not None
    livers = [scan for scan in block.data["scans"] if scan["class"] == "liver"]
    counts = {scan["scan"]: len(scan["predictions"]) for scan in livers}
    assert counts == {"1": 3, "2": 2, "3": 3, "4": 3}
    assert any("prediction of all for liver in scan 2" in line for line in block.words)


def test_of_many_slices_some_are_shown_and_masks_and_pictures_stay_together(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "MOST_SLICES", 3)
    (group,) = groups(study)
    block = slices_block(group, ROOM)
    assert block is not None
    scan = block.data["scans"][0]
    assert scan["slices"] == [0, 2, 4]
    assert set(block.data["pictures"][scan["pictures"]]) == {0, 2, 4}
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(scan["truth"])), np.uint8))
    expected = square(5, 40, 20, 12)[::2]
    np.testing.assert_array_equal(bits[: expected.size].reshape(expected.shape), expected)
