"""Clocks, and everything else that is read before and after a piece of work."""

import time
from typing import Any, Protocol, runtime_checkable

import torch

from fewshot_seg.errors import OptionError, check_choice

CLOCKS = ("wall", "process")
"""Wall-clock time, or processor time of all threads, which a busy machine hardly changes."""


@runtime_checkable
class Meter(Protocol):
    """Something that grows while work is done."""

    def read(self) -> Any: ...
    def between(self, first: Any, last: Any) -> float: ...


class HostClock:
    """Seconds of the CPU."""

    def __init__(self, kind: str) -> None:
        self._now = time.process_time if kind == "process" else time.perf_counter

    def read(self) -> float:
        return self._now()

    def between(self, first: float, last: float) -> float:
        return last - first


class StreamClock:
    """Seconds of the GPU. Reading it marks a place in the stream and waits for nothing."""

    def read(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        last.synchronize()
        return first.elapsed_time(last) / 1000


def make_clock(kind: str, device: torch.device) -> Meter:
    """Raises OptionError for a clock nobody knows, and for processor time of a GPU."""
    check_choice("clock", kind, CLOCKS)
    if device.type != "cuda":
        return HostClock(kind)
    if kind == "process":
        raise OptionError("processor time says nothing of a GPU; use clock 'wall'")
    return StreamClock()
