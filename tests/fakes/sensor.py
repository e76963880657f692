"""The fake of the Sensor edge: a kind whose sensors say what a test tells them to.

It passes the contract of the real kinds (tests/contract/test_sensors.py).

    world = FakeSensors()
    world.says["room"] = 21.5
    sampler = Sampler([world.configure("room")], load=world.load, ...)
    world.says["room"] = Refused("unplugged")       # fails when it is asked
    world.says["room"] = Stale(21.5)                # answers, with an old value
    world.says["room"] = HANGS                      # never answers
    world.says["room"] = read_slowly                # an async function that gives the value
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from agent.sensors.driver import UNCHANGED, Answer, Channel, Conditioning, Environment, SensorConfig, Stale
from agent.wire.errors import LichenError, Refused

HANGS = "hangs"
Said: TypeAlias = float | str | Stale | Exception | Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeOptions(SensorConfig):
    """``channels`` are the names of several values; none for one of the sensor's own name."""

    measures: str = ""
    """The unit of what it says."""
    slow_s: float = 0.0
    """What it makes of `SensorConfig.fastest_s`."""

    @property
    def fastest_s(self) -> float:
        return self.slow_s

    def list_channels(self) -> tuple[Channel, ...]:
        names = [f"{self.name}.{channel}" for channel in self.channels] or [self.name]
        return tuple(Channel(name, self.measures) for name in names)


class FakeSensors:
    """The kind, and the world that its sensors look at.

    ``says``: by channel what is said there; a channel that is not in it is not there.  One channel
    of several that refuses fails alone.  ``asked`` counts reads, ``opened`` holds the sensors that
    were opened and not closed, ``wake`` is how each asks to be read at once, ``close`` what a driver
    does besides when it is closed.
    """

    Options: type[SensorConfig] = FakeOptions

    def __init__(self) -> None:
        self.says: dict[str, Said] = {}
        self.asked: Counter[str] = Counter()
        self.opened: set[str] = set()
        self.wake: dict[str, Callable[[], None]] = {}
        self.close: Callable[[], Awaitable[None]] | None = None

    def load(self, kind: str) -> FakeSensors:
        """In place of `agent.sensors.driver.load_kind`."""
        return self

    def configure(
        self, name: str, *, channels: Iterable[str] | Mapping[str, Conditioning] = (), **keys: Any
    ) -> FakeOptions:
        """A sensor's configuration; ``channels`` may be names alone."""
        if not isinstance(channels, Mapping):
            channels = dict.fromkeys(channels, UNCHANGED)
        return FakeOptions(name=name, kind="fake", channels=dict(channels), **keys)

    async def open(self, options: FakeOptions, env: Environment) -> FakeSensor:
        self.opened.add(options.name)
        self.wake[options.name] = env.wake
        return FakeSensor(self, options)

    def scan(self, sysfs: Path) -> list[dict[str, Any]]:
        return [{"name": name, "kind": "fake"} for name in self.says]


class FakeSensor:
    """One opened sensor of the fake kind."""

    def __init__(self, world: FakeSensors, options: FakeOptions) -> None:
        self._world = world
        self._options = options

    async def read(self) -> Mapping[str, Answer]:
        self._world.asked[self._options.name] += 1
        if not self._options.channels:
            return {self._options.name: await self._value(self._options.name)}
        answers: dict[str, Answer] = {}
        for channel in self._options.list_channels():
            try:
                answers[channel.name] = await self._value(channel.name)
            except LichenError as error:
                answers[channel.name] = error
        return answers

    async def close(self) -> None:
        self._world.opened.discard(self._options.name)
        if self._world.close is not None:
            await self._world.close()

    async def _value(self, name: str) -> float | Stale:
        said = self._world.says.get(name, Refused(f"{name}: not there", code="not-found"))
        if said == HANGS:
            await asyncio.Event().wait()
        if isinstance(said, Exception):
            raise said
        if callable(said):
            return await said()
        assert not isinstance(said, str)
        return said
