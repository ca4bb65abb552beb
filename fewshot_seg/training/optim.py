"""Optimizer and learning rate; the schedule is a function of the step, so it has no state."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fewshot_seg.errors import CheckpointError
from fewshot_seg.training.config import TrainConfig


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainConfig
) -> torch.optim.Optimizer:
    """The optimizer that `config` names, over `parameters`."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of step `step`, counted from 0.

    'step': lr * step_factor ** (step // step_every).   'cosine': half a cosine from lr to 0.
    'one_cycle': half a cosine up to lr, then one down to nothing, as torch's OneCycleLR; the
    momentum stays as it is.
    """
    if config.schedule == "step":
        return config.lr * config.step_factor ** (step // config.step_every)
    if config.schedule == "cosine":
        return _half_cosine(config.lr, 0.0, step / config.steps)
    if config.schedule == "one_cycle":
        return _one_cycle(config, step)
    return config.lr


def _one_cycle(config: TrainConfig, step: int) -> float:
    first = config.lr / config.one_cycle_start
    last = first / config.one_cycle_end
    top = config.one_cycle_warm_up * config.steps - 1
    end = config.steps - 1
    if step <= top:
        # A warm-up of a single step has no width: it starts at the top.
        return _half_cosine(first, config.lr, step / top if top > 0 else 1.0)
    return _half_cosine(config.lr, last, (step - top) / (end - top))


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """The optimizer's memory as `<parameter name>:<entry>` -> tensor.

    names: of the optimizer's parameters, in its order.
    """
    state = optimizer.state_dict()["state"]
    return {
        f"{names[index]}:{entry}": value
        for index, entries in state.items()
        for entry, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`. Raises CheckpointError for an unknown parameter."""
    index = {name: position for position, name in enumerate(names)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition(":")
        if name not in index:
            raise CheckpointError(
                f"the optimizer state is of a parameter '{name}' that this method does not train"
            )
        state.setdefault(index[name], {})[entry] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
