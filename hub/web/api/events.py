"""Events in the API: what happened, to whom, by whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from agent.wire.decode import Range
from hub.store import boards
from hub.store import events as store
from hub.web.api import table
from hub.web.api.paging import SAYS, After, id_after
from hub.web.api.route import Call
from hub.web.api.table import Table


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events."""

    limit: Annotated[int, Range(1, 1000)] = field(default=50, metadata={"says": "Most events in one answer"})
    after: After = field(default="", metadata=SAYS)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; ``actor`` is "hub", "board" or an admin, ``board`` an id or null."""

    id: int
    at_ms: int
    board: str | None
    actor: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class EventPage:
    """The newest events first; ``next`` asks for older ones and is missing on the last page."""

    events: tuple[Event, ...]
    next: str | None = None


def table_of(page: EventPage) -> Table:
    """Events as CSV."""
    return Table(
        ("time", "board", "actor", "kind", "text"),
        (
            (table.time(each.at_ms), each.board, table.text(each.actor), each.kind, table.text(each.text))
            for each in page.events
        ),
    )


async def list_events(call: Call, query: EventQuery) -> EventPage:
    """List what happened in the whole fleet."""
    return await _page(call, None, query)


async def list_board_events(call: Call, board: str, query: EventQuery) -> EventPage:
    """List what happened to one board."""
    async with call.parts.store.read() as tx:
        row = await boards.get_board(tx, board)
    return await _page(call, row.id, query)


async def _page(call: Call, board: str | None, query: EventQuery) -> EventPage:
    before = id_after(query.after)
    async with call.parts.store.read() as tx:
        rows = await store.list_events(tx, board=board, limit=query.limit + 1, before=before)
    page = rows[: query.limit]
    found = tuple(Event(row.id, row.at_ms, row.board, row.actor, row.kind, row.text) for row in page)
    return EventPage(found, str(page[-1].id) if len(rows) > len(page) else None)
