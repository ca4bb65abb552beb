"""Episodes that augmentation spoilt are drawn anew."""

from collections.abc import Callable

import numpy as np

from fewshot_seg.data.assemble import counted
from fewshot_seg.episode import Episode
from fewshot_seg.errors import DataError

Draw = Callable[[int, np.random.Generator], Episode | None]
"""Makes episode number `index` from a generator; None when a mask left the image."""


class Redraws:
    """Draws an episode until it is whole, and counts what was thrown away.

    seed, stream: with the episode's index they decide everything; `stream` keeps a source's draws
        apart from those of other sources with the same seed.
    most: draws of one episode.   failure: what always happened, and the remedy, for the message.
    `thrown_away` counts over all episodes, those that failed included; it influences nothing.
    """

    def __init__(self, *, seed: int, stream: int, most: int, failure: str) -> None:
        self.seed, self.stream, self.most, self.failure = seed, stream, most, failure
        self.thrown_away = 0

    def first_whole(self, index: int, draw: Draw) -> Episode:
        """Episode number `index`, with `extras["redrawn"]`: the draws thrown away before it.

        All draws of an episode read on in one generator, so they differ from each other.
        Raises ValueError for a negative index, DataError after `most` failed draws.
        """
        if index < 0:
            raise ValueError(f"episodes are numbered from 0; got {index}")
        generator = np.random.default_rng([self.seed, index, self.stream])
        for failed in range(self.most):
            episode = draw(index, generator)
            if episode is not None:
                return counted(episode, failed)
            self.thrown_away += 1
        raise DataError(f"episode {index}: in {self.most} draws {self.failure}")
