"""What an operator can set on a board: the keys of ``agent.toml`` with their defaults.

Owns the search for the file, its reading and its checking.  `agent.service` loads it,
`agent.app` hands it on; nothing else opens it.  A configuration without a single key is
valid, and reports the capacity of the board:

    state_dir = "/var/lib/lichen"   # keys, certificate and outbox of this board

    [report]
    every_s = 60                    # how often readings travel to the hub

    [[sensors]]
    name = "cpu-temperature"
    kind = "thermal"
    type = "cpu-thermal"

What is wrong is told with the file, the path of the key, the value and what is allowed:

>>> parse('[report]\\nevry_s = 5')
Traceback (most recent call last):
agent.wire.errors.ConfigError: agent.toml: report.evry_s: unknown key; did you mean 'every_s'?
>>> parse('[[sensors]]\\nname = "room"\\nkind = "file"\\npath = "/run/room"\\ninterval_s = 0')
Traceback (most recent call last):
agent.wire.errors.ConfigError: agent.toml: sensors[0].interval_s: 0.0 is not within 0.1 to 86400
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from agent.sensors.driver import SensorConfig, Unloadable, read_sensor
from agent.wire.decode import Length, Range, decode, plain
from agent.wire.errors import ConfigError

ENVIRONMENT = "LICHEN_AGENT_CONFIG"
CHECKOUT = Path(".run/agent/agent.toml")
SYSTEM = Path("/etc/lichen/agent.toml")
BOOT_JOIN_FILE = Path("/boot/firmware/lichen-join.toml")
MAX_SENSORS = 512
"""Channels of one board; the limit of what a hub accepts."""

MIB = 1024 * 1024
METERED_S = 300.0
METERED_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True)
class Report:
    """``[report]``: how often readings travel, and how long they may exist in memory only."""

    profile: Literal["default", "metered"] = "default"
    """``metered`` is for a link that is paid by volume: sensors are asked every 60 s and the board's
    capacity every 300 s where nothing else is said, reports go every 300 s, no more than one in 10 s while
    somebody watches, and what the board says of itself at most every 10 minutes."""
    every_s: Annotated[float, Range(0.1, 43_200)] = 60.0
    """How often readings travel to the hub; 300 when it is not set and the profile is ``metered``."""
    commit_every_s: Annotated[float, Range(0.1, 60)] = 60.0
    """How often readings are written to the outbox: what a power cut takes at most. Never longer
    than ``every_s``, which it follows down when it is not set."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """``[outbox]``: what may wait for the hub; beyond it the oldest readings go first."""

    max_bytes: Annotated[int, Range(64 * 1024, 2**40)] = 64 * MIB
    """How many bytes of readings may wait; what is dropped is reported to the hub as a gap."""


@dataclass(frozen=True, slots=True)
class Link:
    """``[link]``: the connection to the hub's broker."""

    keepalive_s: Annotated[int, Range(5, 65_535)] = 90
    """After how much silence the broker is pinged. Longer than ``report.every_s`` (30 s more when
    it is not set): reports keep the link alive, pings would only cost data."""
    backoff_low_s: Annotated[float, Range(0.01, 3_600)] = 1.0
    """Upper bound of the random pause before the first new attempt; it doubles with each."""
    backoff_high_s: Annotated[float, Range(0.01, 86_400)] = 300.0
    """The longest that bound gets."""
    resend_s: Annotated[float, Range(0.1, 3_600)] = 30.0
    """After how long batches that the hub has not acknowledged are sent again; doubling."""
    window: Annotated[int, Range(1, 16)] = 16
    """How many batches may travel beyond the last acknowledged one."""


@dataclass(frozen=True, slots=True)
class Log:
    """``[log]``: what is written to the journal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe messages that are written."""


@dataclass(frozen=True, slots=True)
class Containers:
    """``[containers]``: the Podman that runs this board's apps, and what they may do here."""

    socket: Path | None = None
    """The socket of Podman's service. When it is not set: ``/run/lichen/podman.sock``, then
    ``/run/podman/podman.sock``, and where neither is there the agent runs the service itself."""
    storage: Path | None = None
    """A folder for images, volumes and containers apart from the machine's own, for practice and for
    development: the agent then always runs the service itself. A relative path starts at ``state_dir``."""
    policy: Path = Path("/etc/lichen/policy.toml")
    """The file that says what an order may ask of this board; without it the defaults hold.
    A relative path starts at the file's directory."""


