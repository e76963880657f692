"""What ingest stores: batches as they came, and where each stream stands.

Owns how the tables `batches` and `streams` are written, and the latest values in `boards`, for
many boards in one statement.  Ingest calls it; what is new is decided there, inside the same
transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from agent.wire.envelope import unpack
from agent.wire.messages import Block, read_batch
from hub.store.boards import LatestValues, PresenceState
from hub.store.boots import BootKey
from hub.store.clocks import Timed, timed
from hub.store.database import Store, find_pairs, upsert
from hub.store.schema import batches, boards, boots, sensors, streams

StreamKey = tuple[str, str]
"""(board, stream)"""

SLICE = 64
"""Batches read between two turns of the event loop."""
LOOK_BACK = 1000


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A row of `batches`; see there."""

    board: str
    received_ms: int
    from_ms: int
    to_ms: int
    stream: str
    seq0: int
    count: int
    skip: int
    content_type: str
    payload: bytes
    boot: str = ""
    pending: int = 0

    def blocks(self, offset_ms: int | None) -> list[Timed]:
        """The blocks with the best times there are; ``offset_ms`` is that of the boot, if known."""
        blocks = blocks_of(self.payload, self.content_type)
        return [timed(block, self.received_ms, offset_ms) for block in blocks]


@dataclass(frozen=True, slots=True)
class Saved:
    """A board as a `Latest` knows it."""

    board: str
    presence: PresenceState
    heard_ms: int | None
    latest: LatestValues


BY_TIME = (batches.c.to_ms, batches.c.from_ms, batches.c.id)
"""The order of batches in time."""


def blocks_of(payload: bytes, content_type: str) -> tuple[Block, ...]:
    """The blocks of a stored payload, as they came."""
    return read_batch(unpack(payload, content_type)).blocks


# --- what a commit asks ----------------------------------------------------------------------------


async def contiguous(tx: AsyncConnection, keys: Set[StreamKey]) -> dict[StreamKey, int]:
    """Up to which seq each of these streams is settled; those never heard of are left out."""
    # Not all of a board: it has one for each start of its agent, and may start over and over.
    found = find_pairs(tx, streams, keys, "board", "stream", "contiguous")
    return {(board, stream): seq async for board, stream, seq in found}


async def stream_end_ms(tx: AsyncConnection, board: str, stream: str) -> int | None:
    """The time of the last reading stored of a stream: since when it may be missing some.

    Looks at the board's newest batches only; None when none of them is of this stream.
    """
    columns = (batches.c.stream, batches.c.to_ms)
    recent = (
        select(*columns).where(batches.c.board == board).order_by(batches.c.to_ms.desc()).limit(LOOK_BACK)
    )
    found = recent.subquery()
    asked = select(func.max(found.c.to_ms)).where(found.c.stream == stream)
    return cast("int | None", (await tx.execute(asked)).scalar())


async def last_id(tx: AsyncConnection) -> int:
    """The id of the newest batch; 0 when there is none."""
    return (await tx.execute(select(func.max(batches.c.id)))).scalar() or 0


# --- what a commit writes --------------------------------------------------------------------------


async def add_batches(tx: AsyncConnection, rows: Sequence[NewBatch]) -> None:
    """Store batches, in this order."""
    if rows:
        await tx.execute(insert(batches), [_columns(row) for row in rows])


async def move_streams(tx: AsyncConnection, settled: Mapping[StreamKey, int], at_ms: int) -> None:
    """Note up to where streams are settled now."""
    if not settled:
        return
    adding = upsert(tx, streams)
    moved = {"contiguous": adding.excluded.contiguous, "seen_ms": adding.excluded.seen_ms}
    await tx.execute(
        adding.on_conflict_do_update(index_elements=["board", "stream"], set_=moved),
        [
            {"board": board, "stream": stream, "contiguous": seq, "seen_ms": at_ms}
            for (board, stream), seq in settled.items()
        ],
    )


