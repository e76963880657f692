"""One transaction of ingest: decides about what has arrived, and stores what is new.

Ingest makes a `Commit` for each transaction and, when that has ended well, learns from it what
to acknowledge and to show.  It holds no state from one transaction to the next.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from agent.wire.apps import Apps
from agent.wire.errors import Refused
from agent.wire.messages import About, Batch, Block
from hub.config import Limits
from hub.fleet.acceptance import Hole, accept
from hub.fleet.arrivals import AboutCame, AppsCame, Arrival, PresenceCame, ReadingsCame
from hub.fleet.boots import BootNews, KnownBoots
from hub.fleet.limits import Allowances
from hub.store import batches, boards
from hub.store.batches import NewBatch, StreamKey
from hub.store.boards import PresenceChange, Standing
from hub.store.clocks import gap_span
from hub.store.database import Tx
from hub.store.events import add_events
from hub.store.gaps import GapRow, add_gaps

WHY = {"outbox-full": "the board had no room to keep them", "lost": "the board does not have them any more"}


@dataclass(frozen=True, slots=True)
class Stored:
    """Readings that were new: all of the blocks but the first ``skip``.

    The blocks have the right times, unless ``pending``: then those are not known yet.
    """

    board: str
    at_ms: int
    blocks: Sequence[Block]
    skip: int
    pending: bool = False

    @property
    def count(self) -> int:
        """How many readings were new."""
        return self.blocks[-1].next - self.blocks[0].seq0 - self.skip


@dataclass(slots=True)
class Answer:
    """Where the streams stand that a board spoke of; ``stalled``: it left a hole."""

    streams: dict[str, int] = field(default_factory=dict)
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """A message that was not believed, and why."""

    board: str
    reason: str
    sentence: str


@dataclass(slots=True)
class Commit:
    """What one transaction did; ``believed`` are the boards that said something good, ``waiting``
    how many readings each still holds that are not settled; ``boots``: what it heard of boots."""

    at_ms: int
    boots: BootNews = field(default_factory=lambda: BootNews(KnownBoots()))
    believed: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    stored: list[Stored] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    presences: list[PresenceChange] = field(default_factory=list)
    abouts: dict[str, About] = field(default_factory=dict)
    apps: dict[str, Apps] = field(default_factory=dict)
    gaps: list[GapRow] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    messages: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    stalled: int = 0
    allowances: Allowances = field(default_factory=lambda: Allowances(Limits(), time.monotonic))
    _rows: list[NewBatch] = field(default_factory=list)
    _events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def returned(self) -> Set[str]:
        """The boards of which an earlier boot is back: two machines have one identity."""
        return self.boots.returned

    async def apply(
        self, tx: Tx, arrivals: Sequence[Arrival], sensors: Mapping[str, Collection[str]]
    ) -> None:
        """Store what is new of ``arrivals``; ``sensors`` of each board have a row already."""
        standings = await boards.standings(tx, {arrival.board for arrival in arrivals})
        settled = await batches.contiguous(tx, _streams(arrivals))
        await self.boots.look_up(tx, arrivals)
        before = dict(settled)
        for arrival in arrivals:
            self._consider(arrival, standings, settled)
        await self._write(tx, sensors)
        moved = {key: seq for key, seq in settled.items() if seq != before.get(key, 0)}
        await batches.move_streams(tx, moved, self.at_ms)

    # --- decide ------------------------------------------------------------------------------------

    def _consider(
        self, arrival: Arrival, standings: dict[str, Standing], settled: dict[StreamKey, int]
    ) -> None:
        standing = standings.get(arrival.board)
        try:
            if standing is None:
                raise Refused(f"board {arrival.board} has not joined this hub", code="unknown-board")
            if standing.revoked:
                raise Refused(f"board {arrival.board} is revoked", code="revoked")
            match arrival:
                case ReadingsCame():
                    self._readings(arrival, settled)
                case PresenceCame():
                    standings[arrival.board] = self._presence(arrival, standing)
                case AboutCame():
                    self.abouts[arrival.board] = arrival.about
                case AppsCame():
                    self.apps[arrival.board] = arrival.apps
        except Refused as error:
            self.dropped.append(Dropped(arrival.board, error.code, str(error)))
            return
        self.believed[arrival.board] = arrival.at_ms
        leaf = _LEAVES[type(arrival)]
        self.messages[leaf] = self.messages.get(leaf, 0) + 1

    def _readings(self, came: ReadingsCame, settled: dict[StreamKey, int]) -> None:
        """Store what is new of a batch, and move its streams on.  Raises Refused."""
        board, batch, certain, span = came.board, came.batch, True, (0, 0)
        if batch.blocks:
            self.allowances.check_news(board, int(not self.boots.knows(board, batch.blocks[0].boot)))
            batch, certain, span = self.boots.time(board, batch, came.at_ms)
        stands = {stream: settled.get((board, stream), 0) for stream in _named(batch)}
        decision = accept(stands, batch)
        begun = [stream for stream, seq in decision.contiguous.items() if seq and not stands[stream]]
        self.allowances.check_news(board, len(begun) + len(decision.gaps))
        settled.update({(board, stream): seq for stream, seq in decision.contiguous.items()})
        gaps = [_gap(board, hole, came.at_ms) for hole in decision.gaps]
        self.gaps += [self._timed(gap, batch) for gap in gaps] if certain else gaps
        self.waiting[board] = sum(
            max(held.next - 1 - settled.get((board, stream), 0), 0) for stream, held in batch.held.items()
        )
        answer = self.answers.setdefault(board, Answer())
        answer.streams |= decision.contiguous
        match decision.verdict:
            case "stored":
                stored = Stored(board, came.at_ms, batch.blocks, decision.skip, pending=not certain)
                self._rows.append(_row(came, stored, span))
                self.stored.append(stored)
            case "duplicate":
                self.duplicates += 1
            case "stalled":
                self.stalled += 1
                answer.stalled = True
            case "empty":
                pass

    def _presence(self, came: PresenceCame, standing: Standing) -> Standing:
        """A birth counts; a will counts when it is that of the session that was born last."""
        said = came.presence
        if said.state == "offline" and not came.retained and standing.nonce not in ("", said.nonce):
            return standing
        if (said.state, said.nonce) == (standing.presence, standing.nonce):
            return standing
        known = said.state == "offline" or self.boots.knows(came.board, said.boot)
        self.allowances.check_news(came.board, int(said.state != standing.presence) + int(not known))
        if said.state == "online":
            self.boots.born(came.board, said.boot, came.at_ms)
        self.presences.append(PresenceChange(came.board, said.state, said.nonce, came.at_ms))
        if said.state != standing.presence:
            self._note(came.board, said.state, f"went {said.state}", came.at_ms)
        return Standing(standing.revoked, said.state, said.nonce)

    def _timed(self, gap: GapRow, batch: Batch) -> GapRow:
        """A gap with its times as far as the reading behind it tells, if that is in this batch."""
        for block in batch.blocks:
            row = gap.seq0 + gap.count - block.seq0
            if gap.stream == block.stream and 0 <= row < len(block.sensor):
                boot_ms = self.boots.offset_of(gap.board, block.boot)
                next_ms = sum(block.wall_ms[: row + 1])
                from_ms, to_ms = gap_span(gap.from_ms, gap.to_ms, boot_ms=boot_ms, next_ms=next_ms)
                return replace(gap, from_ms=from_ms, to_ms=to_ms)
        return gap

    def _note(self, board: str, kind: str, text: str, at_ms: int) -> None:
        self._events.append({"at_ms": at_ms, "board": board, "actor": "board", "kind": kind, "text": text})

    # --- write -------------------------------------------------------------------------------------

    async def _write(self, tx: Tx, sensors: Mapping[str, Collection[str]]) -> None:
        await batches.add_sensors(tx, _new_sensors(self.stored, sensors))
        await self.boots.write(tx)
        for position, gap in enumerate(self.gaps):
            if gap.reason == "lost" and gap.from_ms is None and gap.seq0 > 1:
                since_ms = await batches.stream_end_ms(tx, gap.board, gap.stream)
                self.gaps[position] = replace(gap, from_ms=since_ms)
        for gap in self.gaps:
            self._note(gap.board, "gap", f"{gap.count} readings are gone: {WHY[gap.reason]}", gap.received_ms)
        await batches.add_batches(tx, self._rows)
        await add_gaps(tx, self.gaps)
        await boards.save_presence(tx, self.presences)
        await boards.save_abouts(tx, self.abouts, self.at_ms, most_sensors=self.allowances.limits.sensors)
        await add_events(tx, self._events)


_LEAVES: dict[type[Arrival], str] = {
    ReadingsCame: "readings",
    PresenceCame: "presence",
    AboutCame: "about",
    AppsCame: "apps",
}


def _named(batch: Batch) -> set[str]:
    """The streams that a batch speaks of."""
    return {*batch.held, *(gap.stream for gap in batch.gaps), *(block.stream for block in batch.blocks)}


def _streams(arrivals: Sequence[Arrival]) -> set[StreamKey]:
    return {
        (arrival.board, stream)
        for arrival in arrivals
        if isinstance(arrival, ReadingsCame)
        for stream in _named(arrival.batch)
    }


def _row(came: ReadingsCame, stored: Stored, span: tuple[int, int]) -> NewBatch:
    """A batch as it is stored: as it came, with the span of all its readings as far as that is known."""
    blocks = stored.blocks
    from_ms, to_ms = span
    return NewBatch(
        board=came.board,
        received_ms=came.at_ms,
        from_ms=from_ms,
        to_ms=to_ms,
        stream=blocks[0].stream,
        seq0=blocks[0].seq0,
        count=blocks[-1].next - blocks[0].seq0,
        skip=stored.skip,
        content_type=came.content_type,
        payload=came.payload,
        boot=blocks[0].boot,
        pending=int(stored.pending),
    )


def _gap(board: str, hole: Hole, at_ms: int) -> GapRow:
    return GapRow(
        board=board,
        stream=hole.stream,
        seq0=hole.seq0,
        count=hole.count,
        from_ms=hole.from_ms,
        to_ms=hole.to_ms,
        reason=hole.reason,
        received_ms=at_ms,
    )


def _new_sensors(stored: Sequence[Stored], known: Mapping[str, Collection[str]]) -> set[tuple[str, str]]:
    """The (board, sensor) that report for the first time since this hub knows."""
    return {
        (batch.board, sys.intern(name))
        for batch in stored
        for block in batch.blocks
        for name in block.sensors
        if name not in known.get(batch.board, ())
    }
