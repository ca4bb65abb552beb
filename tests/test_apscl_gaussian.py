"""Diagonal Gaussians and their divergence (Eq. 1)."""

import pytest
import torch
from apscl_cases import close, generator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, kl_divergence

from fewshot_seg_apscl.gaussian import Gaussian, balanced_divergence, divergence, to_gaussian


def gaussian(seed: int, n: int = 3, d: int = 4) -> Gaussian:
    rng = generator(seed)
    return Gaussian(torch.randn(n, d, generator=rng), torch.randn(n, d, generator=rng))


def distribution(g: Gaussian) -> Independent:
    return Independent(Normal(g.mean, torch.exp(g.log_variance / 2)), 1)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000))
def test_divergence_is_that_of_torch_and_never_negative(seed: int) -> None:
    p, q = gaussian(seed), gaussian(seed + 1)
    close(divergence(p, q).sum(1), kl_divergence(distribution(p), distribution(q)), atol=1e-4)
    assert (divergence(p, q) >= -1e-6).all()
    assert divergence(p, p).abs().max() == 0


def test_log_variance_is_clamped() -> None:
    numbers = torch.tensor([[1.0, 2, -100, 100]])
    mean, log_variance = to_gaussian(numbers)
    assert mean.tolist() == [[1, 2]]
    assert log_variance.tolist() == [[-8, 8]]


@pytest.mark.parametrize("balance", [0.8, 0.5, 0.2])
def test_balance_shares_the_gradient_and_not_the_value(balance: float) -> None:
    p, q = (Gaussian(*(t.requires_grad_() for t in gaussian(seed))) for seed in (1, 2))
    inputs = [*p, *q]
    plain = torch.autograd.grad(divergence(p, q).sum(), inputs)
    balanced = balanced_divergence(p, q, balance)
    close(balanced, divergence(p, q))
    shares = [balance] * 2 + [1 - balance] * 2
    got = torch.autograd.grad(balanced.sum(), inputs)
    for mine, whole, share in zip(got, plain, shares, strict=True):
        close(mine, share * whole)
