"""From a method to a results table, on small made-up scans and on the real CHAOS scans."""

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from fewshot_seg.data.folds import Fold, make_folds
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.prepare import PreparedScan, prepare
from fewshot_seg.data.scan import Geometry, Scan
from fewshot_seg.episode import Episode, Output, Support
from fewshot_seg.errors import DataError, OptionError, PluginError, UnknownNameError
from fewshot_seg.evaluation import (
    FoldScores,
    Protocol,
    Results,
    ScanScore,
    Unscored,
    cross_validate,
    evaluate_fold,
    evaluate_scan,
    get_matching,
    provenance,
)
from fewshot_seg_copy import Copy

CLASSES = {1: "disc", 4: "square"}
KEEP = Intensity(0.0, 1.0)


def make_scan(index: int, *, size: int = 32, classes: Mapping[int, str] = CLASSES) -> Scan:
    """8 slices; the disc (label 1, intensity 2) on 1..6, the square (label 4, intensity 5) on 2..4.

    Both are moved by the scan's index.
    """
    labels = np.zeros((8, size, size), np.uint8)
    rows, cols = np.mgrid[:size, :size]
    if 1 in classes:
        labels[1:7, (rows - 10) ** 2 + (cols - 10 - index % 3) ** 2 < 30] = 1
    if 4 in classes:
        labels[2:5, 18:26, 16 + index % 4 : 26 + index % 4] = 4
    image = np.select([labels == 1, labels == 4], [2.0, 5.0], 0.0)[:, None]
    return Scan(str(index), image.astype(np.float32), labels, (4.0, 1.5, 1.5))


class Toy:
    """A data set of made-up scans; `broken` ones raise when loaded, `without` lack a class."""

    name = "toy"
    modality = "mr"
    classes: Mapping[int, str] = CLASSES

    def __init__(
        self, n: int = 6, *, broken: tuple[str, ...] = (), without: dict[str, int] | None = None
    ) -> None:
        self.ids = tuple(map(str, range(n)))
        self.broken, self.without = broken, without or {}
        self.loads: list[str] = []

    def load(self, scan_id: str) -> Scan:
        self.loads.append(scan_id)
        if scan_id in self.broken:
            raise DataError(f"image_{scan_id}.nii.gz is damaged")
        lacking = self.without.get(scan_id)
        return make_scan(int(scan_id), classes={k: v for k, v in CLASSES.items() if k != lacking})


