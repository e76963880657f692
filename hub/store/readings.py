"""Single readings: every one of a range, as it was sent, for a file or a table.

Reads the table `batches`, never writes it.  Ranges for charts are in `hub.store.ranges`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import tuple_

from agent.wire.decode import nearest
from agent.wire.errors import Refused
from agent.wire.messages import ClockState, Quality, readings_of
from hub.store.batches import BY_TIME, NewBatch, touching, with_offset
from hub.store.database import Store

SLICE = 64
"""Batches unpacked between two turns of the event loop."""


@dataclass(frozen=True, slots=True)
class RawReading:
    """One reading as its board sent it; ``value`` is None when the sensor could not tell.

    ``wall_ms`` is corrected as far as that is possible.  While ``uncertain``, it is what the board's
    clock said, which was not known to be right, as ``clock`` says.  A ``stale`` value was older.
    """

    sensor: str
    value: float | None
    wall_ms: int
    mono_ms: int
    boot: str
    clock: ClockState
    stream: str
    seq: int
    stale: bool = False
    uncertain: bool = False

    @property
    def quality(self) -> Quality:
        """How far the value can be relied on."""
        return "failed" if self.value is None else "stale" if self.stale else "good"


async def iter_raw(
    store: Store,
    board: str,
    sensor: str | None = None,
    *,
    since_ms: int,
    until_ms: int,
    limit: int | None = None,
) -> AsyncIterator[RawReading]:
    """Every reading with ``since_ms <= time < until_ms``, at most ``limit``, oldest batch first.

    Within a batch in the order of its seq.  Takes a connection for each slice of batches and
    gives it back before it yields, because whoever downloads may be slow; it takes a store
    for that reason, and not a transaction.
    """
    last: tuple[int, int, int] | None = None
    left = limit
    while left is None or left > 0:
        asked = with_offset().where(touching(board, since_ms, until_ms)).order_by(*BY_TIME).limit(SLICE)
        if last is not None:
            asked = asked.where(tuple_(*BY_TIME) > last)
        async with store.read() as tx:
            rows = (await tx.execute(asked)).all()
        for _, offset_ms, *values in rows:
            for reading in readings_in(NewBatch(*values), offset_ms, sensor):
                if since_ms <= reading.wall_ms < until_ms:
                    yield reading
                    if left is not None and (left := left - 1) == 0:
                        return
        if len(rows) < SLICE:
            return
        last = (rows[-1].to_ms, rows[-1].from_ms, rows[-1].id)


def readings_in(batch: NewBatch, offset_ms: int | None, sensor: str | None = None) -> Iterator[RawReading]:
    """The readings of a batch that count, of one sensor or all; ``offset_ms`` is that of its boot."""
    seq, first = batch.seq0, batch.seq0 + batch.skip
    for block, certain, *_ in batch.blocks(offset_ms):
        if sensor is None or sensor in block.sensors:
            for offset, reading in enumerate(readings_of(block)):
                if seq + offset >= first and sensor in (None, reading.sensor):
                    yield RawReading(
                        sensor=reading.sensor,
                        value=reading.value,
                        wall_ms=reading.wall_ms,
                        mono_ms=reading.mono_ms,
                        boot=block.boot,
                        clock=block.clock,
                        stream=block.stream,
                        seq=seq + offset,
                        stale=reading.stale,
                        uncertain=not certain,
                    )
        seq = block.next


def no_sensor(board: str, name: str, names: Iterable[str]) -> Refused:
    """The refusal of a sensor that ``board``, with sensors called ``names``, does not have."""
    near = nearest(name, names)
    return Refused(
        f"board {board} has no sensor {name[:64]!r}",
        code="not-found",
        hint=f"did you mean {near!r}?" if near else f"`lichen board show {board}` lists them",
    )
