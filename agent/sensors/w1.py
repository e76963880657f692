"""``kind = "w1"``: DS18B20 and other thermometers on a 1-wire bus.

Reads ``/sys/bus/w1/devices/<device>`` (the kernel's ``Documentation/w1/slaves/w1_therm.rst``).
Families 10, 22, 28, 3b and 42 are thermometers: DS18S20, DS1822, DS18B20, DS1825 and MAX31850,
DS28EA00.  A thermometer is named by its number, which is printed into it:

    [[sensors]]
    name = "flow-temperature"
    kind = "w1"
    device = "28-0316a27983fd"

What the bus gets wrong is told as a failure, never as a temperature: a checksum that does not
hold, a short circuit (all zeros), and 85 °C or 127.9 °C from a thermometer that lost its power
before it had measured.

A reading takes 0.8 s, and the bus carries one at a time, so thermometers wait for each other.
``timeout_s`` is therefore 30 when it is not set, enough for thirty on one bus; ask more of them
less often.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from agent.sensors.driver import Channel, Environment, SensorConfig
from agent.sensors.sysfs import number, numbered, read_number, read_text
from agent.wire.decode import Match, Range
from agent.wire.errors import LichenError, Refused

FOLDER = "bus/w1/devices"
FAMILIES = ("10", "22", "28", "3b", "42")
DEVICE = rf"({'|'.join(FAMILIES)})-[0-9a-f]{{12}}"

READ_S = 10.0
"""How long one thermometer may hold the bus; the kernel tries again when a checksum does not hold."""
POWER_ON = 85.0
"""What a thermometer says that has not measured since it got power."""
NO_POWER = 127.9375
"""What it says when its power fails while it measures; it cannot be that hot."""
UNMEASURED = 0x0C
"""What stands in the seventh byte then, and seldom otherwise (w1_therm.rst, "features")."""
NEAR = 5.0
"""Without the bytes: 85 °C is believed when the value before was this close."""

ANSWER = re.compile(
    r"(?P<bytes>(?:[0-9a-f]{2} ){9}): crc=[0-9a-f]{2} (?P<verdict>YES|NO)\s.*\bt=(?P<milli>-?[0-9]{1,7})\s*",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SensorConfig):
    """Which thermometer."""

    device: Annotated[str, Match(DEVICE, "a thermometer's number, such as '28-0316a27983fd'")]
    """Its number: family and serial number, the name of its directory."""
    timeout_s: Annotated[float, Range(0.05, 600)] = 30.0
    """It includes the time that it waits for others on the bus."""

    @property
    def fastest_s(self) -> float:
        return 5.0  # measuring warms it

    def list_channels(self) -> tuple[Channel, ...]:
        return (Channel(self.name, "Cel", "temperature"),)


async def open(options: Options, env: Environment) -> Thermometer:
    """Ready at once: a thermometer may be plugged in later."""
    return Thermometer(options, env)


def scan(sysfs: Path) -> list[dict[str, Any]]:
    """A table for each thermometer on a bus, whether it answers or not: that takes a second each."""
    folder = sysfs / FOLDER
    found = sorted(path.name for path in folder.glob("*-*") if re.fullmatch(DEVICE, path.name))
    return [{"name": f"w1-{name}", "kind": "w1", "device": name} for name in found]


class Thermometer:
    """The opened sensor."""

    def __init__(self, options: Options, env: Environment, *, read_s: float = READ_S) -> None:
        self._name = options.name
        self._path = env.sysfs / FOLDER / options.device
        self._run_blocking = env.run_blocking
        self._bus = env.turns.of("w1")
        self._read_s = read_s
        self._before: float | None = None

    async def read(self) -> Mapping[str, float | LichenError]:
        # One thread at most waits for the bus, instead of one for each thermometer.
        async with self._bus:
            try:
                async with asyncio.timeout(self._read_s):
                    celsius, scratchpad = await self._run_blocking(self._look)
            except TimeoutError:
                reason = f"{self._path}: the bus did not answer within {self._read_s:g} s"
                raise Refused(reason, code="timeout") from None
        self._check(celsius, scratchpad)
        self._before = celsius
        return {self._name: celsius}

    async def close(self) -> None:
        """Nothing is held open."""

    def _look(self) -> tuple[float, bytes]:
        """The temperature and the nine bytes behind it, none where the kernel does not show them."""
        slave = self._path / "w1_slave"
        if slave.exists():
            return parse(read_text(slave), str(slave))
        for path in (self._path / "temperature", *_chips(self._path / "hwmon")):
            if path.exists():
                return read_number(path) / 1000, b""
        hint = "check the wiring, and that the bus is on: dtoverlay=w1-gpio on a Raspberry Pi"
        raise Refused(f"{self._path}: there is no such thermometer", code="not-found", hint=hint)

    def _check(self, celsius: float, scratchpad: bytes) -> None:
        """Refuse what a thermometer says that has not measured.  Raises Refused."""
        if abs(celsius - NO_POWER) > 0.001 and celsius != POWER_ON:
            return
        if scratchpad:
            is_measured = scratchpad[6] != UNMEASURED
        else:
            is_measured = (
                celsius == POWER_ON and self._before is not None and abs(self._before - celsius) < NEAR
            )
        if not is_measured:
            raise Refused(
                f"{self._path.name}: {celsius:g} °C is what it says when it has lost its power",
                code="implausible",
                hint="check its supply; a long line needs three wires and a 4.7 kOhm resistor",
            )


def parse(text: str, where: str) -> tuple[float, bytes]:
    """The temperature in ``w1_slave``, and the nine bytes that the thermometer sent.

    >>> parse("72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\\n72 01 4b 46 7f ff 0e 10 57 t=23125", "x")[0]
    23.125
    """
    match = ANSWER.fullmatch(f"{text}\n")
    if match is None:
        raise Refused(f"{where}: {text[:64]!r} is no temperature")
    scratchpad = bytes.fromhex(match["bytes"])
    if match["verdict"] == "NO":
        hint = "a long or loose wire; a 4.7 kOhm resistor between data and 3.3 V is needed"
        raise Refused(f"{where}: the checksum does not hold", code="corrupt", hint=hint)
    if not any(scratchpad):
        # The checksum of nothing is nothing, so the kernel finds it right.
        raise Refused(f"{where}: it sent only zeros: a short circuit on the bus", code="corrupt")
    return number(match["milli"], where) / 1000, scratchpad


def _chips(folder: Path) -> list[Path]:
    return [chip / "temp1_input" for chip in numbered(folder, "hwmon")]
