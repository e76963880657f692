"""What lies in the outbox's file: the SQL of the outbox, and an index of it in memory.

`agent.outbox` calls it on the writer thread, inside of a transaction, and throws the index away
unless that was committed; it then is read anew from the file.  This module knows nothing of
tasks, of the stream that is written now, or of the network.

Rows are ordered by id, and a stream's rows lie together, because one process writes one stream.
A stream is perhaps a gap, then blocks without holes: only the front of the whole is ever dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.base.sqlite import Connection
from agent.wire.messages import Ack, Gap, Held, OutboxState, frame

VERSION = 2
NOTES = """
CREATE TABLE notes (           -- what else outlives a restart: see Outbox.remember
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
UPGRADES = {1: NOTES}
SCHEMA = (
    NOTES
    + """
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY,    -- grows with age; never given twice within a process
    stream TEXT NOT NULL,
    seq0 INTEGER NOT NULL,
    count INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,  -- wall clock of the earliest and of the latest reading
    to_ms INTEGER NOT NULL,
    body BLOB NOT NULL         -- JSON of one agent.wire.messages.Block
) STRICT;
CREATE TABLE gaps (            -- the front of a stream, which was dropped
    stream TEXT PRIMARY KEY,
    seq0 INTEGER NOT NULL,
    count INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE totals (dropped INTEGER NOT NULL) STRICT;  -- one row: readings ever dropped
INSERT INTO totals VALUES (0);
"""
)

HELD_STREAMS = 32
"""Most streams that one batch speaks of."""
GAP_STREAMS = 4096
"""Most streams of which only a gap is left; beyond, the oldest are forgotten (but stay counted)."""


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """How far somebody has taken."""

    row: int = 0


@dataclass(frozen=True, slots=True)
class Parcel:
    """A batch that is ready to send: ``payload`` with readings up to ``last_seq`` of ``stream``."""

    payload: bytes = field(repr=False)
    stream: str
    last_seq: int
    readings: int
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Row:
    """One block: which readings (as the gap that it would leave), and its encoded form."""

    span: Gap
    body: bytes = field(repr=False)


@dataclass(slots=True)
class Run:
    """Where a stream's rows lie, and which numbers they hold: ``low`` to ``next - 1``.

    Without rows ``first_id`` is past ``last_id``, and ``low`` equals ``next``.  ``gap`` ends
    before ``low``.
    """

    first_id: int
    last_id: int
    low: int
    next: int
    gap: Gap | None = None

    @property
    def bare(self) -> bool:
        """Whether there are no rows."""
        return self.first_id > self.last_id


class Shelf:
    """The streams that the file holds, oldest first, and their totals."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.readings = self.bytes = self.dropped = self.last_id = 0

    @classmethod
    def load(cls, connection: Connection) -> Shelf:
        """Read the index from the file."""
        shelf = cls()
        gaps = {}
        for columns in connection.execute("SELECT * FROM gaps ORDER BY from_ms"):
            gap = gaps[columns[0]] = Gap(*columns)
            # Where only a gap is left, the stream is older than those with blocks.
            shelf.runs[gap.stream] = Run(1, 0, end_of(gap), end_of(gap), gap)
        sql = (
            "SELECT stream, min(id), max(id), min(seq0), max(seq0 + count), sum(count), sum(length(body))"
            " FROM blocks GROUP BY stream ORDER BY min(id)"
        )
        for stream, first_id, last_id, low, after, readings, size in connection.execute(sql):
            shelf.runs.pop(stream, None)
            shelf.runs[stream] = Run(first_id, last_id, low, after, gaps.get(stream))
            shelf.readings += readings
            shelf.bytes += size
            shelf.last_id = max(shelf.last_id, last_id)
        (shelf.dropped,) = connection.execute("SELECT dropped FROM totals").fetchone()
        return shelf

    # --- in

    def append(self, connection: Connection, rows: Sequence[Row], max_bytes: int) -> None:
        """Store rows behind what is there, and drop the oldest where they would exceed ``max_bytes``."""
        for row in rows:
            self._make_room(connection, max_bytes - len(row.body))
            if len(row.body) <= max_bytes:
                self._insert(connection, row)
            else:
                self._declare(connection, row.span)

    def _insert(self, connection: Connection, row: Row) -> None:
        self.last_id += 1
        span = row.span
        connection.execute(
            "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self.last_id, span.stream, span.seq0, span.count, span.from_ms, span.to_ms, row.body),
        )
        run = self._run(span)
        if run.bare:
            run.first_id = self.last_id
        run.last_id, run.next = self.last_id, end_of(span)
        self.readings += span.count
        self.bytes += len(row.body)

    def _run(self, span: Gap) -> Run:
        """The run that ``span`` belongs to; a new one begins with it."""
        new = Run(self.last_id + 1, self.last_id, span.seq0, span.seq0)
        return self.runs.setdefault(span.stream, new)

    def _make_room(self, connection: Connection, room: int) -> None:
        """Drop the oldest rows until no more than ``room`` bytes are left, and declare them."""
        lost: dict[str, Gap] = {}
        while self.readings and self.bytes > room:
            id, size, *columns = connection.execute(
                "SELECT id, length(body), stream, seq0, count, from_ms, to_ms FROM blocks ORDER BY id LIMIT 1"
            ).fetchone()
            gap = Gap(*columns)
            self._delete(connection, self.runs[gap.stream], id + 1, end_of(gap), gap.count, size)
            lost[gap.stream] = joined(lost.get(gap.stream), gap)
        for gap in lost.values():
            self._declare(connection, gap)

    def _declare(self, connection: Connection, gap: Gap) -> None:
        """Write down that the front of a stream is gone."""
        self.dropped += gap.count
        connection.execute("UPDATE totals SET dropped = ?", (self.dropped,))
        run = self._run(gap)
        self._write_gap(connection, run, joined(run.gap, gap))
        run.low = end_of(gap)
        run.next = max(run.next, run.low)
        bare = [stream for stream, other in self.runs.items() if other.bare and stream != gap.stream]
        for stream in bare[: max(0, len(bare) - GAP_STREAMS)]:
            connection.execute("DELETE FROM gaps WHERE stream = ?", (stream,))
            del self.runs[stream]

    def _write_gap(self, connection: Connection, run: Run, gap: Gap) -> None:
        run.gap = gap
        connection.execute(
            "INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?, ?)",
            (gap.stream, gap.seq0, gap.count, gap.from_ms, gap.to_ms),
        )

    def _delete(self, connection: Connection, run: Run, end_id: int, low: int, count: int, size: int) -> None:
        """Delete a run's rows before ``end_id``: ``count`` readings in ``size`` bytes."""
        connection.execute("DELETE FROM blocks WHERE id >= ? AND id < ?", (run.first_id, end_id))
        run.first_id, run.low = end_id, low
        self.readings -= count
        self.bytes -= size

    # --- out

    def take(
        self, connection: Connection, after: Cursor, until: Cursor, max_bytes: int, max_blocks: int
    ) -> Parcel | None:
        """The next rows of one stream behind ``after`` and not behind ``until``, as a message's payload."""
        rows = connection.execute(
            "SELECT id, stream, seq0, count, body FROM blocks WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
            (after.row, until.row, max_blocks),
        )
        first = None
        bodies: list[bytes] = []
        size = after_seq = last_id = 0
        for id, stream, seq0, count, body in rows:
            first = first or (stream, seq0)
            size += len(body)
            if bodies and (stream != first[0] or size > max_bytes):
                break
            bodies.append(body)
            after_seq, last_id = seq0 + count, id
        if first is None:
            return None
        stream, seq0 = first
        held, gaps = self._covering(stream)
        return Parcel(frame(held, gaps, bodies), stream, after_seq - 1, after_seq - seq0, Cursor(last_id))

    def wrap(self, row: Row, cursor: Cursor) -> Parcel:
        """A row that is not here, as a message's payload; it would come next."""
        span = row.span
        held, gaps = self._covering(span.stream)
        held[span.stream] = Held(span.seq0, end_of(span))
        return Parcel(frame(held, gaps, [row.body]), span.stream, end_of(span) - 1, span.count, cursor)

    def _covering(self, stream: str) -> tuple[dict[str, Held], list[Gap]]:
        """What a batch of ``stream`` says of it, and of the oldest other streams.

        A stream that is named has its gap declared: what ``held`` alone shows to be missing
        would count as lost without a reason.
        """
        names = [stream, *(other for other in self.runs if other != stream)][:HELD_STREAMS]
        runs = [(name, self.runs[name]) for name in names if name in self.runs]
        held = {name: Held(run.low, run.next) for name, run in runs}
        return held, [run.gap for _, run in runs if run.gap is not None]

    def covered(self, ack: Ack) -> dict[str, int]:
        """How many readings and numbers of gaps an acknowledgement covers, by stream; only what is."""
        found = {}
        for stream, seq in ack.streams.items():
            run = self.runs.get(stream)
            if run is None:
                continue
            count = max(0, min(seq, run.next - 1) - run.low + 1)
            if run.gap is not None:
                count += max(0, min(seq, end_of(run.gap) - 1) - run.gap.seq0 + 1)
            if count:
                found[stream] = count
        return found

    def acknowledge(self, connection: Connection, ack: Ack) -> dict[str, int]:
        """Delete what is covered.  Returns how many values of each sensor that were."""
        counts: dict[str, int] = {}
        for stream, seq in ack.streams.items():
            run = self.runs.get(stream)
            if run is None:
                continue
            if run.gap is not None and run.gap.seq0 <= seq:
                self._cut_gap(connection, run, run.gap, seq)
            if not run.bare and run.low <= seq:
                self._cut_rows(connection, run, seq, counts)
            if run.bare and run.gap is None:
                del self.runs[stream]
        return counts

    def _cut_rows(self, connection: Connection, run: Run, seq: int, counts: dict[str, int]) -> None:
        """Delete a run's blocks that end at or before ``seq``, and add what was in them to ``counts``."""
        kept = connection.execute(
            "SELECT id, seq0 FROM blocks WHERE id BETWEEN ? AND ? AND seq0 + count > ? ORDER BY id LIMIT 1",
            (run.first_id, run.last_id, seq + 1),
        ).fetchone()
        end_id, low = kept or (run.last_id + 1, run.next)
        count = size = 0
        sql = "SELECT count, body FROM blocks WHERE id >= ? AND id < ?"
        for readings, body in connection.execute(sql, (run.first_id, end_id)):
            count, size = count + readings, size + len(body)
            count_values(body, counts)
        self._delete(connection, run, end_id, low, count, size)

    def _cut_gap(self, connection: Connection, run: Run, gap: Gap, seq: int) -> None:
        """Remove a run's gap up to ``seq``."""
        rest = end_of(gap) - seq - 1
        if rest > 0:
            self._write_gap(connection, run, replace(gap, seq0=seq + 1, count=rest))
        else:
            run.gap = None
            connection.execute("DELETE FROM gaps WHERE stream = ?", (gap.stream,))

    def state(self, connection: Connection, max_bytes: int, settled: Mapping[str, int]) -> OutboxState:
        """The totals, and the wall clock of the oldest reading, without what is ``settled`` at the front."""
        readings, size, oldest_ms = self.readings, self.bytes, None
        rows = connection.execute(
            "SELECT stream, seq0 + count, count, length(body), from_ms FROM blocks ORDER BY id"
        )
        for stream, after, count, length, from_ms in rows:
            if settled.get(stream, 0) < after - 1:
                oldest_ms = from_ms
                break
            readings -= count
            size -= length
        return OutboxState(readings, size, max_bytes, oldest_ms, self.dropped)

    # --- beside the readings

    def notes(self, connection: Connection) -> dict[str, str]:
        """What was written down, by name."""
        return dict(connection.execute("SELECT name, body FROM notes"))

    def write_notes(self, connection: Connection, notes: Mapping[str, str]) -> None:
        """Write down texts, each in place of the one of its name."""
        connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", notes.items())


def count_values(block: bytes, counts: dict[str, int]) -> None:
    """Add to ``counts`` how many readings with a value each sensor has in a block."""
    try:
        columns = json.loads(block)
        names = columns["sensors"]
        pairs = zip(columns["sensor"], columns["value"], strict=True)
        found = [names[index] for index, value in pairs if value is not None]
    except (ValueError, LookupError, TypeError):
        return  # the card has flipped a bit in what the hub has already
    for name in found:
        counts[name] = counts.get(name, 0) + 1


def end_of(gap: Gap) -> int:
    """The seq after the last one of a gap."""
    return gap.seq0 + gap.count


def joined(before: Gap | None, gap: Gap) -> Gap:
    """A gap and the one right before it as one."""
    if before is None:
        return gap
    from_ms, to_ms = min(before.from_ms, gap.from_ms), max(before.to_ms, gap.to_ms)
    return Gap(gap.stream, before.seq0, before.count + gap.count, from_ms, to_ms)
