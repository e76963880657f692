"""The readings that the hub has not acknowledged yet, in one SQLite file.

The sampler appends, the link takes and acknowledges, the status looks.  Nobody else can open the
file meanwhile, and this module never touches the network: what it hands out is the payload of a
message.

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
8.  An acknowledgement counts at once, but its rows go with the next commit, which writes half as
    much to the card as two transactions.  They go by themselves when there are many, when the disk
    refuses a commit, and at the close.  A power cut before that sends them once more, and the hub
    passes over them.
9.  Cards wear by writes.  While the link sends at once what comes (`prompt`) and nothing else is held,
    `append` offers readings to it first, under the numbers that they will have, and returns without
    a write when the hub has them within WITHIN_S.  Whoever appends still has them until then.

>>> async def example(path: Path) -> OutboxState:
...     async with Outbox.open(path, boot="b" * 32, max_bytes=1_000_000) as outbox:
...         await outbox.append([Reading("room", 21.5, 900, 1_700_000_000_000)], "synced")
...         parcel = await outbox.take(START)
...         assert await outbox.acknowledge(Ack({parcel.stream: parcel.last_seq})) == {parcel.stream}
...         return await outbox.state()
>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     asyncio.run(example(Path(folder) / "outbox.db"))
OutboxState(readings=0, bytes=0, max_bytes=1000000, oldest_ms=None, dropped=0)
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.base.files import exists
from agent.base.sqlite import Connection, Database
from agent.shelf import SCHEMA, UPGRADES, VERSION, Cursor, Parcel, Row, Shelf, count_values, end_of
from agent.wire.errors import Busy, ConfigError, LichenError, Refused
from agent.wire.messages import MAX_MS, Ack, ClockState, Gap, OutboxState, Reading, block_of
from agent.wire.plain import dumps

__all__ = ["END", "START", "Cursor", "Outbox", "Parcel", "new_stream"]

T = TypeVar("T")
log = logging.getLogger(__name__)

START = Cursor()
"""Before everything that is held, and so behind everything that is acknowledged."""
END = Cursor(MAX_MS)
"""Behind everything that there will be."""
BLOCK_READINGS = 512
"""Most readings in one row: a batch takes a whole row, and the hub caps a batch."""
OWED_READINGS = 2048
"""How many acknowledged readings may wait for the next commit to be deleted."""
WITHIN_S = 3.0
"""How long the hub may take to acknowledge readings that are not written yet."""
OFFER_BYTES = 16 * 1024
"""The largest block that is offered before it is written."""
NOTES_S = 600.0
"""How long a note may wait where no commit comes."""


@dataclass(slots=True)
class _Offer:
    """A block that is on offer, as the row that it would be; ``over`` is set when it is acknowledged or
    nobody sends any more."""

    row: Row
    cursor: Cursor
    over: asyncio.Event
    taken: bool = False


class Outbox:
    """The shelf of readings, and the bell that says that something lies there.

    ``bell`` is the link's; ``committed`` rings with it for whoever shows how much is held.
    ``stream`` is the id under which this process numbers.  ``delivered`` is called, on the writer thread,
    with how many values of each sensor the hub has of what is let go.
    """

    def __init__(self, database: Database, *, boot: str, max_bytes: int) -> None:
        self.bell = asyncio.Event()
        self.committed = asyncio.Event()
        self.stream = new_stream()
        self.delivered: Callable[[Mapping[str, int]], None] = lambda counts: None
        self._database = database
        self._boot = boot
        self._max_bytes = max_bytes
        self._state = OutboxState(max_bytes=max_bytes)
        # Of the writer thread.  They follow the file: only a commit changes them.
        self._next = 1
        self._last_id = 0  # of the last row ever given, which the file does not tell once it is empty
        self._shelf: Shelf | None = None
        self._notes: dict[str, str] = {}
        self._written: dict[str, str] = {}  # notes in the transaction that runs
        self._gone: dict[str, int] = {}  # what is let go in it
        # What the hub has is true whether the file can be written or not.
        self._settled: dict[str, int] = {}  # up to where, of each stream that is held
        self._refused = False  # whether the last commit was
        self._unwritten: dict[str, str] = {}  # notes that wait for the next commit
        self._now_s = asyncio.get_running_loop().time
        self._noted_s = self._now_s()
        self._is_prompt = False
        self._offer: _Offer | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, *, boot: str, max_bytes: int) -> AsyncIterator[Outbox]:
        """Open or make the file.  ``max_bytes`` bounds the encoded blocks.

        Raises ConfigError for a file of a newer version, Corrupt for one that is damaged.
        """
        async with Database.open(path, SCHEMA, version=VERSION, upgrades=UPGRADES) as database:
            outbox = cls(database, boot=boot, max_bytes=max_bytes)
            outbox._notes = await outbox._do(lambda connection, shelf: shelf.notes(connection))
            await outbox.state()
            outbox.bell.set()
            try:
                yield outbox
            finally:
                with contextlib.suppress(LichenError):
                    await outbox.settle()

    @contextmanager
    def prompt(self) -> Iterator[None]:
        """While the block runs, somebody sends at once what is appended."""
        self._is_prompt = True
        try:
            yield
        finally:
            self._is_prompt = False
            if self._offer is not None:
                self._offer.over.set()

    async def append(self, readings: Sequence[Reading], clock: ClockState) -> None:
        """Keep readings in the order given; returns when they are on the disk, or at the hub.

        Raises Refused (codes "disk-full", "disk-read-only") and keeps none of them.
        """
        if not readings:
            return
        if (offer := await self._make_offer(readings, clock)) is not None:
            try:
                async with asyncio.timeout(WITHIN_S):
                    await offer.over.wait()
            except TimeoutError:
                pass
            except asyncio.CancelledError:
                if not await self._withdraw():
                    await self._store(readings, clock)
                raise
            if await self._withdraw():
                self.committed.set()
                return
        await self._store(readings, clock)

    async def _make_offer(self, readings: Sequence[Reading], clock: ClockState) -> _Offer | None:
        """Let the link send readings that are not written; None when they are to be written first."""
        if not self._is_prompt or self._refused:
            return None

        def make(connection: Connection, shelf: Shelf) -> _Offer | None:
            if shelf.readings or self._now_s() - self._noted_s > NOTES_S:
                if shelf.state(connection, 0, self._settled).readings:
                    return None  # what is held goes first
                self._write_owed(connection, shelf)
            rows = self._rows(readings, clock)
            if len(rows) > 1 or len(rows[0].body) > OFFER_BYTES:
                return None
            return _Offer(rows[0], Cursor(shelf.last_id + 1), asyncio.Event())

        self._offer = await self._do(make)
        if self._offer is not None:
            self.bell.set()
        return self._offer

    async def _withdraw(self) -> bool:
        """End the offer.  Whether the hub has what was on it; its numbers are spent then."""

        def end(_: Connection, shelf: Shelf) -> bool:
            offer, self._offer = self._offer, None
            if offer is None or not offer.taken:
                return False
            shelf.last_id = max(shelf.last_id, offer.cursor.row)  # a window has gone past it
            count_values(offer.row.body, self._gone)
            if offer.row.span.stream == self.stream:
                self._next = end_of(offer.row.span)
            return True

        return await self._do(end)

    async def _store(self, readings: Sequence[Reading], clock: ClockState) -> None:
        def store(connection: Connection, shelf: Shelf) -> None:
            self._write_owed(connection, shelf)
            shelf.append(connection, self._rows(readings, clock), self._max_bytes)

        try:
            await self._do(store, spent=len(readings))
        except Refused:
            self._refused = True
            if not self._settled:
                raise
            await self.settle()  # what it frees may be what was missing
            await self._do(store, spent=len(readings))
        self._refused = False
        self.bell.set()
        self.committed.set()

    async def take(
        self, after: Cursor, *, until: Cursor = END, max_bytes: int = 16384, max_blocks: int = 64
    ) -> Parcel | None:
        """The next blocks of one stream behind ``after``, oldest first; None when there are none.

        At least one block, even when it alone is over ``max_bytes``; none behind ``until``.
        """

        def look(connection: Connection, shelf: Shelf) -> Parcel | None:
            parcel, offer = shelf.take(connection, after, until, max_bytes, max_blocks), self._offer
            if parcel is None and offer is not None and not offer.taken and after < offer.cursor <= until:
                return shelf.wrap(offer.row, offer.cursor)
            return parcel

        parcel = await self._do(look)
        if parcel is not None and self._settled.get(parcel.stream, 0) > parcel.last_seq - parcel.readings:
            # The hub has it, and only the deletion waits.  Where that fails it is sent once more.
            with contextlib.suppress(Refused):
                await self.settle()
                return await self._do(look)
        return parcel

    async def acknowledge(self, ack: Ack) -> frozenset[str]:
        """Take the hub's word for what it has.  The streams of which that is more than before."""

        def note(_: Connection, shelf: Shelf) -> tuple[frozenset[str], bool]:
            offer = self._offer
            given = end_of(offer.row.span) if offer is not None else self._next
            if ack.streams.get(self.stream, 0) >= given:
                # Somebody wrote under our id what we never made, and the hub would take what we
                # make next for that: go on under an id that nobody else knows.
                log.warning("hub acknowledged readings that were never made", extra={"stream": self.stream})
                self.stream, self._next = new_stream(), 1
            covered = shelf.covered(ack)
            moved = {stream for stream in covered if ack.streams[stream] > self._settled.get(stream, 0)}
            self._settled |= {stream: ack.streams[stream] for stream in moved}
            owed = shelf.covered(Ack(self._settled))
            # A gap is declared with each batch until it is gone, and is rare.
            many = sum(owed.values()) > OWED_READINGS or any(shelf.runs[stream].gap for stream in owed)
            if offer is not None and ack.streams.get(offer.row.span.stream, 0) == given - 1:
                offer.taken = True
                moved.add(offer.row.span.stream)
            return frozenset(moved), many

        moved, many = await self._do(note)
        if self._offer is not None and self._offer.taken:
            self._offer.over.set()
        if moved and (many or self._refused):
            with contextlib.suppress(Refused, Busy):
                await self.settle()
        return moved

    async def part(self) -> Cursor:
        """Let what comes next be of another stream than what is held.  Returns what lies between.

        What is behind it can be sent before the rest: streams do not wait for each other.
        """

        def begin(_: Connection, shelf: Shelf) -> Cursor:
            if self.stream in shelf.runs:
                self.stream, self._next = new_stream(), 1
            return Cursor(shelf.last_id)

        return await self._do(begin)

    async def state(self) -> OutboxState:
        """How much is held, from when on, and how much was ever dropped.

        As it was before, while another process holds the file.
        """
        with contextlib.suppress(Busy):
            self._state = await self._do(
                lambda connection, shelf: shelf.state(connection, self._max_bytes, self._settled)
            )
        return self._state

    async def probe(self) -> None:
        """Begin a transaction and roll it back: the disk and the writer thread still answer."""
        await self._database.probe()

    # --- beside the readings

    def remember(self, name: str, text: str) -> None:
        """Let a text outlive a restart.  It is written with the next commit, or at the close."""
        self._notes[name] = self._unwritten[name] = text

    def recall(self, name: str) -> str:
        """The text that was remembered last under this name, or an empty one."""
        return self._notes.get(name, "")

    # --- on the writer thread

    def _rows(self, readings: Sequence[Reading], clock: ClockState) -> list[Row]:
        """The readings as numbered blocks.  On the writer thread, since encoding takes a while."""
        rows = []
        for at in range(0, len(readings), BLOCK_READINGS):
            part, seq0 = readings[at : at + BLOCK_READINGS], self._next + at
            block = block_of(part, boot=self._boot, stream=self.stream, seq0=seq0, clock=clock)
            times = [reading.wall_ms for reading in part]
            rows.append(Row(Gap(self.stream, seq0, len(part), min(times), max(times)), dumps(block)))
        return rows

    async def settle(self) -> None:
        """Write what waits for a commit, in one of its own."""
        if self._settled or self._unwritten:
            await self._do(self._write_owed)

    def _write_owed(self, connection: Connection, shelf: Shelf) -> None:
        self._written = dict(self._unwritten)
        self._gone = shelf.acknowledge(connection, Ack(self._settled))
        shelf.write_notes(connection, self._written)

    async def _do(self, work: Callable[[Connection, Shelf], T], *, spent: int = 0) -> T:
        """Run ``work`` in one transaction on the writer thread; it spends so many numbers."""
        done: list[Shelf] = []

        def run(connection: Connection) -> T:
            self._written, self._gone = {}, {}
            shelf = self._shelf or Shelf.load(connection)
            shelf.last_id = max(shelf.last_id, self._last_id)
            # Until the commit the index is ahead of the file, and worthless if that fails.
            self._shelf = None
            done.append(shelf)
            return work(connection, shelf)

        def committed() -> None:
            self._shelf = done[0]
            self._last_id = done[0].last_id
            self._next += spent
            self._settled = {stream: seq for stream, seq in self._settled.items() if stream in done[0].runs}
            if self._written:
                self._noted_s = self._now_s()
            for name, text in self._written.items():
                if self._unwritten.get(name) == text:
                    del self._unwritten[name]
            if self._gone:
                self.delivered(self._gone)

        return await self._database.run(run, committed=committed)


def new_stream() -> str:
    """A stream id that nobody has used: 80 random bits in 16 characters."""
    return base64.b32encode(secrets.token_bytes(10)).decode().lower()


async def peek(path: Path, max_bytes: int) -> OutboxState:
    """The state of an outbox file that nobody has open, without changing it; nothing when there is none.

    Raises Busy while an agent has it open (which tells in its status file), Corrupt, ConfigError.
    """
    if not exists(path):
        return OutboxState(max_bytes=max_bytes)
    try:
        async with Database.open(path, SCHEMA, version=VERSION, read_only=True) as database:
            return await database.run(lambda held: Shelf.load(held).state(held, max_bytes, {}))
    except ConfigError as error:
        if error.code == "empty":  # whoever makes it has no room, or has only just begun
            return OutboxState(max_bytes=max_bytes)
        raise
