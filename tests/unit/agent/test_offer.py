"""Readings that the hub has before they are written: the card is spared, nothing lost, nothing kept twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.base.sqlite import Connection
from agent.outbox import NOTES_S, START, WITHIN_S, Cursor, Outbox, Parcel
from agent.shelf import Shelf
from agent.wire.messages import Ack, Held, Reading, read_batch
from support.virtual import virtual


def readings(count: int, first: int = 1) -> list[Reading]:
    return [Reading("room", float(n), 1000 * n, 1_700_000_000_000 + n) for n in range(first, first + count)]


@asynccontextmanager
async def prompt(folder: Path) -> AsyncIterator[Outbox]:
    """An outbox whose link sends at once."""
    async with Outbox.open(folder / "o.db", boot="b" * 32, max_bytes=10**6) as outbox:
        with outbox.prompt():
            yield outbox


async def offered(outbox: Outbox, after: Cursor = START) -> Parcel:
    """What the link gets to send."""
    while True:
        await outbox.bell.wait()
        outbox.bell.clear()
        if parcel := await outbox.take(after):
            return parcel


async def stored(outbox: Outbox) -> int:
    """Rows in the file."""

    def count(connection: Connection, shelf: Shelf) -> int:
        found: int = connection.execute("SELECT count(*) FROM blocks").fetchone()[0]
        return found

    return await outbox._do(count)


@virtual
async def test_what_the_hub_has_at_once_is_never_written(tmp_path: Path) -> None:
    async with prompt(tmp_path) as outbox, asyncio.TaskGroup() as group:
        log = tmp_path / "o.db-wal"
        size, cursor = log.stat().st_size, START
        for turn in range(3):
            appending = group.create_task(outbox.append(readings(5, 1 + 5 * turn), "synced"))
            parcel = await offered(outbox, cursor)
            batch = read_batch(parcel.payload)
            assert batch.held == {outbox.stream: Held(1 + 5 * turn, 6 + 5 * turn)}
            assert (batch.blocks[0].seq0, parcel.last_seq) == (1 + 5 * turn, 5 + 5 * turn)
            assert not appending.done()
            assert await outbox.acknowledge(Ack({outbox.stream: parcel.last_seq})) == {outbox.stream}
            await appending
            cursor = parcel.cursor
            assert await outbox.take(cursor) is None
        assert log.stat().st_size == size
        assert (await outbox.state()).readings == 0


@virtual
async def test_what_nobody_acknowledges_is_written_under_the_numbers_that_it_had(tmp_path: Path) -> None:
    async with prompt(tmp_path) as outbox, asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        appending = group.create_task(outbox.append(readings(5), "synced"))
        sent = await offered(outbox)
        await appending
        assert loop.time() == pytest.approx(WITHIN_S)
        kept = await outbox.take(START)
        assert kept is not None
        assert (kept.payload, kept.cursor) == (sent.payload, sent.cursor)
        assert await outbox.take(sent.cursor) is None  # a window that has sent it does not send it again
        await outbox.append(readings(5, 6), "synced")  # what is held goes first
        assert loop.time() == pytest.approx(WITHIN_S)
        assert (await outbox.state()).readings == 10
        # The answer to the first one comes late, and covers what it says.
        assert await outbox.acknowledge(Ack({outbox.stream: sent.last_seq})) == {outbox.stream}
        assert (await outbox.state()).readings == 5


@virtual
async def test_a_link_that_ends_lets_nothing_wait(tmp_path: Path) -> None:
    async with Outbox.open(tmp_path / "o.db", boot="b" * 32, max_bytes=10**6) as outbox:
        async with asyncio.TaskGroup() as group:
            with outbox.prompt():
                appending = group.create_task(outbox.append(readings(5), "synced"))
                await offered(outbox)
            await appending
        assert asyncio.get_running_loop().time() == 0
        assert await stored(outbox) == 1
        await outbox.append(readings(5, 6), "synced")
        assert await stored(outbox) == 2


@pytest.mark.parametrize("has", [True, False])
@virtual
async def test_a_cancelled_append_is_kept_once(tmp_path: Path, has: bool) -> None:
    async with prompt(tmp_path) as outbox:
        appending = asyncio.ensure_future(outbox.append(readings(5), "synced"))
        sent = await offered(outbox)
        if has:
            await outbox.acknowledge(Ack({outbox.stream: sent.last_seq}))
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending
        assert (await outbox.state()).readings == (0 if has else 5)


@virtual
async def test_what_was_held_is_through_before_anything_is_offered_again(tmp_path: Path) -> None:
    async with Outbox.open(tmp_path / "o.db", boot="b" * 32, max_bytes=10**6) as outbox:
        await outbox.append(readings(5), "synced")
        with outbox.prompt():
            async with asyncio.TaskGroup() as group:
                await outbox.acknowledge(Ack({outbox.stream: 5}))
                appending = group.create_task(outbox.append(readings(5, 6), "synced"))
                parcel = await offered(outbox)
                assert (parcel.last_seq, await stored(outbox)) == (10, 0)
                await outbox.acknowledge(Ack({outbox.stream: 10}))
                await appending
        assert await stored(outbox) == 0


@virtual
async def test_an_acknowledgement_of_more_than_was_offered_takes_nothing_away(tmp_path: Path) -> None:
    async with prompt(tmp_path) as outbox, asyncio.TaskGroup() as group:
        before = outbox.stream
        appending = group.create_task(outbox.append(readings(5), "synced"))
        await offered(outbox)
        assert not await outbox.acknowledge(Ack({before: 6}))
        await appending
        assert outbox.stream != before
        kept = await outbox.take(START)
        assert kept is not None
        assert (kept.stream, kept.last_seq) == (outbox.stream, 5)


@virtual
async def test_a_note_waits_some_minutes_for_a_commit_and_no_longer(tmp_path: Path) -> None:
    async with prompt(tmp_path) as outbox, asyncio.TaskGroup() as group:

        async def noted() -> list[tuple[str]]:
            return await outbox._do(lambda tx, shelf: tx.execute("SELECT body FROM notes").fetchall())

        cursor, seq = START, 0
        for _ in range(12):
            await asyncio.sleep(60)
            outbox.remember("traffic", f"after {seq}")
            appending = group.create_task(outbox.append(readings(5, seq + 1), "synced"))
            parcel = await offered(outbox, cursor)
            cursor, seq = parcel.cursor, parcel.last_seq
            await outbox.acknowledge(Ack({outbox.stream: seq}))
            await appending
            is_due = asyncio.get_running_loop().time() > NOTES_S
            assert bool(await noted()) == is_due