async def add_sensors(tx: AsyncConnection, names: Iterable[tuple[str, str]]) -> None:
    """See to it that these (board, sensor) have a row; their board describes them in its `about`."""
    rows = [{"board": board, "name": name} for board, name in names]
    if rows:
        await tx.execute(upsert(tx, sensors).on_conflict_do_nothing(), rows)


async def save_latest(tx: AsyncConnection, rows: Iterable[Saved]) -> None:
    """Keep the newest values of boards, and when each was heard."""
    parameters = [{"p_id": row.board, "latest": row.latest, "heard_ms": row.heard_ms} for row in rows]
    if parameters:
        await tx.execute(update(boards).where(boards.c.id == bindparam("p_id")), parameters)


# --- what a start reads ----------------------------------------------------------------------------


async def load_latest(tx: AsyncConnection) -> list[Saved]:
    """Every board that may speak, as it was saved last."""
    columns = (boards.c.id, boards.c.presence, boards.c.heard_ms, boards.c.latest)
    rows = await tx.execute(select(*columns).where(boards.c.revoked_ms.is_(None)))
    return [
        Saved(id, presence, heard_ms, {name: (value, at_ms) for name, (value, at_ms) in latest.items()})
        for id, presence, heard_ms, latest in rows
    ]


async def batches_after(store: Store, id: int) -> AsyncIterator[tuple[int, NewBatch, int | None]]:
    """Every batch with a higher id, in order: its id, itself, and the offset of its boot; in slices."""
    while True:
        asked = with_offset().where(batches.c.id > id).order_by(batches.c.id).limit(SLICE)
        async with store.read() as tx:
            rows = (await tx.execute(asked)).all()
        for found, offset_ms, *values in rows:
            yield found, NewBatch(*values), offset_ms
            id = found
        if len(rows) < SLICE:
            return


# --- what waits for the clock of its boot ------------------------------------------------------------


async def pending_batches(
    tx: AsyncConnection, key: BootKey, up_to: int, limit: int
) -> list[tuple[int, NewBatch, int | None]]:
    """Batches of a boot that wait, oldest first, with ids to ``up_to``; see `batches_after`."""
    asked = with_offset().where(_waits(key), batches.c.id <= up_to).order_by(batches.c.id).limit(limit)
    return [(id, NewBatch(*values), offset_ms) for id, offset_ms, *values in await tx.execute(asked)]


async def any_pending(tx: AsyncConnection, key: BootKey) -> bool:
    """Whether batches of a boot wait."""
    return (await tx.execute(select(batches.c.id).where(_waits(key)).limit(1))).first() is not None


async def still_pending(tx: AsyncConnection, ids: Collection[int]) -> int:
    """How many of these batches are there and wait."""
    asked = select(func.count()).where(batches.c.id.in_(ids), batches.c.pending == 1)
    return (await tx.execute(asked)).scalar_one()


async def place_batches(tx: AsyncConnection, spans: Mapping[int, tuple[int, int]]) -> None:
    """Give batches, by id, the span that their readings turned out to have; they wait no more."""
    rows = [{"p_id": id, "from_ms": from_ms, "to_ms": to_ms} for id, (from_ms, to_ms) in spans.items()]
    if rows:
        await tx.execute(update(batches).where(batches.c.id == bindparam("p_id")).values(pending=0), rows)


def touching(board: str, from_ms: int, to_ms: int) -> ColumnElement[bool]:
    """Batches of a board with a reading in the range, as far as their span tells."""
    return and_(batches.c.board == board, batches.c.to_ms >= from_ms, batches.c.from_ms < to_ms)


def with_offset() -> Select[Any]:
    """Rows of a batch's id, the offset of its boot, and the columns of `NewBatch`."""
    columns = [batches.c[name] for name in NewBatch.__slots__]
    boot = and_(boots.c.board == batches.c.board, boots.c.boot == batches.c.boot)
    return select(batches.c.id, boots.c.offset_ms, *columns).select_from(batches.outerjoin(boots, boot))


def _waits(key: BootKey) -> ColumnElement[bool]:
    board, boot = key
    return and_(batches.c.board == board, batches.c.boot == boot, batches.c.pending == 1)


def _columns(row: NewBatch) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}
