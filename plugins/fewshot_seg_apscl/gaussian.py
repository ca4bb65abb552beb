"""Diagonal Gaussians and their divergence (APSCL Eq. 1)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

LOG_VARIANCE = (-8.0, 8.0)
"""Nothing in the paper anchors the scale, so variances could run away."""


class Gaussian(NamedTuple):
    """Mean and log variance of each image's latent."""

    mean: Float[Tensor, "image latent"]
    log_variance: Float[Tensor, "image latent"]

    def detach(self) -> "Gaussian":
        return Gaussian(self.mean.detach(), self.log_variance.detach())

    def at(self, noise: Float[Tensor, "image latent"]) -> Float[Tensor, "image latent"]:
        """The reparameterised sample `mean + deviation * noise`."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise


def to_gaussian(numbers: Float[Tensor, "image twice_latent"]) -> Gaussian:
    """Split a block's output into mean and clamped log variance."""
    mean, log_variance = numbers.chunk(2, dim=-1)
    return Gaussian(mean, log_variance.clamp(*LOG_VARIANCE))


def divergence(p: Gaussian, q: Gaussian) -> Float[Tensor, "image latent"]:
    """KL(p || q) of each dimension, in nats; never negative."""
    variance_ratio = torch.exp(p.log_variance - q.log_variance)
    distance = (p.mean - q.mean).square() * torch.exp(-q.log_variance)
    return 0.5 * (q.log_variance - p.log_variance + variance_ratio + distance - 1)


def balanced_divergence(p: Gaussian, q: Gaussian, balance: float) -> Float[Tensor, "image latent"]:
    """KL(p || q), its gradient shared out: `balance` to p, the rest to q; 0 is off."""
    if balance == 0:
        return divergence(p, q)
    return balance * divergence(p, q.detach()) + (1 - balance) * divergence(p.detach(), q)
