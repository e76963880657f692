"""The shape of a sensor driver, and the table of the kinds there are.

Owns what every kind has in common: its configuration (`SensorConfig`, which each kind extends
with its own keys), its channels, and how it is opened and read.  `agent.config` checks
``[[sensors]]`` tables with `read_sensor`; `agent.sensors.probe` opens and reads.  Nothing
here touches hardware, and a kind's module is imported only when a sensor of that kind is.
A kind that is not in KINDS is looked for among the installed packages (`agent.sensors.foreign`).

A kind is a module with three names (see `Kind`).  `agent.sensors.thermal` is a short one:

    class Options(SensorConfig):        its keys beside those that all have
    async def open(options, env)        -> Driver
    def scan(sysfs)                     -> [table, ...] of what this machine offers

A sensor with one value is one channel of the sensor's own name; one with several names them
``<sensor>.<channel>``.  Which channels there are follows from the configuration alone, so that
they are known while the hardware is absent.

>>> sensor = read_sensor({"name": "board", "kind": "capacity", "interval_s": 30}, "sensors[0]")
>>> sensor.interval_s, sensor.list_channels()[0]
(30.0, Channel(name='board.cpu', unit='%', quantity='usage'))
>>> read_sensor({"name": "board", "kind": "capacitor"}, "sensors[0]")
Traceback (most recent call last):
agent.wire.errors.ConfigError: sensors[0].kind: 'capacitor' is not one of 'capacity', 'command', 'file', 'gpio', 'hwmon', 'iio', 'thermal', 'w1'; did you mean 'capacity'?
"""  # noqa: E501  an error is one line

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Protocol, TypeVar, cast

from agent.wire import words
from agent.wire.decode import Length, Match, Range, decode, nearest
from agent.wire.errors import ConfigError, LichenError
from agent.wire.messages import SensorName

T = TypeVar("T")

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "capacity": "agent.sensors.capacity",
        "command": "agent.sensors.command",
        "file": "agent.sensors.file",
        "gpio": "agent.sensors.gpio",
        "hwmon": "agent.sensors.hwmon",
        "iio": "agent.sensors.iio",
        "thermal": "agent.sensors.thermal",
        "w1": "agent.sensors.w1",
    }
)
"""Each kind and the module that drives it."""

MAX_NAME = 64
"""Characters of a channel's full name; the limit of `agent.wire.messages.SensorName`."""


class KnownUnit:
    """A mark for `decode`: a code of `agent.wire.words.UNITS`."""

    def complaint(self, value: str) -> str:
        """Why ``value`` does not fit; empty when it does."""
        if value in words.UNITS:
            return ""
        near = words.unit_meant(value)
        way_out = f"did you mean {near!r}?" if near else "units are UCUM codes, such as 'Cel', '%' or 'hPa'"
        return f"{value[:64]!r} is not a unit that is known here; {way_out}"


Unit = Annotated[str, KnownUnit()]
Quantity = Annotated[str, Length(0, 64)]
ChannelName = Annotated[str, Match(r"[a-z0-9_-]{1,32}", "lower-case letters, digits, '_' or '-', at most 32")]
TagName = Annotated[
    str, Match(r"[a-z0-9][a-z0-9_.-]{0,31}", "a name of a-z, 0-9, '_', '.' or '-', at most 32")
]


