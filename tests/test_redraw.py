"""Episodes drawn anew: which draws, how they are counted, when it gives up."""

import numpy as np
import pytest

from fewshot_seg.data.redraw import Redraws
from fewshot_seg.episode import Episode
from fewshot_seg.errors import DataError
from fewshot_seg.testing import make_episode

TASK = make_episode(batch=1, size=(8, 8))


class Third:
    """Fails twice for each episode, and remembers what the generator gave."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, float]] = []

    def __call__(self, index: int, generator: np.random.Generator) -> Episode | None:
        self.calls.append((index, generator.random()))
        return None if len(self.calls) % 3 else TASK


def test_draws_read_on_in_the_episodes_own_generator() -> None:
    redraws, draw = Redraws(seed=5, stream=9, most=3, failure="it left"), Third()
    for index in (4, 0):
        assert redraws.first_whole(index, draw).extras["redrawn"].tolist() == [2]
    wanted = [(i, x) for i in (4, 0) for x in np.random.default_rng([5, i, 9]).random(3).tolist()]
    assert draw.calls == wanted
    assert redraws.thrown_away == 4
    assert "redrawn" not in TASK.extras


def test_it_gives_up() -> None:
    redraws, draw = Redraws(seed=5, stream=9, most=2, failure="it left; stay"), Third()
    with pytest.raises(DataError, match="episode 6: in 2 draws it left; stay"):
        redraws.first_whole(6, draw)
    assert redraws.thrown_away == len(draw.calls) == 2
    with pytest.raises(ValueError, match="numbered from 0; got -1"):
        redraws.first_whole(-1, draw)
