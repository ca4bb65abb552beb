"""The coverage-led fuzzer runs; an hour of it is for a machine of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("atheris_fuzz.py")


def test_it_runs() -> None:
    pytest.importorskip("atheris", reason='pip install "fewshot-seg[fuzz]"')
    words = [sys.executable, str(SCRIPT), "dataset.json", "-runs=300"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Done 300" in done.stderr or "DONE" in done.stderr