class Spy(nn.Module):
    """Answers with all pixels as bright as the support's mean under its mask; notes its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm2d(1).eval()
        self.supports: list[Support] = []
        self.queries: list[Tensor] = []

    def encode_support(self, support: Support) -> Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.supports.append(support)
        total = (support.images[:, :, :, 0] * support.masks).sum((2, 3, 4))
        return total / support.masks.sum((2, 3, 4)).clamp(min=1)

    def segment(self, state: Tensor, query_images: Tensor) -> Tensor:
        self.queries.append(query_images)
        away = (query_images[:, :, :1] - state[:, None, :, None, None]).abs()
        return torch.cat([torch.full_like(away, 0.5), 1 - away], 2)

    def forward(self, episode: Episode) -> Output:
        return Output(self.segment(self.encode_support(episode.support), episode.query_images))


def prepared(index: int, *, size: int = 32, **options: object) -> PreparedScan:
    return prepare(make_scan(index, **options), size=size, intensity=KEEP, channels=1)  # type: ignore[arg-type]


def score(method: nn.Module, *, query: PreparedScan | None = None, **options: object) -> ScanScore:
    settings = {"class_id": 1, "matching": get_matching("parts-3"), **options}
    return evaluate_scan(method, [prepared(0)], query or prepared(1), **settings)  # type: ignore[arg-type]


def test_a_right_answer_scores_one_and_a_wrong_one_less() -> None:
    right = score(Spy(), class_name="disc", fold=3, seed=7)
    assert (right.dice, right.hd95, right.assd, right.unit) == (1.0, 0.0, 0.0, "mm")
    assert (right.class_name, right.fold, right.scan_id, right.seed) == ("disc", 3, "1", 7)
    assert right.n_slices == 6
    assert right.n_predicted == right.n_truth == 6 * int((make_scan(1).labels[1] == 1).sum())
    wrong = score(Copy())
    first, second = (make_scan(i).labels[1] == 1 for i in (0, 1))
    assert wrong.dice == pytest.approx(2 * (first & second).sum() / (first.sum() + second.sum()))
    assert wrong.hd95 == pytest.approx(1.5)  # moved by one pixel


def test_the_answer_is_upsampled_and_scored_on_the_labels_as_stored() -> None:
    small = prepared(1, size=16)
    row = evaluate_scan(
        Copy(), [prepared(1, size=16)], small, class_id=4, matching=get_matching("parts-3")
    )
    assert row.n_truth == 3 * 8 * 10  # pixels of the stored labels, not of the 16x16 ones
    assert 0.85 < row.dice < 1
    wide = prepare(make_scan(1), size=(16, 24), intensity=KEEP, channels=1)
    row = evaluate_scan(Copy(), [wide], wide, class_id=1, matching=get_matching("middle"))
    assert row.n_slices == 8
    assert 0.5 < row.dice < 1


def test_each_slice_is_compared_with_its_own_labels() -> None:
    scan = make_scan(1)
    assert scan.labels is not None
    for index in range(8):  # a disc that shrinks upwards
        scan.labels[index, : 6 + index] = 0
    query = replace(scan, image=np.where(scan.labels == 1, 2.0, 0.0)[:, None].astype(np.float32))
    row = score(Spy(), query=prepare(query, size=32, intensity=KEEP, channels=1))
    assert (row.dice, row.hd95) == (1.0, 0.0)


def test_all_slices_are_scored_without_the_range_and_false_positives_count() -> None:
    inside = score(Copy(), matching=get_matching("middle-range"))
    everywhere = score(Copy(), matching=get_matching("middle"))
    assert (inside.n_slices, everywhere.n_slices) == (6, 8)
    assert everywhere.n_predicted == inside.n_predicted * 8 // 6
    assert everywhere.dice < inside.dice


def test_support_is_encoded_once_a_part_and_the_batch_size_changes_nothing() -> None:
    spies = [Spy(), Spy()]
    rows = [score(spy, batch=batch) for spy, batch in zip(spies, (1, 100))]
    assert rows[0] == rows[1]
    assert [len(spy.supports) for spy in spies] == [3, 3]
    assert [len(spy.queries) for spy in spies] == [6, 3]
    one_slice = replace(prepared(0), class_slices={1: (3,)})
    spy = Spy()
    evaluate_scan(spy, [one_slice], prepared(1), class_id=1, matching=get_matching("parts-3"))
    assert len(spy.supports) == 1  # three parts with the same support slice


def test_several_support_scans_are_shots_of_one_way() -> None:
    spy = Spy()
    scans = [prepared(0), prepared(2)]
    evaluate_scan(spy, scans, prepared(1), class_id=4, matching=get_matching("middle"))
    support = spy.supports[0]
    assert (support.n_way, support.n_shot) == (1, 2)
    for shot, scan in enumerate(scans):
        assert torch.equal(support.images[0, 0, shot], scan.images[3])
        assert scan.labels is not None
        assert torch.equal(support.masks[0, 0, shot].bool(), scan.labels[3] == 4)


def test_query_labels_never_reach_the_method() -> None:
    """Other labels, same answer: only the score may change."""
    query = prepared(1)
    assert query.original_labels is not None
    moved = replace(
        query, original_labels=np.roll(query.original_labels, 9, 1), labels=None, class_slices={}
    )
    spies = [Spy(), Spy()]
    rows = [
        score(spies[0], query=query, matching=get_matching("middle")),
        # `middle` works though nobody says where the class is
        score(
            spies[1],
            query=replace(moved, class_slices={1: (0,)}),
            matching=get_matching("middle"),
        ),
    ]
    assert all(torch.equal(a, b) for a, b in zip(spies[0].queries, spies[1].queries, strict=True))
    assert rows[0].n_predicted == rows[1].n_predicted
    assert rows[1].dice < 0.5 < rows[0].dice


def test_the_method_is_left_as_it_was() -> None:
    spy = Spy().train()
    spy.frozen.eval()
    score(spy)
    assert spy.training
    assert not spy.frozen.training
    assert torch.is_grad_enabled()
    with pytest.raises(DataError):
        score(spy, class_id=9)
    assert spy.training


def test_nothing_predicted_is_zero_dice_and_no_distance() -> None:
    blank = prepared(0)
    assert blank.labels is not None
    blank = replace(blank, labels=torch.zeros_like(blank.labels))  # lost in resizing
    row = evaluate_scan(
        Copy(), [blank], prepared(1), class_id=1, matching=get_matching("middle-range")
    )
    assert row.dice == 0
    assert row.hd95 is not None
    assert math.isnan(row.hd95)
    assert row.notes == (
        "nothing predicted",
        "support mask of scan 0, slice 4 vanished in resizing",
    )


@pytest.mark.parametrize(
    ("logits", "told"),
    [
        (torch.full((1, 6, 2, 32, 32), math.nan), "logits that are NaN or infinite"),
        (torch.full((1, 6, 2, 32, 32), math.inf), "logits that are NaN or infinite"),
        (torch.zeros(1, 6, 3, 32, 32), r"gave logits of shape \(1, 6, 3, 32, 32\)"),
        (torch.zeros(1, 6, 2, 16, 16), r"asked for was \(1, 6, 2, 32, 32\)"),
    ],
)
def test_an_answer_that_is_none_is_refused(
    logits: Tensor, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spy, "segment", lambda *_: logits)
    with pytest.raises(PluginError, match=told):
        score(Spy(), matching=get_matching("middle-range"))


def test_pictures_without_spacing_are_measured_in_pixels() -> None:
    scan = make_scan(1)
    assert scan.labels is not None
    picture = Scan("1", scan.image[3:4], scan.labels[3:4])
    query = prepare(picture, size=32, intensity=KEEP, channels=1)
    row = score(Copy(), query=query)
    assert (row.unit, row.n_slices) == ("px", 1)
    assert row.hd95 == pytest.approx(1.0)
    assert score(Copy(), query=query, surface=False).hd95 is None


@pytest.mark.parametrize(
    ("support", "query", "told"),
    [
        (make_scan(0, classes={4: "square"}), make_scan(1), "support scan 0 does not show disc"),
        (make_scan(0), make_scan(1, classes={4: "square"}), "query scan 1 does not show disc"),
        (replace(make_scan(0), labels=None), make_scan(1), "scan 0 has no labels"),
        (make_scan(0), replace(make_scan(1), labels=None), "scan 1 has no labels"),
    ],
)
def test_what_cannot_be_evaluated_is_said(support: Scan, query: Scan, told: str) -> None:
    ready = [prepare(scan, size=32, intensity=KEEP, channels=1) for scan in (support, query)]
    with pytest.raises(DataError, match=told):
        evaluate_scan(
            Copy(),
            ready[:1],
            ready[1],
            class_id=1,
            matching=get_matching("parts-3"),
            class_name="disc",
        )


def test_a_fold_goes_on_past_absent_classes_and_damaged_scans() -> None:
    toy = Toy(broken=("2",), without={"1": 4})
    fold = Fold(0, ("5",), ("4",), ("0", "1", "2", "3"))

    def load(scan_id: str) -> PreparedScan:
        return prepare(toy.load(scan_id), size=32, intensity=KEEP, channels=1)

    found = evaluate_fold(Spy(), load, fold, CLASSES, matching=get_matching("parts-3"), seed=5)
    assert [(row.scan_id, row.class_name) for row in found.rows] == [
        ("0", "disc"),
        ("0", "square"),
        ("1", "disc"),
        ("3", "disc"),
        ("3", "square"),
    ]
    assert all(row.dice == 1 for row in found.rows)
    assert [(e.scan_id, e.class_name, e.seed) for e in found.skipped] == [("1", "square", 5)]
    assert [(e.scan_id, e.class_name) for e in found.failures] == [("2", "disc"), ("2", "square")]
    assert found.failures[0].reason == "DataError: image_2.nii.gz is damaged"
    assert toy.loads == ["4", "0", "1", "2", "3"]


class Fragile(Spy):
    """Cannot digest the second scan (its disc lies one pixel to the right of the first one's)."""

    def segment(self, state: Tensor, query_images: Tensor) -> Tensor:
        if torch.equal(query_images[0, 0], prepared(1).images[1]):
            raise RuntimeError("out of memory")
        return super().segment(state, query_images)


def test_a_method_that_fails_on_one_scan_fails_there_only() -> None:
    fold = Fold(0, (), ("0",), ("1", "2"))
    found = evaluate_fold(
        Fragile(),
        lambda scan_id: prepared(int(scan_id)),
        fold,
        {1: "disc"},
        matching=get_matching("parts-3"),
    )
    assert [row.scan_id for row in found.rows] == ["2"]
    assert [entry.reason for entry in found.failures] == ["RuntimeError: out of memory"]


def test_cross_validation_asks_for_each_fold_and_class_and_loads_each_scan_once_a_fold() -> None:
    toy = Toy()
    asked: list[tuple[int, str]] = []
    seen: list[FoldScores] = []

    def make(fold: Fold, class_name: str) -> Spy:
        asked.append((fold.index, class_name))
        assert not set(fold.train) & {*fold.support, *fold.query}
        return Spy()

    results = cross_validate(
        toy,
        make,
        n_folds=3,
        size=32,
        channels=1,
        intensity=KEEP,
        surface=False,
        setting="setting2_any",
        seed=3,
        name="spy",
        on_scores=seen.append,
    )
    assert asked == [(fold, name) for fold in range(3) for name in ("disc", "square")]
    assert sum(seen, FoldScores()) == results.scores
    assert toy.loads == ["2", "0", "1", "4", "2", "3", "0", "4", "5"]
    assert results.mean() == 1
    assert len(results.rows) == 12
    protocol = results.protocol
    assert (protocol.matching, protocol.uses_query_range) == ("parts-3", True)
    assert (protocol.folds, protocol.seeds, protocol.size) == ((0, 1, 2), (3,), (32, 32))
    assert protocol.intensity == "mean 0, standard deviation 1"
    assert {"date", "device", "commit", "torch"} <= set(results.provenance)


def test_one_fold_and_class_of_a_cross_validation() -> None:
    results = cross_validate(
        Toy(), lambda *_: Copy(), folds=[2], classes=["Square"], n_folds=3, n_shot=2, size=32
    )
    assert results.classes == ("square",)
    assert [row.scan_id for row in results.rows] == ["4", "5"]
    assert results.protocol.folds == (2,)
    assert results.protocol.n_shot == 2


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"matching": "part-3"}, UnknownNameError, "did you mean 'parts-3'"),
        ({"setting": "setting3"}, UnknownNameError, "did you mean 'setting1'"),
        ({"classes": ["disk"]}, UnknownNameError, "did you mean 'disc'"),
        ({"folds": [0, 3]}, OptionError, r"folds 0 to 2; got \[3\]"),
        ({"n_folds": 9}, DataError, "6 scans cannot make 9 folds"),
    ],
)
def test_wrong_options(options: dict, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        cross_validate(Toy(), lambda *_: Copy(), **{"n_folds": 3, "size": 32, **options})


def test_when_no_scan_can_be_scored_the_reason_is_raised() -> None:
    with pytest.raises(DataError, match=r"could be scored \(4 failures\).*image_2"):
        cross_validate(Toy(broken=("2",)), lambda *_: Copy(), n_folds=3, folds=[0], size=32)
    nowhere = Toy(without={str(i): 4 for i in range(6)})
    with pytest.raises(DataError, match="no query scan of toy shows any of the classes"):
        cross_validate(nowhere, lambda *_: Copy(), n_folds=3, classes=[4], size=32)


# --- results -----------------------------------------------------------------------------------

RULES = Protocol(
    dataset="toy",
    matching="parts-3",
    uses_query_range=True,
    setting="setting1",
    n_shot=1,
    size=(32, 32),
    intensity="z-score of each scan",
    n_folds=5,
    folds=(0, 1),
)


def row(fold: int, scan: str, dice: float, hd95: float | None = 2.0, name: str = "a") -> ScanScore:
    return ScanScore(
        fold=fold,
        class_name=name,
        scan_id=scan,
        dice=dice,
        hd95=hd95,
        assd=hd95,
        unit="mm",
        n_slices=3,
        n_predicted=4,
        n_truth=5,
    )


@pytest.fixture
def results() -> Results:
    rows = (
        row(0, "1", 0.2),
        row(0, "2", 0.4, math.nan),
        row(0, "3", 0.6, 4.0),
        row(1, "4", 0.8, 9.0),
        row(0, "1", 0.1, name="b[red]"),
    )
    failure = Unscored(fold=1, class_name="a", scan_id="5", reason="damaged")
    skip = Unscored(fold=1, class_name="b[red]", scan_id="4", reason="the class is not there")
    return Results(RULES, FoldScores(rows, (failure,), (skip,)), "mine", {"device": "cpu"})


def test_means_go_over_scans_then_folds_then_classes(results: Results) -> None:
    summary = results.summary()["a"]
    assert summary.dice == pytest.approx((0.4 + 0.8) / 2)
    assert summary.median == pytest.approx(0.5)
    assert summary.sd_scans == pytest.approx(np.std([0.2, 0.4, 0.6, 0.8], ddof=1))
    assert summary.sd_folds == pytest.approx(np.std([0.4, 0.8], ddof=1))
    assert summary.hd95 == pytest.approx((3 + 9) / 2)  # the empty prediction has no distance
    assert (summary.n_scans, summary.n_folds, summary.n_failed) == (4, 2, 1)
    assert summary.n_without_surface == 1
    assert results.summary()["b[red]"].n_skipped == 1
    assert math.isnan(results.summary()["b[red]"].sd_folds)
    assert results.mean() == pytest.approx((0.6 + 0.1) / 2)
    assert results.mean("a", fold=0) == pytest.approx(0.4)
    assert results.mean("a", metric="assd") == pytest.approx(6)
    assert math.isnan(results.mean("a", fold=4))
    with pytest.raises(KeyError, match="no class 'c' in these results: a, b"):
        results.mean("c")


def test_millimetres_and_pixels_are_not_averaged() -> None:
    mixed = FoldScores((row(0, "1", 0.5), replace(row(0, "2", 0.5), unit="px")))
    with pytest.raises(ValueError, match="in mm and in px"):
        Results(RULES, mixed).summary()


def test_the_table_shows_figures_gaps_and_protocol(results: Results) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(results.table())
    text = console.export_text()
    for expected in (
        "mine",
        "HD95 mm",
        "60.0",
        "6.00",
        "4, 1 failed, 1 empty prediction",
        "1, 1 without the class",
        "b[red]",
        "parts-3: uses the query's ground-truth organ range",
        "fold 0, 1 of 5",
        "device cpu",
    ):
        assert expected in " ".join(text.split()), expected


def test_json_holds_everything_and_csv_a_line_a_score(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    results.to_json(path)
    again = Results.from_json(path)
    assert again.protocol == results.protocol
    assert again.failures == results.failures
    assert again.skipped == results.skipped
    assert (again.name, again.provenance) == ("mine", {"device": "cpu"})
    assert repr(again.rows) == repr(results.rows)  # by repr: NaN is not equal to itself
    json.loads(path.read_text(), parse_constant=pytest.fail)  # no NaN: strict JSON
    results.to_csv(path.with_suffix(".csv"))
    lines = path.with_suffix(".csv").read_text().splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("matching,fold,class_name,scan_id,dice,hd95")
    assert lines[2].startswith("parts-3,0,a,2,0.4,nan,nan,mm")
    assert sorted(file.name for file in path.parent.iterdir()) == ["results.csv", "results.json"]


def test_what_cannot_be_written_is_said_and_leaves_nothing(
    results: Results, tmp_path: Path
) -> None:
    (tmp_path / "results.json").mkdir()
    with pytest.raises(DataError, match=r"results\.json cannot be written"):
        results.to_json(tmp_path / "results.json")
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "rows": [{}]}', "\x80"]
)
def test_damaged_files_are_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"r\.json is not a results file"):
        Results.from_json(path)
    with pytest.raises(DataError, match=r"none\.json cannot be read"):
        Results.from_json(tmp_path / "none.json")


