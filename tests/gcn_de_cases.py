"""The official arrays of GCN-DE under our names, and what else its test files share."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot_seg_gcn_de import GCNDE

BLOCK = {
    "W.0": "expand",
    "W.1": "norm",
    "W": "squeeze",
    "theta": "correlate.theta",
    "phi.0": "correlate.phi",
    "g.0": "correlate.g",
    "se.conv": "gate.conv",
    "context_modeling.0": "score",
}
"""Official names in a block -> ours; others are equal."""
UNET = {
    "ec_block.conv_expand": "adapter.expand",
    "ec_block.bn_out": "adapter.norm2",
    "ec_block.bn": "adapter.norm1",
    "ec_block.conv_compress": "adapter.compress",
    "rn.0": "trunk.conv1",
    "rn.1": "trunk.bn1",
    "rn.4": "trunk.layer1",
    "rn.5": "trunk.layer2",
    "rn.6": "trunk.layer3",
    "conv_out": "score",
    "bn_out": "norm",
    "conv": "last.block.conv",
    "bn": "last.block.norm",
}
"""Official names in a U-Net -> ours."""
UP = {
    "x_conv3": "reduce.conv",
    "bn3": "reduce.norm",
    "x_conv4": "fuse.conv",
    "bn": "fuse.norm",
    "x_conv5": "refine.conv",
    "bn2": "refine.norm",
}
"""Official names in a decoder block -> ours."""


def arrays(folder: Path, name: str) -> dict[str, Tensor]:
    with np.load(folder / f"{name}.npz") as data:
        return {key: torch.from_numpy(data[key]) for key in data.files}


def block_weights(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """State of one interaction block."""
    return {_renamed(key, BLOCK): value for key, value in _weights(data).items()}


def network_weights(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """State of conditioner and segmentor."""
    return {_network_name(key): value for key, value in _weights(data).items()}


def _weights(data: dict[str, Tensor]) -> dict[str, Tensor]:
    start = "weights."
    return {k.removeprefix(start): v for k, v in data.items() if k.startswith(start)}


def _network_name(key: str) -> str:
    arm, _, name = key.partition(".")
    place, _, rest = name.partition(".")
    if place.startswith("up"):
        return f"{arm}.ups.{int(place[2:]) - 2}.{_renamed(rest, UP)}"
    if place.startswith("w"):
        return f"{arm}.sites.{int(place[1:]) - 1}.{_renamed(rest, BLOCK)}"
    return f"{arm}.{_renamed(name, UNET)}"


def _renamed(key: str, table: dict[str, str]) -> str:
    for official, ours in table.items():
        if key.startswith(f"{official}."):
            return ours + key.removeprefix(official)
    return key


def close(got: Tensor, wanted: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, wanted, rtol=0, atol=atol)


def awake(block: nn.Module) -> nn.Module:
    """With no weight at zero, in eval mode."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return block.eval()


def tiny(**options: Any) -> GCNDE:
    """A seeded network of 4 channels where the paper has 64."""
    torch.manual_seed(0)
    return GCNDE(**{"width_divisor": 16, **options})
