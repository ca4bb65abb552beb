"""Dice by slice, what results record, progress, and that evaluation and inference agree."""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console
from torch import Tensor, nn
from typer.testing import CliRunner

from fewshot_seg.cli import app, console
from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.folds import make_folds
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.nifti import read_labels, read_scan
from fewshot_seg.data.prepare import prepare
from fewshot_seg.data.scan import Scan
from fewshot_seg.episode import Episode, Output, Support
from fewshot_seg.errors import DataError
from fewshot_seg.evaluation import Results, evaluate_scan, get_matching, mean_slice_dice, predict
from fewshot_seg.evaluation.matching import BLIND, Part
from fewshot_seg.experiment import evaluate_unlearned
from fewshot_seg.inference import segment_scans

CHAOS = [
    str(one) for one in (1, 2, 3, 5, 8, 10, 13, 15, *range(19, 23), *range(31, 35), *range(36, 40))
]
volumes = arrays(bool, (4, 3, 2), elements=st.booleans())


def write_scans(folder: Path) -> Path:
    """Six scans of 14 slices: a body with the liver in slices 3 to 9 and the spleen in 6 to 10."""
    folder.mkdir()
    x, y, z = np.mgrid[:32, :32, :14]
    noise = np.random.default_rng(0).normal(0, 0.1, (6, 32, 32, 14))
    for number in range(6):
        labels = np.zeros((32, 32, 14), np.uint8)
        up = z - number % 2
        labels[((x - 11) / 6) ** 2 + ((y - 16) / 7) ** 2 + ((up - 6) / 4) ** 2 < 1] = 1
        labels[((x - 23) / 4) ** 2 + ((y - 15) / 4) ** 2 + ((up - 8) / 3) ** 2 < 1] = 2
        body = ((x - 16) / 14) ** 2 + ((y - 16) / 12) ** 2 < 1
        image = np.array([0, 4, 7])[labels] + body * (1 + 0.2 * up) + noise[number]
        for kind, data in (("image", image.astype(np.float32)), ("label", labels)):
            volume = nib.Nifti1Image(data, np.diag([-2.0, 2, 6, 1]))
            nib.save(volume, folder / f"{kind}_{number}.nii.gz")
    named = {"labels": {"0": "background", "1": "liver", "2": "spleen"}, "modality": {"0": "MR"}}
    (folder / "dataset.json").write_text(json.dumps(named))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("data") / "scans")


# --- Dice by slice -------------------------------------------------------------------------------


def test_dice_by_slice_leaves_out_what_is_empty_in_both() -> None:
    truth, found = np.zeros((2, 5, 2, 2), bool)
    truth[1, 0], found[1, 0, 0] = True, True  # 2 of 2 marked, 1 found: 2 * 1 / 3
    found[2, 0] = True  # found where nothing is
    truth[3, 0] = True  # missed
    assert mean_slice_dice(found, truth) == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert mean_slice_dice(truth, truth) == 1
    assert math.isnan(mean_slice_dice(np.zeros_like(truth), np.zeros_like(truth)))
    with pytest.raises(ValueError, match="the prediction has shape"):
        mean_slice_dice(found, truth[1:])


@settings(deadline=None, max_examples=50)
@given(found=volumes, truth=volumes)
def test_dice_by_slice_agrees_with_a_loop(found: np.ndarray, truth: np.ndarray) -> None:
    each = [
        2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(found, truth) if a.any() or b.any()
    ]
    got = mean_slice_dice(found, truth)
    assert got == pytest.approx(np.mean(each)) if each else math.isnan(got)


# --- what results record -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return evaluate_unlearned(
        "copy",
        open_folder(root=folder),
        matching="aligned-10",
        size=32,
        n_folds=3,
        n_support=2,
        fold_rule="adnet",
        setting="setting2_any",
        novel=["liver", "spleen"],
        surface=False,
    )


