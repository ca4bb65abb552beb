"""Predictions, pictures and pixel features: what is kept of a test, and files that cannot be."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apscl_cases import TinyEncoder
from torch import Tensor, nn

from fewshot_seg import build
from fewshot_seg.ablation.artefacts import (
    FeatureSample,
    PredictionWriter,
    collect_features,
    features_of_run,
    image_of,
    read_features,
    read_predictions,
    write_features,
)
from fewshot_seg.ablation.artefacts.pictures import draw, keep_pictures, read_pictures
from fewshot_seg.ablation.artefacts.squeezed import squeeze, squeeze_mask, unsqueeze, unsqueeze_mask
from fewshot_seg.data.folds import make_folds
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.phantom import Phantom, abdomen
from fewshot_seg.data.prepare import PreparedScan, prepare
from fewshot_seg.data.scan import Scan
from fewshot_seg.episode import Episode, Output, Support
from fewshot_seg.errors import DataError
from fewshot_seg.evaluation import FoldScores, dice, evaluate_fold, get_matching
from fewshot_seg.evaluation.segmented import Segmented
from fewshot_seg.experiment import (
    evaluate_runs,
    evaluate_unlearned,
    evaluate_untrained,
    read_notes,
    resolve_recipe,
    train_fold,
)
from fewshot_seg.functional import area_average
from fewshot_seg.tensorfile import load_tensors, read_words, save_tensors
from fewshot_seg_copy import Copy

CLASSES = {1: "disc", 4: "square"}
FOLD = make_folds(tuple("012345"), n_folds=3, n_support=1, rule="alpnet")[0]
RULE = get_matching("parts-3")


def scan(name: str, *, tall: int = 48, wide: int = 32) -> Scan:
    """A bright disc on slices 1 to 6 and a square on 2 to 4, moved from scan to scan."""
    shift = int(name) % 3
    labels = np.zeros((8, tall, wide), np.uint8)
    rows, cols = np.mgrid[:tall, :wide]
    labels[1:7, (rows - 12) ** 2 + (cols - 10 - shift) ** 2 < 64] = 1
    labels[2:5, 26:40, 14 + shift : 28 + shift] = 4
    image = np.select([labels == 1, labels == 4], [2.0, 5.0], 0.0)[:, None]
    return Scan(name, image.astype(np.float32), labels, (4.0, 3.0, 1.5))


def load(name: str, size: int = 32) -> PreparedScan:
    return prepare(scan(name), size=size, intensity=Intensity(0.0, 1.0), channels=1)


def scored(writer: Callable[[Segmented], None], *, method: Any = None) -> FoldScores:
    chosen = Copy() if method is None else method
    return evaluate_fold(chosen, load, FOLD, CLASSES, matching=RULE, on_prediction=writer)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The predictions of `copy` on a fold."""
    writer = PredictionWriter(tmp_path / "cell" / "p.safetensors", scans=tmp_path, data_version="a")
    scored(writer)
    writer.write()
    return writer.path


# --- the hook ------------------------------------------------------------------------------------


def test_the_hook_is_given_the_masks_behind_each_score() -> None:
    seen: list[Segmented] = []
    scores = scored(seen.append)
    assert [one.score for one in seen] == list(scores.rows)
    assert len(seen) == len(FOLD.query) * 2
    for one in seen:
        assert one.query.id == one.score.scan_id
        labels = scan(one.score.scan_id).labels
        assert labels is not None
        wanted = labels[list(one.slices)] == {"disc": 1, "square": 4}[one.score.class_name]
        assert np.array_equal(one.truth, wanted)
        assert dice(one.prediction, one.truth) == one.score.dice
        assert one.prediction.sum() == one.score.n_predicted


def test_an_error_of_the_hook_is_no_failure_of_the_scan() -> None:
    def refuse(one: Segmented) -> None:
        raise DataError("the disk is full")

    with pytest.raises(DataError, match="disk is full"):
        scored(refuse)


