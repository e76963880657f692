"""What lies in the outbox's file: the SQL of the outbox, and an index of it in memory.

`agent.outbox` calls it on the writer thread, inside of a transaction, and throws the index away
when the transaction did not end well; it then is read anew from the file.  This module knows
nothing of tasks, streams to come or the network.

Rows are ordered by id, and a stream's rows lie together, because one process writes one stream.
A stream may begin with a gap; a gap between its blocks comes only from a full disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agent.base.sqlite import Connection
from agent.wire.messages import Ack, Gap, Held, OutboxState, frame

VERSION = 1
SCHEMA = """
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY,    -- grows with age; never given twice within a process
    stream TEXT NOT NULL,
    seq0 INTEGER NOT NULL,
    count INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,  -- wall clock of the earliest and of the latest reading
    to_ms INTEGER NOT NULL,
    body BLOB NOT NULL         -- JSON of one agent.wire.messages.Block
) STRICT;
CREATE TABLE gaps (
    stream TEXT NOT NULL,
    seq0 INTEGER NOT NULL,
    count INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    PRIMARY KEY (stream, seq0)
) STRICT, WITHOUT ROWID;
CREATE TABLE totals (dropped INTEGER NOT NULL) STRICT;  -- one row: readings ever lost to gaps
INSERT INTO totals VALUES (0);
"""

HELD_STREAMS = 32
"""Most streams that one batch speaks of."""
OWN_GAPS = 32
"""Most gaps of its own stream that one batch declares."""
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

    Without rows ``first_id`` is past ``last_id``, and ``low`` equals ``next``.
    """

    first_id: int = 1
    last_id: int = 0
    low: int = 1
    next: int = 1
    gaps: list[Gap] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return self.first_id > self.last_id

    def settle(self) -> None:
        """Move ``low`` over what a gap declares."""
        for gap in self.gaps:
            if gap.seq0 <= self.low:
                self.low = max(self.low, end(gap))
        self.next = max(self.next, self.low)