@dataclass(frozen=True, slots=True)
class Channel:
    """One source of values: its full name, its unit in UCUM ("Cel", "By") or "", and what it measures."""

    name: str
    unit: str = ""
    quantity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """The keys that say what a channel's numbers mean, which are believed, and which are kept."""

    unit: Unit | None = None
    """The unit of the result, a UCUM code: Cel, %, hPa, V. When it is not set: what the kind tells."""
    quantity: Quantity | None = None
    """What is measured, such as temperature. When it is not set: what the kind tells."""
    scale: float = 1.0
    """What the number that was read is multiplied by."""
    offset: float = 0.0
    """What is then added."""
    minimum: float | None = None
    """The lowest plausible result; what is below counts as a failure."""
    maximum: float | None = None
    """The highest plausible result; what is above counts as a failure."""
    deadband: Annotated[float, Range(0, 1e12)] | None = None
    """Keep a value only when it is further than this from the one that was kept last (0: when it
    is another one). When it is not set: each value is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorConfig(Conditioning):
    """The keys of a ``[[sensors]]`` table that every kind has."""

    name: SensorName
    """What the sensor is called on the hub; no two sensors of a board share one."""
    kind: str
    """Which kind of sensor it is."""
    interval_s: Annotated[float, Range(0.1, 86_400)] = 10.0
    """The time between two readings."""
    timeout_s: Annotated[float, Range(0.05, 600)] = 5.0
    """A read that takes longer counts as failed; the sensor is asked again at its next time."""
    heartbeat_s: Annotated[float, Range(1, 86_400)] = 900.0
    """With a deadband: after this long a value is kept even when it is the same."""
    tags: Annotated[dict[TagName, Annotated[str, Length(0, 64)]], Length(0, 16)] = field(default_factory=dict)
    """Words for the hub, such as { room = "cellar" }."""
    channels: Annotated[dict[ChannelName, Conditioning], Length(0, 64)] = field(default_factory=dict)
    """For a sensor with several values: unit, quantity, scale, offset, minimum, maximum and deadband
    of each, by its name."""

    @property
    def fastest_s(self) -> float:
        """While somebody watches it is asked more often than every ``interval_s``, but not than this."""
        return 0.0

    def list_channels(self) -> tuple[Channel, ...]:
        """What this sensor measures as the kind knows it, in a fixed order; at least one."""
        return (Channel(self.name),)

    def check(self, where: str) -> None:
        """Raise ConfigError, beginning with ``where``, for what no single key can tell."""

    def conditioning(self, channel: str) -> Conditioning:
        """The keys for one channel, by its full name."""
        if channel == self.name:
            return self
        return self.channels.get(channel.removeprefix(f"{self.name}."), UNCHANGED)


UNCHANGED = Conditioning()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unloadable(SensorConfig):
    """A sensor whose driver, a package of somebody else, cannot be used, and why.

    It stands in for the real configuration, so that the board goes on without this one sensor.
    """

    reason: str
    table: Mapping[str, Any]
    """What the file says of it, unchecked."""


@dataclass(frozen=True, slots=True)
class Stale:
    """A value that a sensor gave, although it is older than it should be: stored, but marked."""

    value: float


Answer = float | Stale | LichenError
"""What a channel says when it is asked: a value, an old one, or why there is none."""


class Driver(Protocol):
    """An opened sensor.  One task reads it; between two reads it holds no thread and no process."""

    async def read(self) -> Mapping[str, Answer]:
        """One answer per channel, by the channel's full name.

        A channel left out has nothing to tell yet (a rate needs two looks).  Raises LichenError
        when the sensor as a whole does not answer.  May be cancelled at any await, and must be
        readable afterwards.
        """
        ...

    async def close(self) -> None:
        """Give back what `open` took; harmless when called again."""
        ...


class RunBlocking(Protocol):
    """Run a function that may block beside the event loop (see `agent.sensors.blocking`)."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


