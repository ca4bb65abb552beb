"""Freed memory is kept for the next tensor, unless somebody else has a say in it."""

import importlib
import os
import subprocess
import sys

import pytest

from fewshot_seg import allocator
from fewshot_seg.allocator import keep_freed_memory

GLIBC = pytest.mark.skipif(not allocator._is_glibc(), reason="needs glibc")
FAULTS = """
import sys
from resource import RUSAGE_SELF, getrusage
import torch
from fewshot_seg.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(20):
    torch.ones(2**23)
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**23)
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""
"""Ten times 32 MiB: 8192 pages each, where they are fresh ones."""


@GLIBC
def test_the_next_tensor_lies_where_the_last_one_was() -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in allocator.OWN and not name.startswith("MALLOC_")
    }
    given, kept = (
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, word], env=environment, text=True, check=True,
                stdout=subprocess.PIPE,
            ).stdout
        )
        for word in ("give", "keep")
    )  # fmt: skip
    assert given > 10 * max(kept, 1)


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_the_environments_choice_stands(name: str) -> None:
    assert not keep_freed_memory({name: "1"})


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError(name)

    monkeypatch.setattr(allocator.os, "confstr", unknown)
    assert not keep_freed_memory({})


def test_the_program_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    program = importlib.import_module("fewshot_seg.cli.app")  # the package has its app by that name
    monkeypatch.setattr(program, "keep_freed_memory", lambda: called.append("kept"))
    monkeypatch.setattr(program, "app", lambda prog_name: called.append(prog_name))
    program.main()
    assert called == ["kept", "fewshot-seg"]
