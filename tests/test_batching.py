"""How many slices go into one call."""

from pathlib import Path

import pytest
import torch

from fewshot_seg import batching
from fewshot_seg.batching import choose_batch, free_memory
from fewshot_seg.errors import OptionError

CPU = torch.device("cpu")


def with_free(monkeypatch: pytest.MonkeyPatch, bytes_free: int) -> None:
    monkeypatch.setattr(batching, "free_memory", lambda device: bytes_free)


def test_a_given_batch_is_taken() -> None:
    assert choose_batch(3, (4096, 4096), CPU) == 3
    with pytest.raises(OptionError, match="batch must be at least 1; got 0"):
        choose_batch(0, (32, 32), CPU)


@pytest.mark.parametrize(
    ("gigabytes", "side", "device", "wanted"),
    [(64, 256, "cpu", 8), (2, 256, "cpu", 4), (0.1, 256, "cpu", 1), (64, 1024, "cpu", 8),
     (8, 1024, "cpu", 1), (80, 256, "cuda", 64), (4, 256, "cuda", 8)],
)  # fmt: skip
def test_free_memory_decides(
    gigabytes: float, side: int, device: str, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, int(gigabytes * 2**30))
    assert choose_batch(None, (side, side), torch.device(device)) == wanted


def test_free_memory_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**20 < free_memory(CPU) <= batching.memory()
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:       100 kB\nMemAvailable:   50 kB\n")
    monkeypatch.setattr(batching, "MEMORY_INFO", told)
    assert free_memory(CPU) == 50 * 1024
    monkeypatch.setattr(batching, "MEMORY_INFO", tmp_path / "none")
    assert free_memory(CPU) == batching.memory()