class Turns:
    """A lock for each thing that stands only one sensor at a time, by its name.

    async with env.turns.of("w1_bus_master1"):
        ...
    """

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}

    def of(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


def ask_at_its_time() -> None:
    """What `Environment.wake` does where nobody waits for the sensor: nothing."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a driver is given of the world: where sysfs and the agent's state are, and a way to block.

    ``wake``: to be called on the event loop when something has happened that should be read now,
    such as an edge on a pin.  The sensor is then asked at once, besides its times; calls that come
    while it is being asked, or within a tenth of a second, are one.  ``turns``: locks for what
    several sensors share, such as a bus.
    """

    sysfs: Path
    state_dir: Path
    run_blocking: RunBlocking
    wake: Callable[[], None] = ask_at_its_time
    turns: Turns = field(default_factory=Turns)


class Kind(Protocol):
    """What the module of a kind provides."""

    Options: type[SensorConfig]

    async def open(self, options: Any, env: Environment, /) -> Driver:
        """Get ready to read.  Raises LichenError when the sensor is not there (yet)."""
        ...

    def scan(self, sysfs: Path, /) -> list[dict[str, Any]]:
        """A ``[[sensors]]`` table for each sensor of this kind that answers now.  May block."""
        ...


def load_kind(kind: str) -> Kind:
    """The module behind a kind.  Raises Refused when it is a package's and cannot be used."""
    if kind in KINDS:
        return cast("Kind", importlib.import_module(KINDS[kind]))
    from agent.sensors.foreign import load_kind as load_foreign  # only for kinds that are not built in

    return load_foreign(kind)


def read_sensor(table: Mapping[str, Any], where: str) -> SensorConfig:
    """Check one ``[[sensors]]`` table.  Raises ConfigError with the path of what is wrong."""
    kind = table.get("kind")
    if kind is None:
        raise ConfigError(f"{where}.kind: missing", hint=f"one of {', '.join(KINDS)}")
    if kind in KINDS:
        options = read_options(load_kind(kind), table, where)
    else:
        from agent.sensors.foreign import read_sensor as read_foreign  # only for kinds that are not built in

        options = read_foreign(table, where)
    for channel in options.list_channels():
        if len(channel.name) > MAX_NAME:
            raise ConfigError(f"{where}.name: its channel {channel.name!r} is over {MAX_NAME} characters")
    _check_conditioning(options, where)
    return options


def read_options(kind: Kind, table: Mapping[str, Any], where: str) -> SensorConfig:
    """What a kind makes of a table.  Raises ConfigError."""
    options = decode(kind.Options, table, strict=True, where=where)
    options.check(where)
    return options


def unknown_kind(kind: object, known: Iterable[str], where: str) -> ConfigError:
    """Why ``kind`` is none, with the nearest of those that are."""
    known = list(known)
    near = nearest(str(kind), known)
    listed = ", ".join(map(repr, known))
    return ConfigError(
        f"{where}.kind: {str(kind)[:64]!r} is not one of {listed}"
        + (f"; did you mean {near!r}?" if near else "")
    )


def channels_of(options: SensorConfig) -> tuple[Channel, ...]:
    """A sensor's channels with the units and quantities that its configuration gives them."""
    channels = []
    for channel in options.list_channels():
        how = options.conditioning(channel.name)
        unit = channel.unit if how.unit is None else how.unit
        quantity = channel.quantity if how.quantity is None else how.quantity
        channels.append(replace(channel, unit=unit, quantity=quantity))
    return tuple(channels)


def _check_conditioning(options: SensorConfig, where: str) -> None:
    """Whether each channel's keys stand where they belong and fit together."""
    channels = options.list_channels()
    names = [channel.name.removeprefix(f"{options.name}.") for channel in channels]
    if channels[0].name == options.name:
        if options.channels:
            raise ConfigError(f"{where}.channels: it has one channel, whose keys stand beside its name")
    else:
        for key in (key.name for key in fields(Conditioning)):
            if getattr(options, key) != getattr(UNCHANGED, key):
                hint = f"write channels = {{ {names[0]} = {{ {key} = ... }} }}"
                raise ConfigError(f"{where}.{key}: it has several channels: say of which", hint=hint)
        for name in options.channels:
            if name not in names:
                near = nearest(name, names)
                way_out = f"did you mean {near!r}?" if near else f"there are {', '.join(names)}"
                raise ConfigError(f"{where}.channels.{name}: there is no such channel; {way_out}")
    for channel, name in zip(channels, names, strict=True):
        how = options.conditioning(channel.name)
        _check_fit(how, channel, where if how is options else f"{where}.channels.{name}")


def _check_fit(how: Conditioning, channel: Channel, where: str) -> None:
    low, high = how.minimum, how.maximum
    if low is not None and high is not None and low > high:
        raise ConfigError(f"{where}.minimum: {low:g} is above maximum ({high:g})")
    if how.unit in (None, channel.unit) or not channel.unit:
        return
    if (how.scale, how.offset) == (UNCHANGED.scale, UNCHANGED.offset):
        raise ConfigError(
            f"{where}.unit: {how.unit!r} where {channel.unit!r} is measured",
            hint="give the scale and the offset that turn the one into the other; °F: scale 1.8, offset 32",
        )