@dataclass(frozen=True, slots=True)
class Usage:
    """``[usage]``: the log of what was used on this board, which it signs and its hub countersigns."""

    period_s: Annotated[int, Range(10, 86_400)] = 600
    """How often what containers used is written down: what a power cut takes at most. An agent that dies
    takes less: what memory was held, and what went through the network, since the last time."""
    mem_sample_s: Annotated[int, Range(1, 3_600)] = 30
    """How often it is looked how much memory containers hold; each record says it."""
    keep_days: Annotated[int, Range(1, 3_650)] = 35
    """For how long records stay on the board that the hub has countersigned; others stay until it has."""


CAPACITY = {"name": "capacity", "kind": "capacity"}
"""The sensor of a board whose file names none."""


@dataclass(frozen=True, slots=True)
class Config:
    """The keys of ``agent.toml``."""

    state_dir: Path = Path("/var/lib/lichen")
    """Keys, certificate and outbox of this board. A relative path starts at the file's directory."""
    runtime_dir: Path = Path("/var/lib/lichen/run")
    """What need not outlive a restart. When it is not set: $RUNTIME_DIRECTORY, which systemd sets,
    or ``run`` in ``state_dir``, where a relative path starts, too."""
    join_file: Path | None = None
    """The file that says how to join. When it is not set: ``join.toml`` in ``state_dir``, then
    ``/boot/firmware/lichen-join.toml``."""
    sysfs: Path = Path("/sys")
    """Where the kernel shows its devices; elsewhere when a container sees the host's, or to practise.
    A relative path starts at the file's directory."""
    report: Report = field(default_factory=Report)
    outbox: Outbox = field(default_factory=Outbox)
    link: Link = field(default_factory=Link)
    log: Log = field(default_factory=Log)
    containers: Containers = field(default_factory=Containers)
    usage: Usage = field(default_factory=Usage)
    sensors: tuple[SensorConfig, ...] = field(default_factory=lambda: _read_sensors([CAPACITY]))
    """What is measured; without any the board still reports its capacity."""

    @property
    def join_files(self) -> tuple[Path, ...]:
        """Where a join file may lie, the first that exists counts."""
        if self.join_file is not None:
            return (self.join_file,)
        return (self.state_dir / "join.toml", BOOT_JOIN_FILE)

    def find_join_file(self) -> Path | None:
        """The join file that lies there; a boot partition that we may not read has none for us."""
        return next((path for path in self.join_files if _is_file(path)), None)


def find(
    option: str | Path | None = None,
    environment: Mapping[str, str] = os.environ,
    user: int | None = None,
) -> Path:
    """The file to load: the option, $LICHEN_AGENT_CONFIG, a checkout's .run, the system's.

    A checkout counts only if its file belongs to ``user`` (an id), the one who runs this.
    """
    named = option or environment.get(ENVIRONMENT)
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it was removed behind our back
        here = Path("/")
    if named:
        return here / named
    user = os.getuid() if user is None else user
    for folder in (here, *here.parents):
        candidate = folder / CHECKOUT
        # A file of somebody else, found by walking up from /tmp, must not run commands as us.
        if _is_file(candidate) and candidate.stat().st_uid == user:
            return candidate
    return SYSTEM


def _is_file(path: Path) -> bool:
    """Whether there is a file that we can get at."""
    try:
        return path.is_file()
    except OSError:  # pathlib raises it when a folder on the way is closed to us
        return False


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read and check a file.  Raises ConfigError naming the file and the key."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no configuration at {path}",
            hint=f"name one with --config or ${ENVIRONMENT}; an empty file is a good start",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse(text, path, environment)


