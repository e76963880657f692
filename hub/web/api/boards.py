"""Boards in the API: list, look at, name and label."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from agent.wire.decode import Length, Range
from agent.wire.errors import Refused
from hub.store import boards as store
from hub.store import events
from hub.store.database import Tx
from hub.web.api import table
from hub.web.api.paging import SAYS, After
from hub.web.api.route import Call
from hub.web.api.table import Table
from hub.web.board import Board, Summary, about_of, board_of, known_of, measured_ms, summary_of


@dataclass(frozen=True, slots=True)
class BoardQuery:
    """Which boards to list."""

    search: Annotated[str, Length(0, 128)] = field(
        default="", metadata={"says": "Part of a name, or the beginning of an id"}
    )
    label: tuple[str, ...] = field(
        default=(),
        metadata={
            "says": "key=value that a board must have; several at once, or with commas between",
            "example": ["site=north"],
        },
    )
    limit: Annotated[int, Range(1, 1000)] = field(default=200, metadata={"says": "Most boards in one answer"})
    after: After = field(default="", metadata=SAYS)


@dataclass(frozen=True, slots=True)
class BoardPage:
    """Boards by name; ``next`` asks for those after them and is missing on the last page."""

    boards: tuple[Summary, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class BoardChange:
    """What to change about a board; a label of null is removed, labels not named stay."""

    name: Annotated[str, Length(1, store.LONGEST_NAME)] | None = None
    labels: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SensorNow:
    """A sensor of a board, with its newest value; ``error`` says why there is none, if so."""

    name: str
    kind: str
    unit: str
    quantity: str
    interval_ms: int
    value: float | None
    at_ms: int | None
    error: str


@dataclass(frozen=True, slots=True)
class SensorQuery:
    """Which sensors of a board to list."""

    limit: Annotated[int, Range(1, 1000)] = field(
        default=1000, metadata={"says": "Most sensors in one answer"}
    )
    after: After = field(default="", metadata=SAYS)


@dataclass(frozen=True, slots=True)
class SensorList:
    """The sensors of a board by name; ``next`` asks for those after them and is missing on the last page."""

    sensors: tuple[SensorNow, ...]
    next: str | None = None


async def list_boards(call: Call, query: BoardQuery) -> BoardPage:
    """List boards by name."""
    labels = read_labels(query.label)
    async with call.parts.store.read() as tx:
        rows = await store.list_boards(
            tx, search=query.search, labels=labels, limit=query.limit + 1, after=query.after
        )
    now_ms = call.parts.now_ms()
    page = rows[: query.limit]
    return BoardPage(
        boards=tuple(summary_of(row, call.parts.latest, now_ms) for row in page),
        next=page[-1].name if len(rows) > len(page) else None,
    )


def table_of(page: BoardPage) -> Table:
    """Boards as CSV."""
    return Table(
        ("id", "name", "state", "sentence", "presence", "heard", "joined", "version", "model", "labels"),
        (
            (
                row.id,
                table.text(row.name),
                row.state,
                table.text(row.sentence),
                row.presence,
                table.time(row.heard_ms),
                table.time(row.joined_ms),
                table.text(row.version),
                table.text(row.model),
                table.labels(row.labels),
            )
            for row in page.boards
        ),
    )


def sensor_table_of(page: SensorList) -> Table:
    """Sensors as CSV."""
    return Table(
        ("sensor", "kind", "unit", "quantity", "value", "time", "error"),
        (
            (
                each.name,
                table.text(each.kind),
                table.text(each.unit),
                table.text(each.quantity),
                each.value,
                table.time(each.at_ms),
                table.text(each.error),
            )
            for each in page.sensors
        ),
    )


def read_labels(given: tuple[str, ...]) -> dict[str, str]:
    """``key=value`` texts as a mapping; commas separate several in one text.  Raises Refused."""
    found: dict[str, str] = {}
    for text in ",".join(given).split(","):
        key, _, value = text.partition("=")
        if text and not key:
            raise Refused(f"label: {text[:64]!r} has no key before the '='", hint="write key=value")
        if text:
            found[key] = value
    return found


async def show_board(call: Call, board: str) -> Board:
    """Look at one board.

    `board` is its id or its name, here and in every path.
    """
    async with call.parts.store.read() as tx:
        row = await store.get_board(tx, board)
    return board_of(row, call.parts.latest, call.parts.now_ms())


async def change_board(call: Call, board: str, body: BoardChange) -> Board:
    """Rename or label a board."""
    async with call.parts.store.write() as tx:
        row = await store.get_board(tx, board)
        if body.name is not None and body.name != row.name:
            await rename(tx, row, body.name, call.admin, call.parts.now_ms())
        if body.labels:
            await relabel(tx, row, body.labels, call.admin, call.parts.now_ms())
        row = await store.get_board(tx, row.id)
    return board_of(row, call.parts.latest, call.parts.now_ms())


async def rename(tx: Tx, row: store.BoardRow, name: str, admin: str, now_ms: int) -> None:
    """Give a board another name, and note who did.  Raises Refused."""
    await store.rename_board(tx, row.id, name)
    text = f"renamed from {row.name} to {name}"
    await events.add_event(tx, at_ms=now_ms, kind="renamed", text=text, board=row.id, actor=admin)


async def relabel(
    tx: Tx, row: store.BoardRow, labels: dict[str, str | None], admin: str, now_ms: int
) -> None:
    """Set labels and remove those that are None, and note who did.  Raises Refused."""
    kept = {key: value for key, value in labels.items() if value is not None}
    after = await store.label_board(tx, row.id, kept, [key for key in labels if key not in kept])
    if after != row.labels:
        listed = ", ".join(f"{key}={value}" if value else key for key, value in after.items()) or "none"
        text = f"labels are now {listed}"
        await events.add_event(tx, at_ms=now_ms, kind="labelled", text=text, board=row.id, actor=admin)


async def list_sensors(call: Call, board: str, query: SensorQuery) -> SensorList:
    """List the sensors of a board with their newest values."""
    async with call.parts.store.read() as tx:
        row = await store.get_board(tx, board)
        rows = [each for each in await store.list_sensors(tx, row.id) if each.name > query.after]
    page = rows[: query.limit]
    following = page[-1].name if len(rows) > len(page) else None
    return SensorList(tuple(sensors_of(call, row, page)), following)


def sensors_of(call: Call, row: store.BoardRow, rows: list[store.SensorRow]) -> list[SensorNow]:
    """Sensors as stored, under what was heard since."""
    known = known_of(call.parts.latest, row.id)
    about = about_of(row)
    errors = {sensor.name: sensor.error for sensor in about.sensors} if about else {}
    found = []
    for sensor in rows:
        newest = known.values.get(sensor.name)
        found.append(
            SensorNow(
                name=sensor.name,
                kind=sensor.kind,
                unit=sensor.unit,
                quantity=sensor.quantity,
                interval_ms=sensor.interval_ms,
                value=newest.value if newest else None,
                at_ms=measured_ms(newest, known) if newest else None,
                error=errors.get(sensor.name, ""),
            )
        )
    return found
