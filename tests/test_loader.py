"""Steps of episodes: the same whoever makes them, whenever a run starts, however many share it."""

import multiprocessing

import numpy as np
import pytest
import torch

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.episodes import SupervisedSource
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.loader import EpisodeLoader
from fewshot_seg.data.prepare import prepare
from fewshot_seg.data.scan import Scan
from fewshot_seg.episode import collate
from fewshot_seg.errors import DataError, OptionError


def scan(number):
    rng = np.random.default_rng(number)
    labels = np.zeros((4, 24, 24), np.uint8)
    labels[:, 3:12, 3:12], labels[:, 12:21, 8:20] = 1, 2
    image = rng.normal(size=(4, 1, 24, 24))
    return prepare(Scan(f"p{number}", image, labels), size=None, intensity=Intensity())


SCANS = [scan(number) for number in range(3)]


def source(**options):
    given = {"classes": (1, 2), "n_way": 2, "augmentation": Augmentation.strong(), "seed": 5}
    return SupervisedSource(SCANS, **{**given, **options})


def tensors(episode):
    found = []
    episode.map(lambda tensor: found.append(tensor) or tensor)
    return found


def same(first, second):
    return all(torch.equal(one, two) for one, two in zip(tensors(first), tensors(second)))


def loader(**options):
    return EpisodeLoader(source(), **{"episodes_per_step": 2, "n_steps": 4, **options})


@pytest.fixture(scope="module")
def steps():
    return list(loader())


def test_steps_hold_consecutive_episodes(steps):
    drawn = source()
    assert len(steps) == len(loader()) == 4
    for number, step in enumerate(steps):
        assert same(step, collate([drawn.episode(2 * number + one) for one in range(2)]))


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 2}])
def test_workers_change_nothing_and_leave(steps, options):
    loaded = list(loader(**options))
    assert len(loaded) == 4
    assert all(same(one, two) for one, two in zip(steps, loaded))
    assert not multiprocessing.active_children()


def test_spawned_workers_change_nothing(steps):
    loaded = list(loader(workers=1, n_steps=2, start_method="spawn"))
    assert all(same(one, two) for one, two in zip(steps, loaded))


def test_workers_leave_when_the_iteration_is_broken_off():
    iteration = iter(loader(workers=2, n_steps=50))
    next(iteration)
    assert len(multiprocessing.active_children()) == 2
    del iteration
    assert not multiprocessing.active_children()


def test_a_resumed_run_goes_on_where_it_stopped(steps):
    resumed = loader(start_step=2)
    assert len(resumed) == 2
    assert all(same(one, two) for one, two in zip(steps[2:], resumed))
    assert list(loader(start_step=4)) == []


def test_ranks_share_each_step(steps):
    shares = [list(loader(rank=rank, world_size=2)) for rank in range(2)]
    for number, step in enumerate(steps):
        assert same(step, collate([share[number] for share in shares]))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_source_is_heard(workers):
    drawn = source(augmentation=Augmentation(zoom=(0.001, 0.001)), max_draws=2)
    with pytest.raises(DataError, match="without success"):
        list(EpisodeLoader(drawn, episodes_per_step=1, n_steps=1, workers=workers))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes_per_step": 0}, "at least 1"),
        ({"workers": -1}, "workers at least 0"),
        ({"start_step": 5}, "start_step must be in 0 to n_steps=4; got 5"),
        ({"rank": 2, "world_size": 2}, "rank must be in 0 to world_size - 1=1; got 2"),
        ({"world_size": 3}, "2 episodes a step cannot be shared evenly by 3"),
    ],
)
def test_wrong_loaders_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        loader(**options)


def test_an_episode_is_pinned_as_a_whole(monkeypatch, steps):
    """torch's loader calls `pin_memory`; locking pages itself needs a GPU."""
    seen = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda one: seen.append(one) or one)
    pinned = steps[0].pin_memory()
    assert same(pinned, steps[0])
    assert len(seen) == len(tensors(steps[0]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("workers", [0, 1])
def test_steps_come_in_locked_pages(workers):
    for step in loader(pin=True, workers=workers):
        assert all(tensor.is_pinned() for tensor in tensors(step))
