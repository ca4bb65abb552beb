"""Reading ahead and writing behind."""

import threading
import time

import pytest

from fewshot_seg.inference.overlap import overlapped


def test_items_come_in_order_with_what_was_written() -> None:
    done = list(
        overlapped(
            range(5),
            read=lambda item: item * 10,
            work=lambda item, data: data + item,
            write=lambda item, made: f"{item}:{made}",
        )
    )
    assert [(item, future.result()) for item, future in done] == [
        (n, f"{n}:{11 * n}") for n in range(5)
    ]


def test_nothing_is_asked_for_nothing() -> None:
    assert not list(overlapped([], read=str, work=lambda i, d: d, write=lambda i, m: m))


@pytest.mark.parametrize("stage", ["read", "work", "write"])
def test_a_failure_is_told_and_the_others_go_on(stage: str) -> None:
    def step(name: str):
        def run(item: int, data: int | None = None) -> int:
            if item == 1 and name == stage:
                raise ValueError(f"{name} {item}")
            return item

        return run

    done = dict(overlapped(range(4), read=step("read"), work=step("work"), write=step("write")))
    assert [done[n].result() for n in (0, 2, 3)] == [0, 2, 3]
    with pytest.raises(ValueError, match=f"{stage} 1"):
        done[1].result()


def test_the_next_is_read_and_the_last_written_during_work() -> None:
    """The reader of 2 and the writer of 0 must both have begun before the work on 1 may end."""
    read_2, write_0 = threading.Event(), threading.Event()

    def read(item: int) -> int:
        if item == 2:
            read_2.set()
        return item

    def work(item: int, data: int) -> int:
        if item == 1:
            assert read_2.wait(10)
            assert write_0.wait(10)
        return data

    def write(item: int, made: int) -> int:
        if item == 0:
            write_0.set()
        return made

    found = [
        future.result() for _, future in overlapped(range(4), read=read, work=work, write=write)
    ]
    assert found == [0, 1, 2, 3]


def test_at_most_three_are_held() -> None:
    held: set[int] = set()
    most = 0

    def read(item: int) -> int:
        nonlocal most
        held.add(item)
        most = max(most, len(held))
        return item

    def write(item: int, made: int) -> int:
        time.sleep(0.002)
        held.discard(item)
        return made

    for _ in overlapped(range(20), read=read, work=lambda item, data: data, write=write):
        pass
    assert most <= 3
