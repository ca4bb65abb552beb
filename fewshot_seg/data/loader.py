"""Episodes, step by step, made in this process or in others."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from fewshot_seg.data.episodes import EpisodeSource
from fewshot_seg.episode import Episode, collate
from fewshot_seg.errors import OptionError


class EpisodeLoader:
    """The steps of a training run, each an `Episode` with the step's episodes on its batch axis.

    Step s holds the episodes s * episodes_per_step and on, whatever the number of workers, so a
    run can stop after any step and go on from there.

    source: see `EpisodeSource`. With workers it is sent to them, so it must be picklable under
        the start methods "spawn" and "forkserver".
    episodes_per_step: over all ranks together.
    n_steps: steps of the whole run; those from `start_step` on are given out.
    workers: processes that make episodes ahead of time; 0 makes them in this one. They end with
        the iteration, also when it is broken off.
    rank, world_size: for training on several devices, each rank takes its block of every step.
    start_method: how workers start: "fork", "spawn", "forkserver"; None is Python's default here.
    pin: give episodes in page-locked memory, for training on CUDA.

    Raises OptionError for numbers out of range or a step that the ranks cannot share evenly.
    """

    def __init__(
        self,
        source: EpisodeSource,
        *,
        episodes_per_step: int,
        n_steps: int,
        start_step: int = 0,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_method: str | None = None,
        pin: bool = False,
    ) -> None:
        if episodes_per_step < 1 or workers < 0:
            raise OptionError(
                "episodes_per_step must be at least 1 and workers at least 0; "
                f"got {episodes_per_step} and {workers}"
            )
        if not 0 <= start_step <= n_steps:
            raise OptionError(f"start_step must be in 0 to n_steps={n_steps}; got {start_step}")
        if not 0 <= rank < world_size:
            raise OptionError(f"rank must be in 0 to world_size - 1={world_size - 1}; got {rank}")
        if episodes_per_step % world_size:
            raise OptionError(
                f"{episodes_per_step} episodes a step cannot be shared evenly by {world_size} "
                "ranks; make episodes_per_step a multiple of the number of ranks"
            )
        self._steps = range(start_step, n_steps)
        share = episodes_per_step // world_size
        self._maker = _Steps(source, episodes_per_step, rank * share, share)
        self._workers = workers
        self._start_method = start_method
        self._pin = pin

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Episode]:
        if not self._steps:
            return iter(())
        return iter(
            DataLoader(
                self._maker,  # type: ignore[arg-type]  # needs __getitem__ only
                batch_size=None,
                sampler=self._steps,
                num_workers=min(self._workers, len(self._steps)),
                collate_fn=_unchanged,
                multiprocessing_context=self._start_method if self._workers else None,
                pin_memory=self._pin,
            )
        )


class _Steps:
    """A rank's part of each step, by the step's number."""

    def __init__(self, source: EpisodeSource, stride: int, first: int, count: int) -> None:
        self.source, self.stride, self.first, self.count = source, stride, first, count

    def __getitem__(self, step: int) -> Episode:
        start = step * self.stride + self.first
        return collate([self.source.episode(start + one) for one in range(self.count)])


def _unchanged(episode: Any) -> Any:
    return episode