def test_every_result_records_its_rules(results: Results, tmp_path: Path) -> None:
    results.to_json(tmp_path / "r.json")
    rules = json.loads((tmp_path / "r.json").read_text())["protocol"]
    wanted = {
        "matching": "aligned-10",
        "uses_query_range": False,
        "setting": "setting2_any",
        "fold_rule": "adnet",
        "n_shot": 2,
        "n_folds": 3,
    }
    assert {name: rules[name] for name in wanted} == wanted
    told = " ".join(results.protocol.describe().split())
    for words in ("aligned-10: does not use", "setting2_any", "(adnet)", "2-shot"):
        assert words in told


def test_dice_by_slice_is_in_every_form_of_the_results(results: Results, tmp_path: Path) -> None:
    assert all(row.slice_dice is not None and 0 <= row.slice_dice <= 1 for row in results.rows)
    assert {row.n_slices for row in results.rows} == {14}  # all of the scan
    results.to_json(tmp_path / "r.json")
    results.to_csv(tmp_path / "r.csv")
    assert Results.from_json(tmp_path / "r.json") == results
    header, *lines = (tmp_path / "r.csv").read_text().splitlines()
    column = header.split(",").index("slice_dice")
    assert [float(line.split(",")[column]) for line in lines] == [
        row.slice_dice for row in results.rows
    ]
    shown = Console(width=200, file=io.StringIO(), record=True)
    shown.print(results.table())
    text = shown.export_text()
    assert "by slice %" in text
    assert f"{100 * results.mean(metric='slice_dice'):.1f}" in text


def test_files_from_before_dice_by_slice_still_load(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    results.to_json(path)
    data = json.loads(path.read_text())
    for row in data["rows"]:
        del row["slice_dice"]
    path.write_text(json.dumps(data))
    old = Results.from_json(path)
    assert old.mean() == results.mean()
    assert math.isnan(old.mean(metric="slice_dice"))
    shown = Console(width=200, file=io.StringIO(), record=True)
    shown.print(old.table())
    assert "by slice" not in shown.export_text()
    data["rows"][0]["slice_dise"] = 0.5
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match="is not a results file"):
        Results.from_json(path)


@pytest.mark.parametrize(
    ("rule", "support", "last_queries"),
    [("alpnet", "8 19 31 36 1", "36 37 38 39"), ("adnet", "8 19 31 36 39", "1 36 37 38")],
)
def test_the_fold_table_of_chaos(rule: str, support: str, last_queries: str) -> None:
    folds = make_folds(CHAOS, rule=rule)
    assert [" ".join(fold.support) for fold in folds] == support.split()
    assert [" ".join(fold.query) for fold in folds] == [
        "1 2 3 5",
        "8 10 13 15",
        "19 20 21 22",
        "31 32 33 34",
        last_queries,
    ]
    assert {len(fold.train) for fold in folds} == {15}


# --- evaluation and inference --------------------------------------------------------------------


class Bright(nn.Module):
    """Log-odds grow with how near a pixel is to the mean intensity of the support's mask."""

    def encode_support(self, support: Support) -> Tensor:
        total = (support.images[:, :, :, 0] * support.masks).sum((2, 3, 4))
        return total / support.masks.sum((2, 3, 4)).clamp(min=1)

    def segment(self, state: Tensor, query_images: Tensor) -> Tensor:
        near = 0.3 - (query_images[:, :, :1] - state[:, None, :, None, None]).abs()
        return torch.cat([torch.zeros_like(near), 8 * near], 2)

    def forward(self, episode: Episode) -> Output:
        return Output(self.segment(self.encode_support(episode.support), episode.query_images))