def test_folds_that_were_run_apart_can_be_put_together(results: Results) -> None:
    rules = replace(RULES, folds=(2,), seeds=(1,))
    more = FoldScores((row(2, "9", 1.0),))
    both = results.merge(Results(rules, more, "mine", {"device": "gpu", "torch": "2"}))
    assert (both.protocol.folds, both.protocol.seeds) == ((0, 1, 2), (0, 1))
    assert both.provenance == {"device": "cpu | gpu", "torch": "2"}
    assert both.mean("a") == pytest.approx((0.4 + 0.8 + 1.0) / 3)


def test_results_that_do_not_belong_together_are_refused(results: Results) -> None:
    other = replace(RULES, matching="middle", uses_query_range=False)
    with pytest.raises(ValueError, match=r"\(matching: 'parts-3' and 'middle'; uses_query"):
        results.merge(Results(other, FoldScores(), "mine"))
    with pytest.raises(ValueError, match=r"5 scores stand in both.*a of scan 1 in fold 0, seed 0"):
        results.merge(results)
    with pytest.raises(ValueError, match="'mine' and 'yours' are different methods"):
        results.merge(Results(RULES, FoldScores(), "yours"))


def test_provenance_tells_no_path() -> None:
    facts = provenance()
    assert torch.__version__.startswith(facts["torch"])
    assert facts["device"] == "cpu"
    assert not any("/" in value for value in facts.values())


