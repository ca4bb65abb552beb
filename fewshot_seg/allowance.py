"""A limit on the memory of tensors that are made meanwhile, checked before each is made.

For networks whose description comes from a file: a few words in it can ask for any amount.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fewshot_seg.errors import CheckpointError

SIZED = frozenset({"empty", "zeros", "ones", "full", "rand", "randn", "empty_strided"})
"""torch's functions whose first argument is the size of a new tensor; all others derive from one
that is there already."""


class Allowance(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Within, raises CheckpointError when new tensors would take more than `n_bytes` together.

    what: who asks for them, for the message.
    """

    def __init__(self, n_bytes: int, *, what: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n_bytes, self.what = n_bytes, what
        self._taken = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func.overloadpacket.__name__ in SIZED:
            dtype = named.get("dtype") or torch.get_default_dtype()
            self._taken += prod(args[0]) * dtype.itemsize
            if self._taken > self.n_bytes:
                raise CheckpointError(
                    f"{self.what} describes a network of more than {self.n_bytes / 2**20:.0f} MiB, "
                    "far more than the weights beside it; it is damaged, or made to fill memory"
                )
        return func(*args, **named)
