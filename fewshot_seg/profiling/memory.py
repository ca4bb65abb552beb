"""Peak memory of a piece of work.

On a GPU the allocator tells. On the CPU nobody does, so the bytes of all tensors alive are followed
operation by operation: weights, gradients, activations kept for the backward pass, temporary
tensors. What a kernel takes inside one operation is not seen; the process's resident memory, which
holds that and also Python and the libraries, is told beside it.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

STATUS = Path("/proc/self/status")


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that tensors hold while this mode is on.

    given: tensors that are there already.
    """

    def __init__(self, given: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: set[int] = set()
        self._now = self.peak = 0
        for tensor in given:
            self._follow(tensor)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._follow(leaf)
        return found

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._gone, key, storage.nbytes()).atexit = False

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._now -= size


def peak_memory(work: Callable[[], object], given: Iterable[Tensor], device: torch.device) -> int:
    """Bytes at the highest point of `work`; `given` is what exists before, weights and inputs."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    with LiveBytes(given) as live:
        work()
    return live.peak


def resident_peak() -> int | None:
    """Bytes: the most this process ever had in memory; None where the system does not tell."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(kilobytes[0]) if kilobytes else None
