"""What the RP-Net tests share: the official arrays under our names, and a network for tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_seg.testing import make_episode
from fewshot_seg_rpnet import RPNet

LAYERS = {"w_k": "inside", "w_q": "outside", "q": "join"}
UNET = {
    **{f"Conv{level + 1}.conv": f"down.{level}" for level in range(5)},
    "Up5.up": "up.0",
    "Up4.up": "up.1",
    "Up_conv5.conv": "merge.0",
    "Up_conv4.conv": "merge.1",
}


def arrays(folder: Path, name: str) -> dict[str, Tensor]:
    with np.load(folder / f"{name}.npz") as data:
        return {key: torch.from_numpy(data[key]) for key in data.files}


def renamed(data: Mapping[str, Tensor], kind: str, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The entries `kind`.<official name> of known layers, under our names."""
    found = {}
    for key, value in data.items():
        if not key.startswith(f"{kind}."):
            continue
        name = key.removeprefix(f"{kind}.")
        starts = [one for one in names if name.startswith(f"{one}.")]
        if starts:
            start = max(starts, key=len)
            found[names[start] + name.removeprefix(start)] = value
    return found


def check_gradients(module: torch.nn.Module, wanted: Mapping[str, Tensor]) -> None:
    """All but the biases in front of a batch norm, whose exact gradient is zero."""
    for name, parameter in module.named_parameters():
        if name.endswith(".0.bias"):
            continue
        scale = wanted[name].abs().max()
        assert parameter.grad is not None
        difference = (parameter.grad - wanted[name]).abs().max()
        assert difference < 1e-4 * scale, f"{name}: {difference} of {scale}"


def small_rpnet(**options: Any) -> RPNet:
    """Eight U-Net channels at the first level are enough to overfit an episode."""
    torch.manual_seed(0)
    return RPNet(**{"encoder": {"name": "unet", "width": 4}, "registration_steps": 20, **options})


def warm_rpnet(**options: Any) -> RPNet:
    """In eval mode, with batch statistics of its own: fresh ones squash all maps into one point."""
    model = small_rpnet(test_steps=3, **options).train()
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        model(make_episode(channels=1, seed=5))
    return model.eval()
