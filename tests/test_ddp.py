"""Several processes share each step: two with two episodes do what one does with four."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import TinyMethod, TinySource, settings

from fewshot_seg.checkpoint import load_weights
from fewshot_seg.training import train

SCRIPT = Path(__file__).parent / "tiny_training.py"


def _run(out: Path, **changes: object) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own, which starts the second one."""
    words = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        surroundings.pop(name, None)
    command = [sys.executable, str(SCRIPT), str(out), *words]
    return subprocess.run(
        command, env=surroundings, capture_output=True, text=True, timeout=240, check=False
    )


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    shared = {"episodes_per_step": 4, "dropout": 0.0, "steps": 5, "clip_norm": 0.2}
    done = _run(tmp_path, **shared, devices=2)
    assert done.returncode == 0, done.stderr
    assert "rank 0 finished True at 5" in done.stdout
    assert "rank 1 finished True at 5" in done.stdout
    assert "UserWarning" not in done.stderr
    load_weights(both := TinyMethod(), tmp_path / "final.safetensors")
    alone = TinyMethod(dropout=0.0)
    config = settings(episodes_per_step=4, steps=5, clip_norm=0.2)
    result = train(alone, TinySource(), config, progress=False)
    for mine, theirs in zip(alone.parameters(), both.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["ce"] == pytest.approx(result.losses["ce"], rel=1e-5)


def test_an_error_of_the_first_process_ends_both(tmp_path: Path) -> None:
    shared = {"episodes_per_step": 2, "devices": 2, "steps": 2}
    (tmp_path / "run.toml").write_text("[training]\nlr = 9.0\n[notes]\n[source]\n")
    done = _run(tmp_path, **shared)
    assert done.returncode != 0
    assert done.stderr.count("CheckpointError: ") == 2
    assert "holds another run" in done.stderr