def test_a_scan_that_fails_is_not_handed_on() -> None:
    seen: list[Segmented] = []
    broken = nn.Module()
    broken.encode_support = broken.segment = lambda *_: 1 / 0  # type: ignore[assignment]
    scores = scored(seen.append, method=broken)
    assert not seen
    assert len(scores.failures) == len(FOLD.query) * 2


# --- predictions ---------------------------------------------------------------------------------


def test_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    seen: list[Segmented] = []
    writer = PredictionWriter(tmp_path / "p.safetensors", scans=tmp_path / "s", data_version="a")
    scored(seen.append)
    for one in seen:
        writer(one)
    writer.write()
    found = read_predictions(tmp_path / "p.safetensors")
    assert len(found) == len(seen)
    for one, kept in zip(seen, found):
        assert np.array_equal(kept.prediction, one.prediction)
        assert np.array_equal(kept.truth, one.truth)
        assert kept.slices == one.slices
        score = one.score
        assert (kept.scan_id, kept.class_name, kept.dice, kept.fold, kept.seed) == (
            score.scan_id, score.class_name, score.dice, score.fold, score.seed,
        )  # fmt: skip
        assert kept.aspect == 2.0
    # two classes of each scan share its pictures
    assert len(list((tmp_path / "s").iterdir())) == len(FOLD.query)


def test_nothing_predicted_nothing_kept(tmp_path: Path) -> None:
    PredictionWriter(tmp_path / "p", scans=tmp_path, data_version="a").write()
    assert read_predictions(tmp_path / "p") == []


def test_masks_of_any_size_survive() -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1), (3, 5, 7), (2, 8, 8)):
        mask = rng.random(shape) > 0.5
        assert np.array_equal(unsqueeze_mask(squeeze_mask(mask), shape), mask)


def test_a_real_sized_scan_is_kilobytes() -> None:
    rows, cols = np.mgrid[:256, :256]
    mask = np.stack([(rows - 90) ** 2 + (cols - 128) ** 2 < (3 * z) ** 2 for z in range(30)])
    assert squeeze_mask(mask).nbytes < 10_000


# --- pictures ------------------------------------------------------------------------------------


def test_pictures_are_proportioned_as_the_scan(written: Path) -> None:
    for one in read_predictions(written):
        pictures = image_of(one, written.parent.parent)
        assert pictures.dtype == np.uint8
        assert pictures.shape == (len(one.slices), 32, 21)  # of 48x32, not larger than the 32 shown
        small = area_average(torch.from_numpy(one.truth).float(), pictures.shape[1:]).numpy()
        inside, outside = pictures[small > 0.9], pictures[small < 0.1]
        assert np.median(inside) > 90
        assert np.median(outside) == 0


@pytest.mark.parametrize(
    ("shape", "size", "wanted"),
    [((400, 400), 256, (192, 192)), ((100, 50), 256, (100, 50)), ((300, 150), 64, (64, 32))],
)
def test_size_of_pictures(shape: tuple[int, int], size: int, wanted: tuple[int, int]) -> None:
    prepared = prepare(
        scan("1", tall=shape[0], wide=shape[1]), size=size, intensity=Intensity(0.0, 1.0)
    )
    assert draw(prepared).shape == (8, *wanted)


def test_pictures_are_written_once_and_told_apart(tmp_path: Path) -> None:
    name = keep_pictures(load("1"), tmp_path, "a")
    before = (tmp_path / f"{name}.safetensors").stat().st_mtime_ns
    assert keep_pictures(load("1"), tmp_path, "a") == name
    assert (tmp_path / f"{name}.safetensors").stat().st_mtime_ns == before
    others = {
        keep_pictures(load("2"), tmp_path, "a"),
        keep_pictures(load("1"), tmp_path, "b"),
        keep_pictures(load("1", size=16), tmp_path, "a"),
    }
    assert len(others | {name}) == 4
    assert np.array_equal(read_pictures(tmp_path, name), draw(load("1")))


