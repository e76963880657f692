"""The readings that the hub has not acknowledged yet, in one SQLite file.

The sampler appends, the link takes and acknowledges, the status looks.  Nothing else opens the
file, and this module never touches the network: what it hands out is the payload of a message.

A commit is one row, or several: a *block* of readings, encoded once and sent as it lies.
Readings are numbered within a *stream*, which is drawn at each start; (stream, seq) names one
reading for ever.  What holds at every moment, after a power cut, and with an old copy of the file:

1.  A number is given once.  Each start has a stream of its own, so neither a restored copy nor a
    deleted file can make the hub take a new reading for one that it already has.
2.  What `append` has returned from is on the disk.  When it raises, nothing of it is, and the
    numbers are given to the next readings.
3.  Only an acknowledgement that names a stream of ours deletes rows of that stream, up to the
    number that it says and never beyond the last one given.  Foreign and lower ones change nothing.
4.  Blocks come and go whole, so a batch always begins where an earlier one ended.
5.  The encoded blocks never exceed ``max_bytes``.  To make room the oldest readings go first,
    and the same transaction records which, and from when, as a gap; touching gaps become one.
6.  A stream is perhaps a gap, then blocks without holes.  A batch holds blocks of one stream and
    declares its gap.  It speaks of at most 31 other streams, the oldest, so that what is left of
    them (only a gap, perhaps) is settled as well.
7.  The bell rings after every commit, and once at open.

>>> async def example(path: Path) -> OutboxState:
...     async with Outbox.open(path, boot="b" * 32, max_bytes=1_000_000) as outbox:
...         await outbox.append([Reading("room", 21.5, 900, 1_700_000_000_000)], "synced")
...         parcel = await outbox.take(START)
...         await outbox.acknowledge(Ack({parcel.stream: parcel.last_seq}))
...         return await outbox.state()
>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     asyncio.run(example(Path(folder) / "outbox.db"))
OutboxState(readings=0, bytes=0, max_bytes=1000000, oldest_ms=None, dropped=0)
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from agent.base.files import exists
from agent.base.sqlite import Connection, Database
from agent.shelf import SCHEMA, VERSION, Cursor, Parcel, Row, Shelf
from agent.wire.messages import Ack, ClockState, Gap, OutboxState, Reading, block_of
from agent.wire.plain import dumps

__all__ = ["START", "Cursor", "Outbox", "Parcel", "new_stream"]

T = TypeVar("T")
log = logging.getLogger(__name__)

START = Cursor()
"""Before everything that is held, and so behind everything that is acknowledged."""
BLOCK_READINGS = 512
"""Most readings in one row: a batch takes a whole row, and the hub caps a batch."""


class Outbox:
    """The shelf of readings, and the bell that says that something lies there.

    ``bell`` is the link's; ``committed`` rings with it for whoever shows how much is held.
    ``stream`` is the id under which this process numbers.
    """

    def __init__(self, database: Database, *, boot: str, max_bytes: int) -> None:
        self.bell = asyncio.Event()
        self.committed = asyncio.Event()
        self.stream = new_stream()
        self._database = database
        self._boot = boot
        self._max_bytes = max_bytes
        # Of the writer thread.  They follow the file: only a commit changes them.
        self._next = 1
        self._shelf: Shelf | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, *, boot: str, max_bytes: int) -> AsyncIterator[Outbox]:
        """Open or make the file.  ``max_bytes`` bounds the encoded blocks.

        Raises ConfigError for a file of a newer version, Corrupt for one that is damaged.
        """
        async with Database.open(path, SCHEMA, version=VERSION) as database:
            outbox = cls(database, boot=boot, max_bytes=max_bytes)
            await outbox.state()
            outbox.bell.set()
            yield outbox

    async def append(self, readings: Sequence[Reading], clock: ClockState) -> None:
        """Commit readings in the order given; returns when they are on the disk.

        Raises Refused (code "disk-full") and keeps none of them.
        """
        if not readings:
            return

        def store(connection: Connection, shelf: Shelf) -> None:
            shelf.append(connection, self._rows(readings, clock), self._max_bytes)

        await self._do(store, spent=len(readings))
        self.bell.set()
        self.committed.set()

    async def take(self, after: Cursor, *, max_bytes: int = 16384, max_blocks: int = 64) -> Parcel | None:
        """The next blocks of one stream behind ``after``, oldest first; None when there are none.

        At least one block, even when it alone is over ``max_bytes``.
        """
        return await self._do(lambda connection, shelf: shelf.take(connection, after, max_bytes, max_blocks))

    async def acknowledge(self, ack: Ack) -> bool:
        """Delete what the hub says it has.  True when that was anything."""

        def settle(connection: Connection, shelf: Shelf) -> bool:
            if ack.streams.get(self.stream, 0) >= self._next:
                # Somebody wrote under our id what we never made, and the hub would take what we
                # make next for that: go on under an id that nobody else knows.
                log.warning("hub acknowledged readings that were never made", extra={"stream": self.stream})
                self.stream, self._next = new_stream(), 1
            return shelf.acknowledge(connection, ack)

        return await self._do(settle)

    async def state(self) -> OutboxState:
        """How much is held, from when on, and how much was ever dropped."""
        return await self._do(lambda connection, shelf: shelf.state(connection, self._max_bytes))

    async def probe(self) -> None:
        """Begin a transaction and roll it back: the disk and the writer thread still answer."""
        await self._database.probe()

    def _rows(self, readings: Sequence[Reading], clock: ClockState) -> list[Row]:
        """The readings as numbered blocks.  On the writer thread, since encoding takes a while."""
        rows = []
        for at in range(0, len(readings), BLOCK_READINGS):
            part, seq0 = readings[at : at + BLOCK_READINGS], self._next + at
            block = block_of(part, boot=self._boot, stream=self.stream, seq0=seq0, clock=clock)
            times = [reading.wall_ms for reading in part]
            rows.append(Row(Gap(self.stream, seq0, len(part), min(times), max(times)), dumps(block)))
        return rows

    async def _do(self, work: Callable[[Connection, Shelf], T], *, spent: int = 0) -> T:
        """Run ``work`` in one transaction on the writer thread; it spends so many numbers."""
        done: list[Shelf] = []

        def run(connection: Connection) -> T:
            shelf = self._shelf or Shelf.load(connection)
            # Until the commit the index is ahead of the file, and worthless if that fails.
            self._shelf = None
            done.append(shelf)
            return work(connection, shelf)

        def committed() -> None:
            self._shelf = done[0]
            self._next += spent

        return await self._database.run(run, committed=committed)


def new_stream() -> str:
    """A stream id that nobody has used: 80 random bits in 16 characters."""
    return base64.b32encode(secrets.token_bytes(10)).decode().lower()


async def peek(path: Path, max_bytes: int) -> OutboxState:
    """The state of an outbox file without changing it; nothing when there is no file.

    Raises Corrupt, ConfigError.
    """
    if not exists(path):
        return OutboxState(max_bytes=max_bytes)
    async with Database.open(path, SCHEMA, version=VERSION, read_only=True) as database:
        return await database.run(lambda connection: Shelf.load(connection).state(connection, max_bytes))
