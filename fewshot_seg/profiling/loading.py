"""How many training episodes a second are made, for a number of worker processes."""

import time
from itertools import islice

from fewshot_seg.data.augment import Augmentation
from fewshot_seg.data.drawn import WithDrawnChanges
from fewshot_seg.data.episodes import EpisodeSource, SupervisedSource
from fewshot_seg.data.intensity import Intensity
from fewshot_seg.data.loader import EpisodeLoader
from fewshot_seg.data.phantom import abdomen
from fewshot_seg.data.prepare import prepare

SCANS, SLICES, PAINTED = 3, 8, 64
"""Phantom patients; painted small and enlarged, as what they show has no say in the speed."""
FIRST = 20
"""Steps that workers are given to start up."""


def phantom_source(size: int, *, on_device: bool = False) -> EpisodeSource:
    """One-shot episodes with the field's augmentation, both slices changed on their own.

    size: pixels of a side.
    on_device: the changes are only drawn, see `fewshot_seg.data.batch_augment`.
    """
    dataset = abdomen(n_scans=SCANS, size=PAINTED, n_slices=SLICES)
    scans = [prepare(dataset.load(one), size=size, intensity=Intensity()) for one in dataset.ids]
    classes = tuple(dataset.classes)
    if on_device:
        return WithDrawnChanges(SupervisedSource(scans, classes=classes), Augmentation(), seed=0)
    return SupervisedSource(scans, classes=classes, augmentation=Augmentation())


def episodes_a_second(
    source: EpisodeSource, workers: int, *, episodes: int = 1, count: int = 200
) -> float:
    """By the clock on the wall, as processes side by side have no other; without their start.

    episodes: of a step.   count: measured steps.
    """
    n_steps = FIRST + count
    loader = EpisodeLoader(source, episodes_per_step=episodes, n_steps=n_steps, workers=workers)
    steps = iter(loader)
    for _ in islice(steps, FIRST):
        pass
    start = time.perf_counter()
    timed = sum(1 for _ in steps)
    return timed * episodes / (time.perf_counter() - start)
