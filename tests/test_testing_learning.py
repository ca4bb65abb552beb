"""`overfit` and `foreground_dice`: what they train, count, leave behind and refuse."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewshot_seg.episode import IGNORE, Episode, Output
from fewshot_seg.functional import segmentation_loss
from fewshot_seg.testing import foreground_dice, make_episode, overfit


class Bright(nn.Module):
    """A method of two numbers: way 1 is where the first channel is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(-1.0))
        self.shift = nn.Parameter(torch.tensor(0.0))
        self.norm = nn.BatchNorm2d(1)
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, episode: Episode) -> Output:
        self.seen.append((self.training, episode.query_labels is not None))
        way = self.slope * episode.query_images[:, :, 0] + self.shift
        logits = torch.stack([torch.zeros_like(way), way], 2)
        if episode.query_labels is None or not self.training:
            return Output(logits)
        return Output(logits, {"ce": segmentation_loss(logits, episode.query_labels)})


class Says(nn.Module):
    """Answers with a label map that was handed in."""

    answer: Tensor

    def __init__(self, answer: Tensor, n_way: int) -> None:
        super().__init__()
        self.register_buffer("answer", answer)
        self.n_way = n_way

    def forward(self, episode: Episode) -> Output:
        one_hot = nn.functional.one_hot(self.answer, 1 + self.n_way)
        return Output(one_hot.movedim(-1, 2).float())


def labelled(*rows: list[int], n_way: int) -> Episode:
    """One query of two rows; the images do not matter."""
    task = make_episode(batch=1, n_way=n_way, size=(2, len(rows[0])), channels=1)
    return replace(task, query_labels=torch.tensor([[list(rows)]]))


def test_dice_is_the_mean_over_ways() -> None:
    task = labelled([0, 1, 1, 2], [0, 0, 1, 2], n_way=2)
    answer = torch.tensor([[[[1, 1, 1, 2], [0, 0, 0, 0]]]])
    assert foreground_dice(Says(answer, 2), task) == pytest.approx((4 / 6 + 2 / 3) / 2)


def test_dice_leaves_out_unscored_pixels_and_absent_ways() -> None:
    task = labelled([0, 1, 1, IGNORE], [0, 0, 1, IGNORE], n_way=2)
    answer = torch.tensor([[[[0, 1, 1, 1], [0, 0, 0, 2]]]])
    assert foreground_dice(Says(answer, 2), task) == pytest.approx(4 / 5)
    answer[..., 0] = 2  # a way that only the answer shows counts as wrong
    assert foreground_dice(Says(answer, 2), task) == pytest.approx(4 / 5 / 2)


def test_it_learns_and_stops_at_the_target() -> None:
    task, method = make_episode(size=(32, 32)), Bright()
    before = foreground_dice(method, task)
    method.seen.clear()
    best = overfit(method, task, lr=0.1, steps=200, every=5, target=0.8)
    assert before < 0.5 < 0.8 <= best == foreground_dice(method, task)
    looks = method.seen[:-1].count((False, False))
    assert method.seen[:-1] == ([(True, True)] * 5 + [(False, False)]) * looks
    assert looks < 40


@pytest.mark.parametrize(("steps", "every", "looks"), [(7, 3, 3), (6, 3, 2), (2, 10, 1)])
def test_it_looks_every_so_often_and_at_the_end(steps: int, every: int, looks: int) -> None:
    method = Bright()
    overfit(method, make_episode(size=(16, 16)), lr=0.0, steps=steps, every=every)
    assert method.seen.count((True, True)) == steps
    assert method.seen.count((False, False)) == looks
    assert not method.seen[-1][0]


def test_it_returns_the_best_look_and_not_the_last() -> None:
    """Gradient ascent: whatever is right at first is forgotten."""
    method = Bright()
    with torch.no_grad():
        method.slope.fill_(2.0)
        method.shift.fill_(-2.0)
    task = make_episode(size=(32, 32))
    up = partial(torch.optim.SGD, maximize=True)
    best = overfit(method, task, lr=1.0, steps=20, every=1, target=1.0, optimizer=up)
    assert foreground_dice(method, task) < 0.5 < best


@pytest.mark.parametrize("training", [True, False])
def test_every_module_keeps_its_mode(training: bool) -> None:
    method = Bright().train(training)
    method.norm.train(not training)
    for use in (foreground_dice, partial(overfit, steps=1)):
        use(method, make_episode(size=(16, 16)))
        assert (method.training, method.norm.training) == (training, not training)


def test_a_failure_keeps_the_mode_too() -> None:
    method = Bright().eval()
    with torch.no_grad():
        method.shift.fill_(float("nan"))
    with pytest.raises(AssertionError, match="loss 'ce' is nan"):
        overfit(method, make_episode(size=(16, 16)))
    assert not method.training


def silent() -> nn.Module:
    return nn.Sequential()


TASK = make_episode(size=(16, 16))
BLANK = replace(TASK, query_labels=torch.zeros_like(TASK.query_images[:, :, 0]).long())
WRONG: list[tuple[Callable[[], nn.Module], Episode, dict[str, Any], str]] = [
    (Bright, TASK.without_labels(), {}, "has no query labels"),
    (Bright, BLANK, {}, "show no way"),
    (silent, TASK, {}, "Sequential has no parameter that could be trained"),
    (Bright, TASK, {"steps": 0}, "steps must be at least 1; got 0"),
    (Bright, TASK, {"every": 0}, "every must be at least 1; got 0"),
]


@pytest.mark.parametrize(("make", "task", "options", "message"), WRONG, ids=[w[3] for w in WRONG])
def test_what_cannot_be_learnt_is_refused(
    make: Callable[[], nn.Module], task: Episode, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        overfit(make(), task, **options)


def test_dice_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="has no query labels"):
        foreground_dice(Bright(), TASK.without_labels())
