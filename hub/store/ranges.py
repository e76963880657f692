"""Readings of a range, for a chart: at most so many points, fast whether it is an hour or a year.

Reads the tables `batches` and `rollups`, never writes them.  A batch holds every sensor of a board
for one report, packed as it came, so a single value costs the unpacking of its batch; that is why
long ranges are answered from the roll-ups.

Times are in ms, corrected as far as that is possible (`hub.store.clocks`); what is not certain is
in no roll-up, and where single readings serve it is marked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby, islice
from math import isfinite
from typing import Literal, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from agent.wire.errors import Refused
from hub.store.batches import BY_TIME, NewBatch, touching, with_offset
from hub.store.readings import no_sensor, readings_in
from hub.store.schema import batches, rollups, sensors

BUCKET_MS = 15 * 60_000
"""Width of a roll-up."""
RAW_BATCHES = 2000
"""A range that touches more batches, or more readings, than these is answered from roll-ups."""
RAW_READINGS = 60_000
SLICE = 64
"""Batches unpacked between two turns of the event loop."""

_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000
STEPS_MS = (
    *(n * _SECOND for n in (1, 2, 5, 10, 15, 30)),
    *(n * _MINUTE for n in (1, 2, 5, 15, 30)),
    *(n * _HOUR for n in (1, 2, 3, 6, 12)),
    *(n * _DAY for n in (1, 2, 7, 14, 28, 56, 112, 364)),
)
"""Steps that a person can name; those from 15 minutes on are made of whole roll-ups."""


@dataclass(frozen=True, slots=True)
class Point:
    """``count`` values from ``at_ms`` on: one reading, or a step of several.

    The times of ``uncertain`` of them are what a clock said that was not known to be right.
    """

    at_ms: int
    min: float
    mean: float
    max: float
    count: int
    uncertain: int = 0


class Single(NamedTuple):
    """One reading in a course."""

    at_ms: int
    value: float
    uncertain: bool


@dataclass(frozen=True, slots=True)
class Series:
    """What a chart draws.  ``step_ms`` is 0 when each point is one reading.

    ``since_ms`` is when the sensor first said something, to the quarter of an hour; None: not yet
    known, or too long ago.
    """

    points: list[Point]
    step_ms: int
    source: Literal["readings", "rollups"]
    since_ms: int | None = None


# --- ranges --------------------------------------------------------------------------------------


async def read_range(
    tx: AsyncConnection,
    board: str,
    sensor: str,
    from_ms: int,
    to_ms: int,
    points: int,
    *,
    most_batches: int = RAW_BATCHES,
) -> Series:
    """At most ``points`` points of one sensor with ``from_ms <= time < to_ms``, by time.

    Single readings where that is affordable (at most ``most_batches`` to unpack), merged into
    steps where there are too many; else roll-ups of 15 minutes, or merged into wider steps.
    Roll-ups lag up to a minute behind.  A step is aligned to its own length, so the first may
    begin before ``from_ms``.  Values that a sensor could not tell are left out.  Raises Refused:
    "not-found" for a sensor that the board never had, "invalid" for an empty range.
    """
    found = await read_ranges(tx, board, (sensor,), from_ms, to_ms, points, most_batches=most_batches)
    return found[sensor]


async def read_ranges(
    tx: AsyncConnection,
    board: str,
    names: Collection[str],
    from_ms: int,
    to_ms: int,
    points: int,
    *,
    most_batches: int = RAW_BATCHES,
) -> dict[str, Series]:
    """`read_range` of several sensors of a board, whose batches are unpacked once for all of them."""
    from_ms = max(from_ms, 0)
    if points < 1 or to_ms <= from_ms:
        raise Refused(f"no points fit into {points} steps from {from_ms} to {to_ms}")
    ids = {name: await _sensor_id(tx, board, name) for name in names}
    singles: dict[str, list[Single]] = {}
    if await _affordable(tx, board, from_ms, to_ms, most_batches):
        singles = await _singles(tx, board, ids, from_ms, to_ms)
    return {
        name: await _series(tx, id, singles.get(name), from_ms, to_ms, points) for name, id in ids.items()
    }


async def _series(
    tx: AsyncConnection,
    sensor_id: int,
    singles: list[Single] | None,
    from_ms: int,
    to_ms: int,
    points: int,
) -> Series:
    first = select(func.min(rollups.c.bucket_ms)).where(rollups.c.sensor == sensor_id)
    since_ms = (await tx.execute(first)).scalar()
    if singles is not None and await _complete(tx, sensor_id, from_ms, to_ms, singles):
        if len(singles) <= points:
            every = [Point(at_ms, v, v, v, 1, int(unsure)) for at_ms, v, unsure in singles]
            return Series(every, 0, "readings", since_ms)
        step_ms = choose_step(from_ms, to_ms, points)
        return Series(_merged(singles, step_ms), step_ms, "readings", since_ms)
    step_ms = choose_step(from_ms, to_ms, points, low_ms=BUCKET_MS)
    return Series(await _rolled(tx, sensor_id, from_ms, to_ms, step_ms), step_ms, "rollups", since_ms)


async def read_outline(
    tx: AsyncConnection, board: str, from_ms: int, to_ms: int, points: int
) -> dict[str, list[tuple[int, float]]]:
    """The rough course of every sensor, (time, value) by time: of ``points`` batches its last value in each.

    What it costs depends on ``points`` alone: batches between the chosen ones are not unpacked.
    """
    asked = select(batches.c.id).where(touching(board, from_ms, to_ms)).order_by(*BY_TIME)
    ids = list((await tx.execute(asked)).scalars())
    chosen = ids[:: -max(-(-len(ids) // points), 1)]
    found: dict[str, list[tuple[int, float]]] = {}
    for _, offset_ms, *values in await tx.execute(with_offset().where(batches.c.id.in_(chosen))):
        last: dict[str, tuple[int, float]] = {}
        for reading in readings_in(NewBatch(*values), offset_ms):
            if reading.value is not None and from_ms <= reading.wall_ms < to_ms:
                last[reading.sensor] = (reading.wall_ms, reading.value)
        for sensor, point in last.items():
            found.setdefault(sensor, []).append(point)
    return {sensor: sorted(course) for sensor, course in found.items()}


def choose_step(from_ms: int, to_ms: int, points: int, *, low_ms: int = 0) -> int:
    """The smallest step, not under ``low_ms``, of which at most ``points`` touch the range (from 0 on).

    >>> choose_step(0, 3_600_000, 60), choose_step(1, 3_600_001, 60)
    (60000, 120000)
    """

    def fits(step_ms: int) -> bool:
        return (to_ms - 1) // step_ms - from_ms // step_ms < points

    for step_ms in STEPS_MS:
        if step_ms >= low_ms and fits(step_ms):
            return step_ms
    step_ms = STEPS_MS[-1]
    while not fits(step_ms):  # few points for many years; both ends are positive, so this ends
        step_ms *= 2
    return step_ms


# --- how a range is answered ---------------------------------------------------------------------


async def _sensor_id(tx: AsyncConnection, board: str, name: str) -> int:
    asked = select(sensors.c.id).where(sensors.c.board == board, sensors.c.name == name)
    found = (await tx.execute(asked)).scalar()
    if found is None:
        names = (await tx.execute(select(sensors.c.name).where(sensors.c.board == board))).scalars()
        raise no_sensor(board, name, names)
    return int(found)


async def _affordable(tx: AsyncConnection, board: str, from_ms: int, to_ms: int, most: int) -> bool:
    some = select(batches.c.count).where(touching(board, from_ms, to_ms)).limit(most + 1).subquery()
    asked = select(func.count(), func.coalesce(func.sum(some.c.count), 0)).select_from(some)
    number, readings = (await tx.execute(asked)).one()
    return bool(number <= most and readings <= RAW_READINGS)


async def _singles(
    tx: AsyncConnection, board: str, names: Collection[str], from_ms: int, to_ms: int
) -> dict[str, list[Single]]:
    """The readings of each sensor, by time, unpacked in slices to give the loop its turns."""
    found: dict[str, list[Single]] = {name: [] for name in names}
    asked = select(batches.c.id).where(touching(board, from_ms, to_ms)).order_by(*BY_TIME)
    ids = list((await tx.execute(asked)).scalars())
    for start in range(0, len(ids), SLICE):
        rows = await tx.execute(with_offset().where(batches.c.id.in_(ids[start : start + SLICE])))
        for _, offset_ms, *values in rows:
            for name, single in _values(NewBatch(*values), offset_ms, found):
                if from_ms <= single.at_ms < to_ms:
                    found[name].append(single)
    for course in found.values():
        course.sort()
    return found


def _values(batch: NewBatch, offset_ms: int | None, names: Collection[str]) -> Iterator[tuple[str, Single]]:
    """The values of some sensors in a batch; `readings_in` without what a chart does not draw."""
    skip = batch.skip
    for block, certain, *_ in batch.blocks(offset_ms):
        wanted = {index: name for index, name in enumerate(block.sensors) if name in names}
        if wanted:
            columns = zip(block.sensor, accumulate(block.wall_ms), block.value, strict=True)
            for index, at_ms, value in islice(columns, max(skip, 0), None):
                if index in wanted and value is not None:
                    yield wanted[index], Single(at_ms, value, not certain)
        skip -= len(block.sensor)


async def _complete(
    tx: AsyncConnection, sensor_id: int, from_ms: int, to_ms: int, singles: list[Single]
) -> bool:
    """False when roll-ups remember more than the batches do: their oldest have been dropped."""
    asked = select(func.min(rollups.c.bucket_ms)).where(
        rollups.c.sensor == sensor_id, rollups.c.bucket_ms >= from_ms, rollups.c.bucket_ms < to_ms
    )
    oldest = (await tx.execute(asked)).scalar()
    return oldest is None or (bool(singles) and singles[0].at_ms < oldest + BUCKET_MS)


def _merged(singles: list[Single], step_ms: int) -> list[Point]:
    points = []
    for step, group in groupby(singles, key=lambda single: single.at_ms // step_ms):
        some = list(group)
        values = [single.value for single in some]
        unsure = sum(single.uncertain for single in some)
        points.append(_point(step * step_ms, min(values), sum(values), max(values), len(values), unsure))
    return points


async def _rolled(tx: AsyncConnection, sensor_id: int, from_ms: int, to_ms: int, step_ms: int) -> list[Point]:
    """Roll-ups merged into steps, which are whole multiples of them, by the database."""
    at_ms = rollups.c.bucket_ms - rollups.c.bucket_ms % step_ms
    count = func.sum(rollups.c.count)
    asked = (
        select(at_ms, func.min(rollups.c.min), func.sum(rollups.c.sum), func.max(rollups.c.max), count)
        .where(
            rollups.c.sensor == sensor_id,
            rollups.c.bucket_ms >= from_ms - from_ms % step_ms,
            rollups.c.bucket_ms < to_ms,
        )
        .group_by(at_ms)
        .order_by(at_ms)
    )
    return [_point(*row) for row in await tx.execute(asked)]


def _point(at_ms: int, low: float, total: float | None, high: float, count: int, uncertain: int = 0) -> Point:
    """A point with its mean, which stays between low and high where a sum of huge values does not."""
    mean = total / count if total is not None and isfinite(total) else (low / 2 + high / 2)
    return Point(at_ms, low, min(max(mean, low), high), high, count, uncertain)
