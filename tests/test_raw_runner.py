"""A whole download: repeatable to the byte, resumable, and one bad scan stops no other."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from raw_cases import patient, zipped
from typer.testing import CliRunner, Result

from fewshot_seg.cli import app
from fewshot_seg.data.check import check
from fewshot_seg.data.folder import open_folder
from fewshot_seg.data.raw.runner import find_raw, prepare_raw
from fewshot_seg.data.raw.sets import RAW_SETS, raw_set
from fewshot_seg.errors import DataError, OptionError, UnknownNameError

NAME = "chaos_MR_T2_normalized"
IDS = ("1", "2", "10")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    for scan_id in IDS:
        patient(root, int(scan_id))
    return root


@pytest.fixture(scope="module")
def first(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first")
    assert prepare_raw("chaos-t2", raw, out).ok
    return out / NAME


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "300"})


def python(code: str, *words: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stderr=subprocess.PIPE)


def test_the_folder_is_what_the_library_opens(first: Path) -> None:
    names = [f"{kind}_{scan_id}.nii.gz" for kind in ("image", "label") for scan_id in IDS]
    assert sorted(contents(first)) == sorted([*names, "dataset.json"])
    folder = open_folder(root=first)
    assert folder.ids == IDS
    assert folder.modality == "mr"
    assert folder.classes == {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
    assert check(first).ok
    known = json.loads((first / "dataset.json").read_text())
    assert known["preparation"] == {"set": "chaos-t2", "version": 1}
    assert [case["id"] for case in known["cases"]] == list(IDS)


def test_workers_zip_and_place_change_no_byte(raw: Path, first: Path, tmp_path: Path) -> None:
    packed = zipped(raw / "Train_Sets", tmp_path / "CHAOS Träin.zip")
    assert prepare_raw("chaos-t2", packed, tmp_path / "deep" / "er", workers=2).ok
    assert contents(tmp_path / "deep" / "er" / NAME) == contents(first)
    assert not [
        path for path in (tmp_path / "deep" / "er" / NAME).iterdir() if path.suffix == ".part"
    ]


def test_what_is_done_is_kept_and_what_is_damaged_is_done_again(
    raw: Path, first: Path, tmp_path: Path
) -> None:
    shutil.copytree(first, tmp_path / NAME)
    (tmp_path / NAME / "image_2.nii.gz").write_bytes(b"damage")
    (tmp_path / NAME / "label_10.nii.gz").unlink()
    (tmp_path / NAME / ".image_1.nii.gz.abcd.part").write_bytes(b"half")
    before = (tmp_path / NAME / "image_1.nii.gz").stat().st_mtime_ns
    report = prepare_raw("chaos-t2", raw, tmp_path)
    assert [one.status for one in report.outcomes] == ["unchanged", "prepared", "prepared"]
    assert contents(tmp_path / NAME) == contents(first)
    assert (tmp_path / NAME / "image_1.nii.gz").stat().st_mtime_ns == before


def test_another_source_is_prepared_again_and_other_scans_are_kept(
    raw: Path, first: Path, tmp_path: Path
) -> None:
    shutil.copytree(first, tmp_path / NAME)
    patient(tmp_path / "new", 2, lacking=(4,))
    patient(tmp_path / "new", 3)
    report = prepare_raw("chaos-t2", tmp_path / "new", tmp_path)
    assert [(one.id, one.status) for one in report.outcomes] == [
        *(("2", "prepared"), ("3", "prepared")),
    ]
    assert "10" not in report.missing
    assert "5" in report.missing
    assert open_folder(root=tmp_path / NAME).ids == ("1", "2", "3", "10")
    (case,) = [one.case for one in report.outcomes if one.id == "2"]
    assert case is not None
    assert case.notes == ("no spleen is labelled",)


def test_one_bad_scan_stops_no_other_and_leaves_no_file(
    raw: Path, first: Path, tmp_path: Path
) -> None:
    shutil.copytree(raw / "Train_Sets", tmp_path / "raw" / "MR set" / "Train_Sets")
    shutil.copytree(first, tmp_path / NAME)
    harmed = tmp_path / "raw" / "MR set" / "Train_Sets" / "MR" / "2" / "T2SPIR" / "Ground"
    next(harmed.iterdir()).unlink()
    told = run("data", "prepare", "chaos-t2", tmp_path / "raw", tmp_path, "--workers", 1)
    assert told.exit_code == 2
    assert "scan 2: " in told.output
    assert "MR/2/T2SPIR/DICOM_anon has 11 DICOM files but 10 masks" in told.output
    assert "cannot be used: 2" in told.output
    assert "missing 17 scans" in told.output
    assert open_folder(root=tmp_path / NAME).ids == ("1", "10")


def test_the_command_line(raw: Path, tmp_path: Path) -> None:
    told = run("data", "prepare", "chaos-t2", raw, tmp_path, "--workers", 1)
    assert told.exit_code == 0, told.output
    assert "3 of 3 scans in" in told.output
    assert f"fewshot-seg data check {tmp_path / NAME}" in told.output
    again = run("data", "prepare", "chaos-t2", raw, tmp_path, "--workers", 1)
    assert again.output.count("unchanged") == 3
    for words, message in (
        (("chaos-t3", raw, tmp_path), "unknown benchmark 'chaos-t3'; did you mean 'chaos-t2'?"),
        (("chaos-t2", tmp_path / "no", tmp_path), "no does not exist"),
        (("chaos-t2", raw, tmp_path, "--strict"), "lacks 17 of the 20 scans"),
        (("chaos-t2", raw, tmp_path / NAME / "dataset.json"), "cannot be written"),
    ):
        refused = run("data", "prepare", *words)
        assert refused.exit_code == 2
        assert message in refused.output


KILLED = """
import multiprocessing, os, sys
from fewshot_seg.data.raw.runner import prepare_raw
def die(outcome):
    print(*(child.pid for child in multiprocessing.active_children()), file=sys.stderr, flush=True)
    os.kill(os.getpid(), 9)
