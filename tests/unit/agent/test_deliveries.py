"""Readings are counted once, when the hub has them, and by the day on which it said so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.clock import Clock
from agent.deliveries import DAY_MS, WRITE_EVERY_MS, Deliveries, counted
from agent.outbox import START, Outbox
from agent.wire.messages import Ack, ClockState, Reading
from support.virtual import BOOT

DAY = 20_000


class Times:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.mono_ms, self.wall_ms = 0, DAY * DAY_MS + 1000
        self.state: ClockState = "synced"
        self.clock = Clock(BOOT, lambda: self.mono_ms, lambda: self.wall_ms, lambda: self.state)


def readings(*values: float | None, sensor: str = "room") -> list[Reading]:
    return [Reading(sensor, value, 1000, 1_700_000_000_000) for value in values]


@asynccontextmanager
async def delivering(folder: Path, times: Times) -> AsyncIterator[tuple[Outbox, Deliveries]]:
    """An outbox, and the count of what it lets go."""
    opening = Outbox.open(folder / "o.db", boot=BOOT, max_bytes=10**6)
    async with opening as outbox, counted(outbox, times.clock) as deliveries:
        yield outbox, deliveries


async def test_what_the_hub_has_is_counted_when_it_goes_and_what_has_no_value_is_not(tmp_path: Path) -> None:
    times = Times()
    async with delivering(tmp_path, times) as (outbox, deliveries):
        await outbox.append([*readings(1.0, None, 3.0), *readings(None, sensor="attic")], "synced")
        await outbox.append(readings(4.0), "synced")
        await outbox.acknowledge(Ack({outbox.stream: 4}))
        assert deliveries.over(DAY + 1) == {}  # the rows go with the next commit
        await outbox.append(readings(5.0), "synced")
        assert deliveries.over(DAY + 1) == {DAY: {"room": 2}}
        await outbox.acknowledge(Ack({outbox.stream: 4}))  # said again
        await outbox.acknowledge(Ack({outbox.stream: 6}))
    async with delivering(tmp_path, times) as (_, deliveries):
        assert deliveries.over(DAY + 1) == {DAY: {"room": 4}}


async def test_what_was_never_written_is_counted_too(tmp_path: Path) -> None:
    times = Times()
    async with delivering(tmp_path, times) as (outbox, deliveries), asyncio.TaskGroup() as group:
        with outbox.prompt():
            appending = group.create_task(outbox.append(readings(1.0, 2.0), "synced"))
            await outbox.bell.wait()
            while (parcel := await outbox.take(START)) is None:
                await asyncio.sleep(0)
            await outbox.acknowledge(Ack({outbox.stream: parcel.last_seq}))
            await appending
        assert deliveries.over(DAY + 1) == {DAY: {"room": 2}}


def test_a_day_is_over_when_another_one_is_known(tmp_path: Path) -> None:
    times = Times()
    told: list[str] = []
    times.state = "unsynced"
    deliveries = Deliveries(times.clock, "", told.append)
    deliveries.add({"room": 3})  # before the hub has said what time it is
    assert deliveries.over() == {}
    times.state = "synced"
    deliveries.add({"room": 1, "attic": 2})
    assert deliveries.over() == {}
    times.wall_ms += DAY_MS
    deliveries.add({"room": 5})
    assert deliveries.over() == {DAY: {"room": 4, "attic": 2}}
    deliveries.forget([DAY])
    assert deliveries.over() == {}
    times.wall_ms -= 365 * DAY_MS  # it was set a year ahead, and back
    assert deliveries.over() == {DAY + 1: {"room": 5}}
    assert Deliveries(times.clock, told[-1], told.append).over() == {DAY + 1: {"room": 5}}


def test_the_card_is_spared() -> None:
    times = Times()
    told: list[str] = []
    deliveries = Deliveries(times.clock, "", told.append)
    for _ in range(100):
        times.mono_ms += WRITE_EVERY_MS // 50
        deliveries.add({"room": 1})
    assert len(told) == 2


def test_a_note_that_cannot_be_understood_counts_for_nothing() -> None:
    times = Times()
    for note in ("[]", "{", '{"x":{"room":1}}', '{"5":{"room":"1"}}'):
        assert Deliveries(times.clock, note, print).over() == {}
