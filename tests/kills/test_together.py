"""Two processes at the same work in the same folder: one waits or is told, and nothing is lost."""

from pathlib import Path

import pytest
from kill_jobs import JOBS
from killing import NEEDS_FORK, attempt, finish, server

pytestmark = NEEDS_FORK
REFUSED = {"training": "is training into", "preparation": "is preparing scans in"}
"""What the second one is told; of the others, each does all the work or waits for its part."""


@pytest.mark.parametrize("name", JOBS)
def test_two_at_once(name: str, inputs: Path, tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    both.mkdir()
    alone.mkdir()
    told = [tmp_path / "one.txt", tmp_path / "two.txt"]
    processes = [server().Process(target=_tell, args=(name, inputs, both, one)) for one in told]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    messages = [one.read_text() for one in told]
    assert "" in messages  # one of them at least did the work
    for message in filter(None, messages):
        assert REFUSED[name] in message
        assert str(both) in message
    finish(name, inputs, alone)
    assert JOBS[name].result(both) == JOBS[name].result(alone)


def _tell(name: str, inputs: Path, out: Path, told: Path) -> None:
    told.write_text(attempt(name, inputs, out) or "")
