"""Roll-ups: of each sensor the lowest, highest, sum and count of 15 minutes of wall time.

Owns how the table `rollups` is written; `hub.fleet.rollup` makes what is added here, and
`hub.store.readings` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, bindparam, case, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.database import upsert
from hub.store.schema import rollups, sensors


@dataclass(frozen=True, slots=True)
class Part:
    """What some readings of one sensor add to the bucket that begins at ``bucket_ms``."""

    board: str
    sensor: str
    bucket_ms: int
    min: float
    max: float
    sum: float
    count: int


async def add_parts(tx: AsyncConnection, parts: Sequence[Part]) -> None:
    """Merge parts into the buckets.  Adding a part twice counts it twice: the caller knows what it added."""
    if not parts:
        return
    # The id of the sensor is found by the statement itself: a look-up in an index, and no
    # list of ids to keep in memory for a whole fleet.
    columns = {column.name: bindparam(f"p_{column.name}", type_=column.type) for column in _VALUES}
    found = select(sensors.c.id, *columns.values()).where(
        sensors.c.board == bindparam("p_board"), sensors.c.name == bindparam("p_sensor")
    )
    adding = upsert(tx, rollups).from_select(["sensor", *columns], found)
    new = adding.excluded
    merged: dict[str, ColumnElement[float]] = {
        "min": case((new.min < rollups.c.min, new.min), else_=rollups.c.min),
        "max": case((new.max > rollups.c.max, new.max), else_=rollups.c.max),
        "sum": rollups.c.sum + new.sum,
        "count": rollups.c.count + new.count,
    }
    statement = adding.on_conflict_do_update(index_elements=["sensor", "bucket_ms"], set_=merged)
    await tx.execute(statement, [_parameters(part) for part in parts])


_VALUES = (rollups.c.bucket_ms, rollups.c.min, rollups.c.max, rollups.c.sum, rollups.c.count)


def _parameters(part: Part) -> dict[str, object]:
    return {f"p_{name}": getattr(part, name) for name in Part.__slots__}
