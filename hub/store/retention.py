"""What is dropped to make room: the oldest batches and roll-ups, and rows that nobody needs any more.

Owns how rows leave the database, a slice at a time; `hub.fleet.retention` decides when, and how
much.  What ingest has not folded yet, or still waits for its time, is never dropped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, bindparam, delete, exists, func, not_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.schema import batches, boots, events, gaps, rollups, sensors, streams


@dataclass(frozen=True, slots=True)
class Held:
    """A batch, as retention sees it; ``bytes`` of its payload, ``readings`` that counted."""

    id: int
    received_ms: int
    bytes: int
    readings: int


# --- batches ---------------------------------------------------------------------------------------


async def batch_ids(tx: AsyncConnection) -> tuple[int, int]:
    """The ids of the oldest and the newest batch; (0, 0) when there is none."""
    low, high = (await tx.execute(select(func.min(batches.c.id), func.max(batches.c.id)))).one()
    return low or 0, high or 0


async def payload_bytes(tx: AsyncConnection, first: int, last: int) -> int:
    """The bytes of all payloads with these ids."""
    asked = select(func.coalesce(func.sum(func.length(batches.c.payload)), 0))
    return int((await tx.execute(asked.where(batches.c.id.between(first, last)))).scalar_one())


async def oldest_batches(tx: AsyncConnection, up_to: int, limit: int) -> list[Held]:
    """The batches that came first and may be dropped, with ids to ``up_to``."""
    known = exists().where(
        boots.c.board == batches.c.board, boots.c.boot == batches.c.boot, boots.c.offset_ms.is_not(None)
    )
    asked = (
        select(
            batches.c.id,
            batches.c.received_ms,
            func.length(batches.c.payload),
            batches.c.count - batches.c.skip,
        )
        # What is about to get its time is still to be counted in the roll-ups.
        .where(batches.c.id <= up_to, or_(batches.c.pending == 0, not_(known)))
        .order_by(batches.c.id)
        .limit(limit)
    )
    return [Held(*row) for row in await tx.execute(asked)]


async def drop_batches(tx: AsyncConnection, ids: Sequence[int]) -> None:
    """Delete batches."""
    await tx.execute(delete(batches).where(batches.c.id.in_(ids)))


async def oldest_receipt(tx: AsyncConnection) -> int | None:
    """When the oldest batch came; None when there is none."""
    asked = select(batches.c.received_ms).order_by(batches.c.id).limit(1)
    return (await tx.execute(asked)).scalar()


# --- roll-ups --------------------------------------------------------------------------------------


SENSORS = 200
"""Sensors whose roll-ups are looked at in one slice."""


async def drop_rollups(
    tx: AsyncConnection, after: int, *, before_ms: int, most: int
) -> tuple[int, int | None]:
    """Drop at most ``most`` roll-ups from before a time, of the next sensors behind the id ``after``.

    Returns how many, and behind which sensor to go on: None when that was the last.
    """
    asked = select(sensors.c.id).where(sensors.c.id > after).order_by(sensors.c.id).limit(SENSORS)
    ids = list((await tx.execute(asked)).scalars())
    old = select(rollups.c.sensor, rollups.c.bucket_ms).where(
        rollups.c.sensor.in_(ids), rollups.c.bucket_ms < before_ms
    )
    found = [{"p_sensor": sensor, "p_bucket": at} for sensor, at in await tx.execute(old.limit(most))]
    if found:
        which = (rollups.c.sensor == bindparam("p_sensor"), rollups.c.bucket_ms == bindparam("p_bucket"))
        await tx.execute(delete(rollups).where(*which), found)
    if len(found) == most:
        return most, after
    return len(found), ids[-1] if len(ids) == SENSORS else None


# --- what is only history --------------------------------------------------------------------------


async def drop_events(tx: AsyncConnection, at: int, *, before_ms: int, most: int) -> tuple[int, int | None]:
    """Drop at most ``most`` of the oldest events from before a time.

    Returns how many, and ``at``, or None when that was all.
    """
    return await _drop_oldest(tx, events, events.c.at_ms, at, before_ms, most)


async def drop_gaps(tx: AsyncConnection, at: int, *, before_ms: int, most: int) -> tuple[int, int | None]:
    """Drop at most ``most`` of the gaps that were heard of first.  Returns as `drop_events`."""
    return await _drop_oldest(tx, gaps, gaps.c.received_ms, at, before_ms, most)


async def drop_streams(
    tx: AsyncConnection, after: tuple[str, str], *, before_ms: int, calm_ms: int, most: int
) -> tuple[int, tuple[str, str] | None]:
    """Drop streams that ended before a time and that no board can still hold; looks at ``most``.

    A board sends its oldest readings first.  So one whose other stream has moved, and that by
    ``calm_ms`` later than what was in flight could, has nothing left of this one.  Returns how many,
    and behind which to go on: None when that was all.
    """
    newer = streams.alias()
    moved_on = exists().where(newer.c.board == streams.c.board, newer.c.seen_ms > streams.c.seen_ms + calm_ms)
    key = (streams.c.board, streams.c.stream)
    asked = select(*key, and_(streams.c.seen_ms < before_ms, moved_on)).where(tuple_(*key) > after)
    rows = (await tx.execute(asked.order_by(*key).limit(most))).all()
    return await _drop_keyed(tx, streams, key, rows, most)


async def drop_boots(
    tx: AsyncConnection, after: tuple[str, str], *, before_ms: int, most: int
) -> tuple[int, tuple[str, str] | None]:
    """Drop boots that were heard of last before a time, but for the newest of each board.

    ``before_ms`` is such that no batch is stored that needs them.  Returns as `drop_streams`.
    """
    newer = boots.alias()
    outlived = exists().where(
        newer.c.board == boots.c.board, newer.c.born_ms > func.coalesce(boots.c.born_ms, 0)
    )
    key = (boots.c.board, boots.c.boot)
    asked = select(*key, and_(boots.c.heard_ms < before_ms, outlived)).where(tuple_(*key) > after)
    rows = (await tx.execute(asked.order_by(*key).limit(most))).all()
    return await _drop_keyed(tx, boots, key, rows, most)


async def _drop_oldest(
    tx: AsyncConnection, table: Table, at_ms: ColumnElement[int], at: int, before_ms: int, most: int
) -> tuple[int, int | None]:
    # By id, for that is the order in which they came; no index of times is needed.
    oldest = select(table.c.id, at_ms).order_by(table.c.id).limit(most)
    ids = [id for id, came_ms in await tx.execute(oldest) if came_ms < before_ms]
    if ids:
        await tx.execute(delete(table).where(table.c.id.in_(ids)))
    return len(ids), at if len(ids) == most else None


async def _drop_keyed(
    tx: AsyncConnection, table: Table, key: tuple[ColumnElement[str], ...], rows: Sequence[Any], most: int
) -> tuple[int, tuple[str, str] | None]:
    first, second = key
    gone = [{"p_first": row[0], "p_second": row[1]} for row in rows if row[2]]
    if gone:
        which = (first == bindparam("p_first"), second == bindparam("p_second"))
        await tx.execute(delete(table).where(*which), gone)
    return len(gone), (rows[-1][0], rows[-1][1]) if len(rows) == most else None
