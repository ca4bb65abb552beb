"""Killed at any moment, the same command goes on and ends with the same bits.

KILL_MOMENTS=25 python -m pytest -n0 -s tests/kills/test_kills.py
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_jobs import JOBS
from killing import NEEDS_FORK, changes, finish, kill_after, kill_at_change

pytestmark = NEEDS_FORK
MOMENTS = int(os.environ.get("KILL_MOMENTS", 2))
SEED = 1 if "KILL_MOMENTS" in os.environ else 0  # the same moments in every run of the tests


@pytest.mark.parametrize("name", JOBS)
def test_a_killed_job_ends_with_the_same_bits(name: str, inputs: Path, tmp_path: Path) -> None:
    kills = list(trial(name, inputs, tmp_path, MOMENTS, seed=SEED))
    print(
        f"\n{name}: {sum(kills[:MOMENTS])} kills before a change to a file and "
        f"{sum(kills[MOMENTS:])} by the clock ({MOMENTS} tried of each); the same result after each"
    )
    assert all(kills[:MOMENTS])  # by the clock a job may be done before


def trial(name: str, inputs: Path, folder: Path, moments: int, *, seed: int) -> Iterator[bool]:
    """Kill a job at so many of its changes to files, and as often by the clock; for each, whether
    the kill came before the end. Each job goes on afterwards, and must end as one left alone."""
    rng = random.Random(f"{name} {seed}")
    whole = _folder(folder / "whole")
    finish(name, inputs, whole)
    expected = JOBS[name].result(whole)
    assert expected
    n_changes = changes(name, inputs, _folder(folder / "counted"))
    seconds = finish(name, inputs, _folder(folder / "timed"))  # what is imported once is by now
    for number in range(2 * moments):
        out = _folder(folder / str(number))
        if number < moments:
            killed = kill_at_change(name, inputs, out, rng.randint(1, n_changes))
        else:
            killed = kill_after(name, inputs, out, rng.uniform(0, seconds))
        finish(name, inputs, out)
        assert JOBS[name].result(out) == expected, f"{name}, moment {number}"
        yield killed


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
