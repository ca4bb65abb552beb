"""How many graphs torch.compile makes of every method; `test_compile.py` runs it and judges.

    python tests/compile_check.py [NAME ...]        # JSON: {name: {mode: graphs after each call}}

A script of its own, as the shape checks that the tests run under cannot be traced. `fullgraph=True`
refuses whatever would break the graph: the entry is then the error's message.
"""

import json
import sys
from collections.abc import Callable

import torch
from tiny_methods import methods, task, tiny
from torch import Tensor, nn

SLICES = (4, 3, 5)
"""Query slices of successive batches; the last batch of a scan is smaller than the others."""


class Compiled:
    """A function as one graph, and how many graphs there have been."""

    def __init__(self, function: Callable[..., object]) -> None:
        torch._dynamo.reset()
        self.graphs = 0
        self.function = torch.compile(function, fullgraph=True, backend=self._backend)

    def _backend(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        self.graphs += 1
        return graph.forward


def training(method: nn.Module) -> list[int]:
    """Steps with losses and gradients, on different episodes; losses as without compiling."""
    compiled, after = Compiled(method.train()), []
    for seed in range(3):
        episode = task(method, seed)
        torch.manual_seed(seed)
        loss = compiled.function(episode).loss
        loss.backward()
        after.append(compiled.graphs)
        torch.manual_seed(seed)
        same(loss, method(episode).loss)
    return after


def forward(method: nn.Module) -> list[int]:
    """Whole answers without labels, on different episodes."""
    compiled, after = Compiled(method.eval()), []
    for seed in range(2):
        episode = task(method, seed).without_labels()
        same(compiled.function(episode).logits, method(episode).logits)
        after.append(compiled.graphs)
    return after


@torch.inference_mode()
def segment(method: nn.Module) -> list[int]:
    """Batches of different numbers of slices against one support, their number left open."""
    compiled, after = Compiled(method.eval().segment), []
    state = method.encode_support(task(method).support)
    for seed, slices in enumerate(SLICES):
        images = task(method, seed, n_query=slices).query_images
        torch._dynamo.mark_dynamic(images, 1)
        same(compiled.function(state, images), method.segment(state, images))
        after.append(compiled.graphs)
    return after


def same(compiled: Tensor, plain: Tensor) -> None:
    torch.testing.assert_close(compiled, plain, atol=1e-4, rtol=1e-4)


class Looks(nn.Module):
    """Must be refused: it asks for a value while it computes."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps + 1 if maps.sum() > 0 else maps


class Piles(nn.Module):
    """Must be counted: it is another program at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.pile: list[int] = []

    def forward(self, maps: Tensor) -> Tensor:
        self.pile.append(0)
        return maps * len(self.pile)


def control(module: nn.Module) -> list[int]:
    compiled, after = Compiled(module), []
    for _ in range(3):
        compiled.function(torch.ones(2))
        after.append(compiled.graphs)
    return after


def found(check: Callable[[nn.Module], list[int]], module: nn.Module) -> list[int] | str:
    try:
        return check(module)
    except Exception as error:  # whatever it is, it belongs into the table
        return f"{type(error).__name__}: {error}"


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    table: dict[str, dict[str, list[int] | str]] = {
        "controls": {"looks": found(control, Looks()), "piles": found(control, Piles())}
    }
    for name in names or methods(pipelines=True):
        table[name] = {
            check.__name__: found(check, tiny(name)) for check in (training, forward, segment)
        }
    print(json.dumps(table))


if __name__ == "__main__":
    main(sys.argv[1:])
