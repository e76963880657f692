"""The picture of the newest values: what replaces what, and what a slow watcher is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from agent.wire.messages import About, Reading, block_of
from hub.fleet.latest import Change, Latest, Value, newest

A, B = "a" * 16, "b" * 16
NOW_MS = 1_700_000_000_000
YEAR_MS = 365 * 86_400_000


def reading(value: float | None, wall_ms: int, sensor: str = "room") -> Reading:
    return Reading(sensor, value, 0, wall_ms)


def told(*readings: tuple[float | None, int, int]) -> Value:
    """The value shown after (value, wall_ms, received_ms) came in this order."""
    latest = Latest()
    for value, wall_ms, received_ms in readings:
        latest.update(A, [reading(value, wall_ms)], received_ms)
    return latest.boards[A].values["room"]


async def heard(changes: AsyncIterator[Change]) -> Change:
    async with asyncio.timeout(1):
        return await anext(changes)


# --- values --------------------------------------------------------------------------------------


def test_a_newer_reading_replaces_an_older_one() -> None:
    assert told((1.0, NOW_MS, NOW_MS), (2.0, NOW_MS + 1, NOW_MS + 5)) == (2.0, NOW_MS + 1, NOW_MS + 5)


def test_history_that_arrives_late_changes_nothing() -> None:
    assert told((1.0, NOW_MS, NOW_MS), (2.0, NOW_MS - 60_000, NOW_MS + 5)).value == 1.0


def test_a_sensor_that_could_not_tell_is_shown_so() -> None:
    assert told((1.0, NOW_MS, NOW_MS), (None, NOW_MS + 1, NOW_MS + 1)).value is None


def test_a_clock_that_ran_ahead_does_not_freeze_the_picture() -> None:
    assert told((1.0, NOW_MS + YEAR_MS, NOW_MS), (2.0, NOW_MS + 60_000, NOW_MS + 60_000)).value == 2.0


def test_readings_of_an_unset_clock_are_shown() -> None:
    latest = Latest()
    latest.update(A, [reading(1.0, NOW_MS)], NOW_MS)
    latest.update(A, [reading(2.0, 60_000)], NOW_MS + 60_000, clocked=False)
    assert latest.boards[A].values["room"] == (2.0, 60_000, NOW_MS + 60_000)


def test_the_last_reading_of_each_sensor_in_a_batch() -> None:
    readings = [reading(1.0, 10), reading(5.0, 11, "hall"), reading(2.0, 20), reading(3.0, 30)]
    blocks = [
        block_of(readings[:3], boot="0" * 32, stream="s" * 16, seq0=1, clock="synced"),
        block_of(readings[3:], boot="0" * 32, stream="s" * 16, seq0=4, clock="synced"),
    ]
    assert {found.sensor: found.value for found in newest(blocks)} == {"room": 3.0, "hall": 5.0}
    assert {found.sensor: found.wall_ms for found in newest(blocks, skip=2)} == {"room": 30}
    assert newest(blocks, skip=4) == []


# --- what is saved -------------------------------------------------------------------------------


def test_what_changed_is_handed_out_for_saving_once() -> None:
    latest = Latest()
    latest.update(A, [reading(1.5, NOW_MS)], NOW_MS + 1)
    latest.presence(B, "online", NOW_MS)
    saved = {row.board: row for row in latest.take_unsaved()}
    assert saved[A].latest == {"room": (1.5, NOW_MS)}
    assert (saved[A].heard_ms, saved[B].presence) == (NOW_MS + 1, "online")
    assert not latest.unsaved
    assert latest.take_unsaved() == []


def test_a_board_that_is_forgotten_is_not_saved() -> None:
    latest = Latest()
    latest.heard(A, NOW_MS)
    latest.forget(A)
    assert latest.take_unsaved() == []
    assert A not in latest.boards


# --- watching ------------------------------------------------------------------------------------


async def test_a_watcher_is_told_what_changed() -> None:
    latest = Latest()
    latest.update(A, [reading(1.0, NOW_MS), reading(7.0, NOW_MS, "hall")], NOW_MS)
    with latest.watch(A) as changes:
        latest.update(A, [reading(2.0, NOW_MS + 1)], NOW_MS + 2)
        assert await heard(changes) == Change(A, NOW_MS + 2, "offline", {"room": (2.0, NOW_MS + 1)})
        latest.presence(A, "online", NOW_MS + 3)
        assert await heard(changes) == Change(A, NOW_MS + 3, "online", {})
        latest.about(A, About(board=A, version="1", log_key="", seal_key="", boot="0" * 32, started_ms=0))
        assert (await heard(changes)).values == {}


async def test_a_slow_watcher_gets_the_newest_of_each_board_and_nothing_piles_up() -> None:
    latest = Latest()
    with latest.watch() as changes:
        for number in range(1000):
            latest.update(A, [reading(float(number), NOW_MS + number)], NOW_MS + number)
            latest.update(B, [reading(float(number), NOW_MS + number, f"s{number % 3}")], NOW_MS + number)
        first, second = await heard(changes), await heard(changes)
        assert (first.board, first.values) == (A, {"room": (999.0, NOW_MS + 999)})
        assert (second.board, len(second.values)) == (B, 3)
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        assert not waiting.done()
        latest.heard(A, NOW_MS + 5000)  # says nothing new
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()


async def test_boards_wait_in_line() -> None:
    """A board that changes all the time does not keep a watcher from the others."""
    latest = Latest()
    with latest.watch() as changes:
        latest.presence(A, "online", NOW_MS)
        latest.presence(B, "online", NOW_MS)
        latest.presence(A, "offline", NOW_MS)
        assert (await heard(changes)).board == A
        latest.presence(A, "online", NOW_MS)
        assert (await heard(changes)).board == B


async def test_a_watcher_of_one_board_hears_of_no_other() -> None:
    latest = Latest()
    with latest.watch(B) as changes:
        latest.presence(A, "online", NOW_MS)
        latest.presence(B, "online", NOW_MS)
        assert (await heard(changes)).board == B


async def test_a_watcher_that_left_is_told_nothing() -> None:
    latest = Latest()
    with latest.watch() as changes:
        latest.presence(A, "online", NOW_MS)
        await heard(changes)
    latest.presence(B, "online", NOW_MS)
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_a_board_that_is_forgotten_while_a_watcher_waits() -> None:
    latest = Latest()
    with latest.watch() as changes:
        latest.presence(A, "online", NOW_MS)
        latest.forget(A)
        latest.presence(B, "online", NOW_MS)
        gone = await heard(changes)
        assert (gone.board, gone.presence, gone.heard_ms, gone.values) == (A, "offline", None, {})
        assert (await heard(changes)).board == B
