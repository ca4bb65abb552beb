"""Pooling at mask resolution without upsampling is pooling of upsampled maps."""

import pytest
import torch

from fewshot_seg.functional import masked_average, masked_average_at_mask, resize


@pytest.mark.parametrize("grid", [(8, 8), (5, 9), (1, 1), (32, 24)])
@pytest.mark.parametrize("size", [(32, 24), (33, 47), (8, 8)])
def test_it_equals_the_long_way(grid: tuple[int, int], size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 7, *grid, generator=generator, dtype=torch.float64, requires_grad=True)
    masks = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    masks[0, 0] = 0
    long = masked_average(resize(maps, size), masks)
    short = masked_average_at_mask(maps, masks)
    torch.testing.assert_close(short, long, rtol=1e-12, atol=1e-12)
    (wanted,) = torch.autograd.grad(long.square().sum(), maps)
    (slope,) = torch.autograd.grad(short.square().sum(), maps)
    torch.testing.assert_close(slope, wanted, rtol=1e-12, atol=1e-12)
