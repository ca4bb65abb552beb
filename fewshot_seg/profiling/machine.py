"""What was measured on."""

import platform
from pathlib import Path

import torch

from fewshot_seg.training.provenance import commit, device_name, versions

CPUS = Path("/proc/cpuinfo")


def machine(device: torch.device) -> dict[str, str | int]:
    """Device, processor, its threads, versions and the commit, if any."""
    return {
        "device": device_name(device),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "commit": commit() or "none",
        **versions(),
    }


def processor() -> str:
    """The CPU's name, as far as the system tells."""
    try:
        lines = CPUS.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
