"""Numbers that the hub must remember about itself, by key.

Owns the table `meta`: "document" (number of the last hub document), "announced" (the one that
the broker holds for every board), "fold" (the last batch that is in the roll-ups).
"""

from __future__ import annotations

from sqlalchemy import insert, select, update

from hub.store.database import Tx
from hub.store.schema import meta


async def read_fact(tx: Tx, key: str) -> int:
    """The number under ``key``; 0 when there is none yet."""
    return int(await tx.scalar(select(meta.c.value).where(meta.c.key == key)) or 0)


async def write_fact(tx: Tx, key: str, value: int) -> None:
    """Remember ``value`` under ``key``."""
    result = await tx.execute(update(meta).where(meta.c.key == key).values(value=value))
    if result.rowcount == 0:
        await tx.execute(insert(meta).values(key=key, value=value))
