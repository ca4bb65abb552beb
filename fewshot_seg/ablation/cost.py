"""How large a method is, and what a slice costs it at test."""

import statistics
import time
from typing import Any

import torch
from torch import nn

from fewshot_seg.profiling import Load, Subject
from fewshot_seg.profiling.flops import flop_counter

SLICES, ROUNDS = 4, 3


def cost_at_test(method: nn.Module, *, size: int, device: torch.device) -> dict[str, Any]:
    """Parameters, and GFLOPs and milliseconds of a query slice, the support encoded before.

    size: pixels of a side.   In 32 bits, on synthetic images; the median of a few rounds.
    """
    subject = Subject(method, Load(size=size, slices=SLICES), precision="32", device=device)
    model, task = subject.method, subject.task
    with subject.testing():
        state = model.encode_support(task.support)
        with flop_counter() as counter:  # the first call, which is not timed
            model.segment(state, task.query_images)
        seconds = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            # to the host: a GPU is waited for
            model.segment(state, task.query_images).sum().item()
            seconds.append(time.perf_counter() - begin)
    return {
        "parameters": sum(one.numel() for one in method.parameters()),
        "gflops": counter.get_total_flops() / SLICES / 1e9,
        "slice_ms": 1000 * statistics.median(seconds) / SLICES,
    }
