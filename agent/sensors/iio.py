"""``kind = "iio"``: what the kernel's industrial I/O drivers measure: air, light, motion, voltages.

Reads ``/sys/bus/iio/devices/iio:device*``, where BME280, SCD30, ADS1115, DHT22 and some hundred
others appear once their driver is loaded (``Documentation/ABI/testing/sysfs-bus-iio``).  The
numbers change with the order in which drivers load, so a chip is named by what it calls itself,
and where several do so alike also by its device, such as its address on the I2C bus:

    [[sensors]]
    name = "pressure"
    kind = "iio"
    chip = "bme280"
    channel = "pressure"
    device = "1-0076"           # only where there is more than one "bme280"

A channel that the driver processes (``in_<channel>_input``) is taken as it is, a raw one as
``(raw + offset) * scale``, both from the channel's own files or those that its type shares.
Units are those of the kernel, in steps that people use: °C, hPa, V, A, and ppm for gases.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from agent.sensors.driver import Channel, Environment, SensorConfig
from agent.sensors.sysfs import Measure, Search, numbered, read_number, read_text, says, slug
from agent.wire.decode import Length, Match
from agent.wire.errors import LichenError, Refused

FOLDER = "bus/iio/devices"
DEVICE = "iio:device"

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        # SPEC sysfs-bus-iio: "Units after application of scale and offset are ..."
        "accel": Measure("m/s2", "acceleration"),
        "activity": Measure("%", "activity"),
        "angl": Measure("rad", "angle"),
        "anglvel": Measure("rad/s", "angular velocity"),
        "capacitance": Measure("nF", "capacitance"),
        "concentration": Measure("%", "concentration"),
        "count": Measure("{count}", "count"),
        "current": Measure("A", "current", steps=1000),  # milliamperes
        "distance": Measure("m", "distance"),
        "electricalconductivity": Measure("S/m", "conductivity"),
        "energy": Measure("J", "energy"),
        "gravity": Measure("m/s2", "acceleration"),
        "humidityrelative": Measure("%", "humidity", steps=1000),  # milli percent
        "illuminance": Measure("lx", "illuminance"),
        "incli": Measure("deg", "inclination"),
        "intensity": Measure("", "intensity"),
        "magn": Measure("G", "magnetic field"),
        "massconcentration": Measure("ug/m3", "concentration"),
        "ph": Measure("[pH]", "acidity"),
        "phase": Measure("rad", "phase"),
        "positionrelative": Measure("%", "position", steps=1000),  # milli percent
        "power": Measure("W", "power", steps=1000),  # milliwatts
        "pressure": Measure("hPa", "pressure", times=10),  # kilopascals
        "proximity": Measure("", "proximity"),  # metres in theory, of no unit with most chips
        "resistance": Measure("Ohm", "resistance"),
        "rot": Measure("deg", "rotation"),
        "steps": Measure("{count}", "count"),
        "temp": Measure("Cel", "temperature", steps=1000),  # millidegrees Celsius
        "uvindex": Measure("", "UV index"),
        "velocity": Measure("m/s", "speed"),
        "voltage": Measure("V", "voltage", steps=1000),  # millivolts
    }
)
"""By the type that a channel's name begins with."""
GASES = frozenset({"co2", "ethanol", "h2", "voc"})
GAS = Measure("[ppm]", "concentration", times=10_000)
"""Percent, of which a gas has few."""
OTHER = Measure("", "")