def parse(text: str, path: Path | str = "agent.toml", environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration in ``text``.  Raises ConfigError whose message begins with ``path``."""
    try:
        table = tomllib.loads(text)
        tables = decode(_Sensors, {"sensors": table.pop("sensors", [CAPACITY])}, strict=True).sensors
        config = decode(Config, table, strict=True)
        if config.report.profile == "metered":
            tables = tuple({"interval_s": _metered_s(table), **table} for table in tables)
        config = replace(config, sensors=_read_sensors(tables))
        config = _derive(config, table, Path(path).absolute().parent, environment)
        _check(config)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error
    return config


def show(config: Config) -> str:
    """Every key with its value, as TOML that `parse` accepts."""
    import tomli_w  # only to write

    shown = plain(config)
    # What stands in for a sensor that cannot be loaded is none of its keys.
    shown["sensors"] = [
        dict(sensor.table) if isinstance(sensor, Unloadable) else plain(sensor) for sensor in config.sensors
    ]
    return tomli_w.dumps(shown)


@dataclass(frozen=True, slots=True)
class _Sensors:
    """The sensors before their kinds are known."""

    sensors: Annotated[tuple[dict[str, Any], ...], Length(0, MAX_SENSORS)]


def _metered_s(table: Mapping[str, Any]) -> float:
    """How often a sensor is asked that does not say so, where the link is paid by volume."""
    return METERED_S if table.get("kind") == CAPACITY["kind"] else METERED_INTERVAL_S


def _read_sensors(tables: list[dict[str, str]] | tuple[dict[str, Any], ...]) -> tuple[SensorConfig, ...]:
    """Check each table, and that no two sensors or channels share a name."""
    sensors = []
    taken: dict[str, str] = {}
    for position, table in enumerate(tables):
        where = f"sensors[{position}]"
        sensor = read_sensor(table, where)
        for name in dict.fromkeys((sensor.name, *(channel.name for channel in sensor.list_channels()))):
            if name in taken:
                reason = f"{where}.name: {name!r} is taken by {taken[name]}"
                raise ConfigError(reason, hint="each sensor and channel needs its own name")
            taken[name] = where
        sensors.append(sensor)
    channels = sum(len(sensor.list_channels()) for sensor in sensors)
    if channels > MAX_SENSORS:
        raise ConfigError(f"sensors: {channels} channels are over the limit of {MAX_SENSORS}")
    return tuple(sensors)


def _derive(config: Config, table: Mapping[str, Any], folder: Path, environment: Mapping[str, str]) -> Config:
    """Fill in the defaults that depend on other keys, and make every path absolute."""
    state_dir = folder / config.state_dir
    runtime_dir = state_dir / "run"
    if "runtime_dir" in table:
        runtime_dir = state_dir / config.runtime_dir
    elif given := environment.get("RUNTIME_DIRECTORY"):
        # systemd.exec(5): several directories are separated by colons.
        runtime_dir = Path(given.split(":")[0])
    report, link, containers = config.report, config.link, config.containers
    if report.profile == "metered" and "every_s" not in table.get("report", {}):
        report = replace(report, every_s=METERED_S)
    if "commit_every_s" not in table.get("report", {}):
        report = replace(report, commit_every_s=min(report.every_s, report.commit_every_s))
    if "keepalive_s" not in table.get("link", {}):
        link = replace(link, keepalive_s=int(report.every_s) + 30)
    return replace(
        config,
        state_dir=state_dir,
        runtime_dir=runtime_dir,
        join_file=config.join_file and state_dir / config.join_file,
        sysfs=folder / config.sysfs,
        report=report,
        link=link,
        containers=replace(
            containers,
            socket=containers.socket and folder / containers.socket,
            storage=containers.storage and state_dir / containers.storage,
            policy=folder / containers.policy,
        ),
    )


def _check(config: Config) -> None:
    """What no single key can tell."""
    every_s, commit_s = config.report.every_s, config.report.commit_every_s
    if commit_s > every_s:
        raise ConfigError(
            f"report.commit_every_s: {commit_s} is longer than report.every_s ({every_s})",
            hint="only committed readings travel",
        )
    if config.containers.socket is not None and config.containers.storage is not None:
        raise ConfigError(
            "containers.storage: whoever serves containers.socket says where that is",
            hint="leave one of them out",
        )
    link = config.link
    if link.keepalive_s <= every_s:
        raise ConfigError(
            f"link.keepalive_s: {link.keepalive_s} is not longer than report.every_s ({every_s})",
            hint="reports keep the link alive, pings would only cost data; leave it out to have 30 s more",
        )
    low_s, high_s = link.backoff_low_s, link.backoff_high_s
    if low_s > high_s:
        raise ConfigError(f"link.backoff_low_s: {low_s} is longer than link.backoff_high_s ({high_s})")
