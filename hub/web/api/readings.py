"""Readings in the API: points for a chart, and every single reading for a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from aiohttp import web

from agent.wire.decode import Length, Range
from agent.wire.errors import Refused
from agent.wire.messages import ClockState, Quality
from hub.store import boards, ranges, readings
from hub.store.gaps import list_gaps
from hub.store.readings import RawReading
from hub.web.api import table
from hub.web.api.route import Call
from hub.web.api.table import Cell, Table

HOUR_MS = 3_600_000
MOST_SENSORS = 16
MOST_RAW = 100_000
"""Readings in one JSON answer; CSV has no bound, as it is not held in memory."""
ROWS_AT_ONCE = 1000

Time = Annotated[int, Range(0, 2**53)]
Point = tuple[int, float, float, float, int, int]


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """Which points: from ``from_ms`` up to, but without, ``to_ms``."""

    sensor: Annotated[tuple[str, ...], Length(1, MOST_SENSORS)] = field(
        metadata={"says": f"A sensor; repeat it for up to {MOST_SENSORS}", "example": ["capacity.cpu"]}
    )
    from_ms: Time | None = field(default=None, metadata={"says": "Default: an hour before `to_ms`"})
    to_ms: Time | None = field(default=None, metadata={"says": "Default: now"})
    points: Annotated[int, Range(1, 2000)] = field(default=400, metadata={"says": "Most points per sensor"})


@dataclass(frozen=True, slots=True)
class SeriesOfSensor:
    """The points of one sensor: time, least, mean, most, how many readings each stands for, and of
    how many of those the time is uncertain, because no clock that was right tells it.

    ``step_ms`` is the width of a point, 0 when each is one reading; ``every_ms`` is how far
    apart readings are to be expected; ``since_ms`` when the sensor first said something, to the
    quarter of an hour, or null when that is not known.
    """

    sensor: str
    unit: str
    source: Literal["readings", "rollups"]
    step_ms: int
    every_ms: int
    since_ms: int | None
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class LostReadings:
    """Readings that will never come, and why; a time is null when nobody knows it."""

    count: int
    reason: str
    from_ms: int | None
    to_ms: int | None


@dataclass(frozen=True, slots=True)
class SeriesAnswer:
    """What a chart draws."""

    board: str
    from_ms: int
    to_ms: int
    series: tuple[SeriesOfSensor, ...]
    gaps: tuple[LostReadings, ...]


@dataclass(frozen=True, slots=True)
class RawQuery:
    """Which readings: from ``since_ms`` up to, but without, ``until_ms``."""

    sensor: str = field(default="", metadata={"says": "Only this sensor"})
    since_ms: Time = field(default=0, metadata={"says": "Default: the oldest"})
    until_ms: Time | None = field(default=None, metadata={"says": "Default: all there is"})
    limit: Annotated[int, Range(1, MOST_RAW)] = field(
        default=MOST_RAW, metadata={"says": "Most readings in a JSON answer; CSV has them all"}
    )


@dataclass(frozen=True, slots=True)
class RawRow:
    """One reading; ``value`` is null when the sensor could not tell.

    ``quality``: "good", "stale" (the sensor answered with an old value) or "failed".  ``at_ms`` is
    ``uncertain`` when it is what the board's clock said, which nobody knows to have been right;
    ``clock`` is how the board judged it.
    """

    at_ms: int
    sensor: str
    value: float | None
    unit: str
    quality: Quality
    clock: ClockState
    uncertain: bool


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """Readings, oldest batch first; ``more`` when the limit cut them off."""

    board: str
    readings: tuple[RawRow, ...]
    more: bool


async def read_series(call: Call, board: str, query: SeriesQuery) -> SeriesAnswer:
    """Read a range of up to 16 sensors, at most `points` points each.

    Single readings where there are few, else steps; long ranges come from the 15-minute roll-ups.
    """
    to_ms = call.parts.now_ms() if query.to_ms is None else query.to_ms
    from_ms = max(to_ms - HOUR_MS, 0) if query.from_ms is None else query.from_ms
    if from_ms >= to_ms:
        raise Refused(f"from_ms: {from_ms} is not before to_ms, {to_ms}")
    async with call.parts.store.read() as tx:
        row = await boards.get_board(tx, board)
        known = {sensor.name: sensor for sensor in await boards.list_sensors(tx, row.id)}
        found = await ranges.read_ranges(tx, row.id, query.sensor, from_ms, to_ms, query.points)
        gaps = await list_gaps(tx, row.id, from_ms, to_ms)
    every_ms = call.parts.latest.boards[row.id].every_ms if row.id in call.parts.latest.boards else 0
    return SeriesAnswer(
        board=row.id,
        from_ms=from_ms,
        to_ms=to_ms,
        series=tuple(
            SeriesOfSensor(
                sensor=name,
                unit=known[name].unit,
                source=series.source,
                step_ms=series.step_ms,
                every_ms=max(known[name].interval_ms, every_ms),
                since_ms=series.since_ms,
                points=tuple((p.at_ms, p.min, p.mean, p.max, p.count, p.uncertain) for p in series.points),
            )
            for name, series in found.items()
        ),
        gaps=tuple(LostReadings(gap.count, gap.reason, gap.from_ms, gap.to_ms) for gap in gaps),
    )


def table_of(answer: SeriesAnswer) -> Table:
    """The points of all sensors as CSV."""
    return Table(
        ("time", "sensor", "unit", "min", "mean", "max", "count", "uncertain"),
        (
            (table.time(at_ms), each.sensor, table.text(each.unit), low, mean, high, count, uncertain)
            for each in answer.series
            for at_ms, low, mean, high, count, uncertain in each.points
        ),
    )


async def read_raw(call: Call, board: str, query: RawQuery) -> RawAnswer | web.StreamResponse:
    """Read every single reading of a range, as JSON or, with `Accept: text/csv`, as CSV.

    CSV has the columns time (RFC 3339, UTC), sensor, value, unit, clock, quality, and uncertain,
    which is 1 when nobody knows that the time is right.
    """
    store = call.parts.store
    async with store.read() as tx:
        row = await boards.get_board(tx, board)
        units = {sensor.name: sensor.unit for sensor in await boards.list_sensors(tx, row.id)}
    if query.sensor and query.sensor not in units:
        raise readings.no_sensor(row.name, query.sensor, units)
    as_csv = table.is_wanted(call.request)
    found = readings.iter_raw(
        store,
        row.id,
        query.sensor or None,
        since_ms=query.since_ms,
        until_ms=2**53 if query.until_ms is None else query.until_ms,
        limit=None if as_csv else query.limit + 1,
    )
    if as_csv:
        return await _answer_csv(call.request, row.name, found, units)
    rows = [
        RawRow(
            at_ms=each.wall_ms,
            sensor=each.sensor,
            value=each.value,
            unit=units.get(each.sensor, ""),
            quality=each.quality,
            clock=each.clock,
            uncertain=each.uncertain,
        )
        async for each in found
    ]
    return RawAnswer(row.id, tuple(rows[: query.limit]), len(rows) > query.limit)


async def _answer_csv(
    request: web.Request, name: str, found: AsyncIterator[RawReading], units: dict[str, str]
) -> web.StreamResponse:
    """Stream the file; a download of a year must not be held in memory."""
    safe = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in name
    )
    response = web.StreamResponse(headers={"Content-Disposition": f'attachment; filename="{safe}.csv"'})
    response.content_type, response.charset = table.MEDIA, "utf-8"
    response.enable_compression()
    await response.prepare(request)
    rows: list[tuple[Cell, ...]] = [("time", "sensor", "value", "unit", "clock", "quality", "uncertain")]
    async for each in found:
        unit = table.text(units.get(each.sensor, ""))
        at = table.time(each.wall_ms)
        rows.append((at, each.sensor, each.value, unit, each.clock, each.quality, int(each.uncertain)))
        if len(rows) == ROWS_AT_ONCE:
            await response.write(table.lines(rows))
            rows.clear()
    await response.write(table.lines(rows))
    await response.write_eof()
    return response
