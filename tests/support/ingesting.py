"""A hub's ingest on a real database, and the end of a broker that the test holds.

async with Hub.open(tmp_path) as hub:
    await hub.join(BOARD)
    line = await hub.take(made.message((1, 10)))      # each in a transaction of its own
    assert line.acks() == [{made.name: 10}]
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from agent.base.broker import Message
from agent.wire import topics
from agent.wire.errors import LinkDown
from agent.wire.plain import loads
from hub.fleet.commands import Commands
from hub.fleet.ingest import Ingest
from hub.fleet.latest import Latest
from hub.store import boards, schema
from hub.store.boots import BootKey, BootRow
from hub.store.database import Store, Tx
from hub.store.events import list_events
from hub.store.problems import list_problems
from hub.store.readings import RawReading, iter_raw
from support.blank import new_store
from support.ingest import KEYS, new_alerts, new_ingest
from support.stream import BOARD, WALL_MS, Stream


class Line:
    """A session with a broker whose other end is the test."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.filters: list[str] = []
        self._arrived: asyncio.Queue[Message | None] = asyncio.Queue()
        self._down = False

    def arrive(self, *messages: Message) -> None:
        """Let messages come in, in this order."""
        for message in messages:
            self._arrived.put_nowait(message)

    def cut(self) -> None:
        """End the link behind what has arrived; nothing is published from now on."""
        self._down = True
        self._arrived.put_nowait(None)

    def acks(self, board: str = BOARD) -> list[dict[str, int]]:
        """The streams of each ack that the board was sent."""
        sent = [message for message in self.published if message.topic == topics.down(board, "ack")]
        assert all(message.retain for message in sent)
        return [loads(message.payload, max_bytes=10_000)["streams"] for message in sent]

    async def subscribe(self, *filters: str) -> None:
        self.filters += filters

    async def publish(self, message: Message) -> None:
        if self._down:
            raise LinkDown("the line was cut")
        self.published.append(message)

    def traffic(self) -> tuple[int, int]:
        return 0, 0

    async def messages(self) -> AsyncIterator[Message]:
        while (message := await self._arrived.get()) is not None:
            yield message
        raise LinkDown("the line was cut")


class Hub:
    """A store, its picture and an ingest, as `hub.app` puts them together."""

    def __init__(self, store: Store, *, most_waiting: int = 8192) -> None:
        self.store = store
        self.now_ms = WALL_MS
        self.latest = Latest()
        self.alerts = new_alerts(store, self.latest, lambda: self.now_ms)
        self.commands = Commands(store, KEYS, lambda: self.now_ms)
        self.ingest = self.new_ingest(most_waiting=most_waiting)

    def new_ingest(self, **options: Any) -> Ingest:
        """An ingest that commits at once."""
        return new_ingest(
            self.store,
            self.latest,
            lambda: self.now_ms,
            alerts=self.alerts,
            commands=self.commands,
            commit_every_ms=0,
            **options,
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path, *, most_waiting: int = 8192) -> AsyncIterator[Hub]:
        async with new_store(directory / "hub.db") as store:
            hub = cls(store, most_waiting=most_waiting)
            await hub.latest.load(store)
            await hub.ingest.recover()
            yield hub

    async def join(self, *ids: str) -> None:
        async with self.store.write() as tx:
            for id in ids:
                await boards.add_board(tx, id=id, log_key="", seal_key="", joined_ms=0)

    async def join_with(self, id: str, log_key: str) -> None:
        async with self.store.write() as tx:
            await boards.add_board(tx, id=id, log_key=log_key, seal_key="", joined_ms=0)

    async def take(self, *messages: Message) -> Line:
        """Take messages, each in a transaction of its own, until the line is cut behind them."""
        line = Line()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self._run(line))
            for message in messages:
                before = self.settled
                line.arrive(message)
                while self.settled == before and not running.done():
                    await asyncio.sleep(0.001)
            line.cut()
        return line

    async def take_at_once(self, *messages: Message) -> Line:
        """Take messages that lie there already, and nothing after them."""
        line = Line()
        line.arrive(*messages)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run(line))
            while self.settled < len(messages):
                await asyncio.sleep(0.001)
            line.cut()
        return line

    @property
    def settled(self) -> int:
        """Messages that were committed or refused."""
        counters = self.ingest.counters()
        return sum(counters.messages.values()) + sum(counters.refused.values())

    async def _run(self, line: Line) -> None:
        with pytest.raises(LinkDown):
            await self.ingest.run(line)
        assert set(line.filters) == {"lichen/v1/+/up/#"}

    async def stored(self, board: str = BOARD) -> list[RawReading]:
        found = iter_raw(self.store, board, since_ms=-(2**53), until_ms=2**53)
        return sorted([reading async for reading in found], key=lambda reading: (reading.stream, reading.seq))

    async def check(self, *streams: Stream) -> None:
        """Every reading of these streams is stored once as it was made, and counts once in the roll-ups."""
        for board in {stream.board for stream in streams}:
            expected = [
                (stream.name, seq, *reading[:4])
                for stream in sorted(streams, key=lambda stream: stream.name)
                if stream.board == board
                for seq, reading in enumerate(stream.readings, 1)
            ]
            assert [
                (found.stream, found.seq, found.sensor, found.value, found.mono_ms, found.wall_ms)
                for found in await self.stored(board)
            ] == expected
        readings = [reading for stream in streams for reading in stream.readings]
        assert await self.rolled() == (len(readings), sum(reading.value or 0 for reading in readings))

    async def rolled(self) -> tuple[int, float]:
        """How many readings are in the roll-ups, and their sum."""
        asked = select(func.sum(schema.rollups.c.count), func.sum(schema.rollups.c.sum))
        async with self.store.read() as tx:
            count, total = (await tx.execute(asked)).one()
        return count or 0, total or 0.0

    async def events(self) -> list[tuple[str, str]]:
        async with self.store.read() as tx:
            return [(event.kind, event.text) for event in reversed(await list_events(tx))]

    async def board(self, id: str = BOARD) -> boards.BoardRow:
        async with self.store.read() as tx:
            return await boards.get_board(tx, id)

    async def problems(self, *, open: bool | None = True) -> list[tuple[str | None, str, int]]:
        """Board, code and since when of each, oldest first."""
        async with self.store.read() as tx:
            rows = await list_problems(tx, open=open)
        return [(row.board, row.code, row.since_ms) for row in reversed(rows)]


async def boots_of(tx: Tx, *ids: str) -> dict[BootKey, BootRow]:
    """Every boot that is stored of these boards."""
    rows = await tx.execute(select(schema.boots).where(schema.boots.c.board.in_(ids)))
    return {(row.board, row.boot): BootRow(*row) for row in rows}