class Shelf:
    """The streams that the file holds, oldest first, and their totals."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.readings = self.bytes = self.dropped = self.last_id = 0

    @classmethod
    def load(cls, connection: Connection) -> Shelf:
        """Read the index from the file."""
        shelf = cls()
        sql = "SELECT stream, seq0, count, from_ms, to_ms FROM gaps ORDER BY from_ms"
        for columns in connection.execute(sql):
            gap = Gap(*columns)
            # Where only a gap is left, the stream is older than those with blocks.
            run = shelf.runs.setdefault(gap.stream, Run())
            run.gaps.append(gap)
            run.low = run.next = max(run.next, end(gap))
        sql = (
            "SELECT stream, min(id), max(id), min(seq0), max(seq0 + count), sum(count), sum(length(body))"
            " FROM blocks GROUP BY stream ORDER BY min(id)"
        )
        for stream, first_id, last_id, low, after, readings, size in connection.execute(sql):
            run = shelf.runs.pop(stream, Run())
            run.gaps.sort(key=lambda gap: gap.seq0)
            shelf.runs[stream] = Run(first_id, last_id, low, max(after, run.next), run.gaps)
            shelf.readings += readings
            shelf.bytes += size
            shelf.last_id = max(shelf.last_id, last_id)
        (shelf.dropped,) = connection.execute("SELECT dropped FROM totals").fetchone()
        return shelf

    # --- in

    def append(self, connection: Connection, missed: Gap | None, rows: Sequence[Row], max_bytes: int) -> None:
        """Store rows behind what is there, within ``max_bytes``; ``missed`` lies before them."""
        if missed is not None:
            self._declare(connection, missed)
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
        run = self.runs.setdefault(span.stream, Run())
        if run.empty:
            run.first_id, run.low = self.last_id, span.seq0
        run.last_id, run.next = self.last_id, end(span)
        self.readings += span.count
        self.bytes += len(row.body)

    def _make_room(self, connection: Connection, room: int) -> None:
        """Drop the oldest rows until no more than ``room`` bytes are left, and declare them."""
        lost: list[Gap] = []
        while self.readings and self.bytes > room:
            id, size, *columns = connection.execute(
                "SELECT id, length(body), stream, seq0, count, from_ms, to_ms FROM blocks ORDER BY id LIMIT 1"
            ).fetchone()
            gap = Gap(*columns)
            self._delete(connection, self.runs[gap.stream], id + 1, end(gap), gap.count, size)
            if lost and touching(lost[-1], gap):
                lost[-1] = joined(lost[-1], gap)
            else:
                lost.append(gap)
        for gap in lost:
            self._declare(connection, gap)

    def _declare(self, connection: Connection, gap: Gap) -> None:
        """Write a gap as one with those that it touches, and count what it lost."""
        self.dropped += gap.count
        connection.execute("UPDATE totals SET dropped = ?", (self.dropped,))
        run = self.runs.setdefault(gap.stream, Run())
        if run.empty and not run.gaps:
            run.low = run.next = gap.seq0
        for other in [other for other in run.gaps if touching(other, gap)]:
            self._remove_gap(connection, run, other)
            gap = joined(other, gap)
        self._write_gap(connection, run, gap)
        run.settle()
        bare = [stream for stream, other in self.runs.items() if other.empty and stream != gap.stream]
        for stream in bare[: max(0, len(bare) - GAP_STREAMS)]:
            connection.execute("DELETE FROM gaps WHERE stream = ?", (stream,))
            del self.runs[stream]

    def _write_gap(self, connection: Connection, run: Run, gap: Gap) -> None:
        connection.execute(
            "INSERT INTO gaps VALUES (?, ?, ?, ?, ?)",
            (gap.stream, gap.seq0, gap.count, gap.from_ms, gap.to_ms),
        )
        run.gaps.append(gap)
        run.gaps.sort(key=lambda each: each.seq0)

    def _remove_gap(self, connection: Connection, run: Run, gap: Gap) -> None:
        connection.execute("DELETE FROM gaps WHERE stream = ? AND seq0 = ?", (gap.stream, gap.seq0))
        run.gaps.remove(gap)

    def _delete(self, connection: Connection, run: Run, end_id: int, low: int, count: int, size: int) -> None:
        """Delete a run's rows before ``end_id``: ``count`` readings in ``size`` bytes."""
        connection.execute("DELETE FROM blocks WHERE id >= ? AND id < ?", (run.first_id, end_id))
        run.first_id, run.low = end_id, low
        self.readings -= count
        self.bytes -= size

    # --- out

    def take(self, connection: Connection, after: Cursor, max_bytes: int, max_blocks: int) -> Parcel | None:
        """The next rows of one stream behind ``after``, as the payload of a message."""
        rows = connection.execute(
            "SELECT id, stream, seq0, count, body FROM blocks WHERE id > ? ORDER BY id LIMIT ?",
            (after.row, max_blocks),
        )
        first = None
        bodies: list[bytes] = []
        size = expected = last_id = 0
        for id, stream, seq0, count, body in rows:
            first = first or (stream, seq0)
            size += len(body)
            if bodies and (stream != first[0] or seq0 != expected or size > max_bytes):
                break
            bodies.append(body)
            expected, last_id = seq0 + count, id
        if first is None:
            return None
        stream, seq0 = first
        held, gaps = self._covering(stream, seq0)
        return Parcel(frame(held, gaps, bodies), stream, expected - 1, expected - seq0, Cursor(last_id))

    def _covering(self, stream: str, seq0: int) -> tuple[dict[str, Held], list[Gap]]:
        """What a batch of ``stream`` from ``seq0`` on says of it, and of the oldest other streams.

        A stream that is named has its gaps declared: what ``held`` alone shows to be missing
        counts as lost without a reason.
        """
        own = self.runs[stream]
        held = {stream: Held(own.low, own.next)}
        gaps = [gap for gap in own.gaps if gap.seq0 < seq0][:OWN_GAPS]
        for other, run in self.runs.items():
            if len(held) == HELD_STREAMS:
                break
            if other != stream:
                held[other] = Held(run.low, run.next)
                gaps += [gap for gap in run.gaps if gap.seq0 < run.low][:1]
        return held, gaps

    def acknowledge(self, connection: Connection, ack: Ack) -> bool:
        """Delete what is covered.  True when that was anything."""
        advanced = False
        for stream, seq in ack.streams.items():
            run = self.runs.get(stream)
            if run is None:
                continue
            covered = min(seq, run.next - 1)
            advanced |= self._cut_gaps(connection, run, covered)
            if not run.empty and covered >= run.low:
                advanced |= self._cut_rows(connection, run, covered)
            if run.empty and not run.gaps:
                del self.runs[stream]
        return advanced

    def _cut_rows(self, connection: Connection, run: Run, covered: int) -> bool:
        """Delete a run's blocks that end at or before ``covered``."""
        span = (run.first_id, run.last_id)
        kept = connection.execute(
            "SELECT id, seq0 FROM blocks WHERE id BETWEEN ? AND ? AND seq0 + count > ? ORDER BY id LIMIT 1",
            (*span, covered + 1),
        ).fetchone()
        end_id, low = kept or (run.last_id + 1, run.next)
        count, size = connection.execute(
            "SELECT coalesce(sum(count), 0), coalesce(sum(length(body)), 0) FROM blocks"
            " WHERE id >= ? AND id < ?",
            (run.first_id, end_id),
        ).fetchone()
        self._delete(connection, run, end_id, low, count, size)
        return bool(count)

    def _cut_gaps(self, connection: Connection, run: Run, covered: int) -> bool:
        """Remove a run's gaps up to ``covered``; keep what of a gap lies beyond."""
        cut = [gap for gap in run.gaps if gap.seq0 <= covered]
        for gap in cut:
            self._remove_gap(connection, run, gap)
            if end(gap) > covered + 1:
                rest = replace(gap, seq0=covered + 1, count=end(gap) - covered - 1)
                self._write_gap(connection, run, rest)
        return bool(cut)

    def state(self, connection: Connection, max_bytes: int) -> OutboxState:
        """The totals, and the wall clock of the oldest reading."""
        oldest = connection.execute("SELECT from_ms FROM blocks ORDER BY id LIMIT 1").fetchone()
        return OutboxState(self.readings, self.bytes, max_bytes, oldest and oldest[0], self.dropped)


def end(gap: Gap) -> int:
    """The seq after the last one of a gap."""
    return gap.seq0 + gap.count


def touching(one: Gap, other: Gap) -> bool:
    """Whether two gaps can be told as one."""
    return one.stream == other.stream and one.seq0 <= end(other) and other.seq0 <= end(one)


def joined(one: Gap, other: Gap) -> Gap:
    """Two touching gaps as one."""
    seq0 = min(one.seq0, other.seq0)
    return replace(
        one,
        seq0=seq0,
        count=max(end(one), end(other)) - seq0,
        from_ms=min(one.from_ms, other.from_ms),
        to_ms=max(one.to_ms, other.to_ms),
    )
