"""Errors as one plain line, and where output goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from itertools import count
from typing import ParamSpec

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fewshot_seg.errors import FewshotSegError

P = ParamSpec("P")

BAD_REQUEST = 2
"""Exit code when what was handed in, a request or data, must be put right."""
INCOMPLETE = BAD_REQUEST
"""Of a command that did its work but for what is named: a scan, a plugin. Scripts must notice."""
INTERRUPTED = 130

debug: ContextVar[bool] = ContextVar("debug", default=False)
"""Whether errors are shown with their traceback."""


def out() -> Console:
    """Results; plain text and unwrapped tables when not a terminal."""
    return Console()


def err() -> Console:
    """Progress and complaints."""
    return Console(stderr=True)


def guarded(resume: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A command whose expected errors end in one red line and exit code 2, Ctrl-C in 130.

    resume: what to tell somebody who pressed Ctrl-C.
    """

    def decorate(command: Callable[P, None]) -> Callable[P, None]:
        @wraps(command)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                command(*args, **kwargs)
            # What the system refuses (a full disk, no memory) is no fault of the program either.
            except (FewshotSegError, OSError, MemoryError) as error:
                if debug.get():
                    raise
                _say(f"error: {str(error) or 'there is not enough memory'}", "bold red")
                raise typer.Exit(BAD_REQUEST) from error
            except KeyboardInterrupt as error:
                _say(f"interrupted: {resume}", "yellow")
                raise typer.Exit(INTERRUPTED) from error

        return run

    return decorate


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[object], None]]:
    """A bar with the time left on a terminal; yields what to call after each piece of work."""
    with measuring(what) as show:
        done = count(1)
        show(0, total)
        yield lambda _: show(next(done), total)


@contextmanager
def measuring(what: str) -> Iterator[Callable[[int, int], None]]:
    """As `counting`; what it yields is told how much is done, and of how much."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = err()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _say(message: str, style: str) -> None:
    # One line, whatever the message holds, and no markup read into file names.
    err().print(Text(" ".join(message.split()), style=style), soft_wrap=True)