if __name__ == "__main__":
    prepare_raw("chaos-t2", sys.argv[1], sys.argv[2], workers=int(sys.argv[3]), on_scan=die)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_where_it_was(
    raw: Path, first: Path, tmp_path: Path, workers: int
) -> None:
    killed = python(KILLED, raw, tmp_path, workers)
    _, told = killed.communicate(timeout=60)  # returns when the last worker is gone too
    assert killed.returncode == -9
    assert len(told.splitlines()[0].split()) == (workers if workers > 1 else 0)
    done = [
        case["id"] for case in json.loads((tmp_path / NAME / "dataset.json").read_text())["cases"]
    ]
    assert len(done) == 1
    report = prepare_raw("chaos-t2", raw, tmp_path)
    assert [one.id for one in report.outcomes if one.status == "unchanged"] == done
    assert contents(tmp_path / NAME) == contents(first)


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
from fewshot_seg.data.raw.runner import prepare_raw
report = prepare_raw("chaos-t2", sys.argv[1], sys.argv[2])
for one in report.failed:
    print(one.error, file=sys.stderr)
"""


def test_a_full_disk_leaves_nothing_half_written(raw: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    _, told = python(FULL, raw, tmp_path).communicate(timeout=60)
    assert told.decode().count("image_1.nii.gz cannot be written: File too large") == 1
    assert [path.name for path in (tmp_path / NAME).iterdir()] == ["dataset.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_place(raw: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(DataError, match="cannot be written: Permission denied"):
        prepare_raw("chaos-t2", raw, tmp_path)


def test_scans_of_another_origin_are_not_overwritten(
    raw: Path, first: Path, tmp_path: Path
) -> None:
    (tmp_path / "a" / NAME).mkdir(parents=True)
    (tmp_path / "a" / NAME / "image_1.nii.gz").write_bytes(b"mine")
    shutil.copytree(first, tmp_path / "b" / NAME)
    known = tmp_path / "b" / NAME / "dataset.json"
    content = known.read_text()
    known.write_text(content.replace('"version": 1', '"version": 0'))
    for place in ("a", "b"):
        with pytest.raises(DataError, match="did not write; choose another place"):
            prepare_raw("chaos-t2", raw, tmp_path / place)
    assert (tmp_path / "a" / NAME / "image_1.nii.gz").read_bytes() == b"mine"
    for broken in (content[:100], "[]", content.replace('"sha256"', '"md5"')):
        known.write_text(broken)
        with pytest.raises(DataError, match="dataset.json cannot be read .* choose another place"):
            prepare_raw("chaos-t2", raw, tmp_path / "b")


def test_looking_through_a_download(raw: Path) -> None:
    found = find_raw("chaos-t2", raw)
    assert [scan.id for scan in found.scans] == list(IDS)
    assert len(found.missing) == 17
    with pytest.raises(UnknownNameError, match="It is one of: chaos-t2, synapse, ms-cmrseg"):
        raw_set("brats")
    with pytest.raises(OptionError, match="workers must be at least 1"):
        prepare_raw("chaos-t2", raw, raw / "out", workers=0)


@pytest.mark.parametrize("name", list(RAW_SETS))
def test_every_set_says_what_it_is(name: str) -> None:
    made = raw_set(name)
    assert made.name == name
    assert min(made.classes) == 1
    assert len(set(made.expected)) == len(made.expected)
    assert made.version >= 1


def test_progress_is_reported_scan_by_scan(raw: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    prepare_raw("chaos-t2", raw, tmp_path, on_scan=lambda one: seen.append(one.id))
    assert seen == list(IDS)
