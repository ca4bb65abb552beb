"""torch.compile makes one graph of every method of parts, and no further one in later steps."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_methods import methods

SCRIPT = Path(__file__).with_name("compile_check.py")


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_pipeline_is_one_graph_and_stays_it(table: dict[str, Any]) -> None:
    steady = {"training": [1, 1, 1], "forward": [1, 1], "segment": [1, 1, 1]}
    controls = table.pop("controls")
    assert table == dict.fromkeys(methods(pipelines=True), steady)
    assert "data-dependent" in controls["looks"].lower()
    assert controls["piles"] == [1, 2, 3]
