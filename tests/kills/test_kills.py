"""Killed at any moment, the same command goes on and ends with the same bits.

A script too, with as many moments as wanted: python tests/kills/test_kills.py 25
"""

import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_jobs import JOBS, make_inputs
from killing import changes, finish, kill_after, kill_at_change

pytestmark = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="needs fork"
)
MOMENTS = 2


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    make_inputs(root)
    return root


@pytest.mark.parametrize("name", JOBS)
def test_a_killed_job_ends_with_the_same_bits(name: str, inputs: Path, tmp_path: Path) -> None:
    killed = sum(trial(name, inputs, tmp_path, MOMENTS, seed=0))
    assert killed >= MOMENTS  # those at a change always, those by the clock where it was in time


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


def main() -> None:
    moments = int(sys.argv[1])
    names = sys.argv[2:] or list(JOBS)
    os.nice(10)
    with tempfile.TemporaryDirectory() as folder:
        inputs = _folder(Path(folder, "inputs"))
        make_inputs(inputs)
        for name in names:
            kills = list(trial(name, inputs, _folder(Path(folder, name)), moments, seed=1))
            print(
                f"{name}: {sum(kills[:moments])} kills before a change to a file and "
                f"{sum(kills[moments:])} by the clock ({len(kills) // 2} tried of each); "
                "the same result after each",
                flush=True,
            )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
