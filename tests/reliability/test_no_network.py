"""Nothing reaches for a network unless weights are asked for by name; then it says so."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

BLOCKED = """
import sys

def guard(event, arguments):
    # Sockets within this machine carry tensors between a loader and its workers.
    reaches_out = event in ("socket.getaddrinfo", "socket.gethostbyname") or (
        event in ("socket.connect", "socket.bind", "socket.sendto") and arguments[0].family != 1
    )
    if reaches_out:
        print("NETWORK", event, arguments[1:], file=sys.stderr)
        raise OSError(101, "Network is unreachable")

sys.addaudithook(guard)
"""
"""The system's own record of what Python does: no library gets past it by another way in."""


Ran = subprocess.CompletedProcess[str]


def isolated(words: list[str], home: Path) -> Ran:
    """Run Python with `words` where nothing can be connected to, without weights from earlier."""
    (home / "sitecustomize.py").write_text(BLOCKED)  # so that every Python it starts has the guard
    caches = {name: str(home) for name in ("HOME", "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME")}
    given = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, *words],
        env={**given, **caches, "FEWSHOT_SEG_CACHE": str(home / "cache"),
             "PYTHONPATH": os.pathsep.join(paths)},
        cwd=TESTS, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def offline(words: list[str], home: Path) -> str:
    """What the program printed. It must end well and never have tried to connect."""
    found = isolated(words, home)
    assert "NETWORK" not in found.stderr, found.stderr
    assert found.returncode == 0, found.stderr
    return found.stdout


REACH_OUT = "import urllib.request; urllib.request.urlopen('http://localhost:9/')"
BY_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {REACH_OUT!r}])"


@pytest.mark.parametrize("code", [REACH_OUT, BY_A_CHILD])
def test_the_guard_sees_an_attempt(code: str, tmp_path: Path) -> None:
    found = isolated(["-c", code], tmp_path)
    assert "NETWORK socket.getaddrinfo" in found.stderr
    assert "Network is unreachable" in found.stderr


def test_every_module_is_imported_and_every_method_built(tmp_path: Path) -> None:
    code = """
import importlib, pkgutil, sys
import fewshot_seg
sys.path.insert(0, ".")
names = [one.name for one in pkgutil.walk_packages(fewshot_seg.__path__, "fewshot_seg.")]
missing = []
for name in names:
    if name.endswith("__main__"):
        continue
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.startswith("fewshot_seg"):
            raise
        missing.append(error.name)  # of an extra that is not installed
from fewshot_seg.registry import KINDS, Registry
for kind in KINDS:
    for name in Registry(kind).names():
        Registry(kind).factory(name)
from reliability.reliable_cases import METHODS, small
for name in METHODS:
    small(name)
from fewshot_seg import build
build("apscl", encoder="resnet18", image_size=64)
print(len(names), len(METHODS))
"""
    modules, built = offline(["-c", code], tmp_path).split()
    assert int(modules) > 150
    assert int(built) >= 13


def test_scans_are_made_trained_on_and_tested(tmp_path: Path) -> None:
    """And `list`; at the size of a stamp, with a worker."""
    code = f"""
from pathlib import Path
from fewshot_seg.cli import app
from fewshot_seg.demo.scans import make_scans
folder = Path({str(tmp_path)!r})
make_scans(folder / "scans", n_scans=5, size=32, seed=0)

def run(*words):
    app(list(map(str, words)), standalone_mode=False)

run("list")
small = 'encoder={{name="timm", backbone="test_resnet", dim=16, in_channels=1}}'
run("train", "panet", "--data", folder / "scans", "--novel", "liver", "--out", folder / "runs",
    "--set", small, "--set", "training.workers=1", "--size", 32, "--steps", 2)
run("evaluate", folder / "runs", "--data", folder / "scans", "--no-surface",
    "--out", folder / "results")
"""
    offline(["-c", code], tmp_path)
    assert (tmp_path / "results" / "results.json").is_file()


def test_demo_and_the_segment_command_that_it_prints(tmp_path: Path) -> None:
    """Whole commands, as they stand in the README; one step of training shows as much as 300."""
    cli = ["-m", "fewshot_seg.cli"]
    told = offline([*cli, "demo", "--steps", "1", "--out", str(tmp_path / "demo")], tmp_path)
    line = next(line for line in told.splitlines() if line.startswith("fewshot-seg segment"))
    offline([*cli, *shlex.split(line)[1:]], tmp_path)
    assert (tmp_path / "demo" / "overlay.png").is_file()
    assert list((tmp_path / "demo" / "segmented").glob("image_*_seg.nii.gz"))


WANTED = {
    "{'encoder': 'resnet18', 'pretrained': 'imagenet'}": "timm's weights for backbone 'resnet18",
    "{'encoder': 'resnet50', 'pretrained': 'coco'}": "deeplabv3_resnet50_coco",
    "{'pretrained': 'imagenet'}": "vgg16",
}
"""Options of panet, and what the message names."""


def test_weights_that_cannot_be_fetched_are_named_with_the_way_out(tmp_path: Path) -> None:
    code = f"""
import time
time.sleep = lambda seconds: None  # the hub's client waits between attempts, 46 s in all
from fewshot_seg import build
from fewshot_seg.errors import DataError
for options in ({", ".join(WANTED)}):
    try:
        build("panet", **options)
    except DataError as error:
        print("ERROR", " ".join(str(error).split()))
"""
    found = isolated(["-c", code], tmp_path)
    assert "NETWORK" in found.stderr  # asked for, so tried
    told = [line for line in found.stdout.splitlines() if line.startswith("ERROR")]
    assert len(told) == len(WANTED), found.stderr
    for line, what in zip(told, WANTED.values(), strict=True):
        assert what in line
        assert "could not be fetched" in line
        assert line.endswith("copy the file here and give its path as `pretrained`")
