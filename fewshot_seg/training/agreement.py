"""What the processes of a run must see alike; with one process all of this is free."""

from collections.abc import Callable
from enum import IntEnum
from typing import TypeVar

import torch
from lightning_fabric import Fabric

from fewshot_seg.errors import FewshotSegError
from fewshot_seg.training.window import average

T = TypeVar("T")


class Wish(IntEnum):
    """How a process would go on after a step; the gravest wish of all processes is followed."""

    CONTINUE = 0
    STOP = 1
    INTERRUPT = 2
    FAIL = 3


def agree(fabric: Fabric, wish: Wish) -> Wish:
    """The gravest wish among the processes."""
    if fabric.world_size == 1:
        return wish
    wishes = torch.tensor(int(wish), device=fabric.device)
    torch.distributed.all_reduce(wishes, op=torch.distributed.ReduceOp.MAX)
    return Wish(int(wishes))


def mean_over_ranks(fabric: Fabric, numbers: dict[str, float]) -> dict[str, float]:
    """Each number's mean over the processes that have it."""
    if fabric.world_size == 1:
        return numbers
    rows: list[dict[str, float]] = [{}] * fabric.world_size
    torch.distributed.all_gather_object(rows, numbers)
    return average(rows)


def first_decides(fabric: Fabric, action: Callable[[], T]) -> T:
    """The answer of `action`, asked in the first process only; its error is raised in all."""
    answer: T | None = None
    error: FewshotSegError | None = None
    if fabric.is_global_zero:
        try:
            answer = action()
        except FewshotSegError as raised:
            error = raised
    answer, error = fabric.broadcast((answer, error))
    if error is not None:
        raise error
    return answer
