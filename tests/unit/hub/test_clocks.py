"""When readings were made, as far as a board's two clocks tell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.messages import Block, ClockState, Reading, block_of
from hub.store.clocks import AHEAD_MS, EARLIEST_MS, JUMP_MS, gap_span, own_offset, span_of, timed

BOOT_MS = 1_700_000_000_000
"""When the boot began; the boot's offset."""
NOW_MS = BOOT_MS + 86_400_000
YEAR_MS = 365 * 86_400_000


def block(skews_ms: Sequence[int], clock: ClockState = "synced", every_ms: int = 10_000) -> Block:
    """Readings every ten seconds of a wall clock that is wrong by so much at each."""
    readings = [
        Reading("room", float(number), number * every_ms, BOOT_MS + number * every_ms + skew_ms)
        for number, skew_ms in enumerate(skews_ms)
    ]
    return block_of(readings, boot="b" * 32, stream="s" * 16, seq0=1, clock=clock)


def times(found: Block) -> list[int]:
    return list(accumulate(found.wall_ms))


RIGHT = [BOOT_MS + number * 10_000 for number in range(6)]


@pytest.mark.parametrize("clock", ["synced", "hub"])
def test_a_clock_that_is_right_is_believed_to_the_millisecond(clock: ClockState) -> None:
    made = block([3, -2, 0, 7, 1, 0], clock)
    found = timed(made, NOW_MS, None)
    assert (found.block is made, found.certain) == (True, True)
    assert (found.from_ms, found.to_ms) == (BOOT_MS + 3, BOOT_MS + 50_000)


def test_a_clock_that_is_not_set_is_corrected_by_its_boot_or_uncertain() -> None:
    made = block([-BOOT_MS + 40] * 6, "unsynced")
    assert timed(made, NOW_MS, None)[:2] == (made, False)
    found = timed(made, NOW_MS, BOOT_MS)
    assert (times(found.block), found.certain) == (RIGHT, True)
    assert span_of([found]) == (RIGHT[0], RIGHT[-1])


@pytest.mark.parametrize(
    "skews_ms",
    [
        [-BOOT_MS, -BOOT_MS, -BOOT_MS, 0, 0, 0],  # set in between
        [0, 0, YEAR_MS, YEAR_MS, 0, 0],  # a year forward and back
        [0, 0, -YEAR_MS, -YEAR_MS, 0, 0],
        [-4_000, -4_000, -4_000, 0, 0, 0],
    ],
)
def test_a_jump_within_a_block_is_smoothed_by_where_it_ended(skews_ms: list[int]) -> None:
    found = timed(block(skews_ms), NOW_MS, None)
    assert (times(found.block), found.certain) == (RIGHT, True)


@pytest.mark.parametrize("wrong_ms", [-BOOT_MS, EARLIEST_MS - BOOT_MS - 60_000, YEAR_MS])
def test_a_clock_is_not_right_because_its_board_says_so(wrong_ms: int) -> None:
    made = block([wrong_ms] * 6, "synced")
    assert own_offset(made, NOW_MS) is None
    assert timed(made, NOW_MS, None).certain is False
    assert times(timed(made, NOW_MS, BOOT_MS).block) == RIGHT


def test_what_a_slow_sensor_began_earlier_stays_where_it_is() -> None:
    readings = [
        Reading("room", 1.0, 50_000, BOOT_MS + 50_000),
        Reading("slow", 2.0, 20_000, BOOT_MS + 20_001),
    ]
    made = block_of(readings, boot="b" * 32, stream="s" * 16, seq0=1, clock="synced")
    found = timed(made, NOW_MS, None)
    assert all(
        abs(at - reading.wall_ms) <= 1 for at, reading in zip(times(found.block), readings, strict=True)
    )


@given(
    skews_ms=st.lists(st.integers(-(10**13), 10**13), min_size=1, max_size=8),
    clock=st.sampled_from(["synced", "hub", "unsynced"]),
    offset_ms=st.none() | st.just(BOOT_MS),
)
def test_certain_times_differ_only_as_the_time_since_the_boot_does(
    skews_ms: list[int], clock: ClockState, offset_ms: int | None
) -> None:
    made = block(skews_ms, clock)
    found = timed(made, NOW_MS, offset_ms)
    assert span_of([found]) == (min(times(found.block)), max(times(found.block)))
    assert found.block.mono_ms == made.mono_ms
    if found.certain:
        offsets = [at - mono for at, mono in zip(times(found.block), accumulate(made.mono_ms), strict=True)]
        # Nothing lies outside of the block's own time, but for what may be a slow correction.
        assert max(offsets) - min(offsets) <= 50_000 + 2 * JUMP_MS
        assert times(found.block)[-1] <= NOW_MS + AHEAD_MS
    else:
        assert found.block is made


@given(
    from_ms=st.integers(-(10**13), 2 * 10**13),
    to_ms=st.integers(-(10**13), 2 * 10**13),
    next_ms=st.integers(BOOT_MS, BOOT_MS + 10**9),
)
def test_a_gap_lies_between_the_boot_and_what_follows_it(from_ms: int, to_ms: int, next_ms: int) -> None:
    begin_ms, end_ms = gap_span(from_ms, to_ms, boot_ms=BOOT_MS, next_ms=next_ms)
    assert begin_ms is not None
    assert end_ms is not None
    assert BOOT_MS - JUMP_MS <= begin_ms <= end_ms <= next_ms + JUMP_MS
    if BOOT_MS <= from_ms <= to_ms <= next_ms:
        assert (begin_ms, end_ms) == (from_ms, to_ms)


def test_a_gap_of_unknown_time_stays_so() -> None:
    assert gap_span(None, 5, boot_ms=BOOT_MS, next_ms=NOW_MS) == (None, 5)
