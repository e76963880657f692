"""The shape of a sensor driver, and the table of the kinds there are.

Owns what every kind has in common: its configuration (`SensorConfig`, which each kind extends
with its own keys), its channels, and how it is opened and read.  `agent.config` checks
``[[sensors]]`` tables with `read_sensor`; `agent.sensors.sampler` opens and reads.  Nothing
here touches hardware, and a kind's module is imported only when a sensor of that kind is.

A kind is a module with three names (see `Kind`).  `agent.sensors.thermal` is a short one:

    class Options(SensorConfig):        its keys beside name, kind, interval_s and timeout_s
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
agent.wire.errors.ConfigError: sensors[0].kind: 'capacitor' is not one of 'capacity', 'command', 'file', 'hwmon', 'thermal'; did you mean 'capacity'?
"""  # noqa: E501  an error is one line

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Protocol, TypeVar, cast

from agent.wire.decode import Length, Range, decode, nearest
from agent.wire.errors import ConfigError, LichenError
from agent.wire.messages import SensorName

T = TypeVar("T")

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "capacity": "agent.sensors.capacity",
        "command": "agent.sensors.command",
        "file": "agent.sensors.file",
        "hwmon": "agent.sensors.hwmon",
        "thermal": "agent.sensors.thermal",
    }
)
"""Each kind and the module that drives it."""

MAX_NAME = 64
"""Characters of a channel's full name; the limit of `agent.wire.messages.SensorName`."""

Unit = Annotated[str, Length(0, 32)]
Quantity = Annotated[str, Length(0, 64)]


@dataclass(frozen=True, slots=True)
class Channel:
    """One source of values: its full name, its unit in UCUM ("Cel", "By") or "", and what it measures."""

    name: str
    unit: str = ""
    quantity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorConfig:
    """The keys of a ``[[sensors]]`` table that every kind has."""

    name: SensorName
    """What the sensor is called on the hub; no two sensors of a board share one."""
    kind: str
    """Which kind of sensor it is."""
    interval_s: Annotated[float, Range(0.1, 86_400)] = 10.0
    """The time between two readings."""
    timeout_s: Annotated[float, Range(0.05, 600)] = 5.0
    """A read that takes longer counts as failed; the sensor is asked again at its next time."""

    def list_channels(self) -> tuple[Channel, ...]:
        """What this sensor measures, in a fixed order; at least one."""
        return (Channel(self.name),)

    def check(self, where: str) -> None:
        """Raise ConfigError, beginning with ``where``, for what no single key can tell."""


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


def ask_at_its_time() -> None:
    """What `Environment.wake` does where nobody waits for the sensor: nothing."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a driver is given of the world: where sysfs and the agent's state are, and a way to block.

    ``wake``: to be called on the event loop when something has happened that should be read now,
    such as an edge on a pin.  The sensor is then asked at once, besides its times; calls that come
    while it is being asked, or within a tenth of a second, are one.
    """

    sysfs: Path
    state_dir: Path
    run_blocking: RunBlocking
    wake: Callable[[], None] = ask_at_its_time


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
    """The module behind one of KINDS."""
    return cast("Kind", importlib.import_module(KINDS[kind]))


def read_sensor(table: Mapping[str, Any], where: str) -> SensorConfig:
    """Check one ``[[sensors]]`` table.  Raises ConfigError with the path of what is wrong."""
    kind = table.get("kind")
    if kind is None:
        raise ConfigError(f"{where}.kind: missing", hint=f"one of {', '.join(KINDS)}")
    if not isinstance(kind, str) or kind not in KINDS:
        near = nearest(str(kind), KINDS)
        listed = ", ".join(map(repr, KINDS))
        raise ConfigError(
            f"{where}.kind: {str(kind)[:64]!r} is not one of {listed}"
            + (f"; did you mean {near!r}?" if near else "")
        )
    options = decode(load_kind(kind).Options, table, strict=True, where=where)
    options.check(where)
    for channel in options.list_channels():
        if len(channel.name) > MAX_NAME:
            raise ConfigError(f"{where}.name: its channel {channel.name!r} is over {MAX_NAME} characters")
    return options
