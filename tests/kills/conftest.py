"""What all tests of killed jobs share."""

from pathlib import Path

import pytest
from kill_jobs import make_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that jobs read from; see `make_inputs`."""
    root = tmp_path_factory.mktemp("inputs")
    make_inputs(root)
    return root
