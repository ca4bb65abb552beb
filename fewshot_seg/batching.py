"""How many query slices go through a method in one call: as many as free memory surely holds."""

from pathlib import Path

import torch

from fewshot_seg.data.memory import memory
from fewshot_seg.errors import OptionError

BYTES_A_PIXEL = 4096
"""Working memory of a slice for each of its pixels, on the safe side: 256 MB at 256x256, where
ResNet-101 in 32 bits takes 40 MB and the largest decoder (PoissonSeg's graph) 130 MB."""
SHARE = 0.5
"""Of free memory, at most this much is used."""
STACKS = 4
"""Stacks of slices, of four bytes a pixel, that are held at a time: images and log-odds, each also
before or after it is brought to another size."""
MOST = {"cpu": 8}
"""By kind of device; more makes nothing faster there. `MOST_ELSEWHERE` for others."""
MOST_ELSEWHERE = 64
MEMORY_INFO = Path("/proc/meminfo")


def choose_batch(batch: int | None, size: tuple[int, int], device: torch.device) -> int:
    """`batch` itself where it is given, else what free memory allows, at least 1.

    size: height and width of the slices.   Raises OptionError for a batch below 1.
    """
    if batch is not None:
        if batch < 1:
            raise OptionError(f"batch must be at least 1; got {batch}")
        return batch
    fits = int(SHARE * free_memory(device) / (BYTES_A_PIXEL * size[0] * size[1]))
    return max(1, min(MOST.get(device.type, MOST_ELSEWHERE), fits))


def check_fits(size: tuple[int, int], n_slices: int, device: torch.device) -> None:
    """Raise ValueError when a scan on a canvas of that size surely does not fit into memory."""
    pixels = size[0] * size[1]
    kept = STACKS * 4 * n_slices * pixels
    for what, needed, free in (
        ("a slice", BYTES_A_PIXEL * pixels, free_memory(device)),
        ("the scan", kept, free_memory(torch.device("cpu"))),
    ):
        if needed > free:
            raise ValueError(
                f"{what} of {size[0]}x{size[1]} pixels takes up to {needed / 2**30:.3g} GiB of "
                f"memory, and {free / 2**30:.3g} are free"
            )


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device; on the CPU all memory where nobody tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # what torch holds from earlier calls and no longer uses
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(memory(), _available())


def _available() -> int:
    try:
        lines = MEMORY_INFO.read_text().splitlines()
    except OSError:
        return memory()
    kilobytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(kilobytes[0]) if kilobytes else memory()
