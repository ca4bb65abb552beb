"""The convolutions of AAS-DCL: 5x5 blocks, upsampling, the gate and the head."""

from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.interfaces import FeatureMaps


def convolutions(dims: tuple[int, ...], norm: str = "instance") -> nn.Sequential:
    """5x5 convolutions from each of `dims` to the next, with a norm and ReLU; size is kept.

    norm: "instance", each map by its own mean and variance, or "batch" (official). The weights have
        the same names; with one image in training the two are the same.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(dims):
        scale = nn.BatchNorm2d(outputs) if norm == "batch" else _instance_norm(outputs)
        layers += [nn.Conv2d(inputs, outputs, 5, padding=2), scale, nn.ReLU()]
    return nn.Sequential(*layers)


def _instance_norm(dim: int) -> nn.Module:
    return nn.InstanceNorm2d(dim, affine=True)


@final
class Up(nn.Module):
    """Twice the size (nearest), then three convolutions."""

    def __init__(self, inputs: int, outputs: int, norm: str = "instance") -> None:
        super().__init__()
        self.convolutions = convolutions((inputs, outputs, outputs, outputs), norm)

    def forward(self, maps: FeatureMaps) -> Float[Tensor, "image outputs height width"]:
        return self.convolutions(F.interpolate(maps, scale_factor=2, mode="nearest"))


@final
class Gate(nn.Module):
    """One number in (0, 1) for each position: where the other branch should look (sSE)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, 1, 1)

    def forward(self, maps: FeatureMaps) -> Float[Tensor, "image 1 rows cols"]:
        return torch.sigmoid(self.conv(maps))


def head(dim: int) -> nn.Sequential:
    """Two logits, background and foreground, for each pixel."""
    return nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, 2, 1))


def initialise(module: nn.Module) -> None:
    """Kaiming-normal convolutions without bias, as the official code starts training."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
            assert part.bias is not None
            nn.init.zeros_(part.bias)
