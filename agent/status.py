"""What a board says to whoever stands before it: the status file, and what it means in plain words.

The running agent writes ``status.json`` into the runtime directory (memory, in production) when
something has changed and after each report, and removes it when it stops.  `lichen-agent status`
reads it.  Nothing here needs the network, the hub, or a running agent.

Every time is by the wall clock of the board, which also tells the ages: both may be wrong
together, but not against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from agent.base.files import write_file
from agent.wire import words
from agent.wire.decode import decode_json
from agent.wire.errors import Refused
from agent.wire.messages import ClockState, OutboxState, Problem, Traffic
from agent.wire.plain import dumps

FILE = "status.json"
MAX_BYTES = 1024 * 1024
RUN = Path("/run/lichen")
"""Where the status lies under systemd, which tells that (RUNTIME_DIRECTORY) to the agent alone."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """How the link is.  Times by the wall clock; None: not since the agent started.

    ``error`` is why it is not up, with its ``hint``; ``refused`` what the broker said to a
    message that it does not take; ``traffic`` what the link has used.
    """

    state: Literal["connecting", "online", "offline", "stopped"] = "stopped"
    since_ms: int = 0
    broker: str = ""
    error: str = ""
    hint: str = ""
    refused: str = ""
    attempts: int = 0
    acknowledged_ms: int | None = None
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True, slots=True)
class SensorState:
    """A channel, what it last said and when; ``error`` when it could not tell the last time."""

    name: str
    unit: str = ""
    value: float | None = None
    at_ms: int | None = None
    interval_ms: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class AppLine:
    """An app: its state and what is done for it, as its hub is told; ``failed`` is the revision that did
    not come up, 0 when none did, and ``reason`` why."""

    name: str
    state: str = ""
    step: str = ""
    failed: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """All of it.  ``board`` is empty before the first start, ``hub`` before joining.

    ``state_dir`` says which agent of a machine it is about.
    """

    state_dir: str = ""
    board: str = ""
    name: str = ""
    hub: str = ""
    hub_url: str = ""
    version: str = ""
    running: bool = False
    pid: int = 0
    written_ms: int = 0
    started_ms: int = 0
    clock: ClockState = "unsynced"
    link: LinkState = field(default_factory=LinkState)
    outbox: OutboxState = field(default_factory=OutboxState)
    sensors: tuple[SensorState, ...] = ()
    apps: tuple[AppLine, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def well(self) -> bool:
        """Whether there is nothing that a person should look at."""
        grave = any(problem.severity != "notice" for problem in self.problems)
        quiet = not (grave or self.link.refused or any(sensor.error for sensor in self.sensors))
        return self.running and self.link.state == "online" and quiet


def write_status(directory: Path, status: Status) -> None:
    """Replace the status file.  Not synced: it need not outlive a power cut."""
    write_file(directory / FILE, dumps(status), mode=0o644, sync=False)


def remove_status(directory: Path) -> None:
    """Remove the status file: nobody keeps it up to date any more."""
    (directory / FILE).unlink(missing_ok=True)


def read_status(directory: Path) -> Status | None:
    """The status file, or None when there is none that can be read."""
    try:
        return decode_json(Status, (directory / FILE).read_bytes(), max_bytes=MAX_BYTES)
    except (OSError, Refused):
        return None


# --- in plain words ----------------------------------------------------------------------------

CLOCKS: Mapping[ClockState, str] = MappingProxyType(
    {
        "synced": "right",
        "hub": "right by the hub's word: the machine's own is not set",
        "unsynced": "not set: times are corrected once it is",
    }
)


def describe(status: Status, now_ms: int) -> Iterator[str]:
    """The status in lines for a technician."""
    return map(words.plain, _lines(status, now_ms))


def _lines(status: Status, now_ms: int) -> Iterator[str]:
    who = f"{status.name} ({status.board})" if status.name else status.board or "no identity yet"
    yield f"board    {who}"
    yield f"hub      {f'{status.hub}, {status.hub_url}' if status.hub_url else 'not joined'}"
    if status.running:
        since = words.duration(now_ms - status.started_ms)
        yield f"agent    version {status.version}, running for {since} as process {status.pid}"
    else:
        yield "agent    not running"
    yield from _link(status, now_ms)
    yield f"outbox   {_outbox(status.outbox, now_ms)}"
    if status.running:
        yield f"clock    {CLOCKS[status.clock]}"
    for sensor in status.sensors:
        yield f"sensor   {sensor.name}: {_sensor(sensor, now_ms)}"
    yield from _apps(status.apps)
    for problem in status.problems:
        yield f"{'problem' if problem.severity != 'notice' else 'notice ':8} {_problem(problem, now_ms)}"
        if problem.hint:
            yield f"         {problem.hint}"


def _problem(problem: Problem, now_ms: int) -> str:
    times = f", {problem.count} times" if problem.count > 1 else ""
    return f"{problem.sentence} (for {words.duration(now_ms - problem.since_ms)}{times})"


def _link(status: Status, now_ms: int) -> Iterator[str]:
    link = status.link
    if not status.running:
        return
    since = words.duration(now_ms - link.since_ms)
    match link.state:
        case "online":
            heard = link.acknowledged_ms
            said = (
                "has not answered yet" if heard is None else f"answered {words.duration(now_ms - heard)} ago"
            )
            yield f"link     up for {since} with {link.broker}; the hub {said}"
        case "offline":
            yield f"link     down for {since}, {link.attempts} attempts: {link.error}"
            yield f"         {link.hint or 'readings are kept until it is back'}"
        case _:
            yield f"link     connecting to {link.broker or 'the hub'} for {since}"
    if (today := link.traffic).day:
        sent, received = words.value(today.sent, "By"), words.value(today.received, "By")
        yield f"data     {sent} sent and {received} received today (UTC)"
    if link.refused:
        yield f"         the broker refuses a message: {link.refused}"


def _apps(apps: tuple[AppLine, ...]) -> Iterator[str]:
    """How many run of how many, and a line for each of which there is more to say."""
    if not apps:
        return
    running = sum(app.state == "running" for app in apps)
    yield f"apps     {running} of {len(apps)} run{'s' if len(apps) == 1 else ''}"
    for app in apps:
        if app.state != "running":
            yield f"         {app.name} is {app.state}{f': {app.step}' if app.step else ''}"
        if app.failed:
            yield f"         revision {app.failed} of {app.name} failed: {app.reason}"


def _outbox(outbox: OutboxState, now_ms: int) -> str:
    if not outbox.readings:
        text = "empty: the hub has everything"
    else:
        waiting = "1 reading waits" if outbox.readings == 1 else f"{outbox.readings} readings wait"
        text = f"{waiting} for the hub ({words.value(outbox.bytes, 'By')})"
        if outbox.oldest_ms is not None:
            text += f", the oldest for {words.duration(now_ms - outbox.oldest_ms)}"
    return text + (f"; {outbox.dropped} were dropped" if outbox.dropped else "")


def _sensor(sensor: SensorState, now_ms: int) -> str:
    if sensor.at_ms is None:
        return sensor.error or "nothing yet"
    value = "nothing" if sensor.value is None else words.value(sensor.value, sensor.unit)
    text = f"{value}, {words.age(now_ms - sensor.at_ms)}"
    return f"{sensor.error} (last: {text})" if sensor.error else text
