"""Roll-ups: of each sensor the lowest, highest, sum and count of 15 minutes of wall time.

Owns how the table `rollups` is written; `hub.fleet.rollup` makes what is added here, and
`hub.store.readings` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, bindparam, case, select
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.database import upsert
from hub.store.schema import rollups, sensors


class Part(NamedTuple):
    """What some readings of one sensor add to the bucket that begins at ``bucket_ms``."""

    board: str
    sensor: str
    bucket_ms: int
    low: float
    high: float
    total: float
    readings: int


async def add_parts(tx: AsyncConnection, parts: Sequence[Part]) -> None:
    """Merge parts into the buckets.  Adding one twice counts it twice: the caller knows what it added."""
    if not parts:
        return
    statement = _merging(tx).compile(dialect=tx.dialect)
    # A fleet adds 100,000 of them at a time.  Core would make a dict of each and bind every
    # value by its type, which takes longer than SQLite does; these are plain numbers and names.
    order = [Part._fields.index(name.removeprefix("p_")) for name in statement.positiontup or ()]
    await tx.exec_driver_sql(str(statement), [tuple([part[at] for at in order]) for part in parts])


def _merging(tx: AsyncConnection) -> Insert:
    """The statement that merges one part; its parameters are called as the fields, with "p_"."""
    # The id of the sensor is found by the statement itself: a look-up in an index, and no
    # list of ids to keep in memory for a whole fleet.
    columns = {
        "bucket_ms": rollups.c.bucket_ms,
        "low": rollups.c.min,
        "high": rollups.c.max,
        "total": rollups.c.sum,
        "readings": rollups.c.count,
    }
    values = [bindparam(f"p_{field}", type_=column.type) for field, column in columns.items()]
    found = select(sensors.c.id, *values).where(
        sensors.c.board == bindparam("p_board"), sensors.c.name == bindparam("p_sensor")
    )
    adding = upsert(tx, rollups).from_select(["sensor", *(column.name for column in columns.values())], found)
    new = adding.excluded
    merged: dict[str, ColumnElement[float]] = {
        "min": case((new.min < rollups.c.min, new.min), else_=rollups.c.min),
        "max": case((new.max > rollups.c.max, new.max), else_=rollups.c.max),
        "sum": rollups.c.sum + new.sum,
        "count": rollups.c.count + new.count,
    }
    return adding.on_conflict_do_update(index_elements=["sensor", "bucket_ms"], set_=merged)