def test_pictures_of_another_scan(written: Path) -> None:
    one = read_predictions(written)[0]
    with pytest.raises(DataError, match=r"have 8 slices, but scan .* in slice 9"):
        image_of(replace(one, slices=(9,)), written.parent.parent)
    with pytest.raises(DataError, match="there is no checkpoint"):
        image_of(replace(one, pictures="0" * 16), written.parent.parent)
    with pytest.raises(DataError, match="is no name of a scan's pictures"):
        image_of(replace(one, pictures="../cell/p"), written.parent.parent)


# --- files that cannot be used -------------------------------------------------------------------


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write the file anew, checksum and all, with another table."""
    words, _ = read_words(path)
    table = json.loads(words["table"])
    change(table["entries"][0])
    save_tensors(load_tensors(path), path, {"kind": words["kind"], "table": json.dumps(table)})


WRONG_ENTRIES = [
    ({"shape": [3, 48]}, "is no shape of a volume"),
    ({"shape": [3, 48, -32]}, "is no shape of a volume"),
    ({"shape": [3, 48, 32.0]}, "is no shape of a volume"),
    ({"shape": [10**6, 10**6, 10**6]}, "larger than"),
    ({"shape": [6, 48, 320]}, "do not hold the 11520 that were promised"),
    ({"shape": [6, 48, 16]}, "do not hold the 576 that were promised"),
    ({"slices": [1, 2]}, "are not the 6 slices"),
    ({"slices": [1, 2, 3, 4, 6, 5]}, "are not the 6 slices"),
    ({"slices": [-1, 2, 3, 4, 5, 6]}, "are not the 6 slices"),
    ({"slices": [1, 2, 3, 4, 5, "6"]}, "of type int"),
    ({"slices": 3}, "cannot be used as predictions"),
    ({"scan_id": 3}, "of type str"),
    ({"dice": 1.5}, "from 0 to 1"),
    ({"dice": float("nan")}, "from 0 to 1"),
    ({"aspect": None}, "from 0 to"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_ENTRIES, ids=lambda x: str(x)[:40])
def test_tables_that_do_not_fit(written: Path, change: dict[str, Any], message: str) -> None:
    edited(written, lambda entry: entry.update(change))
    with pytest.raises(DataError, match=message) as error:
        read_predictions(written)
    assert str(written) in str(error.value)


def test_damaged_files(written: Path) -> None:
    content, whole = written.read_bytes(), read_predictions(written)
    for cut in (0, 5, 100, len(content) // 2, len(content) - 1):
        written.write_bytes(content[:cut])
        with pytest.raises(DataError):
            read_predictions(written)
    for place in range(0, len(content), max(1, len(content) // 60)):
        changed = bytearray(content)
        changed[place] ^= 0x41
        written.write_bytes(changed)
        try:
            found = read_predictions(written)
        except DataError:
            continue
        # words that say nothing of the content, as the version that wrote it, are not sealed
        np.testing.assert_equal([vars(one) for one in found], [vars(one) for one in whole])
    pictures = next(written.parent.parent.glob("*.safetensors"))
    with pytest.raises(DataError, match="it holds pictures, not predictions"):
        read_predictions(pictures)
    with pytest.raises(DataError, match="there is no"):
        read_predictions(written.parent / "none")


def test_no_more_is_unpacked_than_was_promised() -> None:
    bomb = squeeze(np.zeros(10**7, np.uint8))
    assert bomb.nbytes < 20_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="do not hold the 100 that"):
        unsqueeze(bomb, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000
    for damaged in (bomb[:-1], bomb[2:], bomb.astype(np.int16), bomb[None]):
        with pytest.raises(ValueError, match="bytes"):
            unsqueeze(damaged, 10**7)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cell").write_text("a file where a folder should be")
    writer = PredictionWriter(tmp_path / "cell" / "p", scans=tmp_path, data_version="a")
    with pytest.raises(DataError, match="cannot be written"):
        writer.write()


# --- features ------------------------------------------------------------------------------------


class Pixels(nn.Module):
    """Features are the intensities of 8x8 blocks, in two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.stride, self.in_channels = 2, 4, 1

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 4).repeat(1, 2, 1, 1)


