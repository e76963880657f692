"""Orders: the whole desired state of each board, as it was signed, and how far it has come.

Owns the table `orders`.  `hub.apps.orders` makes and publishes them; others only say that what an order
is made of has changed (`mark_stale`), and ring its bell after their commit.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, case, delete, or_, select, update

from hub.store.database import Tx, upsert
from hub.store.schema import orders


@dataclass(frozen=True, slots=True)
class OrderRow:
    """The order of a board.  ``generation`` 0: none was made yet; ``reported``: the highest generation
    that the board has spoken of; ``published``: the one that the broker has; ``signer``: whose key signed
    it; ``note``: as it travels; ``failure``: why no newer one could be made, though this one is stale."""

    board: str
    generation: int = 0
    reported: int = 0
    published: int = 0
    stale: bool = False
    signer: str = ""
    issued_ms: int = 0
    note: str = ""
    failure: str = ""


async def find_order(tx: Tx, board: str) -> OrderRow | None:
    """The order of a board; None when it never had an app."""
    row = (await tx.execute(select(orders).where(orders.c.board == board))).one_or_none()
    return _order(row) if row else None


async def find_orders(tx: Tx, boards: Collection[str]) -> dict[str, OrderRow]:
    """The orders of these boards, by board, but for their texts; boards without one are left out."""
    columns = [column for column in orders.c if column.name != "note"]
    asked = select(*columns).where(orders.c.board.in_(boards))
    return {row.board: _order(row) for row in await tx.execute(asked)}


async def save_order(tx: Tx, row: OrderRow) -> None:
    """Keep a new order, or the first of a board; it is not published yet."""
    values = {name: getattr(row, name) for name in OrderRow.__slots__}
    values["stale"] = int(row.stale)
    asked = upsert(tx, orders).values(values)
    changed = {name: value for name, value in values.items() if name != "board"}
    await tx.execute(asked.on_conflict_do_update(index_elements=["board"], set_=changed))


async def mark_stale(tx: Tx, boards: Collection[str]) -> None:
    """What the orders of these boards are made of has changed; a board without one is to get its first."""
    for board in boards:
        first = OrderRow(board, stale=True)
        asked = upsert(tx, orders).values(
            **{name: getattr(first, name) for name in OrderRow.__slots__} | {"stale": 1}
        )
        await tx.execute(asked.on_conflict_do_update(index_elements=["board"], set_={"stale": 1}))


async def mark_stale_if_any(tx: Tx, board: str) -> bool:
    """As `mark_stale`, but only for a board that has an order; says whether it has."""
    asked = update(orders).where(orders.c.board == board, orders.c.generation > 0).values(stale=1)
    return (await tx.execute(asked)).rowcount == 1


async def stale_boards(tx: Tx, signer: str, *, limit: int = 100) -> list[str]:
    """Boards whose order has to be made anew: its parts have changed, or its key is not ``signer``."""
    old = orders.c.generation.between(1, 2**62) & (orders.c.signer != signer)
    asked = select(orders.c.board).where(or_(orders.c.stale == 1, old)).order_by(orders.c.board).limit(limit)
    return list((await tx.execute(asked)).scalars())


async def note_failure(tx: Tx, board: str, why: str) -> None:
    """No order could be made for a board; the next that is made clears it."""
    await tx.execute(update(orders).where(orders.c.board == board).values(failure=why, stale=1))


async def unpublished(tx: Tx, *, limit: int = 100) -> list[OrderRow]:
    """Orders that the broker does not have."""
    asked = select(orders).where(orders.c.published != orders.c.generation)
    return [_order(row) for row in await tx.execute(asked.order_by(orders.c.board).limit(limit))]


async def note_published(tx: Tx, board: str, generation: int) -> bool:
    """The broker has this one; False when the board has no order any more."""
    asked = update(orders).where(orders.c.board == board).values(published=generation)
    return (await tx.execute(asked)).rowcount == 1


async def forget_published(tx: Tx, boards: Collection[str] | None = None) -> None:
    """The broker may not have the orders of these boards, or any, though it had: publish them again."""
    asked = update(orders).values(published=0)
    await tx.execute(asked if boards is None else asked.where(orders.c.board.in_(boards)))


async def note_reported(tx: Tx, board: str, generation: int) -> None:
    """A board speaks of an order; one that is newer than ours (the hub was restored) makes ours stale."""
    higher = case((orders.c.generation < generation, 1), else_=orders.c.stale)
    asked = update(orders).where(orders.c.board == board, orders.c.reported < generation)
    await tx.execute(asked.values(reported=generation, stale=higher))


async def delete_order(tx: Tx, board: str) -> None:
    """A board was put out: it has no order."""
    await tx.execute(delete(orders).where(orders.c.board == board))


def _order(row: Row[Any]) -> OrderRow:
    fields = dict(row._mapping)
    fields["stale"] = bool(fields["stale"])
    return OrderRow(**fields)
