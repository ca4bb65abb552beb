"""The command line: what it prints, what it returns, and what it never does."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fewshot_seg import registry
from fewshot_seg.cli import app
from fewshot_seg.cli.values import parse_numbers, parse_settings
from fewshot_seg.demo.scans import make_scans
from fewshot_seg.errors import OptionError
from fewshot_seg.evaluation import Results

SMALL = [
    *("--set", 'encoder={name="timm", backbone="test_resnet", dim=16, in_channels=1}'),
    *("--size", "32", "--steps", "2", "--n-folds", "3"),
]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of a table is broken."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "dumb")


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def _fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    make_scans(folder, n_scans=6, size=32, seed=0)
    return folder


@pytest.fixture(scope="module")
def runs(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    made = _run("train", "panet", "--data", scans, "--novel", "liver", "--out", folder, *SMALL)
    assert made.exit_code == 0, made.output
    return folder


def test_version_and_help() -> None:
    assert _run("--version").output.strip() == f"fewshot-seg {version('fewshot-seg')}"
    for command in (["demo"], ["list"], ["train"], ["evaluate"], ["segment"], ["data", "check"]):
        told = _run(*command, "--help")
        assert told.exit_code == 0
        assert "Example  fewshot-seg " + " ".join(command) in told.output


def test_help_and_list_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from fewshot_seg.cli import app\n"
        "app(['list'], standalone_mode=False)\n"
        "heavy = {'torch', 'timm', 'nibabel', 'monai', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "plugins = [name for name in sys.modules if name.startswith('fewshot_seg_')]\n"
        "assert not heavy and not plugins, (heavy, plugins)\n"
    )
    found = _fresh(code)
    assert found.returncode == 0, found.stderr
    assert "mutual_guidance" in found.stdout
    assert f"fewshot-seg {version('fewshot-seg')}" in found.stdout


def test_list_shows_one_kind() -> None:
    told = _run("list", "decoders")
    assert "cosine" in told.output
    assert "resnet18" not in told.output
    assert _run("list", "decoder").output == told.output
    wrong = _run("list", "decodrs")
    assert wrong.exit_code == 2
    assert "did you mean 'decoders'" in wrong.stderr


def test_list_points_at_broken_and_doubly_claimed_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[fewshot_seg.decoders]\ncosine = stranger:Cosine\ngone = stranger.gone:Gone\n"
        "fails = stranger_fails:Part\n"
    )
    (tmp_path / "stranger_fails.py").write_text("raise RuntimeError('on import')\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.refresh()
    try:
        told = _run("list", "decoders")
        loaded = _run("list", "decoders", "--check")
    finally:
        monkeypatch.undo()
        registry.refresh()
    rows = {line.split()[1]: line for line in told.output.splitlines() if len(line.split()) > 2}
    assert "claimed twice" in rows["cosine"]
    assert "stranger 1.0" in rows["cosine"]
    assert "broken" in rows["gone"]
    assert "broken" not in rows["mutual_guidance"] + rows["fails"]
    assert (told.exit_code, loaded.exit_code) == (2, 2)
    assert "2 cannot be used" in told.stderr
    assert "3 cannot be used" in loaded.stderr


def test_train_evaluate_segment_in_a_row(runs: Path, scans: Path, tmp_path: Path) -> None:
    assert (runs / "fold0_liver" / "final.safetensors").is_file()
    out = tmp_path / "results"
    tested = _run("evaluate", runs, "--data", scans, "--out", out, "--no-surface")
    assert tested.exit_code == 0, tested.output
    assert "Matching parts-3: uses the query's ground-truth organ range." in " ".join(
        tested.output.split()
    )
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert [row["scan_id"] for row in rows] == ["1", "2"]
    assert len((out / "results.csv").read_text().splitlines()) == 3
    found = _run(
        *("segment", "--checkpoint", runs / "fold0_liver", "--class", "liver"),
        *("--support", scans / "image_3.nii.gz", "--label", scans / "label_3.nii.gz"),
        *("--out", tmp_path / "seg", scans / "image_1.nii.gz", scans / "missing.nii.gz"),
    )
    assert found.exit_code == 2  # one of the two is missing
    assert (tmp_path / "seg" / "image_1_seg.nii.gz").is_file()
    assert "missing.nii.gz does not exist" in found.output


def test_a_device_that_is_not_there_is_named(runs: Path, scans: Path, tmp_path: Path) -> None:
    told = _run(
        *("segment", "--checkpoint", runs / "fold0_liver", "--device", "nonsense"),
        *("--support", scans / "image_3.nii.gz", "--label", scans / "label_3.nii.gz"),
        *("--out", tmp_path / "seg", scans / "image_1.nii.gz"),
    )
    assert told.exit_code == 2
    assert "there is no device 'nonsense'; say cpu" in told.stderr


def test_a_finished_training_is_not_repeated(runs: Path, scans: Path) -> None:
    path = runs / "fold0_liver" / "final.safetensors"
    before = path.stat().st_mtime_ns
    again = _run("train", "panet", "--data", scans, "--novel", "liver", "--out", runs, *SMALL)
    assert again.exit_code == 0
    assert path.stat().st_mtime_ns == before


def test_copy_needs_no_training(scans: Path, tmp_path: Path) -> None:
    told = _run(
        *("evaluate", "--method", "copy", "--data", scans, "--folds", "0", "--organ", "spleen"),
        *("--size", "32", "--no-surface", "--out", tmp_path),
    )
    assert told.exit_code == 0, told.output
    assert "spleen" in told.output


def test_a_method_that_does_not_learn_can_be_changed(scans: Path, tmp_path: Path) -> None:
    told = _run(
        *("evaluate", "--method", "copy", "--set", "registration=true", "--data", scans),
        *("--folds", "0", "--organ", "spleen", "--size", "32", "--no-surface", "--out", tmp_path),
    )
    assert told.exit_code == 0, told.output
    assert Results.from_json(tmp_path / "results.json").name == "copy (registration=true)"


def test_data_check_tells_what_is_wrong(scans: Path, tmp_path: Path) -> None:
    good = _run("data", "check", scans)
    assert good.exit_code == 0
    assert "No problems." in good.output
    (tmp_path / "image_1.nii.gz").write_bytes(b"nonsense")
    bad = _run("data", "check", tmp_path)
    assert bad.exit_code == 2
    assert "image_1.nii.gz" in bad.output


TRAIN = ("train", "apscl", "--out", "run", "--data", "phantom_abdomen", "--novel")
WRONG = [
    (["train", "apslc", *TRAIN[2:], "liver"], "did you mean 'apscl'"),
    ([*TRAIN, "livr"], "did you mean 'liver'"),
    ([*TRAIN, "liver", "--set", "decoder.scal=1"], "did you mean 'scale'"),
    ([*TRAIN, "liver", "--set", "training.lr"], "write key=value"),
    ([*TRAIN, "liver", "--set", "prior=none"], "film"),
    ([*TRAIN, "liver", "--folds", "a"], "no list of folds"),
    ([*TRAIN, "liver", "--folds", "7"], "folds 0 to 4"),
    ([*TRAIN, "liver", "--augmentation", "weak"], "unknown augmentation"),
    ([*TRAIN, "liver", "--setting", "setting9"], "unknown setting"),
    ([*TRAIN[:-3], "--data", "nowhere", "--novel", "liver"], "neither a folder nor a data set"),
    (["evaluate", "--data", "phantom_abdomen"], "give either runs to test, or --method"),
    (["evaluate", "no/such", "--data", "phantom_abdomen"], "there is no checkpoint"),
    (["evaluate", "no/such", "--data", "phantom_abdomen", "--set", "floor=0.1"],
     "a trained run is tested as it was trained"),
    (["evaluate", "--data", "phantom_abdomen", "--method", "copy", "--set", "flor=0.1"],
     "did you mean 'floor'"),
    (["evaluate", "--data", "phantom_abdomen", "--method", "copy", "--matching", "part-3"],
     "did you mean 'parts-3'"),
    (["segment", "--checkpoint", "no.safetensors", "--support", "a", "--label", "b", "c"],
     "there is no checkpoint"),
    (["segment", "--checkpoint", "x", "--support", "a", "--label", "b", "--label", "c", "q"],
     "1 --support and 2 --label"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_mistakes_end_in_one_line_and_code_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = _run(*words)
    assert told.exit_code == 2, told.output
    assert message in told.stderr
    assert len(told.stderr.strip().splitlines()) <= 2  # at most a heading before it
    assert told.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "run" / "fold0_liver").exists()


def test_debug_shows_the_traceback() -> None:
    told = _run("--debug", "data", "check", "nowhere")
    assert told.exit_code == 1
    assert type(told.exception).__name__ == "DataError"
    assert _run("data", "check", "nowhere").exit_code == 2


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fewshot_seg.experiment.train_fold", interrupted)
    told = _run(*TRAIN, "liver")
    assert told.exit_code == 130
    assert "start the same command again to go on" in told.stderr


SETTINGS = [
    ("a=1", {"a": 1}),
    ("a=1.5e-3", {"a": 0.0015}),
    ("a=true", {"a": True}),
    ("encoder=resnet18", {"encoder": "resnet18"}),
    ("encoder.pretrained=none", {"encoder.pretrained": "none"}),
    ("prior=none", {"prior": None}),
    ("a=[1, 2]", {"a": [1, 2]}),
    ('decoder={name="cosine", scale=10}', {"decoder": {"name": "cosine", "scale": 10}}),
    ("a = b=c", {"a": "b=c"}),
    ("a=1\nb=2", {"a": "1\nb=2"}),
]


@pytest.mark.parametrize(("pair", "expected"), SETTINGS)
def test_settings_are_typed_as_toml(pair: str, expected: dict[str, object]) -> None:
    found = parse_settings([pair])
    assert found == expected
    assert [type(value) for value in found.values()] == [type(v) for v in expected.values()]


def test_settings_and_folds_that_cannot_be_read() -> None:
    for pairs in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(OptionError):
            parse_settings(pairs)
    assert parse_numbers("0,2-4,2") == [0, 2, 3, 4]
    for text in ("", "a", "1-", "-1", "1,,2"):
        with pytest.raises(OptionError, match="no list of folds"):
            parse_numbers(text)