@pytest.mark.parametrize("name", [*BLIND, "aligned-2"])
def test_evaluation_scores_what_users_get(name: str, folder: Path, tmp_path: Path) -> None:
    """`segment_scans` on files answers voxel by voxel what `evaluate` judges."""
    image, label, query, truth = (
        folder / f"{kind}_{number}.nii.gz" for number in (0, 1) for kind in ("image", "label")
    )
    method = Bright()
    report = segment_scans(
        method, [(image, label)], [query], out=tmp_path, classes=[1], matching=name, size=24
    )
    assert report.ok
    answer = read_labels(tmp_path / f"{query.name.removesuffix('.nii.gz')}_seg.nii.gz")[0]
    support, seen = (
        prepare(read_scan(*paths), size=24, intensity=Intensity(), channels=1)
        for paths in ((image, label), (query, truth))
    )
    score = evaluate_scan(method, [support], seen, class_id=1, matching=get_matching(name))
    assert score.n_slices == len(seen.images)
    assert score.n_predicted == np.count_nonzero(answer)
    assert seen.original_labels is not None
    both = np.count_nonzero((answer == 1) & (seen.original_labels == 1))
    assert score.dice == pytest.approx(
        2 * both / (score.n_predicted + np.count_nonzero(seen.original_labels == 1))
    )


class Given(nn.Module):
    """The probability of the class is the mean of the support's mask, in every pixel."""

    def encode_support(self, support: Support) -> Tensor:
        return support.masks.mean((2, 3, 4)).clamp(0.001, 0.999)

    def segment(self, state: Tensor, query_images: Tensor) -> Tensor:
        chance = state[:, None, :, None, None].expand(
            -1, query_images.shape[1], 1, *query_images.shape[-2:]
        )
        return torch.cat([(1 - chance).log(), chance.log()], 2)

    def forward(self, episode: Episode) -> Output:
        return Output(self.segment(self.encode_support(episode.support), episode.query_images))


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ((Part((0,), (0,)),), {0: False}),  # 0.4
        ((Part((1,), (0, 1)),), {0: True, 1: True}),  # 0.9
        ((Part((0,), (0,)), Part((1,), (0, 1))), {0: True, 1: True}),  # 0.65
        # 0.433; then 0.999, 0.1 and 0.1 give 0.4, though the mean of their log-odds is above 0
        ((Part((0,), (0,)), Part((2,), (0,)), Part((1,), (0,))), {0: False}),
        ((Part((3,), (0,)), Part((4,), (0,)), Part((5,), (0,))), {0: False}),
    ],
)
def test_slices_in_several_parts_get_their_mean_probability(
    parts: tuple[Part, ...], found: Mapping[int, bool]
) -> None:
    labels = np.zeros((6, 10, 10), np.uint8)
    for z, filled in enumerate((40, 90, 0, 100, 10, 10)):
        labels[z].flat[:filled] = 1
    image = np.random.default_rng(0).normal(size=(6, 1, 10, 10)).astype(np.float32)
    scan = prepare(Scan("a", image, labels), size=10, intensity=Intensity(), channels=1)
    masks = predict(Given(), [scan], scan.images, class_id=1, parts=parts, size=(10, 10))
    assert {z: bool(mask.all()) for z, mask in masks.items()} == found
    assert all(mask.all() or not mask.any() for mask in masks.values())


# --- progress, and one bad scan ------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    folder = write_scans(tmp_path / "scans")
    path = folder / "image_1.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    return folder


def test_progress_counts_every_class_of_every_query(damaged: Path) -> None:
    told: list[tuple[int, int]] = []
    results = evaluate_unlearned(
        "copy",
        open_folder(root=damaged),
        size=32,
        n_folds=3,
        folds=[0],
        novel=["liver", "spleen"],
        matching="middle",
        surface=False,
        cache=None,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (4, 4)
    assert {total for _, total in told} == {4}
    assert (len(results.rows), len(results.failures)) == (2, 2)


def test_the_command_survives_a_bad_scan_and_shows_progress(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    shown = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(console, "err", lambda: shown)
    words = ["evaluate", "--method", "copy", "--data", damaged, "--out", tmp_path / "r"]
    words += ["--n-folds", "3", "--folds", "0", "--organ", "liver", "--size", "32"]
    words += ["--matching", "aligned-10", "--fold-rule", "adnet", "--no-surface"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 2, done.output
    results = Results.from_json(tmp_path / "r" / "results.json")
    assert (len(results.rows), len(results.failures)) == (1, 1)
    assert (results.protocol.fold_rule, results.protocol.matching) == ("adnet", "aligned-10")
    told = screen.getvalue()
    assert "testing" in told
    assert "2/2" in told
