"""What happened, for people: joined, online, offline, renamed, gap, ...

Owns the table `events`.  Whoever changes something adds an event in the same transaction;
nobody reads events to decide anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.schema import events


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event; ``actor`` is "hub", "board" or an admin's name, ``board`` an id or None."""

    id: int
    at_ms: int
    board: str | None
    actor: str
    kind: str
    text: str


async def add_event(
    tx: AsyncConnection, *, at_ms: int, kind: str, text: str, board: str | None = None, actor: str = "hub"
) -> None:
    """Note what happened, at ``at_ms`` by the hub's clock."""
    await add_events(tx, [{"at_ms": at_ms, "board": board, "actor": actor, "kind": kind, "text": text}])


async def add_events(tx: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Note several events; each row has the columns of `EventRow` but its id."""
    if rows:
        await tx.execute(insert(events), [dict(row) for row in rows])


async def list_events(
    tx: AsyncConnection, *, board: str | None = None, limit: int = 50, before: int | None = None
) -> list[EventRow]:
    """The newest events first; ``before`` is the id of the last one on the page before."""
    asked = select(events).order_by(events.c.id.desc()).limit(limit)
    if board is not None:
        asked = asked.where(events.c.board == board)
    if before is not None:
        asked = asked.where(events.c.id < before)
    return [EventRow(*row) for row in await tx.execute(asked)]
