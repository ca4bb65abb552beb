"""Loading plugins to see whether that works, in a process that may hang, die or leave.

A plugin's module is a stranger's code: it runs as soon as it is imported, and nothing within this
process could stop it.
"""

import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection

from fewshot_seg.errors import PluginError
from fewshot_seg.registry import Registry

SECONDS = 120.0
"""For one name; the first takes torch with it, which from a slow disk is most of a minute."""

Name = tuple[str, str]
"""A kind and a name of that kind."""


def troubles(names: Sequence[Name], *, seconds: float | None = None) -> dict[Name, str]:
    """What keeps each name from being used; those that load have no entry.

    seconds: allowed to each; `SECONDS` unless given.
    """
    found: dict[Name, str] = {}
    waiting = list(names)
    while waiting:
        done = _try(waiting, found, SECONDS if seconds is None else seconds)
        waiting = waiting[done:]
    return found


def _try(names: Sequence[Name], found: dict[Name, str], seconds: float) -> int:
    """Load the names in turn in a new process; how many were tried until one hung or ended it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_load, args=(there, list(names)))
    child.start()
    there.close()  # so that the child's end shows here
    try:
        for tried, name in enumerate(names, 1):
            if not here.poll(seconds):
                found[name] = f"broken: it did not load within {seconds:g} s"
                return tried
            try:
                trouble = here.recv_bytes().decode()
            except EOFError:
                child.join()
                found[name] = f"broken: loading it ended Python (exit code {child.exitcode})"
                return tried
            if trouble:
                found[name] = f"broken: {trouble}"
        return len(names)
    finally:
        child.kill()
        child.join()
        here.close()


def _load(told: Connection, names: Sequence[Name]) -> None:
    """In the child: one message for each name, empty for one that loads. Bytes and no objects, as
    receiving an object would run what a stranger's code has put there."""
    for kind, name in names:
        try:
            Registry(kind).factory(name)
            trouble = ""
        except PluginError as error:
            trouble = str(error)
        told.send_bytes(trouble.encode())
