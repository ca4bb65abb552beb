"""Batch norm that no longer learns."""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from fewshot_seg.errors import OptionError


class FrozenBatchNorm(nn.Module):
    """A batch norm with statistics AND affine fixed: all four are buffers, never trained.

    timm's frozen batch norm multiplies and adds in float32, which under bf16 autocast doubles the
    memory of every activation after it; `F.batch_norm` keeps the input's type.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        if norm.running_mean is None or norm.running_var is None:
            raise OptionError("a batch norm without running statistics cannot be frozen")
        self.eps = norm.eps
        mean, var = norm.running_mean, norm.running_var
        weight = mean.new_ones(mean.shape) if norm.weight is None else norm.weight
        bias = mean.new_zeros(mean.shape) if norm.bias is None else norm.bias
        for name, tensor in zip(
            ("weight", "bias", "running_mean", "running_var"), (weight, bias, mean, var)
        ):
            self.register_buffer(name, tensor.detach().clone())
        # timm fuses dropout and activation into some of its norms.
        self.after: nn.Module = nn.Identity()
        if isinstance(norm, BatchNormAct2d):
            self.after = nn.Sequential(norm.drop, norm.act)
        self.register_load_state_dict_pre_hook(_forget_batch_count)  # type: ignore[no-untyped-call]

    def forward(
        self, maps: Float[Tensor, "image dim rows cols"]
    ) -> Float[Tensor, "image dim rows cols"]:
        normed = F.batch_norm(
            maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
        return self.after(normed)


def _forget_batch_count(
    module: nn.Module, state: dict[str, Any], prefix: str, *rest: object
) -> None:
    """Let a frozen encoder load the state of one that was not frozen."""
    state.pop(prefix + "num_batches_tracked", None)


def freeze_batch_norm(network: nn.Module) -> int:
    """Replace every batch norm inside `network`, which is changed; returns how many there were."""
    count = 0
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            network.add_module(name, FrozenBatchNorm(child))
            count += 1
        else:
            count += freeze_batch_norm(child)
    return count


def open_residuals(network: nn.Module) -> None:
    """Set batch norms that start at 0 to 1, torchvision's start, in a network without weights.

    timm starts the last norm of a residual branch at 0, so the branch gets no gradient at first,
    and never any when the norm is frozen.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine and not module.weight.any():
            nn.init.ones_(module.weight)


def wants_frozen(freeze_bn: bool | str, *, pretrained: str) -> bool:
    """What `freeze_bn` means. Raises OptionError for a word other than "auto"."""
    if isinstance(freeze_bn, bool):
        return freeze_bn
    if freeze_bn != "auto":
        raise OptionError(f"freeze_bn is true, false or 'auto', not '{freeze_bn}'")
    return pretrained != "none"
