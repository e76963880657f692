"""What tags were when their registry was last asked.

Owns the table `digests`; `hub.apps.registry` writes it with each answer, and reads it when none comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from hub.store.database import Tx
from hub.store.schema import digests


@dataclass(frozen=True, slots=True)
class Remembered:
    """The digests of an image by platform, and when the registry said so."""

    digests: dict[str, str]
    at_ms: int


async def remember_digests(tx: Tx, image: str, found: Mapping[str, str], at_ms: int) -> None:
    """Keep what a registry said of an image, in place of what it said before."""
    await tx.execute(delete(digests).where(digests.c.image == image))
    rows = [
        {"image": image, "platform": platform, "digest": digest, "at_ms": at_ms}
        for platform, digest in found.items()
    ]
    if rows:
        await tx.execute(insert(digests), rows)


async def recall_digests(tx: Tx, image: str) -> Remembered | None:
    """What the registry last said of an image; None when it never did."""
    rows = list(await tx.execute(select(digests).where(digests.c.image == image)))
    if not rows:
        return None
    return Remembered({row.platform: row.digest for row in rows}, rows[0].at_ms)
