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
from types import MappingProxyType

NONE = "–"
SPACE = "\u00a0"
UNITS: Mapping[str, str] = MappingProxyType(
    {
        # counts and shares
        "": "", "1": "", "{count}": "", "%": "%", "[ppm]": "ppm", "[ppb]": "ppb", "dB": "dB", "[pH]": "pH",
        # temperature, pressure, air
        "Cel": "°C", "[degF]": "°F", "K": "K",
        "Pa": "Pa", "hPa": "hPa", "kPa": "kPa", "bar": "bar", "mbar": "mbar", "[psi]": "psi",
        "g/m3": "g/m³", "mg/m3": "mg/m³", "ug/m3": "µg/m³", "mg/L": "mg/L",
        # electricity
        "V": "V", "mV": "mV", "uV": "µV", "kV": "kV", "A": "A", "mA": "mA", "uA": "µA",
        "W": "W", "mW": "mW", "kW": "kW", "V.A": "VA", "W.h": "Wh", "kW.h": "kWh", "A.h": "Ah", "mA.h": "mAh",
        "Ohm": "Ω", "kOhm": "kΩ", "F": "F", "uF": "µF", "nF": "nF", "pF": "pF",
        "S/m": "S/m", "uS/cm": "µS/cm", "mS/cm": "mS/cm", "G": "G", "T": "T", "uT": "µT",
        # light and radiation
        "lx": "lx", "lm": "lm", "cd": "cd", "W/m2": "W/m²", "Bq": "Bq", "Bq/m3": "Bq/m³", "uSv/h": "µSv/h",
        # length, mass, volume, force, energy
        "m": "m", "km": "km", "cm": "cm", "mm": "mm", "um": "µm", "[in_i]": "in", "[ft_i]": "ft",
        "g": "g", "kg": "kg", "mg": "mg", "t": "t", "[lb_av]": "lb",
        "m3": "m³", "L": "L", "mL": "mL", "[gal_us]": "gal", "N": "N", "J": "J", "kJ": "kJ",
        # flow, movement, direction
        "m3/h": "m³/h", "m3/s": "m³/s", "L/h": "L/h", "L/min": "L/min", "L/s": "L/s",
        "m/s": "m/s", "km/h": "km/h", "mm/h": "mm/h", "[kn_i]": "kn", "[mi_i]/h": "mph", "m/s2": "m/s²",
        "deg": "°", "deg/s": "°/s", "rad": "rad", "rad/s": "rad/s",
        # time and rates
        "s": "s", "ms": "ms", "us": "µs", "min": "min", "h": "h", "d": "d",
        "Hz": "Hz", "kHz": "kHz", "MHz": "MHz", "/s": "/s", "/min": "/min", "/h": "/h",
        # data
        "By": "B", "By/s": "B/s", "bit": "bit", "bit/s": "bit/s",
    }
)  # fmt: skip
"""The units that a configuration may name, by their UCUM codes, and how each is written.  A value
from elsewhere may have another; then the code is shown as it is."""
_ALSO: Mapping[str, str] = MappingProxyType(
    {
        "c": "Cel", "celsius": "Cel", "degc": "Cel", "fahrenheit": "[degF]", "degf": "[degF]", "kelvin": "K",
        "percent": "%", "volt": "V", "ampere": "A", "amp": "A", "watt": "W", "ohms": "Ohm", "hertz": "Hz",
        "rpm": "/min", "lux": "lx", "bytes": "By", "kb": "By", "mb": "By", "gb": "By",
        "bps": "bit/s", "litre": "L", "liter": "L", "meter": "m", "metre": "m", "seconds": "s", "sec": "s",
        "gauss": "G", "degrees": "deg", "m^3": "m3", "m/s^2": "m/s2",
    }
)  # fmt: skip
"""What people call some of them, in small letters."""
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


def unit_meant(text: str) -> str:
    """The code of the unit that somebody probably meant by ``text``; empty when none is near.

    >>> unit_meant("°C"), unit_meant("rpm"), unit_meant("kwh"), unit_meant("celsius"), unit_meant("furlong")
    ('Cel', '/min', 'kW.h', 'Cel', '')
    """
    from agent.wire.decode import nearest  # only for an error

    # The first of two that differ only in capitals counts, and a code before what is written for another.
    spelled: dict[str, str] = {}
    for code in UNITS:
        spelled.setdefault(code.casefold(), code)
    for code, written in UNITS.items():
        spelled.setdefault(written.casefold(), code)
    spelled |= _ALSO
    del spelled[""]
    return spelled.get(text.casefold().strip()) or spelled.get(nearest(text.casefold(), spelled), "")


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
    """The same words for a terminal, whose user types ordinary spaces to find them.

    Nothing in them is an order to the terminal, wherever they come from.

    >>> plain("21 °C\\x1b[2J")
    '21 °C�[2J'
    """
    text = text.replace(SPACE, " ")
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def labels(pairs: Mapping[str, str]) -> list[str]:
    """Labels as they are typed, in order: ["floor=2", "spare"]."""
    return [f"{key}={text}" if text else key for key, text in sorted(pairs.items())]
