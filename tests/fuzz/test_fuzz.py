"""Damaged and lying files of every kind: an error meant for the user or success, soon, with little.

FUZZ_EXAMPLES=20000 python -m pytest -n0 tests/fuzz/test_fuzz.py
"""

import os

import pytest
from fuzz_law import obey
from fuzz_targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
FUZZ = settings(
    max_examples=int(EXAMPLES or 60),
    derandomize=EXAMPLES is None,  # the same inputs in every run of the tests, others in long runs
    database=None,
    deadline=None,  # `obey` has a bound of its own, in computing time
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", TARGETS)
def test_a_whole_file_is_read(name: str) -> None:
    target = TARGETS[name]()
    for seed in target.seeds:
        obey(target.name, target.read, target.pack(seed))


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_obeys_the_law(name: str) -> None:
    target = TARGETS[name]()

    @FUZZ
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        obey(target.name, target.read, data.draw(target.inputs()))

    fuzz()
