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
    return sum(thread.name.startswith("sensors-") for thread in threading.enumerate())


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


async def test_hung_reads_take_no_turn_from_the_others(doors: list[Door]) -> None:
    threads = Threads(at_once=2, max_threads=8)
    for door in doors[:7]:
        await give_up(threads.lane(), door)
    async with asyncio.timeout(5):
        assert await threads.lane()(lambda: 5) == 5
    threads.close()


async def test_threads_are_bounded_and_a_late_one_serves_those_who_wait(doors: list[Door]) -> None:
    threads, before = Threads(at_once=2, max_threads=3), threads_of_sensors()
    for door in doors[:3]:
        await give_up(threads.lane(), door)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(threads.lane()(lambda: 5), name="wait") for _ in range(4)]
        await asyncio.sleep(0)
        assert threads_of_sensors() == before + 3
        doors[0].open()
        async with asyncio.timeout(5):
            assert [await task for task in waiting] == [5, 5, 5, 5]
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
