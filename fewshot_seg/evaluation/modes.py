"""A method as it stands at test time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fewshot_seg.interfaces import Method


@contextmanager
def evaluating(method: Method) -> Iterator[None]:
    """Eval mode and no gradients; afterwards every submodule is back in the mode it was in."""
    modules = list(method.modules()) if isinstance(method, nn.Module) else []
    before = [module.training for module in modules]
    if isinstance(method, nn.Module):
        method.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        # One by one: `method.train()` would wake parts that training keeps frozen in eval mode.
        for module, training in zip(modules, before):
            module.training = training


def device_of(method: Method) -> torch.device:
    """Where the method's parameters or buffers are; the CPU when it has none."""
    if isinstance(method, nn.Module):
        for tensors in (method.parameters(), method.buffers()):
            for tensor in tensors:
                return tensor.device
    return torch.device("cpu")


def place(method: Method, device: torch.device | str | None) -> torch.device:
    """Move the method to `device`, or leave it where it is (None); the device it is on."""
    if device is not None and isinstance(method, nn.Module):
        method.to(device)
    return device_of(method) if device is None else torch.device(device)
