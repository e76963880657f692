"""Ticks on a grid of monotonic time."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from agent.sensors import grid
from agent.sensors.grid import next_tick


def test_the_examples_hold() -> None:
    assert doctest.testmod(grid).failed == 0


@given(st.integers(0, 2**40), st.integers(100, 86_400_000))
def test_a_tick_is_on_the_grid_and_within_one_interval(now_ms: int, every_ms: int) -> None:
    tick = next_tick(now_ms, every_ms)
    assert tick % every_ms == 0
    assert 0 < tick - now_ms <= every_ms
