"""The contrastive loss' attention: memory grows with the positions, not with their square."""

from typing import Any

import pytest
import torch
from apscl_cases import generator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fewshot_seg_apscl.attention import Projected
from fewshot_seg_apscl.relevance import relevance


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The number of elements of the largest result of any operation."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            # expanded tensors occupy what is behind them
            if isinstance(one, Tensor) and 0 not in one.stride():
                self.elements = max(self.elements, one.numel())
        return result


def largest(positions: int, align: str, *, groups: int = 1, dtype: torch.dtype) -> int:
    """In a forward and backward pass over four regions of two images."""
    rng, dim = generator(0), 8
    shape = (groups, 2, positions, dim)
    images = Projected(
        *(torch.randn(shape, generator=rng).to(dtype).requires_grad_() for _ in range(3))
    )
    masks = torch.rand(groups, 4, positions, generator=rng)
    with Largest() as seen:
        relevance(images, torch.tensor([0, 0, 1, 1]), masks, align).sum().backward()
    return seen.elements


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("align", ["cross", "literal"])
@pytest.mark.parametrize("groups", [1, 2])
def test_memory_is_linear_in_the_positions(groups: int, align: str, dtype: torch.dtype) -> None:
    few, many = (largest(n, align, groups=groups, dtype=dtype) for n in (512, 1024))
    assert many == 2 * few
    assert many <= groups * 2 * 4 * 1024 * 8, "more than one vector for each pair and position"
