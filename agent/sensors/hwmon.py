"""``kind = "hwmon"``: temperatures, fans, voltages, currents, power and humidity of monitoring chips.

Reads ``/sys/class/hwmon/hwmon*/<feature>_input`` in the units of the kernel's
``Documentation/hwmon/sysfs-interface.rst``.  The numbers of ``hwmon*`` change with the order
in which drivers load, so a chip is named by what it calls itself, and where several do so
alike also by its device (the last part of what ``hwmon*/device`` points at):

    [[sensors]]
    name = "disk-temperature"
    kind = "hwmon"
    chip = "nvme"
    feature = "temp1"
    device = "nvme0"            # only where there is more than one "nvme"

An alarm is a feature, too, and tells 0 or 1: ``in0_lcrit_alarm`` of the chip ``rpi_volt`` says that
a Raspberry Pi had too little voltage since it was last asked.
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

CLASS = "class/hwmon"
CHIP = "hwmon"
W1_CHIP = "w1_slave_temp"
"""The name of every 1-wire thermometer, which kind ``w1`` reads with more care."""


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "temp": Measure("Cel", "temperature", 1000),
        "fan": Measure("/min", "speed"),
        "in": Measure("V", "voltage", 1000),
        "curr": Measure("A", "current", 1000),
        "power": Measure("W", "power", 1_000_000),
        "humidity": Measure("%", "humidity", 1000),
    }
)
"""By the letters that a feature's name begins with."""

ALARM = Measure("", "alarm")
FAMILIES = "|".join(MEASURES)
ALARMS = "(_(lcrit|min|max|crit|emergency))?_alarm|_fault"
Feature = Annotated[
    str,
    Match(
        rf"({FAMILIES})[0-9]{{1,3}}({ALARMS})?",
        f"one of {', '.join(MEASURES)} and a number, or such a one's alarm, as in in0_lcrit_alarm",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SensorConfig):
    """Which feature of which chip."""

    chip: Annotated[str, Length(1, 64)]
    """The chip's name, as the file ``name`` says it."""
    feature: Feature
    """What of the chip is read: the part of its files' names before ``_input``, or the name of an alarm."""
    device: Annotated[str, Length(1, 128)] | None = None
    """The device behind the chip, where several chips share a name."""

    @property
    def is_alarm(self) -> bool:
        """Whether it tells 0 or 1 rather than a measure."""
        return "_" in self.feature

    @property
    def measure(self) -> Measure:
        return ALARM if self.is_alarm else MEASURES[self.feature.rstrip("0123456789")]

    def list_channels(self) -> tuple[Channel, ...]:
        return (Channel(self.name, self.measure.unit, self.measure.quantity),)


async def open(options: Options, env: Environment) -> Hwmon:
    """Ready at once: the chip is looked for at each read, so it may come and go."""
    return Hwmon(options, env)


def scan(sysfs: Path) -> list[dict[str, Any]]:
    """A table for each feature of each chip that tells a value now."""
    chips = {path: read_text(path / "name") for path in numbered(sysfs / CLASS, CHIP) if _is_chip(path)}
    shared = Counter(chips.values())
    return [
        {"name": slug(chip, label), "kind": "hwmon", "chip": chip, "feature": feature}
        | ({"device": _device(path)} if shared[chip] > 1 else {})
        for path, chip in chips.items()
        for feature, label in _features(path)
    ]


class Hwmon:
    """The opened sensor."""

    def __init__(self, options: Options, env: Environment) -> None:
        self._options = options
        self._run_blocking = env.run_blocking
        what = f"chip {options.chip!r}" + (f" of device {options.device!r}" if options.device else "")
        self._search = Search(env.sysfs / CLASS, CHIP, what, self._matches)

    async def read(self) -> Mapping[str, float | LichenError]:
        return {self._options.name: await self._run_blocking(self._value)}

    async def close(self) -> None:
        """Nothing is held open."""

    def _value(self) -> float:
        options = self._options
        file = options.feature if options.is_alarm else f"{options.feature}_input"
        return options.measure.value(read_number(self._search.directory() / file))

    def _matches(self, path: Path) -> bool:
        if not says(path / "name", self._options.chip):
            return False
        return self._options.device in (None, _device(path))


def _device(path: Path) -> str:
    """What a chip is part of, such as "nvme0" or "1-0048"; its own directory when it does not say."""
    return (path / "device").resolve().name if (path / "device").exists() else path.name


def _is_chip(path: Path) -> bool:
    """Whether the chip has a name, and is not a sensor of another kind in another dress."""
    try:
        name = read_text(path / "name")
    except Refused:
        return False
    return not _device(path).startswith("thermal_zone") and name != W1_CHIP


def _features(path: Path) -> Iterator[tuple[str, str]]:
    """Each readable feature with its label, by family and number; alarms of what tells nothing else."""
    for family in MEASURES:
        inputs = _named(path, rf"({family}([0-9]{{1,3}}))_input")
        alarms = _named(path, rf"({family}([0-9]{{1,3}})({ALARMS}))")
        measured = set(inputs)
        for feature in [*inputs, *(alarm for alarm in alarms if alarm.partition("_")[0] not in measured)]:
            try:
                read_number(path / (feature if "_" in feature else f"{feature}_input"))
            except Refused:
                continue
            yield feature, _label(path / f"{feature}_label") or feature


def _named(path: Path, pattern: str) -> list[str]:
    """The first groups of what the chip's files match, by their numbers, the second groups."""
    found = (re.fullmatch(pattern, file.name) for file in path.iterdir())
    return [name for _, name in sorted((int(match[2]), match[1]) for match in found if match)]


def _label(path: Path) -> str:
    try:
        return read_text(path)
    except Refused:
        return ""
