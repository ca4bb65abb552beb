"""In which precision to compute: bfloat16 and channels-last where the hardware has them.

What is sensitive (cosines, softmax over prototypes, KL, graph solves) leaves autocast by itself,
see `functional.full_precision`; so the choice concerns convolutions and matrix products.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fewshot_seg.errors import check_choice

PRECISIONS = ("auto", "32", "bf16")
"""At test. "auto": bf16 where the hardware computes in it, else 32."""


def computes_in_bf16(accelerator: str) -> bool:
    """Whether the hardware has instructions for bfloat16 (emulation does not count)."""
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Absent from older torch, which then computes in 32 bits: right, only slower.
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))


def resolve_precision(wanted: str, device: torch.device) -> str:
    """ "32" or "bf16". Raises OptionError for a name that is not in `PRECISIONS`."""
    check_choice("precision", wanted, PRECISIONS)
    if wanted != "auto":
        return wanted
    known = device.type in ("cpu", "cuda")
    return "bf16" if known and computes_in_bf16(device.type) else "32"


@contextmanager
def computing(method: object, device: torch.device, precision: str) -> Iterator[None]:
    """Compute in a precision that `resolve_precision` gave; 16-bit weights are kept for the whole
    context, so one context should span many calls.

    In bf16 the method's convolutions are stored channels last from then on, which changes no value.
    """
    half = precision == "bf16"
    if half and isinstance(method, nn.Module):
        method.to(memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
        yield
