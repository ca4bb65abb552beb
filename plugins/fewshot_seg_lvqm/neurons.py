"""SOVQ: train the map, label its neurons, express them by the grid."""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg_lvqm import som
from fewshot_seg_lvqm.draws import Draws
from fewshot_seg_lvqm.grid import GridPrototypes
from fewshot_seg_lvqm.mapping import LMS, local_mapping
from fewshot_seg_lvqm.scene import Scene

SOMS = ("batch", "online")
PURE = 0.95
"""Mean mask of a neuron's pixels from which on the neuron is foreground (official code)."""
ROUNDING = 1e-6
"""19 pure pixels of 20 are 0.95 whatever the order of the sum makes of it."""
HALF = 0.5


class Neurons(NamedTuple):
    """Vectors of the map's neurons by way; one in neither set takes no part."""

    vectors: Float[Tensor, "batch way neuron dim"]
    in_foreground: Bool[Tensor, "batch way neuron"]
    in_background: Bool[Tensor, "batch way neuron"]


@final
class SOVQ(nn.Module):
    """The neurons of a self-organising map on a way's support. Options: see `VQ`."""

    def __init__(
        self,
        *,
        som: str = "batch",
        som_size: Sequence[int] = (7, 7),
        neighbourhood: str = "winner",
        sigma: float = 1.5,
        sweeps: int = 20,
        som_steps: int = 10_000,
        detach: bool = False,
        keep_empty: bool = False,
        lm: str = "inverse",
        neighbours: int = 3,
    ) -> None:
        super().__init__()
        _check(som, neighbourhood, lm)
        if len(som_size) != 2 or min(som_size) < 1:
            raise OptionError(f"som_size={som_size} needs two positive numbers: rows and columns")
        numbers = {"sweeps": sweeps, "som_steps": som_steps, "neighbours": neighbours}
        for name, value in {**numbers, "sigma": sigma}.items():
            if value <= 0:
                raise OptionError(f"{name}={value} must be positive")
        self.som, self.shape = som, (som_size[0], som_size[1])
        self.neighbourhood, self.sigma = neighbourhood, sigma
        self.sweeps, self.steps = sweeps, som_steps if som == "online" else 0
        self.detach, self.keep_empty = detach, keep_empty
        self.lm, self.neighbours = lm, neighbours

    def forward(self, scene: Scene, grid: GridPrototypes, draws: Draws) -> Neurons:
        codebook = self._codebook(scene, draws)
        neurons = label_neurons(scene, codebook, detach=self.detach, keep_empty=self.keep_empty)
        neurons = with_fallback(neurons, grid.average)
        references = grid.foreground.joined(grid.background)
        mapped = local_mapping(neurons.vectors, references, lm=self.lm, k=self.neighbours)
        fore = neurons.in_foreground.unsqueeze(-1)
        vectors = torch.where(fore, mapped, neurons.vectors)
        return Neurons(vectors, neurons.in_foreground, neurons.in_background)

    def _codebook(self, scene: Scene, draws: Draws) -> Float[Tensor, "batch way neuron dim"]:
        if self.som == "batch":
            return som.train_batch(
                scene.pixels,
                draws.neurons,
                shape=self.shape,
                neighbourhood=self.neighbourhood,
                sigma=self.sigma,
                sweeps=self.sweeps,
            )
        codebook, _ = som.train_online(
            scene.pixels,
            draws.neurons,
            draws.order,
            shape=self.shape,
            neighbourhood=self.neighbourhood,
            sigma=self.sigma,
        )
        return codebook


def label_neurons(
    scene: Scene,
    codebook: Float[Tensor, "batch way neuron dim"],
    *,
    detach: bool = False,
    keep_empty: bool = False,
) -> Neurons:
    """Foreground: a mean mask of at least 0.95 over the pixels that are nearest to the neuron.

    The other neurons are background, except those whose pixels mostly belong to another way of the
    episode (with one way there are none).
    detach: the neuron's vector is the trained one, without gradient, instead of the mean of its
        pixels.   keep_empty: a neuron without pixels is background instead of dropped.
    """
    chosen = som.memberships(som.assign(scene.pixels, codebook), codebook.shape[2])
    counts = chosen.sum(2)
    share = chosen / counts.clamp_min(1).unsqueeze(2)
    own = einsum(share, scene.masks, "b w p n, b w p -> b w n")
    rest = einsum(share, scene.backgrounds, "b w p n, b w p -> b w n")
    known = counts > 0
    foreground = known & (own >= PURE - ROUNDING)
    background = known & ~foreground & (own + rest >= HALF)
    if keep_empty:
        background = background | ~known
    if detach:
        return Neurons(codebook, foreground, background)
    means = torch.where(known.unsqueeze(-1), share.mT @ scene.pixels, codebook)
    return Neurons(means, foreground, background)


def with_fallback(neurons: Neurons, average: Float[Tensor, "batch way dim"]) -> Neurons:
    """One more neuron: the way's mean, foreground where no other neuron is."""
    none = ~neurons.in_foreground.any(-1, keepdim=True)
    return Neurons(
        torch.cat([neurons.vectors, average.unsqueeze(2)], 2),
        torch.cat([neurons.in_foreground, none], 2),
        torch.cat([neurons.in_background, torch.zeros_like(none)], 2),
    )


def _check(som_kind: str, neighbourhood: str, lm: str) -> None:
    check_choice("som", som_kind, SOMS)
    check_choice("neighbourhood", neighbourhood, som.NEIGHBOURHOODS)
    check_choice("lm", lm, LMS)