class Doubling(nn.Module):
    """An enrichment whose output can be told from its input."""

    def forward(self, features: Any, latent: Any) -> Any:
        return features.with_maps(2 * features.maps())


def pixels() -> nn.Module:
    return build("panet", encoder=Pixels(), enrichment=Doubling())


def features(method: nn.Module, **options: Any) -> FeatureSample:
    return collect_features(method, load, FOLD, CLASSES, matching=RULE, **options)


def test_features_are_the_enriched_ones_with_their_class() -> None:
    """A block's mean intensity says what it shows: 2 in the disc, 5 in the square."""
    sample = features(pixels(), count=40)
    assert sample.classes == ("disc", "square")
    assert np.bincount(sample.labels).tolist() == [20, 10, 10]
    of_disc, of_square = (sample.features[sample.labels == k] for k in (1, 2))
    assert of_disc.min() > 2 * 1.0
    assert of_disc.max() <= 2 * 2.0
    assert of_square.max() > 2 * 4.9
    assert np.median(sample.features[sample.labels == 0]) == 0


def test_the_choice_is_seeded_and_does_not_hang_on_the_method() -> None:
    first = features(pixels(), count=40)
    assert np.array_equal(first.features, features(pixels(), count=40).features)
    assert not np.array_equal(first.features, features(pixels(), count=40, seed=1).features)
    scaled = build("panet", encoder=Pixels())
    assert np.array_equal(first.features, 2 * features(scaled, count=40).features)


def test_features_are_collected_without_a_trace() -> None:
    method = pixels().train()
    features(method, count=4)
    assert method.training
    assert not any(part._forward_pre_hooks for part in method.modules())


def rows(points: np.ndarray) -> set[bytes]:
    return {point.tobytes() for point in points}


def test_labels_of_test_scans_do_not_reach_the_features() -> None:
    """Labels elsewhere in the same slices: the same features, other ones of them of the class."""

    def blind(name: str) -> PreparedScan:
        prepared = load(name)
        if name in FOLD.support:
            return prepared
        assert prepared.original_labels is not None
        flipped = prepared.original_labels[:, ::-1].copy()
        return replace(prepared, original_labels=flipped)

    method = build("panet", encoder=TinyEncoder())
    wide: dict[str, Any] = {"matching": RULE, "count": 10**6}
    own = collect_features(method, load, FOLD, {1: "disc"}, **wide)
    other = collect_features(method, blind, FOLD, {1: "disc"}, **wide)
    assert rows(own.features) == rows(other.features)
    assert rows(own.features[own.labels == 1]) != rows(other.features[other.labels == 1])


class Whole(nn.Module):
    def encode_support(self, support: Support) -> Support:
        return support

    def segment(self, state: Support, query_images: Tensor) -> Tensor:
        return query_images[:, :, :1].repeat(1, 1, 2, 1, 1)

    def forward(self, episode: Episode) -> Output:
        return Output(self.segment(episode.support, episode.query_images))


def test_a_whole_network_says_that_it_has_none(tmp_path: Path) -> None:
    sample = features(Whole())
    assert len(sample.features) == len(sample.labels) == 0
    assert sample.note == "Whole is a whole network without maps before a decoder"
    write_features(tmp_path / "f", sample)
    again = read_features(tmp_path / "f")
    assert (again.note, again.classes, len(again.features)) == (sample.note, sample.classes, 0)


def test_features_come_back_to_three_digits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = (1e6 * rng.normal(size=(50, 16))).astype(np.float32)
    sample = FeatureSample(points, rng.integers(0, 3, 50).astype(np.uint8), ("a", "b"))
    write_features(tmp_path / "f", sample)
    again = read_features(tmp_path / "f")
    np.testing.assert_allclose(again.features, points, rtol=1e-3, atol=1e2)
    assert np.array_equal(again.labels, sample.labels)
    assert again.features.dtype == np.float32


