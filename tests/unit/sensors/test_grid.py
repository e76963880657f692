"""Ticks on a grid of monotonic time."""

from __future__ import annotations

import asyncio
import doctest

from hypothesis import given
from hypothesis import strategies as st

from agent.sensors import grid
from agent.sensors.grid import Grid, next_tick
from support.virtual import VirtualLoop, virtual, virtual_clock


def test_the_examples_hold() -> None:
    assert doctest.testmod(grid).failed == 0


@given(st.integers(0, 2**40), st.integers(100, 86_400_000))
def test_a_tick_is_on_the_grid_and_within_one_interval(now_ms: int, every_ms: int) -> None:
    tick = next_tick(now_ms, every_ms)
    assert tick % every_ms == 0
    assert 0 < tick - now_ms <= every_ms


@virtual
async def test_a_bell_ends_a_wait_and_the_moment_goes_on_for_others() -> None:
    clock, bell, other = virtual_clock(), asyncio.Event(), asyncio.Event()
    grid = Grid(clock.mono_ms)
    reached: list[tuple[bool, int]] = []

    async def wait(own: asyncio.Event) -> None:
        reached.append((await grid.reach(10_000, own), clock.mono_ms()))

    async with asyncio.TaskGroup() as group:
        group.create_task(wait(bell), name="woken")
        group.create_task(wait(other), name="patient")
        await asyncio.sleep(4)
        bell.set()
        await asyncio.sleep(1)
        group.create_task(wait(bell), name="woken again")
    assert reached == [(False, 4_000), (True, 10_000), (True, 10_000)]
    assert not bell.is_set()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    assert loop.wakeups == 3, "one timer for all who wait for the same moment"


@virtual
async def test_a_bell_that_rang_before_is_heard() -> None:
    bell = asyncio.Event()
    bell.set()
    assert not await Grid(virtual_clock().mono_ms).reach(10_000, bell)
    assert not bell.is_set()