# --- real scans --------------------------------------------------------------------------------


def chaos(root: Path) -> SimpleNamespace:
    """The published CHAOS preparation, read by nibabel alone."""

    def read(kind: str, scan_id: str) -> tuple[np.ndarray, Geometry]:
        file = nib.load(root / f"{kind}_{scan_id}.nii.gz")
        geometry = Geometry(file.affine, file.shape)
        return geometry.to_slices(np.asarray(file.dataobj)), geometry

    def labels(scan_id: str) -> np.ndarray:
        return read("label", scan_id)[0]

    def load(scan_id: str) -> Scan:
        image, geometry = read("image", scan_id)
        grey = image[:, None].astype(np.float32)
        return Scan(scan_id, grey, labels(scan_id), geometry.spacing, geometry)

    ids = sorted((path.name[6:-7] for path in root.glob("image_*.nii.gz")), key=int)
    names = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
    return SimpleNamespace(
        name="chaos", modality="mr", classes=names, ids=tuple(ids), load=load, labels=labels
    )


def copied_dice(labels: dict[str, np.ndarray], fold: Fold, class_id: int) -> float:
    """The protocol once more from its description, slice by slice."""
    source = labels[fold.support[0]] == class_id
    shown = [z for z in range(len(source)) if source[z].any()]
    dices = []
    for scan_id in fold.query:
        truth = labels[scan_id] == class_id
        own = [z for z in range(len(truth)) if truth[z].any()]
        overlap = total = 0
        for z in range(own[0], own[-1] + 1):
            part = min(3 * (z - own[0]) // (own[-1] - own[0]), 2)
            mask = source[shown[len(shown) * (1 + 2 * part) // 6]]
            overlap += int((mask & truth[z]).sum())
            total += int(mask.sum() + truth[z].sum())
        dices.append(2 * overlap / total)
    return float(np.mean(dices))


def test_copying_masks_on_chaos(shared_data: Callable[[str], Path]) -> None:
    """Files, folds, preparation, matching, method, upsampling, scores: the whole path."""
    dataset = chaos(shared_data("chaos_MR_T2_normalized"))
    results = cross_validate(
        dataset, lambda *_: Copy(), size=256, channels=1, batch=32, surface=False
    )
    expected = {"liver": 58.5, "right kidney": 38.5, "left kidney": 43.7, "spleen": 35.0}
    assert {n: 100 * results.mean(n) for n in results.classes} == pytest.approx(expected, abs=0.1)
    assert len(results.rows) == 80
    assert not results.failures
    assert not results.skipped

    labels = {i: dataset.labels(i) for i in dataset.ids}
    for fold in make_folds(dataset.ids):
        for class_id, name in dataset.classes.items():
            slow = copied_dice(labels, fold, class_id)
            assert results.mean(name, fold=fold.index) == pytest.approx(slow, abs=1e-9)
