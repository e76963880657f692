"""A sensor's newest value as a page shows it: text, age, course of the last hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from agent.wire import words
from agent.wire.messages import About, Sensor
from hub.fleet.latest import BoardLatest
from hub.fleet.silence import MISSED
from hub.store.boards import SensorRow
from hub.store.ranges import Series
from hub.web.board import CAPACITY, label_of, measured_ms
from hub.web.state import is_stale

WIDTH, HEIGHT = 120, 24
"""The drawing area of a sparkline, as in its viewBox; a margin of 2 keeps the line inside."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One live value.  ``spark`` is the path of its sparkline, ``low`` and ``high`` what it spans.

    ``stale``: too old to be shown without its age.  ``error``: what is wrong with it, in words.
    """

    sensor: str
    label: str
    unit: str
    interval_ms: int
    value: float | None = None
    at_ms: int | None = None
    stale: bool = False
    error: str = ""
    spark: str = ""
    low: str = ""
    high: str = ""
    tags: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The value with its unit."""
        return words.value(self.value, self.unit)

    @property
    def percent(self) -> int:
        """The value as the length of a bar."""
        return round(self.value or 0)

    @property
    def number(self) -> str:
        """The value without its unit, when the unit is one word behind it; else all of it."""
        head, _, tail = self.text.partition(words.SPACE)
        return self.text if words.SPACE in tail else head

    @property
    def unit_text(self) -> str:
        """The unit, when it is one word behind the value."""
        _, _, tail = self.text.partition(words.SPACE)
        return "" if words.SPACE in tail else tail


def newest(
    known: BoardLatest, sensor: str, now_ms: int, *, label: str, unit: str, interval_ms: int = 0
) -> Shown:
    """What is known of a sensor now."""
    interval_ms = max(interval_ms, known.every_ms)
    value = known.values.get(sensor)
    if value is None:
        return Shown(sensor, label, unit, interval_ms)
    at_ms = measured_ms(value, known)
    return Shown(sensor, label, unit, interval_ms, value.value, at_ms, is_stale(at_ms, interval_ms, now_ms))


def shown_values(
    known: BoardLatest,
    sensors: Sequence[SensorRow],
    about: About | None,
    outline: Mapping[str, Sequence[tuple[int, float]]],
    hour: tuple[int, int],
) -> list[Shown]:
    """Every sensor of a board: the built-in ones first, as `CAPACITY` has them, then the others by name.

    ``hour`` is what ``outline`` spans; it ends now.
    """
    _, now_ms = hour
    errors = {sensor.name: _wrong(sensor) for sensor in about.sensors} if about else {}
    shown = []
    for sensor in sorted(sensors, key=place_of):
        course = outline.get(sensor.name, ())
        values = [value for _, value in course]
        shown.append(
            replace(
                newest(
                    known,
                    sensor.name,
                    now_ms,
                    label=label_of(sensor.name, sensor.kind),
                    unit=sensor.unit,
                    interval_ms=sensor.interval_ms,
                ),
                error=errors.get(sensor.name, ""),
                spark=spark(course, *hour, interval_ms=max(sensor.interval_ms, known.every_ms)),
                low=words.value(min(values, default=None), sensor.unit),
                high=words.value(max(values, default=None), sensor.unit),
                tags=tuple(words.labels(sensor.tags)),
            )
        )
    return shown


def _wrong(sensor: Sensor) -> str:
    if sensor.error or sensor.quality == "good":
        return sensor.error
    return "the sensor repeats an old value" if sensor.quality == "stale" else "the sensor does not answer"


def place_of(sensor: SensorRow) -> tuple[int, str]:
    """Where a sensor stands among the others: see `shown_values`."""
    order = list(CAPACITY.values())
    label = label_of(sensor.name, sensor.kind)
    return (order.index(label) if label in order else len(order), sensor.name)


@dataclass(frozen=True, slots=True)
class Summary:
    """A sensor over the range of the charts, in words."""

    sensor: str
    label: str
    unit: str
    last: str
    low: str
    mean: str
    high: str


def summary_of(sensor: SensorRow, series: Series) -> Summary:
    """Least, mean and most of a range; the mean weighs each point by its readings."""
    points = series.points
    count = sum(point.count for point in points)
    mean = sum(point.mean * (point.count / count) for point in points) if count else None
    return Summary(
        sensor=sensor.name,
        label=label_of(sensor.name, sensor.kind),
        unit=sensor.unit,
        last=words.value(points[-1].mean if points else None, sensor.unit),
        low=words.value(min((point.min for point in points), default=None), sensor.unit),
        mean=words.value(mean, sensor.unit),
        high=words.value(max((point.max for point in points), default=None), sensor.unit),
    )


def spark(course: Sequence[tuple[int, float]], from_ms: int, to_ms: int, *, interval_ms: int = 0) -> str:
    """(time, value) as an SVG path within WIDTH by HEIGHT; empty with fewer than two points.

    The line breaks where points are missing: where they are much further apart than elsewhere, and
    than ``interval_ms``, at which the sensor is read.

    >>> spark([(0, 1.0), (50, 3.0), (100, 2.0)], 0, 100)
    'M0 22L60 2L120 12'
    >>> spark([(0, 1.0), (10, 3.0), (20, 2.0), (90, 2.0), (100, 2.0)], 0, 100)
    'M0 22L12 2L24 12M108 12L120 12'
    """
    if len(course) < 2:
        return ""
    low, high = min(value for _, value in course), max(value for _, value in course)
    # What hardly changes is drawn as a line that hardly moves.
    spread = max(high - low, max(abs(high), abs(low)) * 0.04) or 1
    low -= (spread - (high - low)) / 2
    per_ms, per_unit = WIDTH / (to_ms - from_ms), (HEIGHT - 4) / spread
    times = [at_ms for at_ms, _ in course]
    steps = [after - before for before, after in pairwise(times)]
    limit = MISSED * max(sorted(steps)[len(steps) // 2], interval_ms)
    strokes = ["M", *("M" if step > limit else "L" for step in steps)]
    return "".join(
        f"{stroke}{round((at_ms - from_ms) * per_ms, 1):g}"
        f" {round(HEIGHT - 2 - (value - low) * per_unit, 1):g}"
        for stroke, (at_ms, value) in zip(strokes, course, strict=True)
    )
