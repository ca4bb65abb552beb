"""One labelled scan and a folder of others: found, trained on, segmented, resumed, reported."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from test_dicom import write_series
from typer.testing import CliRunner

from fewshot_seg.cli import app
from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.nifti import read_labels, read_scan, write_labels
from fewshot_seg.errors import CheckpointError, DataError, FewshotSegError, OptionError
from fewshot_seg.evaluation.metrics import dice
from fewshot_seg.experiment import evaluate_runs, read_notes, resolve_recipe, train_fold
from fewshot_seg.experiment.oneshot import OneShotReport, oneshot
from fewshot_seg.experiment.oneshot.choose import choose

TINY = {
    "encoder": {"name": "timm", "backbone": "test_resnet", "dim": 16, "in_channels": 1},
    "episodes.superpixel_size": 100,
    "episodes.supervoxel_size": 200,
}
LIGHT = {"method": "alpnet", "changes": TINY, "steps": 2, "size": 32, "matching": "middle",
         "progress": False}  # fmt: skip
WORDS = ["--method", "alpnet", "--steps", "2", "--size", "32", "--matching", "middle"] + [
    word for key, value in TINY.items() if key != "encoder" for word in ("--set", f"{key}={value}")
]
WORDS += ["--set", 'encoder={name="timm", backbone="test_resnet", dim=16, in_channels=1}']


def write_scan(folder: Path, number: int) -> None:
    """A body with a bright organ and a dark one, in another place in every scan."""
    grid = np.meshgrid(*(np.arange(size) for size in (32, 32, 8)), indexing="ij")

    def inside(centre: tuple[float, ...], radius: tuple[float, ...]) -> np.ndarray:
        return sum(((a - c) / r) ** 2 for a, c, r in zip(grid, centre, radius)) < 1

    labels = np.zeros((32, 32, 8), np.uint8)
    labels[inside((12 + 2 * number, 12 + number, 4), (6, 6, 5))] = 1
    labels[inside((16, 22, 3), (4, 3, 3))] = 2
    image = np.array([100.0, 300.0, 30.0])[labels] * inside((16, 16, 4), (15, 14, 40))
    image += 10 * np.random.default_rng(number).random(image.shape)
    affine = np.diag([-2.0, 2.0, 6.0, 1.0])
    for kind, data in (("image", image.astype(np.float32)), ("label", labels)):
        nib.save(nib.Nifti1Image(data, affine), folder / f"{kind}_{number}.nii.gz")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for number in range(1, 5):
        write_scan(folder, number)
    return folder


def make_plain(scans: Path, root: Path) -> Path:
    """Four scans without labels, below folders with a space and an umlaut; one label beside."""
    for patient in "1234":
        folder = root / "my scäns" / f"patient {patient}"
        folder.mkdir(parents=True)
        shutil.copy(scans / f"image_{patient}.nii.gz", folder / "t2.nii.gz")
    shutil.copy(scans / "label_2.nii.gz", root / "my labels.nii.gz")
    return root / "my scäns"


@pytest.fixture
def plain(scans: Path, tmp_path: Path) -> Path:
    return make_plain(scans, tmp_path)


@pytest.fixture(scope="module")
def trained(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `plain`, with a finished run beside it."""
    plain = make_plain(scans, tmp_path_factory.mktemp("trained"))
    run(plain)
    return plain


