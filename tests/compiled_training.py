"""Train with and without `training.compile`; `test_compile.py` runs it and judges.

    python tests/compiled_training.py        # JSON: largest difference of a weight, or the error

A script of its own, as the shape checks that the tests run under cannot be traced.
"""

import json
from typing import Any

import torch
from tiny_methods import tiny

from fewshot_seg.episode import Episode
from fewshot_seg.errors import TrainingError
from fewshot_seg.testing import make_episode
from fewshot_seg.training import TrainConfig, train


class Source:
    """An episode of noise for each index."""

    def episode(self, index: int) -> Episode:
        return make_episode(batch=1, size=(64, 64), seed=index)

    def describe(self) -> dict[str, Any]:
        return {}


def weights(compiled: bool) -> torch.Tensor:
    """Of panet after three steps."""
    method = tiny("panet")
    train(method, Source(), TrainConfig(steps=3, lr=0.1, compile=compiled), progress=False)
    return flat(method)


def flat(method: torch.nn.Module) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in method.parameters()])


def main() -> None:
    torch.set_num_threads(1)
    plain = weights(False)
    found: dict[str, Any] = {"moved": float((plain - flat(tiny("panet"))).abs().max())}
    try:
        found["difference"] = float((weights(True) - plain).abs().max())
    except TrainingError as error:
        found["error"] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
