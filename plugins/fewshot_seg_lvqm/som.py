"""SOVQ: a self-organising map on the support's pixels.

`train_online` is the sequential map of the official code; `train_batch` does the same job in a few
sweeps of matrix products, for all ways and episodes at once.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_seg_lvqm.scene import Pixels

NEIGHBOURHOODS = ("winner", "bubble", "gaussian")

Codebook = Float[Tensor, "batch way neuron dim"]


def train_online(
    pixels: Pixels,
    initial: Codebook,
    order: Int[Tensor, " step"],
    *,
    shape: tuple[int, int],
    neighbourhood: str = "winner",
    sigma: float = 1.0,
    rate: float = 0.1,
) -> tuple[Codebook, Int[Tensor, "batch way step"]]:
    """The codebook after one step for each entry of `order`, and each step's winner.

    w_j += rate(t) * h_cj(t) * (x - w_j) with c the nearest neuron; rate and sigma are divided by
    1 + t / (steps / 2).   order: pixel of each step, the same in all ways.
    shape: rows and columns of the map; neurons are row-major.
    This is exact and slow: it runs in NumPy on the host, which a GPU has to wait for.
    """
    samples = pixels.detach().flatten(0, 1).float().cpu().numpy()
    codebook = initial.detach().flatten(0, 1).float().cpu().numpy().copy()
    apart = _apart(shape, torch.device("cpu"))
    task = np.arange(len(codebook))
    winners = np.zeros((len(codebook), len(order)), dtype=np.int64)
    for step, index in enumerate(order.tolist()):
        age = 1 + step / (len(order) / 2)
        sample = samples[:, index]
        winner = ((codebook - sample[:, None]) ** 2).sum(-1).argmin(-1)
        winners[:, step] = winner
        if neighbourhood == "winner":
            codebook[task, winner] += rate / age * (sample - codebook[task, winner])
        else:
            near = rate / age * _near(neighbourhood, apart, sigma / age)[winner].float().numpy()
            codebook += near[:, :, None] * (sample[:, None] - codebook)
    return (
        torch.from_numpy(codebook).to(pixels.device).reshape(initial.shape),
        torch.from_numpy(winners).to(pixels.device).reshape(*pixels.shape[:2], len(order)),
    )


def train_batch(
    pixels: Pixels,
    initial: Codebook,
    *,
    shape: tuple[int, int],
    neighbourhood: str = "winner",
    sigma: float = 1.0,
    sweeps: int = 20,
) -> Codebook:
    """The codebook after `sweeps` over all pixels at once (batch map; with "winner" k-means).

    Every sweep makes a neuron the mean of the pixels that chose it, or with a neighbourhood of all
    pixels, weighted by h. A neuron without any stays where it was. Sums of earlier sweeps are
    forgotten: keeping part of them, as small batches would need, brought nothing.
    """
    # distances by matrix products lose digits far from the origin
    centre = pixels.detach().float().mean(2, keepdim=True)
    samples = pixels.detach().float() - centre
    codebook = initial.detach().float() - centre
    apart = _apart(shape, pixels.device)
    for sweep in range(sweeps):
        distance = codebook.square().sum(-1).unsqueeze(2) / 2 - samples @ codebook.mT
        chosen = memberships(distance.argmin(-1), codebook.shape[2])
        sums, counts = chosen.mT @ samples, chosen.sum(2).unsqueeze(-1)
        if neighbourhood != "winner":
            age = 1 + (sweep + 1) / (sweeps / 2)
            near = _near(neighbourhood, apart, sigma / age).to(codebook)
            sums, counts = near @ sums, near @ counts
        known = counts > torch.finfo(counts.dtype).tiny
        codebook = torch.where(known, sums / torch.where(known, counts, 1.0), codebook)
    return codebook + centre


def assign(pixels: Pixels, codebook: Codebook) -> Int[Tensor, "batch way pixel"]:
    """The nearest neuron of each pixel, the first of equal ones."""
    # without matrix products: equal neurons must be equally far
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(pixels.detach(), codebook.detach(), compute_mode=mode).argmin(-1)


def memberships(
    assigned: Int[Tensor, "batch way pixel"], n_neurons: int
) -> Float[Tensor, "batch way pixel neuron"]:
    """1 where a pixel belongs to a neuron."""
    neurons = torch.arange(n_neurons, device=assigned.device)
    return (assigned.unsqueeze(-1) == neurons).float()


def quantisation_error(pixels: Pixels, codebook: Codebook) -> Float[Tensor, "batch way"]:
    """Mean distance of a pixel to its nearest neuron."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(pixels, codebook, compute_mode=mode).amin(-1).mean(-1)


def _apart(shape: tuple[int, int], device: torch.device) -> Float[Tensor, "2 neuron neuron"]:
    """Rows and columns between any two neurons."""
    index = torch.arange(math.prod(shape), device=device)
    places = torch.stack([index // shape[1], index % shape[1]])
    return (places.unsqueeze(2) - places.unsqueeze(1)).abs().double()


def _near(neighbourhood: str, apart: Tensor, sigma: float) -> Float[Tensor, "neuron neuron"]:
    """h of every pair of neurons, in [0, 1]."""
    if neighbourhood == "bubble":
        return (apart < sigma).all(0).double()
    return torch.exp(-apart.square().sum(0) / (2 * sigma**2))
