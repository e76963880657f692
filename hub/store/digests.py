"""What registries have said of images: what tags were when last asked, and how large an image is.

Owns the tables `digests`, which `hub.apps.registry` writes with each answer and reads when none comes, and
`image_sizes`, which it reads first, as the size of a digest is always the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from hub.store.database import Tx, upsert
from hub.store.schema import digests, image_sizes


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


async def remember_size(tx: Tx, digest: str, size: int) -> None:
    """Keep how large an image is."""
    row = upsert(tx, image_sizes).values(digest=digest, bytes=size)
    await tx.execute(row.on_conflict_do_update(index_elements=["digest"], set_={"bytes": size}))


async def recall_sizes(tx: Tx, wanted: Collection[str]) -> dict[str, int]:
    """How large images are, by digest, as far as that is known."""
    rows = await tx.execute(select(image_sizes).where(image_sizes.c.digest.in_(wanted)))
    return {row.digest: row.bytes for row in rows}
