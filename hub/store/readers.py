"""Reading tokens: who else may see something of the usage logs, and what.

Owns the table `usage_readers`; `hub.access.readers` is the only caller, but for a restore, which ends them
all.  It sees hashes, never a secret.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from sqlalchemy import ColumnElement, delete, insert, or_, select

from hub.store.database import Tx
from hub.store.usage_schema import usage_readers

Scope = Literal["peer", "payer"]


@dataclass(frozen=True, slots=True)
class ReaderRow:
    """A right to read until ``expires_ms`` (None: until it is revoked); ``id`` names it in public."""

    hash: str
    id: str
    name: str
    scope: Scope
    payer: str
    created_ms: int
    expires_ms: int | None
    author: str


async def add_reader(tx: Tx, row: ReaderRow) -> None:
    """Store a right, and drop those that have ended by the time it was given."""
    await tx.execute(delete(usage_readers).where(usage_readers.c.expires_ms <= row.created_ms))
    await tx.execute(insert(usage_readers).values(asdict(row)))


async def find_reader(tx: Tx, hash: str, now_ms: int) -> ReaderRow | None:
    """The right with this hash that still holds at ``now_ms``."""
    asked = select(usage_readers).where(usage_readers.c.hash == hash, _holds(now_ms))
    row = (await tx.execute(asked)).one_or_none()
    return ReaderRow(*row) if row else None


async def list_readers(tx: Tx, now_ms: int) -> list[ReaderRow]:
    """Those that still hold, the newest first."""
    c = usage_readers.c
    asked = select(usage_readers).where(_holds(now_ms)).order_by(c.created_ms.desc(), c.id)
    return [ReaderRow(*row) for row in await tx.execute(asked)]


async def remove_reader(tx: Tx, id: str) -> str | None:
    """Remove a right by its id; its name, or None when there is none."""
    asked = delete(usage_readers).where(usage_readers.c.id == id).returning(usage_readers.c.name)
    return (await tx.execute(asked)).scalar_one_or_none()


async def remove_readers(tx: Tx) -> int:
    """Remove them all; how many there were."""
    return (await tx.execute(delete(usage_readers))).rowcount


def _holds(now_ms: int) -> ColumnElement[bool]:
    return or_(usage_readers.c.expires_ms.is_(None), usage_readers.c.expires_ms > now_ms)
