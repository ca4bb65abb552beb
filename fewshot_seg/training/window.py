"""The losses since the last line of the log, brought from the device as seldom as possible."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewshot_seg.errors import TrainingError

GRADIENT = "grad_norm"
DIAGNOSTICS = "diagnostics/"
"""Begins the names of numbers that are only looked at; they may be anything."""


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each name over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _mean([row[name] for row in rows if name in row]) for name in names}


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


@dataclass
class Window:
    """Values by name of the steps since the last `clear`.

    unbounded: names that may be infinite or not a number (the gradient norm in 16 bits, where the
        loss scaler skips such steps).
    """

    unbounded: frozenset[str] = frozenset()
    _unseen: list[tuple[int, str, dict[str, Tensor]]] = field(default_factory=list)
    _seen: list[dict[str, float]] = field(default_factory=list)

    def add(self, step: int, episodes: str, values: Mapping[str, Tensor]) -> None:
        """Keep the values of a step; no host synchronisation."""
        self._unseen.append((step, episodes, {name: v.detach() for name, v in values.items()}))

    def look(self) -> str:
        """Fetch what was added, with one synchronisation; what is wrong with it, or nothing."""
        unseen, self._unseen = self._unseen, []
        tensors = [value for _, _, values in unseen for value in values.values()]
        if not tensors:
            return ""
        numbers = iter(torch.stack([tensor.float() for tensor in tensors]).tolist())
        complaint = ""
        for step, episodes, values in unseen:
            row = {name: next(numbers) for name in values}
            self._seen.append(row)
            complaint = complaint or self._complaint(step, episodes, row)
        return complaint

    def _complaint(self, step: int, episodes: str, row: dict[str, float]) -> str:
        row = {name: value for name, value in row.items() if not name.startswith(DIAGNOSTICS)}
        bad = [n for n, v in row.items() if n not in self.unbounded and not math.isfinite(v)]
        if not bad:
            return ""
        losses = {name: value for name, value in row.items() if name != GRADIENT}
        what = "the loss" if set(bad) != {GRADIENT} else "the gradient"
        terms = ", ".join(f"{name} = {value:.6g}" for name, value in losses.items())
        return f"{what} is not finite at step {step} (episodes {episodes}): {terms}"

    def mean(self) -> dict[str, float]:
        """Means of what was looked at since the last `clear`."""
        return average(self._seen)

    def clear(self) -> None:
        self._seen = []


def check_weights(state: Mapping[str, Tensor], step: int) -> None:
    """Raise TrainingError when a weight is not finite, so that no checkpoint keeps such a one."""
    floating = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    if not floating:
        return
    finite = torch.stack([tensor.isfinite().all() for tensor in floating.values()]).tolist()
    bad = [name for name, good in zip(floating, finite, strict=True) if not good]
    if bad:
        raise TrainingError(
            f"after step {step} the weights of {', '.join(bad[:5])} are not finite; "
            "a smaller lr or clip_norm may help"
        )
