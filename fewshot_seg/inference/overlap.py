"""Reading, computing and writing at the same time: one scan ahead, one behind."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")
Result = TypeVar("Result")


def overlapped(
    items: Iterable[Item],
    *,
    read: Callable[[Item], Read],
    work: Callable[[Item, Read], Made],
    write: Callable[[Item, Made], Result],
) -> "Iterator[tuple[Item, Future[Result]]]":
    """`write(item, work(item, read(item)))` for each item in order, with its finished future.

    While one item is worked on, in the caller's thread, the next is read and the last is written,
    each in a thread of its own; so no more than three are in memory. An item that fails has a
    future with the exception, and the others go on.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = _begin(waiting, reader, read)
        behind: tuple[Item, Future[Result]] | None = None
        while ahead is not None:
            item, reading = ahead
            wait([reading])
            ahead = _begin(waiting, reader, read)
            made = _settled(lambda: work(item, reading.result()))  # noqa: B023 - runs at once
            if behind is not None:
                wait([behind[1]])
                yield behind
            behind = item, _written(made, item, writer, write)
        if behind is not None:
            wait([behind[1]])
            yield behind


def _begin(
    waiting: Iterator[Item], reader: Executor, read: Callable[[Item], Read]
) -> "tuple[Item, Future[Read]] | None":
    for item in waiting:
        return item, reader.submit(read, item)
    return None


def _settled(call: Callable[[], Made]) -> "Future[Made]":
    """What `call` gives or raises, in a future."""
    future: Future[Made] = Future()
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)
    return future


def _written(
    made: "Future[Made]", item: Item, writer: Executor, write: Callable[[Item, Made], Result]
) -> "Future[Result]":
    """The result being written; a failure goes through."""
    error = made.exception()
    if error is None:
        return writer.submit(write, item, made.result())
    failed: Future[Result] = Future()
    failed.set_exception(error)
    return failed
