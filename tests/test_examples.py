"""The examples run as they stand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("all_methods.py", "poissonseg: encoder timm, contrastive consistency, decoder poisson"),
        ("one_label.py", "3 label files in"),
        ("swap_parts.py", "with PANet's alignment"),
        ("train_and_segment.py", "on the organ held out"),
    ],
)
def test_examples_run(script: str, says: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), str(tmp_path / "run")],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


def test_every_example_is_run() -> None:
    covered = {"all_methods.py", "one_label.py", "swap_parts.py", "train_and_segment.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == covered
