"""What ``lichen-agent sensors ...`` does: find, list, read and watch sensors by hand.

Called by `agent.commandline`.  It asks the sensors itself, without a hub and beside a running agent;
what only one program may hold, such as a pin, then answers to one of the two.  It stores nothing
but what ``scan --write`` adds to a file.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.clock import Clock
from agent.commands import say
from agent.config import Config
from agent.sensors.blocking import Threads
from agent.sensors.driver import Answer, Environment, SensorConfig, Stale, channels_of
from agent.sensors.probe import Probe
from agent.sensors.sampler import Latest, Sampler
from agent.wire import words
from agent.wire.errors import ConfigError, LichenError
from agent.wire.messages import ClockState, Reading, Sensor
from agent.wire.plain import dumps

SPAN_S = 0.2
"""How long a sensor is open before it is read: rates are differences between two looks."""
FOREVER_S = 10**9
CLEAR = "\x1b[H\x1b[2J"
"""Cursor home, and an empty screen (ECMA-48)."""


# --- scan and ls ---------------------------------------------------------------------------------


async def scan_sensors(config: Config, *, write: Path | None) -> None:
    """List what this machine offers as TOML, or add to a file what it does not have yet."""
    from agent.sensors.scan import add, scan, to_toml

    tables, failures = scan(config.sysfs)
    for failure in failures:
        print(f"lichen-agent: {failure}", file=sys.stderr)
    if write is None:
        say(to_toml(tables).rstrip())
        return
    added = add(write, tables)
    say(f"{len(added)} of {len(tables)} sensors found were added to {write}")


async def list_sensors(config: Config, *, as_json: bool) -> None:
    """List the channels of the configured sensors."""
    channels = [(sensor, channel) for sensor in config.sensors for channel in channels_of(sensor)]
    if as_json:
        rows = [
            {
                "name": channel.name,
                "kind": sensor.kind,
                "unit": channel.unit,
                "quantity": channel.quantity,
                "interval_s": sensor.interval_s,
                "tags": sensor.tags,
            }
            for sensor, channel in channels
        ]
        say(dumps(rows).decode())
        return
    width = max((len(channel.name) for _, channel in channels), default=0)
    for sensor, channel in channels:
        said = f"{sensor.kind}, every {sensor.interval_s:g} s"
        tags = " ".join(words.labels(sensor.tags))
        unit = words.UNITS.get(channel.unit, channel.unit)
        say(f"{channel.name:{width}}  {said}  {channel.quantity}  {unit}  {tags}".rstrip())


# --- read ----------------------------------------------------------------------------------------


async def read_sensors(config: Config, names: Sequence[str], *, as_json: bool) -> bool:
    """Ask sensors once, all when none is named.  True when every one answered."""
    answers: dict[str, Answer] = {}
    units: dict[str, str] = {}
    for sensor in _named(config, names):
        answers |= await ask(sensor, config)
        units |= {channel.name: channel.unit for channel in channels_of(sensor)}
    if as_json:
        say(dumps({name: _as_json(answer) for name, answer in answers.items()}).decode())
    else:
        for name, answer in answers.items():
            say(f"{name}: {_in_words(answer, units[name])}")
    return not any(isinstance(answer, LichenError) for answer in answers.values())


def _named(config: Config, names: Sequence[str]) -> list[SensorConfig]:
    """The sensors of these names, in the file's order; all when there are no names."""
    known = [sensor.name for sensor in config.sensors]
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no sensor {name!r}", hint=f"there are: {', '.join(known)}")
    return [sensor for sensor in config.sensors if not names or sensor.name in names]


async def ask(sensor: SensorConfig, config: Config) -> Mapping[str, Answer]:
    """Open a sensor, read it once, and close it."""
    threads = Threads()
    probe = Probe(sensor, Environment(config.sysfs, config.state_dir, threads.lane()))
    try:
        try:
            async with asyncio.timeout(sensor.timeout_s):
                await probe.open()
            await asyncio.sleep(SPAN_S)
        except (Exception, SystemExit):  # noqa: BLE001  the asking that follows says what is wrong
            pass
        return await probe.ask()
    finally:
        await probe.close()
        threads.close()


def _as_json(answer: Answer) -> dict[str, object]:
    if isinstance(answer, LichenError):
        return {"error": str(answer), "code": answer.code, "hint": answer.hint}
    return {"value": answer.value, "stale": True} if isinstance(answer, Stale) else {"value": answer}


def _in_words(answer: Answer, unit: str) -> str:
    if isinstance(answer, LichenError):
        return f"{answer}\n  {answer.hint}" if answer.hint else str(answer)
    if isinstance(answer, Stale):
        return f"{_in_words(answer.value, unit)} (stale)"
    return words.plain(words.value(answer, unit))


# --- watch ---------------------------------------------------------------------------------------


async def watch_sensors(config: Config, names: Sequence[str], *, every_s: float, as_json: bool) -> None:
    """Show what sensors say until cancelled: a table on a terminal, else a line for each reading."""
    sensors = _named(config, names)
    watch = _Watch(as_json=as_json, as_table=sys.stdout.isatty() and not as_json)
    sampler = Sampler(
        sensors,
        clock=Clock.system(),
        sink=watch,
        sysfs=config.sysfs,
        state_dir=config.state_dir,
        commit_every_s=every_s,
    )
    watch.sampler = sampler
    sampler.hurry(every_s, FOREVER_S)
    async with asyncio.TaskGroup() as group:
        sampler.start(group)


@dataclass(frozen=True, slots=True)
class Line:
    """One reading as ``watch --json`` prints it."""

    name: str
    value: float | None
    unit: str
    quality: str
    at_ms: int
    error: str = ""


class _Watch:
    """A sink that shows readings instead of keeping them."""

    def __init__(self, *, as_json: bool, as_table: bool) -> None:
        self.sampler: Sampler | None = None
        self._as_json = as_json
        self._as_table = as_table

    async def append(self, readings: Sequence[Reading], clock: ClockState, /) -> None:
        assert self.sampler is not None
        described = {sensor.name: sensor for sensor in self.sampler.sensors()}
        latest = self.sampler.latest()
        if self._as_table:
            say(CLEAR + "\n".join(_table(described, latest)))
            return
        for reading in readings:
            sensor = described[reading.sensor]
            error = latest[reading.sensor].error if reading.value is None else ""
            line = Line(reading.sensor, reading.value, sensor.unit, reading.quality, reading.wall_ms, error)
            say(dumps(asdict(line)).decode() if self._as_json else _line(line))


def _line(line: Line) -> str:
    told = line.error if line.value is None else words.plain(words.value(line.value, line.unit))
    mark = f" ({line.quality})" if line.quality == "stale" else ""
    return f"{words.iso(line.at_ms)} {line.name}: {told}{mark}"


def _table(sensors: Mapping[str, Sensor], latest: Mapping[str, Latest]) -> Iterator[str]:
    width = max(map(len, sensors))
    for name, sensor in sensors.items():
        said = latest[name]
        told = said.error or words.plain(words.value(said.value, sensor.unit))
        yield f"{name:{width}}  {sensor.quality:6}  {told}"
    yield ""
    yield "Ctrl-C ends it"
