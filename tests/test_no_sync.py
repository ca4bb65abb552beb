"""No step of any method waits for the device: nothing is read back, no shape hangs on values.

On a GPU torch itself says so. Without one, every operation of a step is looked at: those that must
know a value on the host are refused whatever the device.
"""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch
from tiny_methods import methods, task, tiny
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.batch_augment import BatchAugmentation
from fewshot_seg.data.drawn import SECOND, WithDrawnChanges
from fewshot_seg.data.episodes import EpisodeSource
from fewshot_seg.episode import Episode, collate
from fewshot_seg.testing import make_episode

METHODS = [*methods(pipelines=True), *methods(pipelines=False)]
READS = (
    "aten::_local_scalar_dense",  # .item(), bool(), float(), range()
    "aten::equal",
    "aten::nonzero",  # torch.where(mask), too
    "aten::masked_select",
    "aten::unique_dim",
    "aten::_unique2",
    "aten::unique_consecutive",
    "aten::repeat_interleave.Tensor",
    "aten::bincount",
    "aten::_linalg_check_errors",
)
"""What needs values on the host, or has a result whose shape does."""
COPIES = ("aten::lift_fresh",)
"""A tensor made of Python numbers, such as a list as index: each is a copy to the device."""
LEAVES = (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__)


class Waits(AssertionError):
    """An operation for which a GPU's host would wait."""


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = function.name()
        masks = name.startswith(("aten::index.", "aten::index_put", "aten::_unsafe_index")) and any(
            isinstance(one, Tensor) and one.dtype == torch.bool for one in args[1]
        )
        if (masks or name.startswith((*READS, *COPIES))) and not _optimizing(sys._getframe()):
            raise Waits(f"{name}{' by a mask' if masks else ''}")
        return function(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):  # type: ignore[no-untyped-call]
    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function in LEAVES:
            raise Waits(function.__name__)
        return function(*args, **(kwargs or {}))


def _optimizing(frame: FrameType | None) -> bool:
    """Whether an optimiser calls: it counts its steps in tensors that never leave the host."""
    while frame is not None:
        if "/torch/optim/" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def watched(function: Callable[[], object]) -> None:
    with _Functions(), _Operations():
        function()


def step(method: nn.Module, seed: int = 0) -> Callable[[], object]:
    """Forward pass, losses and gradients of a training step."""
    method.train()
    device = next((p.device for p in method.parameters()), torch.device("cpu"))
    episode = task(method, seed).to(device)

    def run() -> None:
        output = method(episode)
        if output.losses and output.loss.requires_grad:
            output.loss.backward()

    return run


def answer(method: nn.Module, seed: int = 0) -> Callable[[], object]:
    """Support once, then a batch of slices, as at test."""
    method.eval()
    device = next((p.device for p in method.parameters()), torch.device("cpu"))
    episode = task(method, seed, n_query=2).without_labels().to(device)

    def run() -> None:
        with torch.inference_mode():
            state = method.encode_support(episode.support)  # type: ignore[operator]
            method.segment(state, episode.query_images)  # type: ignore[operator]

    return run


@pytest.mark.filterwarnings("ignore:scl_mode 'image' with one episode")
@pytest.mark.parametrize("name", METHODS)
def test_a_training_step_reads_nothing_back(name: str) -> None:
    watched(step(tiny(name)))


@pytest.mark.parametrize("name", METHODS)
def test_an_answer_reads_nothing_back(name: str) -> None:
    watched(answer(tiny(name)))


def changed() -> Callable[[], object]:
    """All images of a step changed at once, in every kind of change, with second views."""
    strong = Augmentation.strong()
    source: EpisodeSource = WithDrawnChanges(_Made(), strong, seed=0)
    source = WithDrawnChanges(source, strong, seed=0, name=SECOND)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = collate([source.episode(0), source.episode(1)]).to(device)
    change = BatchAugmentation(strong, second=strong)
    return lambda: change(step)


class _Made:
    def episode(self, index: int) -> Episode:
        return make_episode(batch=1, size=(32, 32), seed=index)

    def describe(self) -> dict[str, Any]:
        return {}


def test_changing_images_reads_nothing_back() -> None:
    watched(changed())


X = torch.arange(4.0)


@pytest.mark.parametrize(
    ("habit", "what"),
    [
        (lambda: X.sum().item(), "_local_scalar_dense"),
        (lambda: X.clone() if X.sum() > 0 else X, "_local_scalar_dense"),
        (lambda: list(range(X.long().sum())), "_local_scalar_dense"),
        (lambda: X[X > 1], "by a mask"),
        (lambda: X.clone().__setitem__(X > 1, X[2:]), "by a mask"),
        (lambda: torch.where(X > 1), "nonzero"),
        (lambda: X.masked_select(X > 1), "masked_select"),
        (lambda: X.unique(), "_unique2"),
        (lambda: X.repeat_interleave(X.long()), "repeat_interleave"),
        (lambda: torch.equal(X, X), "equal"),
        (lambda: torch.linalg.inv(torch.eye(2)), "_linalg_check_errors"),
        (lambda: X[[0, 2]], "lift_fresh"),
        (lambda: X + torch.tensor([1.0, 2.0, 3.0, 4.0]), "lift_fresh"),
        (lambda: X.tolist(), "tolist"),
        (lambda: X.numpy(), "numpy"),
        (lambda: X.cpu(), "cpu"),
    ],
)
def test_habits_that_wait_are_seen(habit: Callable[[], object], what: str) -> None:
    with pytest.raises(Waits, match=what):
        watched(habit)


@pytest.fixture
def strict_gpu() -> Iterator[Callable[[bool], None]]:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    yield lambda on: torch.cuda.set_sync_debug_mode("error" if on else "default")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:scl_mode 'image' with one episode")
@pytest.mark.parametrize("work", [step, answer])
@pytest.mark.parametrize("name", METHODS)
def test_a_gpu_never_waits(
    name: str, work: Callable[[nn.Module], Callable[[], object]], strict_gpu: Callable[[bool], None]
) -> None:
    run = work(tiny(name).cuda())
    run()  # libraries start up on the first call, and may wait
    strict_gpu(True)
    run()


def test_a_gpu_never_waits_for_changed_images(strict_gpu: Callable[[bool], None]) -> None:
    run = changed()
    run()
    strict_gpu(True)
    run()
