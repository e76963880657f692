"""Readings, asked for: a range for a chart, the single values for a file, the gaps between.

Reads the tables `batches`, `rollups` and `gaps`, never writes them.  A batch holds every
sensor of a board for one report, packed as it came, so a single value costs the unpacking of
its batch; that is why long ranges are answered from the roll-ups.

Times are the board's wall clock in ms.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby, islice
from math import isfinite
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, and_, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from agent.wire.decode import nearest
from agent.wire.envelope import unpack
from agent.wire.errors import Refused
from agent.wire.messages import Block, ClockState, read_batch, readings_of
from hub.store.database import Store
from hub.store.schema import batches, gaps, rollups, sensors

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
    """``count`` values from ``at_ms`` on: one reading, or a step of several."""

    at_ms: int
    min: float
    mean: float
    max: float
    count: int


@dataclass(frozen=True, slots=True)
class Series:
    """What a chart draws.  ``step_ms`` is 0 when each point is one reading."""

    points: list[Point]
    step_ms: int
    source: Literal["readings", "rollups"]


@dataclass(frozen=True, slots=True)
class RawReading:
    """One reading as its board sent it; ``value`` is None when the sensor could not tell."""

    sensor: str
    value: float | None
    wall_ms: int
    mono_ms: int
    boot: str
    clock: ClockState
    stream: str
    seq: int


@dataclass(frozen=True, slots=True)
class GapRow:
    """Readings that nobody will see again, and why; a bound of the time is None when unknown."""

    board: str
    stream: str
    seq0: int
    count: int
    from_ms: int | None
    to_ms: int | None
    reason: str
    received_ms: int


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
    singles: dict[str, list[tuple[int, float]]] = {}
    if await _affordable(tx, board, from_ms, to_ms, most_batches):
        singles = await _singles(tx, board, ids, from_ms, to_ms)
    return {
        name: await _series(tx, id, singles.get(name), from_ms, to_ms, points) for name, id in ids.items()
    }


async def _series(
    tx: AsyncConnection,
    sensor_id: int,
    singles: list[tuple[int, float]] | None,
    from_ms: int,
    to_ms: int,
    points: int,
) -> Series:
    if singles is not None and await _complete(tx, sensor_id, from_ms, to_ms, singles):
        if len(singles) <= points:
            return Series([Point(at_ms, v, v, v, 1) for at_ms, v in singles], 0, "readings")
        step_ms = choose_step(from_ms, to_ms, points)
        return Series(_merged(singles, step_ms), step_ms, "readings")
    step_ms = choose_step(from_ms, to_ms, points, low_ms=BUCKET_MS)
    return Series(await _rolled(tx, sensor_id, from_ms, to_ms, step_ms), step_ms, "rollups")


async def read_outline(
    tx: AsyncConnection, board: str, from_ms: int, to_ms: int, points: int
) -> dict[str, list[tuple[int, float]]]:
    """The rough course of every sensor, (time, value) by time: of ``points`` batches its last value in each.

    What it costs depends on ``points`` alone: batches between the chosen ones are not unpacked.
    """
    asked = select(batches.c.id).where(_touching(board, from_ms, to_ms)).order_by(*_BY_TIME)
    ids = list((await tx.execute(asked)).scalars())
    chosen = ids[:: -max(-(-len(ids) // points), 1)]
    found: dict[str, list[tuple[int, float]]] = {}
    for row in await tx.execute(select(batches).where(batches.c.id.in_(chosen))):
        last: dict[str, tuple[int, float]] = {}
        for reading in _readings(row, None):
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


async def list_gaps(tx: AsyncConnection, board: str, from_ms: int, to_ms: int) -> list[GapRow]:
    """The gaps of a board that touch the range, by time; one of unknown time counts as of its receipt."""
    begin = func.coalesce(gaps.c.from_ms, gaps.c.to_ms, gaps.c.received_ms)
    end = func.coalesce(gaps.c.to_ms, gaps.c.received_ms)
    columns = [gaps.c[name] for name in GapRow.__slots__]
    asked = select(*columns).where(gaps.c.board == board, begin < to_ms, end >= from_ms)
    return [GapRow(*row) for row in await tx.execute(asked.order_by(begin, gaps.c.id))]


# --- single readings -----------------------------------------------------------------------------


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
        asked = select(batches).where(_touching(board, since_ms, until_ms)).order_by(*_BY_TIME).limit(SLICE)
        if last is not None:
            asked = asked.where(tuple_(*_BY_TIME) > last)
        async with store.read() as tx:
            rows = (await tx.execute(asked)).all()
        for row in rows:
            for reading in _readings(row, sensor):
                if since_ms <= reading.wall_ms < until_ms:
                    yield reading
                    if left is not None and (left := left - 1) == 0:
                        return
        if len(rows) < SLICE:
            return
        last = (rows[-1].to_ms, rows[-1].from_ms, rows[-1].id)


_BY_TIME = (batches.c.to_ms, batches.c.from_ms, batches.c.id)


def _touching(board: str, from_ms: int, to_ms: int) -> ColumnElement[bool]:
    return and_(batches.c.board == board, batches.c.to_ms >= from_ms, batches.c.from_ms < to_ms)


def _readings(row: Row[Any], sensor: str | None) -> Iterator[RawReading]:
    """The readings of a row that count, of one sensor or all."""
    seq, first = row.seq0, row.seq0 + row.skip
    for block in blocks_of(row.payload, row.content_type):
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
                    )
        seq = block.next


def blocks_of(payload: bytes, content_type: str) -> tuple[Block, ...]:
    """The blocks of a stored payload."""
    return read_batch(unpack(payload, content_type)).blocks


def no_sensor(board: str, name: str, names: Iterable[str]) -> Refused:
    """The refusal of a sensor that ``board``, with sensors called ``names``, does not have."""
    near = nearest(name, names)
    return Refused(
        f"board {board} has no sensor {name[:64]!r}",
        code="not-found",
        hint=f"did you mean {near!r}?" if near else f"lichen board show {board} lists them",
    )


# --- how a range is answered ---------------------------------------------------------------------


async def _sensor_id(tx: AsyncConnection, board: str, name: str) -> int:
    asked = select(sensors.c.id).where(sensors.c.board == board, sensors.c.name == name)
    found = (await tx.execute(asked)).scalar()
    if found is None:
        names = (await tx.execute(select(sensors.c.name).where(sensors.c.board == board))).scalars()
        raise no_sensor(board, name, names)
    return int(found)


async def _affordable(tx: AsyncConnection, board: str, from_ms: int, to_ms: int, most: int) -> bool:
    some = select(batches.c.count).where(_touching(board, from_ms, to_ms)).limit(most + 1).subquery()
    asked = select(func.count(), func.coalesce(func.sum(some.c.count), 0)).select_from(some)
    number, readings = (await tx.execute(asked)).one()
    return bool(number <= most and readings <= RAW_READINGS)


async def _singles(
    tx: AsyncConnection, board: str, names: Collection[str], from_ms: int, to_ms: int
) -> dict[str, list[tuple[int, float]]]:
    """(time, value) of each sensor, by time, unpacked in slices to give the loop its turns."""
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    asked = select(batches.c.id).where(_touching(board, from_ms, to_ms)).order_by(*_BY_TIME)
    ids = list((await tx.execute(asked)).scalars())
    for start in range(0, len(ids), SLICE):
        rows = await tx.execute(select(batches).where(batches.c.id.in_(ids[start : start + SLICE])))
        for row in rows:
            for name, at_ms, value in _values(row, found):
                if value is not None and from_ms <= at_ms < to_ms:
                    found[name].append((at_ms, value))
    for course in found.values():
        course.sort()
    return found


def _values(row: Row[Any], names: Collection[str]) -> Iterator[tuple[str, int, float | None]]:
    """(sensor, time, value) of some sensors in a row; `_readings` without what a chart does not draw."""
    skip = row.skip
    for block in blocks_of(row.payload, row.content_type):
        wanted = {index: name for index, name in enumerate(block.sensors) if name in names}
        if wanted:
            columns = zip(block.sensor, accumulate(block.wall_ms), block.value, strict=True)
            for index, at_ms, value in islice(columns, max(skip, 0), None):
                if index in wanted:
                    yield wanted[index], at_ms, value
        skip -= len(block.sensor)


async def _complete(
    tx: AsyncConnection, sensor_id: int, from_ms: int, to_ms: int, singles: list[tuple[int, float]]
) -> bool:
    """False when roll-ups remember more than the batches do: their oldest have been dropped."""
    asked = select(func.min(rollups.c.bucket_ms)).where(
        rollups.c.sensor == sensor_id, rollups.c.bucket_ms >= from_ms, rollups.c.bucket_ms < to_ms
    )
    oldest = (await tx.execute(asked)).scalar()
    return oldest is None or (bool(singles) and singles[0][0] < oldest + BUCKET_MS)


def _merged(singles: list[tuple[int, float]], step_ms: int) -> list[Point]:
    points = []
    for step, group in groupby(singles, key=lambda single: single[0] // step_ms):
        values = [value for _, value in group]
        points.append(_point(step * step_ms, min(values), sum(values), max(values), len(values)))
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


def _point(at_ms: int, low: float, total: float | None, high: float, count: int) -> Point:
    """A point with its mean, which stays between low and high where a sum of huge values does not."""
    mean = total / count if total is not None and isfinite(total) else (low / 2 + high / 2)
    return Point(at_ms, low, min(max(mean, low), high), high, count)