TYPE = re.compile(rf"({'|'.join(sorted(MEASURES, key=len, reverse=True))})(?=[0-9_-]|$)")
FILE = re.compile(r"in_(.+)_(input|raw)")
EXTREMES = re.compile(r"_(mean|peak|trough)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SensorConfig):
    """Which channel of which chip."""

    chip: Annotated[str, Length(1, 64)]
    """The chip's name, as the file ``name`` says it."""
    channel: Annotated[str, Match(r"[a-z][a-z0-9_-]{0,63}", "a channel, such as 'temp' or 'voltage0'")]
    """What of the chip is read: the part of its files' names between ``in_`` and ``_input`` or ``_raw``."""
    device: Annotated[str, Length(1, 128)] | None = None
    """The device behind the chip, where several chips share a name."""

    def list_channels(self) -> tuple[Channel, ...]:
        measure = measure_of(self.channel)
        return (Channel(self.name, measure.unit, measure.quantity),)


def measure_of(channel: str) -> Measure:
    """What a channel measures, by its name alone; without a unit when the type is unknown."""
    match = TYPE.match(channel)
    if match is None:
        return OTHER
    if match[1] == "concentration" and channel.rpartition("_")[2] in GASES:
        return GAS
    return MEASURES[match[1]]


async def open(options: Options, env: Environment) -> Iio:
    """Ready at once: the chip is looked for at each read, so it may come and go."""
    return Iio(options, env)


def scan(sysfs: Path) -> list[dict[str, Any]]:
    """A table for each channel of each chip that tells a value now."""
    chips = dict(_chips(sysfs / FOLDER))
    shared = Counter(chips.values())
    return [
        {"name": slug(_label(path) or chip, channel), "kind": "iio", "chip": chip, "channel": channel}
        | ({"device": _device(path)} if shared[chip] > 1 else {})
        for path, chip in chips.items()
        for channel in _channels(path)
    ]


class Iio:
    """The opened sensor."""

    def __init__(self, options: Options, env: Environment) -> None:
        self._options = options
        self._measure = measure_of(options.channel)
        self._run_blocking = env.run_blocking
        what = f"chip {options.chip!r}" + (f" of device {options.device!r}" if options.device else "")
        self._search = Search(env.sysfs / FOLDER, DEVICE, what, self._matches)

    async def read(self) -> Mapping[str, float | LichenError]:
        return {self._options.name: await self._run_blocking(self._value)}

    async def close(self) -> None:
        """Nothing is held open."""

    def _value(self) -> float:
        return self._measure.value(read_channel(self._search.directory(), self._options.channel))

    def _matches(self, path: Path) -> bool:
        if not says(path / "name", self._options.chip):
            return False
        return self._options.device in (None, _device(path))


def read_channel(chip: Path, channel: str) -> float:
    """A channel in the kernel's unit.  Raises Refused."""
    processed = chip / f"in_{channel}_input"
    if processed.exists():
        return read_number(processed)
    raw = read_number(chip / f"in_{channel}_raw")
    return (raw + _shared(chip, channel, "offset", 0.0)) * _shared(chip, channel, "scale", 1.0)


def _shared(chip: Path, channel: str, attribute: str, default: float) -> float:
    """A channel's scale or offset: its own, or one that it shares with others."""
    match = TYPE.match(channel)
    type_ = match[1] if match else channel
    unnumbered = re.sub(rf"{re.escape(type_)}[0-9]+", type_, channel)  # voltage0-voltage1: voltage-voltage
    for owner in dict.fromkeys((f"in_{channel}_", f"in_{unnumbered}_", f"in_{type_}_", "in_", "")):
        path = chip / f"{owner}{attribute}"
        if path.exists():
            return read_number(path)
    return default


def _chips(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in numbered(folder, DEVICE):
        try:
            yield path, read_text(path / "name")
        except Refused:
            continue


def _channels(path: Path) -> list[str]:
    """The channels that tell a value now, by name."""
    found = (FILE.fullmatch(file.name) for file in path.iterdir())
    channels = {match[1] for match in found if match and not EXTREMES.search(match[1])}
    return [channel for channel in sorted(channels) if _answers(path, channel)]


def _answers(path: Path, channel: str) -> bool:
    try:
        read_channel(path, channel)
    except Refused:
        return False
    return True


def _label(path: Path) -> str:
    """What the device tree calls this very chip, if anything."""
    try:
        return read_text(path / "label")
    except Refused:
        return ""


def _device(path: Path) -> str:
    """What the chip is, such as "1-0076": its address on its bus."""
    return path.resolve().parent.name
