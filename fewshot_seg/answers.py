"""What parts and methods answer, held against what their role promises: whose answer is wrong is
named, before anything is computed from it. Nothing here waits for the device but `check_finite`."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fewshot_seg.errors import PluginError
from fewshot_seg.registry import Registry


def name_of(module: object) -> str:
    """A method by its registered name and provider where it has one, else its class and module."""
    kind = type(module)
    told = f"{kind.__name__} of {kind.__module__}"
    name = getattr(getattr(module, "recipe", None), "method", None)
    if name is None:
        return told
    claims = Registry("method").providers().get(name, ())
    return f"method '{name}' from {' and '.join(map(str, claims)) or told}"


def check_shape(module: object, what: str, got: Tensor, wanted: tuple[int, ...]) -> None:
    """Raise PluginError, naming the module, when a tensor of its answer has another shape."""
    if tuple(got.shape) != wanted:
        raise PluginError(
            f"{name_of(module)} gave {what} of shape {tuple(got.shape)}; asked for was {wanted}"
        )


def check_losses(module: object, losses: Mapping[str, Tensor]) -> None:
    """Raise PluginError, naming the module, for a loss that is not one number."""
    for name, value in losses.items():
        check_shape(module, f"a loss '{name}'", value, ())


def check_finite(module: object, what: str, got: Tensor) -> None:
    """Raise PluginError, naming the module, for NaN or infinity. Waits for the device."""
    if not torch.isfinite(got).all():
        raise PluginError(
            f"{name_of(module)} gave {what} that are NaN or infinite; look at its inputs and "
            "weights, or train it anew"
        )