@pytest.fixture
def finished(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, where training again would fail; as it was afterwards."""
    out = trained.parent / "out"
    kept = trained.parent / "kept"
    shutil.copytree(out, kept)  # with the times of files
    monkeypatch.setattr("fewshot_seg.experiment.oneshot.learn.train_unlabelled", None)
    yield trained
    shutil.rmtree(out)
    kept.rename(out)


def run(scans: Path, **options: object) -> OneShotReport:
    given = {**LIGHT, "out": scans.parent / "out", **options}
    given.setdefault("labels", [scans.parent / "my labels.nii.gz"])
    given.setdefault("which", ["patient 2"])
    return oneshot(scans, **given)  # type: ignore[arg-type]


def test_a_plain_folder_with_one_label_file(plain: Path) -> None:
    report = run(plain)
    assert report.ok
    assert list(report.answers) == ["patient 1", "patient 3", "patient 4"]
    out = plain.parent / "out"
    for scan_id, answer in report.answers.items():
        assert answer.labels == out / "segmented" / f"{scan_id}_seg.nii.gz"
        source = nib.load(plain / scan_id / "t2.nii.gz")
        found = nib.load(answer.labels)
        assert found.shape == source.shape
        np.testing.assert_array_equal(found.affine, source.affine)
        assert set(np.unique(np.asanyarray(found.dataobj))) <= {0, 1, 2}
    assert not report.scores  # nothing tells what is right
    assert (out / "overlay.png").stat().st_size > 10_000
    told = (out / "report.md").read_text(encoding="utf-8")
    for words in (
        "patient 3",
        "alpnet on 4 scans without labels",
        "second example:",
        "--out later",
    ):
        assert words in told
    assert not list(out.rglob("*.part"))


def test_it_learns_to_find_an_organ(scans: Path, tmp_path: Path) -> None:
    options = {**LIGHT, "steps": 40, "size": 64, "classes": [1]}
    report = oneshot(scans, [scans / "label_2.nii.gz"], out=tmp_path, **options)
    # 0.63 with torch 2.15, 0.48 with 2.8
    assert report.mean_dice()[1] > 0.4, report.scores
    truth = read_labels(scans / "label_3.nii.gz")[0]
    found = read_labels(report.answers["3"].labels)[0]
    assert report.scores["3"][1] == dice(found == 1, truth == 1)


def test_the_labels_of_other_scans_are_not_opened_before_the_end(
    scans: Path, tmp_path: Path
) -> None:
    shutil.copytree(scans, tmp_path / "s")
    whole = oneshot(tmp_path / "s", [tmp_path / "s/label_2.nii.gz"], out=tmp_path / "a", **LIGHT)
    assert set(whole.scores) == {"1", "3", "4"}
    for number in (1, 3, 4):
        (tmp_path / "s" / f"label_{number}.nii.gz").unlink()
    alone = oneshot(tmp_path / "s", [tmp_path / "s/label_2.nii.gz"], out=tmp_path / "b", **LIGHT)
    assert not alone.scores
    for scan_id, answer in whole.answers.items():
        assert answer.labels.read_bytes() == alone.answers[scan_id].labels.read_bytes()


def test_the_same_call_goes_on_and_does_nothing_twice(finished: Path) -> None:
    out = finished.parent / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    (out / "segmented" / "patient 3_seg.nii.gz").unlink()
    shutil.copytree(finished / "patient 1", finished / "patient 5")  # a scan that came later
    report = run(finished, which=[str(finished / "patient 2" / "t2.nii.gz")])
    shutil.rmtree(finished / "patient 5")
    assert report.ok
    assert list(report.answers) == ["patient 1", "patient 3", "patient 4", "patient 5"]
    for path, written in before.items():
        assert (path.stat().st_mtime_ns == written) == ("patient 3" not in path.name)


def test_another_label_file_uses_the_same_training(finished: Path, scans: Path) -> None:
    labels = [finished.parent / "my labels.nii.gz", scans / "label_3.nii.gz"]
    both = run(finished, labels=labels, which=["patient 2", "patient 3"])
    assert list(both.answers) == ["patient 1", "patient 4"]
    assert (finished.parent / "out" / "segmented" / "patient 3_seg.nii.gz").exists()


def test_an_answer_that_somebody_corrected_is_never_overwritten(finished: Path) -> None:
    mine = finished.parent / "out" / "segmented" / "patient 3_seg.nii.gz"
    geometry = read_scan(finished / "patient 3" / "t2.nii.gz").geometry
    assert geometry is not None
    write_labels(mine, np.ones((8, 32, 32), int), geometry)
    kept = mine.read_bytes()
    assert "was changed after it was written" in run(finished).answers["patient 3"].notes
    for _ in range(2):
        other = run(finished, matching="spread-2")
        assert "give it as the labels" in other.failures["patient 3"].reason
        assert mine.read_bytes() == kept


def test_another_method_needs_another_folder(finished: Path) -> None:
    with pytest.raises(CheckpointError, match=r"of other settings: size 32 there, 48 now"):
        run(finished, size=48)
    with pytest.raises(CheckpointError, match="method or its changes"):
        run(finished, changes={**TINY, "decoder.scale": 3.0})


def test_bad_scans_are_named_and_the_others_done(plain: Path) -> None:
    good = (plain / "patient 3" / "t2.nii.gz").read_bytes()
    (plain / "patient 3" / "t2.nii.gz").write_bytes(good[: len(good) // 2])
    (plain / "patient 5").mkdir()
    (plain / "patient 5" / "t2.nii.gz").symlink_to(plain / "nowhere.nii.gz")
    write_series(plain / "patient 6")
    write_series(plain / "patient 6", uid="9.9", first=40)
    words = [str(plain), "--label", str(plain.parent / "my labels.nii.gz"), "--scan"]
    words += ["patient 2_t2", "--out", str(plain.parent / "out"), *WORDS]
    done = CliRunner().invoke(app, ["oneshot", *words], env={"COLUMNS": "300"})
    assert done.exit_code == 2, done.output
    for told in ("truncated", "does not exist", "2 DICOM series"):
        assert told in done.output
    found = sorted(path.name for path in (plain.parent / "out" / "segmented").iterdir())
    assert found == ["patient 1_t2_seg.nii.gz", "patient 4_t2_seg.nii.gz"]


def test_folders_of_dicom_series(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for patient in "123":
        voxels = rng.integers(0, 100, (6, 32, 32)).astype(np.int16)
        voxels[1:5, 8:20, 8:20] += 400
        write_series(tmp_path / "export" / patient / "T2" / "DICOM", voxels)
    scan = read_scan(tmp_path / "export" / "2" / "T2" / "DICOM")
    assert scan.geometry is not None
    write_labels(tmp_path / "l.nii.gz", (scan.image[:, 0] > 300).astype(int), scan.geometry)
    report = oneshot(
        tmp_path / "export", [tmp_path / "l.nii.gz"], which=["2"], out=tmp_path / "out", **LIGHT
    )
    assert list(report.answers) == ["1", "3"]
    placed = read_scan(tmp_path / "export/1/T2/DICOM", report.answers["1"].labels)
    assert placed.labels is not None  # on the series' own grid, or this would have raised


def test_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "cells").mkdir()
    for number in range(5):
        pixels = rng.integers(0, 60, (40, 44, 3), np.uint8)
        pixels[10:26, 10 + number : 24 + number] += 150
        Image.fromarray(pixels).save(tmp_path / "cells" / f"{number}.png")
    mask = np.zeros((40, 44), np.uint8)
    mask[10:26, 12:26] = 1
    Image.fromarray(mask).save(tmp_path / "2_label.png")
    options = {**LIGHT, "matching": None}
    report = oneshot(
        tmp_path / "cells", [tmp_path / "2_label.png"], out=tmp_path / "out", **options
    )
    assert report.matching == "middle"
    assert not any("laid along" in note for one in report.answers.values() for note in one.notes)
    assert [one.labels.name for one in report.answers.values()] == [
        f"{number}_seg.png" for number in (0, 1, 3, 4)
    ]
    assert report.unit == "% of area"


def test_the_blood_cells(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    """The 2-D set through the one command; its figures stand in docs/tutorial.md."""
    folder = shared_data("wbc_dataset1_2d")
    for kind in ("images", "labels"):
        (tmp_path / "wbc" / kind).mkdir(parents=True)
        for path in sorted((folder / kind).iterdir())[:6]:
            (tmp_path / "wbc" / kind / path.name).symlink_to(path)
    report = oneshot(
        tmp_path / "wbc", [tmp_path / "wbc" / "labels" / "001.png"], out=tmp_path / "out", **LIGHT
    )
    assert report.ok
    assert len(report.scores) == 5
    assert set(report.mean_dice()) == {1, 2}


def test_the_blood_cells_through_train_and_evaluate(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shared_data("wbc_dataset1_2d")
    for kind in ("images", "labels"):
        (tmp_path / "wbc" / kind).mkdir(parents=True)
        for path in sorted((folder / kind).iterdir())[:6]:
            (tmp_path / "wbc" / kind / path.name).symlink_to(path)
    dataset = open_folder(root=tmp_path / "wbc", classes={1: "cytoplasm", 2: "nucleus"})
    recipe = resolve_recipe("alpnet", {**TINY, "encoder.in_channels": 3, "training.steps": 2})
    made = train_fold(
        dataset, recipe, novel=["nucleus", "cytoplasm"], out=tmp_path / "run", size=32, n_folds=3,
        progress=False,
    )  # fmt: skip
    assert read_notes(made).channels == 3  # the colours are seen
    for matching in ("parts-3", "middle"):
        results = evaluate_runs([made], dataset, matching=matching, surface=False)
        assert not results.failures
        assert {(row.class_name, row.scan_id) for row in results.rows} == {
            (name, scan) for name in ("cytoplasm", "nucleus") for scan in dataset.ids[:2]
        }
        assert all(0 <= row.dice <= 1 for row in results.rows)


# Which scan the labels belong to


@pytest.mark.parametrize(
    ("label", "which", "expected"),
    [
        ("labels.nii.gz", "patient 2", "patient 2"),
        ("patient 2_label.nii.gz", None, "patient 2"),
        ("Patient-2.seg.nii.gz", None, "patient 2"),
        ("label_patient_2.nii.gz", None, "patient 2"),
        ("my scäns/patient 2/seg.nii.gz", "patient 2", "patient 2"),
    ],
)
def test_the_labelled_scan_is_found(
    plain: Path, label: str, which: str | None, expected: str
) -> None:
    path = plain.parent / label
    shutil.copy(plain.parent / "my labels.nii.gz", path)
    found = choose(plain, [path], None if which is None else [which])
    assert found.examples[0].id == expected
    assert found.examples[0].id not in found.queries
    assert len(found.queries) == 3


def test_a_label_file_among_the_scans_is_no_scan(plain: Path) -> None:
    """Whatever it is called: it is neither segmented nor trained on."""
    drawn = shutil.copy(plain.parent / "my labels.nii.gz", plain / "patient 2" / "drawn.nii.gz")
    found = choose(plain, [Path(drawn)], ["patient 2_t2"])
    assert list(found.queries) == ["patient 1_t2", "patient 3_t2", "patient 4_t2"]
    run(plain, labels=[Path(drawn)], which=["patient 2_t2"])
    plan = json.loads((plain.parent / "out" / "oneshot.json").read_text(encoding="utf-8"))
    assert plan["train"] == [f"patient {number}_t2" for number in (1, 2, 3, 4)]


def test_a_labelled_scan_from_elsewhere(plain: Path, tmp_path: Path) -> None:
    other = shutil.copy(plain / "patient 2" / "t2.nii.gz", tmp_path / "atlas.nii.gz")
    found = choose(plain, [tmp_path / "my labels.nii.gz"], [str(other)])
    assert found.examples[0].id == "atlas"
    assert len(found.queries) == 4


BAD: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"labels": []}, OptionError, "no label file"),
    ({"which": ["patient 1", "patient 2"]}, OptionError, "1 label files and 2 scans"),
    ({"which": ["patient 9"]}, DataError, "no scan 'patient 9'; did you mean 'patient"),
    (
        {"which": None},
        DataError,
        "does not show in its name which scan .* The scans are: patient 1",
    ),
    ({"which": ["patient 1"], "labels": ["nowhere.nii.gz"]}, DataError, "nowhere.nii.gz does not"),
    ({"matching": "parts-3"}, FewshotSegError, "range of the organ"),
    ({"method": "panet"}, OptionError, "'panet' is trained on labels"),
    ({"method": "adnett"}, FewshotSegError, "did you mean 'adnet'"),
    ({"classes": [9]}, FewshotSegError, "unknown class '9'"),
    ({"modality": "mri"}, OptionError, "did you mean 'mr'"),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD)
def test_what_cannot_be_asked(
    plain: Path, options: dict[str, object], kind: type[Exception], message: str
) -> None:
    if options.get("labels"):
        options = {**options, "labels": [plain / "nowhere.nii.gz"]}
    with pytest.raises(kind, match=message):
        run(plain, **options)
    assert not list(plain.parent.glob("out/run/*"))  # shown before training


def test_the_command_line_ends_with_one_clear_line(plain: Path) -> None:
    words = ["oneshot", str(plain), "--label", str(plain / "gone.nii.gz"), "--scan", "patient 2"]
    done = CliRunner().invoke(app, [*words, "--out", str(plain.parent / "out")])
    assert done.exit_code == 2
    assert done.output.startswith("error: ")
    assert "gone.nii.gz does not exist" in done.output
    assert "Example  fewshot-seg oneshot" in CliRunner().invoke(app, ["oneshot", "--help"]).output


def test_folders_that_cannot_be_written(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"lies inside .*choose another"):
        run(plain, out=plain / "out")
    (plain.parent / "file").write_text("")
    with pytest.raises(DataError, match=r"file.* cannot be (written|used)"):
        run(plain, out=plain.parent / "file" / "out")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "run/x")

    monkeypatch.setattr("fewshot_seg.experiment.oneshot.learn.train_unlabelled", full)
    with pytest.raises(DataError, match="run/x cannot be used: No space left on device; make room"):
        run(plain)
    plan = (plain.parent / "out" / "oneshot.json").read_text(encoding="utf-8")
    assert json.loads(plan)["size"] == 32


def test_the_labels_must_fit_the_scan(plain: Path) -> None:
    path = plain.parent / "my labels.nii.gz"
    image = nib.load(path)
    empty = np.zeros(image.shape, np.uint8)
    for data, affine, message in (
        (empty, image.affine, "are empty; mark at least one slice"),
        (empty[1:], image.affine, "resample the labels"),
        (empty, image.affine @ np.diag([1, 1, 2, 1]), "do not lie in the same place"),
        (empty + 0.5, image.affine, "not whole numbers"),
    ):
        nib.save(nib.Nifti1Image(data, affine), path)
        with pytest.raises(DataError, match=message):
            run(plain)
