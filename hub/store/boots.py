"""Boots: which ones of a board were heard of, and what is known of the clock in each.

Owns the table `boots`.  `hub.fleet.boots` decides inside the transaction of ingest, and
`hub.fleet.corrections` looks for what was stored before a boot's clock was known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.database import find_pairs, upsert
from hub.store.schema import batches, boards, boots

BootKey = tuple[str, str]
"""(board, boot)"""


@dataclass(frozen=True, slots=True)
class BootRow:
    """A row of `boots`; see there."""

    board: str
    boot: str
    born_ms: int | None
    heard_ms: int
    offset_ms: int | None = None


async def find_boots(tx: AsyncConnection, keys: Collection[BootKey]) -> dict[BootKey, BootRow]:
    """Those of these boots that were heard of."""
    return {(row[0], row[1]): BootRow(*row) async for row in find_pairs(tx, boots, keys, *BootRow.__slots__)}


async def newest_boots(tx: AsyncConnection, ids: Collection[str]) -> dict[BootKey, BootRow]:
    """The boot of each of these boards that was born last; boards without one are left out."""
    born_ms = select(func.max(boots.c.born_ms)).where(boots.c.board == boards.c.id).correlate(boards)
    newest = and_(boots.c.board == boards.c.id, boots.c.born_ms == born_ms.scalar_subquery())
    rows = await tx.execute(select(boots).select_from(boards.join(boots, newest)).where(boards.c.id.in_(ids)))
    return {(row.board, row.boot): BootRow(*row) for row in rows}


async def latest_offsets(tx: AsyncConnection) -> dict[str, tuple[str, int]]:
    """(boot, offset) of each board: of those boots whose clock is known, the one heard of last."""
    asked = select(boots.c.board, boots.c.boot, boots.c.offset_ms).where(boots.c.offset_ms.is_not(None))
    rows = await tx.execute(asked.order_by(boots.c.heard_ms))
    return {board: (boot, offset_ms) for board, boot, offset_ms in rows}


async def save_boots(tx: AsyncConnection, rows: Iterable[BootRow]) -> None:
    """Add boots, or change those that are there."""
    parameters = [{name: getattr(row, name) for name in BootRow.__slots__} for row in rows]
    if parameters:
        adding = upsert(tx, boots)
        changed = {name: adding.excluded[name] for name in ("born_ms", "heard_ms", "offset_ms")}
        await tx.execute(
            adding.on_conflict_do_update(index_elements=["board", "boot"], set_=changed), parameters
        )


async def uncorrected(tx: AsyncConnection) -> set[BootKey]:
    """The boots whose clock is known, and of which batches are stored that wait for it."""
    joined = batches.join(boots, (boots.c.board == batches.c.board) & (boots.c.boot == batches.c.boot))
    asked = select(batches.c.board, batches.c.boot).select_from(joined).distinct()
    rows = await tx.execute(asked.where(batches.c.pending == 1, boots.c.offset_ms.is_not(None)))
    return {(board, boot) for board, boot in rows}
