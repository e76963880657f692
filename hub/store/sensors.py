"""Sensors as boards describe them: a row for each name, within what a board may have.

Owns what an `about` writes into the table `sensors`; `hub.store.boards` calls it and reads the table.
Names that come with readings are counted before (`hub.fleet.limits`) and added by ingest.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from agent.wire.messages import About, Sensor
from hub.store.database import upsert
from hub.store.schema import sensors


async def describe_sensors(tx: AsyncConnection, abouts: Mapping[str, About], most: int) -> None:
    """Keep what sensors of boards measure; a board that has ``most`` gets no row for another one."""
    rows = [
        {
            "board": board,
            "name": sensor.name,
            "kind": sensor.kind,
            "unit": sensor.unit,
            "quantity": sensor.quantity,
            "interval_ms": sensor.interval_ms,
            "tags": sensor.tags,
        }
        for board, described in (await _within(tx, abouts, most)).items()
        for sensor in described
    ]
    if rows:
        new = upsert(tx, sensors)
        newer = {name: new.excluded[name] for name in ("kind", "unit", "quantity", "interval_ms", "tags")}
        await tx.execute(new.on_conflict_do_update(index_elements=["board", "name"], set_=newer), rows)


async def _within(tx: AsyncConnection, abouts: Mapping[str, About], most: int) -> dict[str, list[Sensor]]:
    """The sensors of each `about` that have a row, or may have one."""
    known: dict[str, set[str]] = {board: set() for board in abouts}
    asked = select(sensors.c.board, sensors.c.name).where(sensors.c.board.in_(abouts))
    for board, name in await tx.execute(asked):
        known[board].add(name)
    described: dict[str, list[Sensor]] = {board: [] for board in abouts}
    for board, about in abouts.items():
        for sensor in about.sensors:
            if sensor.name in known[board] or len(known[board]) < most:
                known[board].add(sensor.name)
                described[board].append(sensor)
    return described
