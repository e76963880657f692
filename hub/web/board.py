"""A board as pages, API and stream show it: what the store keeps, under what was heard since.

Owns how `hub.store.boards` and `hub.fleet.latest` are laid over each other, and which sensor
answers for "CPU" or "Temp" in the fleet's table.  Pure: no queries, the time is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.wire.decode import decode
from agent.wire.messages import About
from hub.fleet.latest import BoardLatest, Latest, Value
from hub.store.boards import BoardRow
from hub.web import state
from hub.web.state import Seen, State

UNKNOWN = BoardLatest()
"""A board of which nothing was ever heard."""

CAPACITY = {
    "cpu": "CPU",
    "memory": "Memory",
    "disk": "Disk",
    "load": "Load",
    "memory_used": "Memory used",
    "disk_used": "Disk used",
    "net_rx": "Received",
    "net_tx": "Sent",
    "uptime": "Running for",
}
"""Channels of the built-in sensor in words; other sensors are called as their owner called them."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A board in a list.  ``latest``: sensor to (value, time in ms); times by the hub's clock."""

    id: str
    name: str
    labels: dict[str, str]
    state: State
    sentence: str
    presence: str
    heard_ms: int | None
    joined_ms: int
    every_ms: int
    version: str
    model: str
    latest: dict[str, tuple[float | None, int]]


@dataclass(frozen=True, slots=True)
class Board:
    """A board with everything it says of itself; ``about`` is null until it was heard.

    ``waiting``: readings that it still holds, as its last report said; null before one came.
    """

    id: str
    name: str
    labels: dict[str, str]
    state: State
    sentence: str
    presence: str
    presence_ms: int | None
    heard_ms: int | None
    joined_ms: int
    revoked_ms: int | None
    every_ms: int
    waiting: int | None
    latest: dict[str, tuple[float | None, int]]
    about: About | None = None


def known_of(latest: Latest, board: str) -> BoardLatest:
    """What memory holds of a board."""
    return latest.boards.get(board, UNKNOWN)


def seen_of(row: BoardRow, known: BoardLatest) -> Seen:
    """What is known of the contact with a board."""
    return Seen(
        heard_ms=known.heard_ms if known.heard_ms is not None else row.heard_ms,
        joined_ms=row.joined_ms,
        presence=known.presence,
        every_ms=known.every_ms,
        problem=problem_of(known),
    )


def problem_of(known: BoardLatest) -> str:
    """The sentence of the worst problem that asks for somebody; empty when none does."""
    return state.worst([(problem.severity, problem.sentence) for problem in known.problems])


def measured_ms(value: Value, known: BoardLatest) -> int:
    """When a value was measured: by the board's clock, unless that cannot be right."""
    return min(value.wall_ms, value.received_ms) if known.clock != "unsynced" else value.received_ms


def values_of(known: BoardLatest) -> dict[str, tuple[float | None, int]]:
    """The newest value of each sensor, with its time."""
    return {name: (value.value, measured_ms(value, known)) for name, value in known.values.items()}


def summary_of(row: BoardRow, latest: Latest, now_ms: int) -> Summary:
    """A board for a list."""
    known = known_of(latest, row.id)
    seen = seen_of(row, known)
    judgement = state.judge(seen, now_ms)
    about: Mapping[str, Any] = row.about or {}
    return Summary(
        id=row.id,
        name=row.name,
        labels=row.labels,
        state=judgement.state,
        sentence=judgement.sentence,
        presence=seen.presence,
        heard_ms=seen.heard_ms,
        joined_ms=row.joined_ms,
        every_ms=seen.every_ms,
        version=about.get("version", ""),
        model=about.get("model", ""),
        latest=values_of(known),
    )


def board_of(row: BoardRow, latest: Latest, now_ms: int) -> Board:
    """A board on its own."""
    known = known_of(latest, row.id)
    seen = seen_of(row, known)
    judgement = state.judge(seen, now_ms)
    return Board(
        id=row.id,
        name=row.name,
        labels=row.labels,
        state=judgement.state,
        sentence=judgement.sentence,
        presence=seen.presence,
        presence_ms=row.presence_ms,
        heard_ms=seen.heard_ms,
        joined_ms=row.joined_ms,
        revoked_ms=row.revoked_ms,
        every_ms=seen.every_ms,
        waiting=known.waiting,
        latest=values_of(known),
        about=about_of(row),
    )


def about_of(row: BoardRow) -> About | None:
    """What a board says of itself, typed."""
    return None if row.about is None else decode(About, row.about)


def overview_sensors(about: Mapping[str, Any] | None) -> dict[str, str]:
    """Which sensors stand for cpu, memory, disk and temperature; those that a board lacks are left out.

    ``about`` as stored.  The first sensor of a kind wins: boards name the main one first.
    """
    found: dict[str, str] = {}
    for sensor in (about or {}).get("sensors", ()):
        channel = sensor["name"].rpartition(".")[2]
        if sensor.get("kind") == "capacity" and channel in ("cpu", "memory", "disk"):
            found.setdefault(channel, sensor["name"])
        elif sensor.get("quantity") == "temperature":
            found.setdefault("temperature", sensor["name"])
    return found


def label_of(name: str, kind: str) -> str:
    """What a sensor is called on a page.

    >>> label_of("capacity.net_rx", "capacity"), label_of("greenhouse.humidity", "file")
    ('Received', 'greenhouse.humidity')
    """
    return CAPACITY.get(name.rpartition(".")[2], name) if kind == "capacity" else name
