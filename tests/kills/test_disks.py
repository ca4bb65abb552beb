"""A disk that is full or read-only: an error that says so, and what was there before is whole."""

import ctypes
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kill_jobs import JOBS
from killing import NEEDS_FORK, attempt, finish, server

NEW_MOUNTS = 0x20000
"""CLONE_NEWNS of Linux: mounts that only this process sees."""
ROOM = "64m"
MUST_FAIL = ("training", "preparation", "segmentation", "grid")
"""Evaluation may find room for its few lines where its cache found none."""


def _can_mount() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0 and Path("/proc/self/ns/mnt").exists()


pytestmark = [
    pytest.mark.skipif(not _can_mount(), reason="needs the right to mount a small disk (root)"),
    NEEDS_FORK,
]


@pytest.mark.parametrize("name", JOBS)
def test_a_full_disk(name: str, inputs: Path, tmp_path: Path) -> None:
    whole, disk = tmp_path / "whole", tmp_path / "disk"
    whole.mkdir()
    disk.mkdir()
    finish(name, inputs, whole)
    used = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    told = _run(_fill, name, inputs, disk, max(used // 2, 4096), tmp_path / "told.json")
    if told["error"] is None:
        assert name not in MUST_FAIL
    else:
        assert "No space left on device" in told["error"]
        assert str(disk) in told["error"]
    assert told["result"] == JOBS[name].result(whole)


@pytest.mark.parametrize("name", JOBS)
def test_a_read_only_disk(name: str, inputs: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    told = _run(_forbid, name, inputs, disk, 0, tmp_path / "told.json")
    assert "Read-only file system" in told["error"]
    assert str(disk) in told["error"]
    assert told["kept"] == "mine"


def _run(work: Any, name: str, inputs: Path, disk: Path, size: int, told: Path) -> Any:
    process = server().Process(target=work, args=(name, inputs, disk, size, told))
    process.start()
    process.join()
    assert process.exitcode == 0
    return json.loads(told.read_text())


def _fill(name: str, inputs: Path, disk: Path, size: int, told: Path) -> None:
    """Do a job on a disk too small for it, then on one of enough room."""
    _own_mounts()
    _mount("-t", "tmpfs", "-o", f"size={size}", "none", disk)
    error = attempt(name, inputs, disk)
    _mount("-o", f"remount,size={ROOM}", disk)
    JOBS[name].work(inputs, disk)
    told.write_text(json.dumps({"error": error, "result": JOBS[name].result(disk)}))


def _forbid(name: str, inputs: Path, disk: Path, size: int, told: Path) -> None:
    _own_mounts()
    _mount("-t", "tmpfs", "-o", f"size={ROOM}", "none", disk)
    (disk / "file").write_text("mine")
    _mount("-o", "remount,ro", disk)
    error = attempt(name, inputs, disk)
    told.write_text(json.dumps({"error": error, "kept": (disk / "file").read_text()}))


def _own_mounts() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "no mounts of its own")
    _mount("--make-rprivate", "/")


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)
