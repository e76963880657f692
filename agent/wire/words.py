"""Numbers, units, durations and ages as plain words.

Owns how a figure reads: on the hub's pages, on its command line, in what a board says of itself.
hub/web/static/words.js is its twin in the browser, and tests/vectors/words.json holds the two
against each other.  It never looks at a clock.

A unit is a UCUM code (https://ucum.org/ucum): "Cel", "%", "By", "By/s", "s".  Between a number
and its unit stands a no-break space.

>>> value(61.54, "Cel"), value(1_234_000_000, "By"), value(96.2, "%"), value(None, "%")
('61.5\\xa0°C', '1.23\\xa0GB', '96\\xa0%', '–')
>>> duration(11_520_000), age(840_000), every(60_000)
('3\\xa0h 12\\xa0min', '14\\xa0min ago', '1\\xa0min')
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

NONE = "–"
SPACE = "\u00a0"
UNITS = {
    "Cel": "°C",
    "[degF]": "°F",
    "K": "K",
    "1": "",
    "{count}": "",
    "Ohm": "Ω",
    "uV": "µV",
    "um": "µm",
    "ug/m3": "µg/m³",
    "[ppm]": "ppm",
    "deg": "°",
    "m/s2": "m/s²",
}
"""How a UCUM code is written where it is not written as itself."""
HUGE = 1e15
"""From here on decimals say nothing, and JavaScript would not write them either."""
PREFIXES = ("", "k", "M", "G", "T", "P")
SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1000, 60_000, 3_600_000, 86_400_000
LATEST_MS = 253_402_214_400_000
"""The last day of the year 9999: anywhere on earth a time that `datetime` can hold."""


def fixed(number: float, digits: int) -> str:
    """``number`` with exactly ``digits`` decimals; halves go away from zero, as in JavaScript."""
    from decimal import ROUND_HALF_UP, Decimal  # not in the memory of an agent that nobody asks

    if abs(number) >= HUGE:
        return f"{number:.2e}"
    text = str(Decimal(number).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))
    return text.removeprefix("-") if float(text) == 0 else text


def number(value: float) -> str:
    """Three significant digits for what is small, whole numbers for what is large."""
    size = abs(value)
    if value == int(value) and size < 100_000:
        return str(int(value))
    return fixed(value, 2 if size < 10 else 1 if size < 100 else 0)


def value(value: float | None, unit: str) -> str:
    """A value with its unit in words."""
    if value is None:
        return NONE
    if unit == "%":
        return _joined(fixed(value, 0 if abs(value) >= 10 or value == int(value) else 1), "%")
    if unit in ("By", "By/s"):
        return _scaled(value, unit.replace("By", "B"))
    if unit == "s":
        return duration(round(value * 1000))
    if unit == "Cel":
        return _joined(fixed(value, 1), "°C")
    return _joined(number(value), UNITS.get(unit, unit))


def _scaled(amount: float, unit: str) -> str:
    """Bytes in powers of 1000 with three significant digits."""
    size, prefix = abs(amount), 0
    while size >= 999.5 and prefix < len(PREFIXES) - 1:
        size, prefix = size / 1000, prefix + 1
    digits = 0 if prefix == 0 or size >= 99.95 else 1 if size >= 9.995 else 2
    return _joined(fixed(-size if amount < 0 else size, digits), PREFIXES[prefix] + unit)


def _joined(text: str, unit: str) -> str:
    return f"{text}{SPACE}{unit}" if unit else text


def duration(length_ms: int) -> str:
    """How long, in the one or two units that matter; below a minute in seconds."""
    length_ms = max(0, length_ms)
    if length_ms < MINUTE_MS:
        return f"{length_ms // SECOND_MS}{SPACE}s"
    if length_ms < HOUR_MS:
        return f"{length_ms // MINUTE_MS}{SPACE}min"
    if length_ms < DAY_MS:
        return _pair(length_ms, HOUR_MS, "h", MINUTE_MS, "min")
    # Nobody asks for the hours of what is two weeks old.
    return _pair(length_ms, DAY_MS, "d", HOUR_MS if length_ms < 14 * DAY_MS else DAY_MS, "h")


def _pair(length_ms: int, large_ms: int, large: str, small_ms: int, small: str) -> str:
    whole, rest = divmod(length_ms, large_ms)
    text = f"{whole}{SPACE}{large}"
    return f"{text} {rest // small_ms}{SPACE}{small}" if rest >= small_ms else text


def age(length_ms: int) -> str:
    """How long ago; "now" below a second."""
    return "now" if length_ms < SECOND_MS else f"{duration(length_ms)} ago"


def every(interval_ms: int) -> str:
    """An interval, exactly: "1 min", "90 s", "0.5 s"."""
    if interval_ms % SECOND_MS:
        return f"{number(interval_ms / 1000)}{SPACE}s"
    if interval_ms % MINUTE_MS:
        return f"{interval_ms // SECOND_MS}{SPACE}s"
    return duration(interval_ms)


def utc(at_ms: int) -> str:
    """A point in time for people without JavaScript: "2026-11-22 06:21 UTC"."""
    return _datetime(at_ms).strftime("%Y-%m-%d %H:%M UTC")


def iso(at_ms: int) -> str:
    """A point in time for the ``datetime`` attribute: RFC 3339 in UTC, to the second."""
    return _datetime(at_ms).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact(at_ms: int) -> str:
    """A point in time for a file: RFC 3339 in UTC, to the millisecond.

    >>> exact(1_700_000_000_250), exact(2**53)
    ('2023-11-14T22:13:20.250Z', '9999-12-31T00:00:00.000Z')
    """
    return _datetime(at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _datetime(at_ms: int) -> datetime:
    return datetime.fromtimestamp(believable(at_ms) / 1000, UTC)


def believable(at_ms: int) -> int:
    """A time that a calendar knows.  A board with a broken clock may claim any; it still has to be shown."""
    return min(max(at_ms, 0), LATEST_MS)


def plain(text: str) -> str:
    """The same words for a terminal, whose user types ordinary spaces to find them."""
    return text.replace(SPACE, " ")


def labels(pairs: Mapping[str, str]) -> list[str]:
    """Labels as they are typed, in order: ["floor=2", "spare"]."""
    return [f"{key}={text}" if text else key for key, text in sorted(pairs.items())]
