"""Counting operations, attention on a CPU included, which older torch counts as nothing."""

from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)


def flop_counter() -> FlopCounterMode:
    """torch's counter, a context; see `get_total_flops`."""
    aten = torch.ops.aten
    formulas = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    unknown = {op: count for op, count in formulas.items() if op not in flop_registry}
    return FlopCounterMode(display=False, custom_mapping=unknown)


def _attention(query: Any, key: Any, value: Any, *more: Any, out_shape: Any, **options: Any) -> int:
    return sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]


def _attention_backward(
    grad: Any, query: Any, key: Any, value: Any, *more: Any, out_shape: Any, **options: Any
) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)  # type: ignore[no-untyped-call]