WRONG_FEATURES: list[tuple[dict[str, Tensor], dict[str, Any], str]] = [
    ({"features": torch.zeros(4)}, {}, "features are float16|features are float32"),
    ({"features": torch.zeros(4, 2)}, {}, "features are float32"),
    ({"labels": torch.zeros(3, dtype=torch.uint8)}, {}, "4 points have labels of shape"),
    ({"labels": torch.full((4,), 2, dtype=torch.uint8)}, {}, "label 2 is none of 1 classes"),
    ({"features": torch.full((4, 2), torch.inf).half()}, {}, "not finite"),
    ({}, {"scale": float("nan")}, "not finite"),
    ({}, {"classes": "a"}, "no names of classes"),
    ({}, {"scale": None}, "cannot be used as features"),
]


@pytest.mark.parametrize(("tensors", "table", "message"), WRONG_FEATURES, ids=lambda x: str(x)[:30])
def test_features_that_do_not_fit(
    tmp_path: Path, tensors: dict[str, Tensor], table: dict[str, Any], message: str
) -> None:
    good = {"features": torch.ones(4, 2).half(), "labels": torch.ones(4, dtype=torch.uint8)}
    words = {"classes": ["a"], "note": "", "scale": 1.0, **table}
    header = {"kind": "features", "table": json.dumps(words)}
    save_tensors({**good, **tensors}, tmp_path / "f", header)
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "f")


# --- through the calls that users make -----------------------------------------------------------


@pytest.fixture(scope="module")
def dataset() -> Phantom:
    return abdomen(n_scans=6, size=32, n_slices=6)


@pytest.fixture(scope="module")
def run(dataset: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder = {"name": "timm", "backbone": "test_resnet", "dim": 16, "in_channels": 1}
    changes = {"encoder": encoder, "prior.hidden": 8, "training.steps": 2}
    out = tmp_path_factory.mktemp("run")
    recipe = resolve_recipe("apscl", changes)
    options: dict[str, Any] = {"novel": "liver", "size": 32, "n_folds": 3, "cache": None}
    return train_fold(dataset, recipe, out=out, progress=False, **options)


def test_a_run_is_tested_with_its_predictions_kept(dataset: Phantom, run: Path) -> None:
    seen: dict[str, list[Segmented]] = {"run": [], "other": [], "copy": []}
    common: dict[str, Any] = {"surface": False, "cache": None}
    results = evaluate_runs(run, dataset, on_prediction=seen["run"].append, **common)
    evaluate_untrained(
        Copy(), dataset, read_notes(run), name="c", on_prediction=seen["other"].append, **common
    )
    evaluate_unlearned(
        "copy", dataset, folds=[0], novel=["liver"], n_folds=3, size=32,
        on_prediction=seen["copy"].append, **common,
    )  # fmt: skip
    assert [one.score for one in seen["run"]] == list(results.rows)
    assert [one.score.scan_id for one in seen["copy"]] == [r.scan_id for r in results.rows]
    for one, other in zip(seen["other"], seen["copy"], strict=True):
        assert one.score == other.score
        assert np.array_equal(one.prediction, other.prediction)


def test_features_of_a_run(dataset: Phantom, run: Path) -> None:
    sample = features_of_run(run, dataset, cache=None, count=20)
    assert sample.features.shape[1] == 16
    assert sample.classes == ("liver",)
    assert set(sample.labels.tolist()) == {0, 1}
    assert np.isfinite(sample.features).all()
    with pytest.raises(ValueError, match="unexpected"):
        features_of_run(run, dataset, cache=None, changes={"prior": None, "enrichment": None})
    sampled = features_of_run(
        run, dataset, cache=None, count=20,
        changes={"prior.eval_latent": "sample", "prior.eval_samples": 2},
    )  # fmt: skip
    assert sampled.features.shape == sample.features.shape
