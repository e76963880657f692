"""``kind = "gpio"``: what is wired to the pins of a board: switches, pulses, distances, voltages.

    [[sensors]]
    name = "door"
    kind = "gpio"
    device = "button"           # or: input, line, motion, distance, cpu, mcp3008 and its family
    line = 17                   # the GPIO number on the header, or the name of a line

A button, a line sensor, a motion detector and any other ``input`` tell two or three of ``state``
(1 while active), ``count`` (how often it became active since the agent started) and ``rate``.  A
change of the state is read at once, besides the interval; one that was over before it could be read
is told, too.  What the devices begin with:

    device    pull    active    debounce_s    tells
    input     none    high      0             state, count, rate
    button    up      low       0.02          state, count
    line      none    low       0             state, count
    motion    down    high      0             state, count

``distance`` is an ultrasonic HC-SR04 with its ``trigger`` and ``echo``; it tells metres.  An MCP3001
to MCP3304 on an SPI bus tells the volts at one of its channels.  ``cpu`` is the processor's
temperature; ``kind = "thermal"`` tells the same for less memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from agent.sensors.driver import Channel, Driver, Environment, SensorConfig
from agent.wire.decode import Length, Match, Range
from agent.wire.errors import ConfigError, Refused

Measure = Literal["state", "count", "rate"]
Device = Literal[
    "input", "button", "line", "motion", "distance", "cpu", "mcp3001", "mcp3002", "mcp3004", "mcp3008",
    "mcp3201", "mcp3202", "mcp3204", "mcp3208", "mcp3301", "mcp3302", "mcp3304",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preset:
    """What an input begins with, before its configuration says otherwise."""

    pull: Literal["up", "down", "none"]
    active: Literal["high", "low"]
    debounce_s: float
    tells: tuple[Measure, ...]


INPUTS: Mapping[str, Preset] = MappingProxyType(
    {
        "input": Preset("none", "high", 0.0, ("state", "count", "rate")),
        "button": Preset("up", "low", 0.02, ("state", "count")),
        # An infrared line sensor lets its output fall over what is dark.
        "line": Preset("none", "low", 0.0, ("state", "count")),
        "motion": Preset("down", "high", 0.0, ("state", "count")),
    }
)
MCP_CHANNELS: Mapping[str, int] = MappingProxyType(
    {
        "mcp3001": 1, "mcp3201": 1, "mcp3301": 1, "mcp3002": 2, "mcp3202": 2, "mcp3004": 4, "mcp3204": 4,
        "mcp3302": 4, "mcp3008": 8, "mcp3208": 8, "mcp3304": 8,
    }
)  # fmt: skip
"""Each chip and its inputs; those with one measure the difference of two pins."""
_OF_INPUT = frozenset({"line", "chip", "pull", "active", "debounce_s", "tells", "per"})
_OF_DISTANCE = frozenset({"trigger", "echo", "chip"})
_OF_MCP = frozenset({"spi", "channel", "differential", "reference_v"})


@dataclass(frozen=True, slots=True)
class _Line(Match):
    """A mark for `decode`: a line by its number or by its name."""

    pattern: str = r"[!-~]([ -~]{0,30}[!-~])?"
    what: str = "the number or the name of a line, such as 17 or 'GPIO17'"

    def complaint(self, value: Any) -> str:
        if type(value) is int and 0 <= value < 1024:
            return ""
        return Match.complaint(self, value) if isinstance(value, str) else f"{value!r} is not {self.what}"


Line = Annotated[Any, _Line()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SensorConfig):
    """What is wired where."""

    device: Device
    """What is wired to the board."""
    line: Line = None
    """Of an input: its line."""
    chip: Annotated[str, Length(1, 128)] | None = None
    """The GPIO chip, by path, name or label. When it is not set: that of a Raspberry Pi's header, or the
    only one."""
    pull: Literal["up", "down", "none"] | None = None
    """Which resistor of the chip holds an open input."""
    active: Literal["high", "low"] | None = None
    """Which level of the line counts as 1."""
    debounce_s: Annotated[float, Range(0, 60)] | None = None
    """For how long a level must hold before it counts; 0 for every edge."""
    tells: Annotated[tuple[Measure, ...], Length(1, 3)] | None = None
    """Which values an input has; a single one bears the sensor's own name. Without ``state`` a change
    is not read at once, which is right for a flow meter."""
    per: Literal["s", "min"] | None = None
    """Whether ``rate`` counts per second (Hz) or per minute. When it is not set: per second."""
    trigger: Line = None
    """Of a distance sensor: the line of its trigger."""
    echo: Line = None
    """Of a distance sensor: the line of its echo."""
    spi: Annotated[str, Match(r"[0-9]{1,3}\.[0-9]{1,3}", "a bus and a device, such as '0.0'")] | None = None
    """Of an MCP3xxx: its bus and device, as in /dev/spidev0.0. When it is not set: 0.0."""
    channel: Annotated[int, Range(0, 7)] | None = None
    """Of an MCP3xxx: which of its inputs. When it is not set: 0."""
    differential: bool | None = None
    """Of an MCP3xxx: whether it is measured against the input beside it."""
    reference_v: Annotated[float, Range(0.1, 10)] | None = None
    """Of an MCP3xxx: the voltage at VREF, in volts. When it is not set: 3.3."""

    @property
    def preset(self) -> Preset:
        """How an input is wired and what it tells."""
        usual = INPUTS[self.device]
        return Preset(
            self.pull or usual.pull,
            self.active or usual.active,
            usual.debounce_s if self.debounce_s is None else self.debounce_s,
            self.tells or usual.tells,
        )

    @property
    def fastest_s(self) -> float:
        return 1.0 if self.device == "distance" else 0.0

    def list_channels(self) -> tuple[Channel, ...]:
        if self.device == "distance":
            return (Channel(self.name, "m", "distance"),)
        if self.device == "cpu":
            return (Channel(self.name, "Cel", "temperature"),)
        if self.device in MCP_CHANNELS:
            return (Channel(self.name, "V", "voltage"),)
        kinds = {
            "state": ("", "state"),
            "count": ("{count}", "count"),
            "rate": ("/min" if self.per == "min" else "Hz", "rate"),
        }
        tells = self.preset.tells
        return tuple(
            Channel(f"{self.name}.{measure}" if len(tells) > 1 else self.name, *kinds[measure])
            for measure in tells
        )

    def _keys(self) -> frozenset[str]:
        """The keys that belong to the device."""
        if self.device in INPUTS:
            return _OF_INPUT
        if self.device in MCP_CHANNELS:
            return _OF_MCP
        return _OF_DISTANCE if self.device == "distance" else frozenset()

    def check(self, where: str) -> None:
        known = (
            _OF_INPUT if self.device in INPUTS else _OF_DISTANCE if self.device == "distance" else frozenset()
        )
        known = _OF_MCP if self.device in MCP_CHANNELS else known
        for key in sorted((_OF_INPUT | _OF_DISTANCE | _OF_MCP) - known):
            if getattr(self, key) is not None:
                hint = f"its keys are {', '.join(sorted(known))}" if known else ""
                raise ConfigError(f"{where}.{key}: device = {self.device!r} has no such key", hint=hint)
        for key in sorted({"line", "trigger", "echo"} & known):
            if getattr(self, key) is None:
                raise ConfigError(f"{where}.{key}: missing", hint="the GPIO number on the header, such as 17")
        if self.device == "distance" and self.trigger == self.echo:
            raise ConfigError(f"{where}.echo: {self.echo!r} is the trigger, too; the sensor needs two lines")
        if self.tells and len(set(self.tells)) < len(self.tells):
            raise ConfigError(f"{where}.tells: each value once")
        if (self.channel or 0) >= (channels := MCP_CHANNELS.get(self.device, 1)):
            raise ConfigError(f"{where}.channel: {self.device} has {channels}, counted from 0")


async def open(options: Options, env: Environment) -> Driver:
    """Ready at once: lines are claimed at the first read, and again after each that failed."""
    try:
        # Imported here: who has no GPIO sensor does not pay for it.
        from agent.sensors.gpio.devices import opened
        from agent.sensors.gpio.pins import LineFactory
    except ImportError as error:
        hint = "pip install gpiozero gpiod, or the packages python3-gpiozero and python3-libgpiod, version 2"
        raise Refused(f"gpio: {error}", code="not-installed", hint=hint) from error
    return opened(options, env, lambda: LineFactory(f"lichen {options.name}", options.chip))


def scan(sysfs: Path) -> list[dict[str, Any]]:
    """Nothing: a line does not know what is wired to it.  ``gpioinfo`` lists those that are free."""
    return []
