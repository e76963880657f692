"""Gaps: readings that nobody will see again, why, and when they were made.

Owns the table `gaps`.  Ingest adds what boards declare and what it finds missing;
`hub.fleet.corrections` sets their times right; pages and the API show them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.database import upsert
from hub.store.schema import gaps


@dataclass(frozen=True, slots=True)
class GapRow:
    """Readings that nobody will see again, and why; a bound of the time is None when unknown."""

    board: str
    stream: str
    seq0: int
    count: int
    from_ms: int | None
    to_ms: int | None
    reason: str
    received_ms: int

    @property
    def next(self) -> int:
        """The seq behind it."""
        return self.seq0 + self.count


async def add_gaps(tx: AsyncConnection, rows: Sequence[GapRow]) -> None:
    """Store gaps; one that begins where another does takes its place.

    That is for a stream that was forgotten (`hub.store.retention`) and comes back after all, as from
    a card that is set back to an old copy: its board may not stop every commit from then on.
    """
    if not rows:
        return
    adding = upsert(tx, gaps)
    newer = {name: adding.excluded[name] for name in ("count", "from_ms", "to_ms", "reason", "received_ms")}
    await tx.execute(
        adding.on_conflict_do_update(index_elements=["board", "stream", "seq0"], set_=newer),
        [{name: getattr(row, name) for name in row.__slots__} for row in rows],
    )


async def list_gaps(tx: AsyncConnection, board: str, from_ms: int, to_ms: int) -> list[GapRow]:
    """The gaps of a board that touch the range, by time; one of unknown time counts as of its receipt."""
    begin = func.coalesce(gaps.c.from_ms, gaps.c.to_ms, gaps.c.received_ms)
    end = func.coalesce(gaps.c.to_ms, gaps.c.received_ms)
    asked = select(*_COLUMNS).where(gaps.c.board == board, begin < to_ms, end >= from_ms)
    return [GapRow(*row) for row in await tx.execute(asked.order_by(begin, gaps.c.id))]


async def gaps_of(tx: AsyncConnection, board: str, streams: Collection[str]) -> list[GapRow]:
    """The gaps in these streams of a board."""
    asked = select(*_COLUMNS).where(gaps.c.board == board, gaps.c.stream.in_(streams))
    return [GapRow(*row) for row in await tx.execute(asked)]


async def place_gaps(tx: AsyncConnection, rows: Iterable[GapRow]) -> None:
    """Give gaps the times that are in ``rows``."""
    changes = [
        {
            "p_board": row.board,
            "p_stream": row.stream,
            "p_seq0": row.seq0,
            "from_ms": row.from_ms,
            "to_ms": row.to_ms,
        }
        for row in rows
    ]
    if changes:
        which = (
            gaps.c.board == bindparam("p_board"),
            gaps.c.stream == bindparam("p_stream"),
            gaps.c.seq0 == bindparam("p_seq0"),
        )
        await tx.execute(update(gaps).where(*which), changes)


_COLUMNS = [gaps.c[name] for name in GapRow.__slots__]
