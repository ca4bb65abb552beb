"""Errors as one plain line, and where output goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
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
INTERRUPTED = 130
INCOMPLETE = 1
"""Exit code of a command that did its work, of which something failed."""

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
            except FewshotSegError as error:
                if debug.get():
                    raise
                _say(f"error: {error}", "bold red")
                raise typer.Exit(BAD_REQUEST) from error
            except KeyboardInterrupt as error:
                _say(f"interrupted: {resume}", "yellow")
                raise typer.Exit(INTERRUPTED) from error

        return run

    return decorate


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[object], None]]:
    """A bar with the time left on a terminal; yields what to call after each piece of work."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = err()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda _: progress.advance(task)


def _say(message: str, style: str) -> None:
    # One line, whatever the message holds, and no markup read into file names.
    err().print(Text(" ".join(message.split()), style=style), soft_wrap=True)
