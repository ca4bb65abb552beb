"""Nothing reaches for a network unless weights are asked for by name; then it says so."""

import os
import subprocess
import sys
from pathlib import Path

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


def isolated(code: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """Run a program that cannot connect to anything, without any weights from earlier."""
    caches = {name: str(home) for name in ("HOME", "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME")}
    given = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code],
        env={**given, **caches, "FEWSHOT_SEG_CACHE": str(home / "cache")},
        cwd=TESTS, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def offline(code: str, home: Path) -> str:
    """What the program printed. It must end well and never have tried to connect."""
    found = isolated(code, home)
    assert "NETWORK" not in found.stderr, found.stderr
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_guard_sees_an_attempt(tmp_path: Path) -> None:
    code = "import urllib.request; urllib.request.urlopen('http://localhost:9/')"
    found = isolated(code, tmp_path)
    assert found.returncode != 0
    assert "NETWORK socket.getaddrinfo" in found.stderr


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
    modules, built = offline(code, tmp_path).split()
    assert int(modules) > 150
    assert int(built) >= 13


def test_scans_are_made_trained_on_tested_and_segmented(tmp_path: Path) -> None:
    """What `fewshot-seg demo` does, and `list`, at the size of a stamp; with a worker."""
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
    offline(code, tmp_path)
    assert (tmp_path / "results" / "results.json").is_file()


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
    found = isolated(code, tmp_path)
    assert "NETWORK" in found.stderr  # asked for, so tried
    told = [line for line in found.stdout.splitlines() if line.startswith("ERROR")]
    assert len(told) == len(WANTED), found.stderr
    for line, what in zip(told, WANTED.values(), strict=True):
        assert what in line
        assert "could not be fetched" in line
        assert line.endswith("copy the file here and give its path as `pretrained`")
