"""What the checks of methods and of parts both ask. Each raises AssertionError with a sentence."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Of two results that should be the same, relative to the larger values among them."""


def check_state(module: nn.Module) -> None:
    """Tensors live in parameters and buffers, or `.to()` and checkpoints forget them."""
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            assert not isinstance(value, Tensor), (
                f"'{name or 'the module'}' keeps the tensor '{key}' as a plain attribute; "
                "register it as a buffer"
            )
    before = module.state_dict()
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    twin.load_state_dict(before)
    for key, value in twin.state_dict().items():
        assert torch.equal(value, before[key]), f"'{key}' does not survive a checkpoint"


def check_losses(losses: Mapping[str, Tensor]) -> None:
    """Every loss is a finite scalar."""
    for name, value in losses.items():
        assert value.ndim == 0, f"loss '{name}' has shape {tuple(value.shape)}; it must be a scalar"
        assert torch.isfinite(value), f"loss '{name}' is {value.item()}"


def check_gradient(module: nn.Module, value: Any) -> None:
    """The gradient of the scalar `value` reaches every trainable parameter; none is left behind."""
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not trained:
        return
    module.zero_grad()
    value.backward()
    for name, parameter in trained:
        assert parameter.grad is not None, f"no gradient reaches the parameter '{name}'"
    module.zero_grad()


def check_refusal(error: ValueError, case: Mapping[str, Any]) -> None:
    """A limit is a part's right, as long as it says what it is."""
    assert len(str(error)) > 20, f"{dict(case)}: refused with the bare message '{error}'"


def check_same(got: Tensor, wanted: Tensor, what: str) -> None:
    """`got` equals the logits of `forward`; `what` says which other way led to it."""
    difference = (got - wanted).abs().max().item()
    scale = max(1.0, wanted.abs().clamp(max=1e3).max().item())
    assert difference <= TOLERANCE * scale, f"{what} differs from forward by {difference:.2g}"
