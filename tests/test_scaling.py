"""How cost grows, counted in FLOPs, so that no other work on the machine can disturb it."""

import itertools
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_methods import SIZE, methods, tiny
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fewshot_seg.episode import Episode
from fewshot_seg.needs import needs_of
from fewshot_seg.profiling import episodes_a_second, loading, phantom_source
from fewshot_seg.testing import make_episode

METHODS = methods(pipelines=True)
COUNTS = (1, 2, 3, 5)
GRAPHS = {"poissonseg"}
"""Support and query positions are nodes of one graph."""
PAIRS = {"apscl", "apscl_fast", "apscl_literal"}
"""A training loss compares all images of an episode with each other."""
ACROSS = {"apscl_literal"}
"""And those of all episodes of a step."""


def episode(method: nn.Module, size: tuple[int, int] = SIZE, **counts: int) -> Episode:
    return make_episode(size=size, needs=needs_of(method), **{"batch": 1, **counts})


def flops(function: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


@torch.no_grad()
def at_test(method: Any, task: Episode) -> tuple[int, int]:
    """Of encoding the support, and of segmenting all query slices."""
    method.eval()
    state = method.encode_support(task.support)
    return (
        flops(lambda: method.encode_support(task.support)),
        flops(lambda: method.segment(state, task.query_images)),
    )


def of_a_step(method: nn.Module, task: Episode) -> int:
    method.train()
    return flops(lambda: method(task).loss.backward())


def slopes(values: list[int]) -> list[float]:
    """What one more costs, between neighbours of COUNTS."""
    steps = zip(pairwise(COUNTS), pairwise(values), strict=True)
    return [(high - low) / (more - less) for (less, more), (low, high) in steps]


def grows_evenly(values: list[int], tolerance: float = 0.0) -> None:
    first, *others = slopes(values)
    assert first > 0
    assert others == pytest.approx([first] * len(others), rel=tolerance)


@pytest.mark.parametrize("values", [[1, 4, 9, 25], [5, 5, 5, 5], [2, 4, 6, 12]])
def test_other_growth_is_seen(values: list[int]) -> None:
    with pytest.raises(AssertionError):
        grows_evenly(values)


def at_most_squared(values: list[int]) -> None:
    for count, value in zip(COUNTS, values, strict=True):
        assert count * values[0] / 2 < value <= count**2 * values[0]


@pytest.mark.parametrize("name", METHODS)
def test_more_query_slices_cost_evenly_more_and_the_support_nothing(name: str) -> None:
    method = tiny(name)
    found = [at_test(method, episode(method, n_query=count)) for count in COUNTS]
    assert len({support for support, _ in found}) == 1
    grows_evenly([segment for _, segment in found])


@pytest.mark.parametrize("name", METHODS)
def test_a_shot_costs_one_encoding(name: str) -> None:
    method = tiny(name)
    with torch.no_grad():
        image = flops(lambda: method.encoder(episode(method).query_images[0]))  # type: ignore[operator]
    tasks = [episode(method, n_shot=count) for count in COUNTS]
    found = [at_test(method, task) for task in tasks]
    for count, task, (support, _) in zip(COUNTS, tasks, found, strict=True):
        further = task.support.unlabelled
        assert support == (count + (0 if further is None else further.shape[1])) * image
    segment = [one for _, one in found]
    if name in GRAPHS:
        assert segment[-1] < 5 * segment[0]
    else:
        grows_evenly(segment)


@pytest.mark.parametrize("name", METHODS)
def test_positions_cost_at_most_their_square(name: str) -> None:
    height, width = SIZE
    smaller, larger = (
        at_test(method, episode(method, size))
        for size in (SIZE, (2 * height, 2 * width))
        for method in [tiny(name, image_size=size)]
    )
    assert larger[0] == 4 * smaller[0]
    assert larger[1] < 16 * smaller[1]


@pytest.mark.filterwarnings("ignore:scl_mode 'image' with one episode")
@pytest.mark.parametrize("axis", ["n_query", "n_shot"])
@pytest.mark.parametrize("name", METHODS)
def test_a_training_step_grows_evenly(name: str, axis: str) -> None:
    method = tiny(name)
    found = [of_a_step(method, episode(method, **{axis: count})) for count in COUNTS]
    if name in PAIRS:
        at_most_squared(found)
    else:
        grows_evenly(found, tolerance=0.1)


@pytest.mark.filterwarnings("ignore:scl_mode 'image' with one episode")
@pytest.mark.parametrize("name", METHODS)
def test_episodes_of_a_step_cost_evenly(name: str) -> None:
    method = tiny(name)
    found = [of_a_step(method, episode(method, batch=count)) for count in COUNTS]
    if name in ACROSS:
        at_most_squared(found)
    else:
        assert found == [count * found[0] for count in COUNTS]


@pytest.mark.parametrize("workers", [0, 2])
def test_episodes_a_second_are_those_that_arrive(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which two seconds pass from one look to the next."""
    ticks = itertools.count(0, 2)
    monkeypatch.setattr(loading, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    source = phantom_source(32)
    assert source.episode(0).size == (32, 32)
    assert episodes_a_second(source, workers, count=30) == 30 / 2
    assert episodes_a_second(source, workers, episodes=3, count=30) == 90 / 2
    assert phantom_source(32, on_device=True).episode(0).extras["augment"].shape[:2] == (1, 2)
