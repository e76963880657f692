"""The fold: whatever the cut into blocks and batches, the sums are those of the readings."""

from __future__ import annotations

import doctest
import math
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.messages import Block, Reading, block_of
from hub.fleet import rollup
from hub.fleet.rollup import Fold
from hub.store.ranges import BUCKET_MS
from hub.store.rollups import Part

BOARD = "a" * 16


def block(*readings: tuple[str, float | None, int], seq0: int = 1) -> Block:
    made = [Reading(sensor, value, at_ms, at_ms) for sensor, value, at_ms in readings]
    return block_of(made, boot="b" * 32, stream="s" * 16, seq0=seq0, clock="synced")


def folded(*blocks: Block, skip: int = 0) -> list[Part]:
    fold = Fold()
    fold.add(BOARD, blocks, skip)
    return sorted(fold.parts())


def test_examples() -> None:
    assert doctest.testmod(rollup).failed == 0


def test_a_bucket_begins_with_its_first_millisecond() -> None:
    parts = folded(
        block(("room", 1.0, BUCKET_MS - 1), ("room", 2.0, BUCKET_MS), ("room", 3.0, 2 * BUCKET_MS - 1))
    )
    assert [(part.bucket_ms, part.readings, part.total) for part in parts] == [
        (0, 1, 1.0),
        (BUCKET_MS, 2, 5.0),
    ]


def test_a_sensor_that_could_not_tell_does_not_count() -> None:
    assert folded(block(("room", None, 5))) == []
    [part] = folded(block(("room", None, 5), ("room", -4.0, 6), ("room", None, 7)))
    assert part == Part(BOARD, "room", 0, -4.0, -4.0, -4.0, 1)


def test_what_is_skipped_may_end_within_a_later_block() -> None:
    first = block(("room", 1.0, 0), ("room", 2.0, 1))
    second = block(("room", 4.0, 2), ("room", 8.0, 3), seq0=3)
    totals = [sum(part.total for part in folded(first, second, skip=skip)) for skip in range(5)]
    assert totals == [15.0, 14.0, 12.0, 8.0, 0]


def test_boards_and_sensors_are_kept_apart() -> None:
    fold = Fold()
    for board in ("a" * 16, "c" * 16):
        fold.add(board, [block(("room", 1.0, 0), ("hall", 2.0, 0))])
    assert len(fold) == len({(part.board, part.sensor) for part in fold.parts()}) == 4


def test_enormous_values_leave_finite_numbers() -> None:
    """A stored infinity minus another would be no number, and would stop every later commit."""
    [part] = folded(block(*[("room", 1.7e308, 0)] * 3))
    assert math.isfinite(part.total)
    assert part.high == 1.7e308
    up, down = ([("room", value, 0)] * 2 for value in (1.7e308, -1.7e308))
    [part] = folded(block(*up), block(*down, seq0=3))
    assert math.isfinite(part.total)


READINGS = st.lists(
    st.tuples(
        st.sampled_from(["room", "hall", "roof"]),
        st.none() | st.integers(-1000, 1000).map(float),
        st.integers(-BUCKET_MS, 4 * BUCKET_MS),
    ),
    min_size=1,
    max_size=60,
)


@pytest.mark.soak
@given(READINGS, st.lists(st.integers(1, 20), min_size=1), st.integers(0, 60))
def test_the_cut_into_blocks_does_not_matter(
    readings: list[tuple[str, float | None, int]], sizes: list[int], skip: int
) -> None:
    blocks: list[Block] = []
    at = 0
    while at < len(readings):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(block(*readings[at : at + size], seq0=at + 1))
        at += size
    expected: dict[tuple[str, int], list[float]] = defaultdict(list)
    for sensor, value, at_ms in readings[skip:]:
        if value is not None:
            expected[sensor, at_ms // BUCKET_MS * BUCKET_MS].append(value)
    assert folded(*blocks, skip=skip) == sorted(
        Part(BOARD, sensor, bucket_ms, min(some), max(some), sum(some), len(some))
        for (sensor, bucket_ms), some in expected.items()
    )
