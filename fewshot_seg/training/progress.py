"""What a person sees of a run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


class Display:
    """A line of progress on a terminal, plain messages elsewhere, nothing when not wanted."""

    def __init__(self, console: Console | None, episodes_per_step: int) -> None:
        self._console = console
        self._episodes = episodes_per_step
        self._progress: Progress | None = None

    def say(self, message: str) -> None:
        if self._console is not None:
            self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, done: int, steps: int) -> Iterator[None]:
        """Show the progress from step `done` to `steps` while within."""
        if self._console is None or not self._console.is_terminal:
            yield
            return
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]:.1f} episodes/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as self._progress:
            self._progress.add_task("", total=steps, completed=done, loss="-", rate=0.0)
            yield
        self._progress = None

    def step(self, done: int, means: Mapping[str, float]) -> None:
        """A step is finished; `means` are the latest known losses."""
        if self._progress is None:
            return
        task = self._progress.tasks[0]
        self._progress.update(
            task.id,
            completed=done,
            loss=f"{means['total']:.4f}" if "total" in means else "-",
            rate=(task.speed or 0.0) * self._episodes,
        )
