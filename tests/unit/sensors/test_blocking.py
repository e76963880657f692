"""Threads for reads that may hang: what one hung read costs, and what it does not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from agent.sensors.blocking import Threads
from agent.wire.errors import Busy


class Door:
    """A read that returns when the test opens it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        self._open.wait()
        return "through"

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def doors() -> Iterator[list[Door]]:
    """As many doors as a test may want; all open at its end, so that no thread is left."""
    doors = [Door() for _ in range(20)]
    yield doors
    for door in doors:
        door.open()


def threads_of_sensors() -> int:
    return sum(thread.name == "sensors" for thread in threading.enumerate())


async def give_up(lane: object, door: Door) -> None:
    """Begin a read, wait until its thread is in it, and be cancelled."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(lane(door), name="read")  # type: ignore[operator]
        while not door.entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()


async def test_a_result_and_an_error_come_back() -> None:
    threads = Threads()
    lane = threads.lane()
    assert await lane(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        await lane(lambda: 1 / 0)
    assert await lane(lambda: threading.current_thread().daemon)
    threads.close()


async def test_reads_one_after_the_other_share_a_thread() -> None:
    threads, before = Threads(), threads_of_sensors()
    lanes = [threads.lane() for _ in range(5)]
    for lane in lanes:
        await lane(lambda: None)
    assert threads_of_sensors() == before + 1
    threads.close()


async def test_a_lane_with_a_hung_read_is_busy_until_it_returns(doors: list[Door]) -> None:
    threads = Threads()
    lane = threads.lane()
    await give_up(lane, doors[0])
    with pytest.raises(Busy, match="has not come back"):
        await lane(lambda: 5)
    doors[0].open()
    async with asyncio.timeout(5):
        while True:
            try:
                assert await lane(lambda: 5) == 5
            except Busy:
                await asyncio.sleep(0.001)
            else:
                break
    threads.close()


async def test_hung_reads_hold_up_the_others_no_longer_than_patience(doors: list[Door]) -> None:
    threads, before = Threads(patience_s=0.01, max_threads=8), threads_of_sensors()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(threads.lane()(door), name="read") for door in doors[:7]]
        await asyncio.sleep(0)  # they queue first
        async with asyncio.timeout(5):
            assert await threads.lane()(lambda: 5) == 5
        assert threads_of_sensors() == before + 8
        for task in tasks:
            task.cancel()
    # Those that were stuck end with their reads, one goes on.
    for door in doors:
        door.open()
    async with asyncio.timeout(5):
        while threads_of_sensors() > before + 1:
            await asyncio.sleep(0.001)
        assert await threads.lane()(lambda: 5) == 5
    threads.close()


async def test_slow_reads_run_side_by_side(doors: list[Door]) -> None:
    threads = Threads(patience_s=0.01)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(threads.lane()(door), name="read") for door in doors[:5]]
        async with asyncio.timeout(5):
            while not all(door.entered.is_set() for door in doors[:5]):
                await asyncio.sleep(0.001)
        for door in doors:
            door.open()
    assert {task.result() for task in tasks} == {"through"}
    threads.close()


async def test_threads_are_bounded_and_one_that_returns_serves_those_who_wait(doors: list[Door]) -> None:
    threads, before = Threads(patience_s=0.01, max_threads=3), threads_of_sensors()
    for door in doors[:3]:
        await give_up(threads.lane(), door)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(threads.lane()(lambda: 5), name="wait") for _ in range(4)]
        await asyncio.sleep(0.05)
        assert threads_of_sensors() == before + 3
        assert not any(task.done() for task in waiting)
        doors[0].open()
        async with asyncio.timeout(5):
            assert [await task for task in waiting] == [5, 5, 5, 5]
    threads.close()


async def test_a_read_given_up_before_its_turn_is_not_made(doors: list[Door]) -> None:
    threads = Threads(patience_s=0.01, max_threads=1)
    lane, made = threads.lane(), []
    async with asyncio.TaskGroup() as group:
        first = group.create_task(threads.lane()(doors[0]), name="first")
        second = group.create_task(lane(lambda: made.append("second")), name="second")
        while not doors[0].entered.is_set():
            await asyncio.sleep(0.001)
        second.cancel()
        await asyncio.sleep(0)
        doors[0].open()
        assert await first == "through"
    async with asyncio.timeout(5):
        assert await threads.lane()(lambda: 5) == 5
    assert made == []
    threads.close()


def test_a_process_ends_although_a_read_hangs() -> None:
    script = """
import asyncio, threading
from agent.sensors.blocking import Threads

async def main():
    try:
        async with asyncio.timeout(0.05):
            await Threads().lane()(threading.Event().wait)
    except TimeoutError:
        print("given up")

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], text=True, capture_output=True, timeout=10, check=True
    )
    assert (done.stdout, done.stderr) == ("given up\n", "")
