"""Which part was at work when: a mark at each change of part, forward and backward.

The backward pass runs the nodes of the graph in the reverse order of their making. So the part that
made a node owns its backward work too, and a hook at each change of owner is enough to know when.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from fewshot_seg.profiling.clocks import Meter

REST = "everything else"
"""What belongs to no part: wiring, averaging of masks, losses of the method itself."""
OUTSIDE = ""
"""Phase between two phases; not counted."""

Span = tuple[str, str]
"""A phase and a part."""


class Mark(NamedTuple):
    """From here on `span`; `node` is the number of the next graph node."""

    span: Span
    reading: Any
    node: int


class Tape:
    """Marks of one run. A part that another one calls counts as part of its caller."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._marks: list[Mark] = []
        self._phase, self._part = OUTSIDE, REST

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside counts for this phase."""
        self._phase = name
        self._mark()
        try:
            yield
        finally:
            self._phase = OUTSIDE
            self._mark()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs inside counts for this part, unless it is inside a part already."""
        if self._part != REST:
            yield
            return
        self._switch(name)
        try:
            yield
        finally:
            self._switch(REST)

    def backward(self, loss: Tensor, phase: str) -> None:
        """`loss.backward()`, each part's share by itself."""
        handles = self._watch(loss)
        with self.phase(phase):
            torch.autograd.backward(loss)
        self._part = REST
        for handle in handles:
            handle.remove()

    def amounts(self) -> dict[Span, float]:
        """By phase and part, how far the meter went."""
        found: dict[Span, float] = defaultdict(float)
        for one, following in zip(self._marks, self._marks[1:]):
            if one.span[0] != OUTSIDE:
                found[one.span] += self.meter.between(one.reading, following.reading)
        return dict(found)

    def _switch(self, part: str) -> None:
        self._part = part
        self._mark()

    def _mark(self) -> None:
        number = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        self._marks.append(Mark((self._phase, self._part), self.meter.read(), number))

    def _watch(self, loss: Tensor) -> list[Any]:
        """A hook on the first node of each stretch of nodes that one part made."""
        starts = [mark.node for mark in self._marks]
        made = [(node._sequence_nr(), node) for node in _nodes(loss)]
        made.sort(key=lambda pair: pair[0], reverse=True)
        handles, owner = [], REST
        for number, node in made:
            part = self._marks[max(0, bisect_right(starts, number) - 1)].span[1]
            if part != owner:
                handles.append(node.register_prehook(self._entering(part)))
                owner = part
        return handles

    def _entering(self, part: str) -> Callable[[Sequence[Tensor | None]], None]:
        return lambda _: self._switch(part)


def _nodes(loss: Tensor) -> Iterator[Node]:
    """Every node behind a loss but the leaves, which have no number."""
    first = loss.grad_fn
    seen, waiting = set(), [] if first is None else [first]
    while waiting:
        node = waiting.pop()
        if node in seen or node.name().endswith("AccumulateGrad"):
            continue
        seen.add(node)
        yield node
        waiting += [behind for behind, _ in node.next_functions if behind is not None]


@contextmanager
def watched(parts: Mapping[str, Sequence[nn.Module]], tape: Tape) -> Iterator[None]:
    """Every public function of these modules marks the tape while the context lasts."""
    with ExitStack() as stack:
        for part, modules in parts.items():
            for module in modules:
                for name in _public(module):
                    stack.enter_context(_shadowed(module, name, part, tape))
        yield


def _public(module: nn.Module) -> list[str]:
    """What the module's own classes define; `forward` and, of decoders, `describe` and `learn`."""
    classes = type(module).__mro__[: type(module).__mro__.index(nn.Module)]
    names = {
        name: None
        for one in classes
        for name, value in vars(one).items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    }
    return list(names)


@contextmanager
def _shadowed(module: nn.Module, name: str, part: str, tape: Tape) -> Iterator[None]:
    real = getattr(module, name)
    before = vars(module).get(name)

    @wraps(real)
    def run(*args: Any, **options: Any) -> Any:
        with tape.part(part):
            return real(*args, **options)

    setattr(module, name, run)
    try:
        yield
    finally:
        if before is None:
            delattr(module, name)
        else:
            setattr(module, name, before)
