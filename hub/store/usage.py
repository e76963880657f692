"""Questions about usage logs: which there are, their entries, tiles, checkpoints, and what was used when.

Owns how the tables of `hub.store.usage_schema` are read; `hub.store.ledgers` writes them, for the witness.
Pages, the API, the static log under ``/tlog/``, proofs and statements ask here.  Sums are exact integers of
what the boards claimed; what a platform does not count is left out of a sum, and a sum of nothing is None.

    log = await usage.get_log(tx, "k3yd5q7c2n4xw6ba/usage/7f3a...")
    entries = await usage.entries(tx, log.id, 512, 256)       # None for each one that is in a hole
    rows = await usage.records_between(tx, from_ms, to_ms, app="demo")
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Select, and_, func, select, tuple_

from agent.wire.errors import Refused
from hub.store.database import Tx
from hub.store.ledgers import RECORD_COLUMNS, CheckpointRow, ConflictRow, LogRow, RecordRow
from hub.store.schema import boards
from hub.store.usage_schema import (
    usage_checkpoints,
    usage_conflicts,
    usage_logs,
    usage_packages,
    usage_records,
    usage_tiles,
)

HASH = 32
MOST_INFLATED = 1024 * 1024
"""Bytes of the entries of a package, as we stored them ourselves."""

Group = Literal["app", "board", "workspace", "payer", "service"]


@dataclass(frozen=True, slots=True)
class Hole:
    """Entries ``first`` to ``first`` + ``count`` - 1 of a log, of which only leaf hashes are held."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Sums:
    """What was used in ``bucket_ms`` and the time that follows it, by one ``key`` (an app, a board, ...).

    Of everything the sum; ``records`` is how many there were; ``mem_peak`` the highest.
    """

    bucket_ms: int
    key: str
    records: int
    cpu_us: int | None
    mem_byte_ms: int | None
    mem_peak: int | None
    io_r: int | None
    io_w: int | None
    net_rx: int | None
    net_tx: int | None


# --- logs ------------------------------------------------------------------------------------------


async def list_logs(
    tx: Tx, *, of: Collection[str] | None = None, limit: int = 200, after: int = 0
) -> list[LogRow]:
    """The logs of these boards (ids), or of all, in the order in which the hub heard of them first.

    ``after``: the id of the last one on the page before.
    """
    asked = select(usage_logs).where(usage_logs.c.id > after).order_by(usage_logs.c.id).limit(limit)
    if of is not None:
        asked = asked.where(usage_logs.c.board.in_(of))
    return [LogRow(*row) for row in await tx.execute(asked)]


async def current_logs(tx: Tx, of: Collection[str] | None = None) -> dict[str, LogRow]:
    """The epoch that was heard last of each of these boards, or of all; by board id."""
    newest = select(usage_logs).order_by(usage_logs.c.heard_ms, usage_logs.c.id)
    if of is not None:
        newest = newest.where(usage_logs.c.board.in_(of))
    return {row.board: LogRow(*row) for row in await tx.execute(newest)}


async def late_boards(tx: Tx, before_ms: int) -> set[str]:
    """The boards that have a log, have been online since before then, and of which no entry came since."""
    newest = (
        select(usage_logs.c.board, func.max(usage_logs.c.stored_ms).label("stored_ms"))
        .group_by(usage_logs.c.board)
        .subquery()
    )
    asked = select(boards.c.id).join(newest, newest.c.board == boards.c.id)
    asked = asked.where(boards.c.presence == "online", boards.c.presence_ms < before_ms)
    asked = asked.where(boards.c.revoked_ms.is_(None), newest.c.stored_ms < before_ms)
    return set((await tx.execute(asked)).scalars())


async def get_log(tx: Tx, origin: str) -> LogRow:
    """The log of an origin, ``<board>/usage/<epoch>``.  Raises Refused (code "not-found")."""
    board, _, epoch = origin.partition("/usage/")
    asked = select(usage_logs).where(usage_logs.c.board == board, usage_logs.c.epoch == epoch)
    row = (await tx.execute(asked)).one_or_none()
    if row is None:
        raise Refused(
            f"this hub holds no usage log {origin[:64]!r}",
            code="not-found",
            hint="`lichen usage ls` lists them",
        )
    return LogRow(*row)


async def checkpoint(tx: Tx, log: int, *, holding: int = 0) -> CheckpointRow | None:
    """The newest cosigned checkpoint of a log; None when there is none that holds so many entries."""
    c = usage_checkpoints.c
    asked = select(usage_checkpoints).where(c.log == log, c.cosigned_ms.is_not(None), c.size >= holding)
    row = (await tx.execute(asked.order_by(c.size.desc()).limit(1))).one_or_none()
    return CheckpointRow(*row) if row else None


async def checkpoint_of(tx: Tx, log: int, size: int) -> CheckpointRow | None:
    """The cosigned checkpoint of exactly this size, if one was ever made."""
    c = usage_checkpoints.c
    asked = select(usage_checkpoints).where(c.log == log, c.size == size, c.cosigned_ms.is_not(None))
    row = (await tx.execute(asked)).one_or_none()
    return CheckpointRow(*row) if row else None


async def newest_checkpoints(tx: Tx, logs: Collection[int]) -> dict[int, CheckpointRow]:
    """The newest cosigned checkpoint of each of these logs; those without one are left out."""
    c = usage_checkpoints.c
    largest = (
        select(c.log, func.max(c.size).label("size"))
        .where(c.log.in_(logs), c.cosigned_ms.is_not(None))
        .group_by(c.log)
        .subquery()
    )
    asked = select(usage_checkpoints).join(largest, and_(c.log == largest.c.log, c.size == largest.c.size))
    return {row.log: CheckpointRow(*row) for row in await tx.execute(asked)}


async def conflicts(tx: Tx, *, board: str | None = None, log: int | None = None) -> list[ConflictRow]:
    """The evidence against a board, or in one log, or all there is; the newest first."""
    asked = select(usage_conflicts).order_by(usage_conflicts.c.id.desc())
    if log is not None:
        asked = asked.where(usage_conflicts.c.log == log)
    if board is not None:
        of_board = select(usage_logs.c.id).where(usage_logs.c.board == board)
        asked = asked.where(usage_conflicts.c.log.in_(of_board))
    return [ConflictRow(*row) for row in await tx.execute(asked)]


async def holes(tx: Tx, log: int) -> list[Hole]:
    """What of a log nobody holds any more, in order; holes that touch are one."""
    c = usage_packages.c
    asked = select(c.first, c.count).where(c.log == log, c.data.is_(None)).order_by(c.first)
    found: list[Hole] = []
    for first, count in await tx.execute(asked):
        if found and found[-1].first + found[-1].count == first:
            found[-1] = Hole(found[-1].first, found[-1].count + count)
        else:
            found.append(Hole(first, count))
    return found


async def lost_counts(tx: Tx, logs: Collection[int]) -> dict[int, int]:
    """How many entries of each of these logs are in holes; logs without any are left out."""
    c = usage_packages.c
    asked = select(c.log, func.sum(c.count)).where(c.log.in_(logs), c.data.is_(None)).group_by(c.log)
    return {row[0]: row[1] for row in await tx.execute(asked)}


async def conflict_counts(tx: Tx, logs: Collection[int]) -> dict[int, int]:
    """How much evidence there is in each of these logs; those without any are left out."""
    c = usage_conflicts.c
    asked = select(c.log, func.count()).where(c.log.in_(logs)).group_by(c.log)
    return {row[0]: row[1] for row in await tx.execute(asked)}


async def origins(tx: Tx, of: Collection[str] | None = None) -> dict[int, tuple[str, str]]:
    """Origin and board of each log, by its id; of these boards, or of all."""
    c = usage_logs.c
    asked = select(c.id, c.board, c.epoch)
    if of is not None:
        asked = asked.where(c.board.in_(of))
    return {id: (f"{board}/usage/{epoch}", board) for id, board, epoch in await tx.execute(asked)}


async def names_of(tx: Tx, ids: Collection[str]) -> dict[str, str]:
    """What these boards are called, revoked ones too."""
    asked = select(boards.c.id, boards.c.name).where(boards.c.id.in_(ids))
    return {row[0]: row[1] for row in await tx.execute(asked)}


# --- entries and tiles -------------------------------------------------------------------------------


async def entries(tx: Tx, log: int, start: int, count: int) -> list[bytes | None]:
    """Entries ``start`` to ``start`` + ``count`` - 1 as far as the log goes; None for each in a hole."""
    c = usage_packages.c
    before = select(func.max(c.first)).where(c.log == log, c.first <= start).scalar_subquery()
    asked = (
        select(c.first, c.count, c.data)
        .where(c.log == log, c.first >= before, c.first < start + count)
        .order_by(c.first)
    )
    found: list[bytes | None] = []
    for first, held, data in await tx.execute(asked):
        lines = [None] * held if data is None else _lines(data, held)
        found += lines[max(start - first, 0) : max(start + count - first, 0)]
    return found


def _lines(data: bytes, count: int) -> list[bytes | None]:
    lines: list[bytes | None] = [*zlib.decompressobj().decompress(data, MOST_INFLATED).split(b"\n")]
    lines.pop()
    assert len(lines) == count, "a package is stored as it was counted"
    return lines


async def tile(tx: Tx, log: int, level: int, n: int, width: int = 256) -> bytes | None:
    """The first ``width`` hashes of a tile; None when there are not so many yet."""
    c = usage_tiles.c
    asked = select(usage_tiles.c.hashes).where(c.log == log, c.level == level, c.n == n)
    hashes: bytes | None = (await tx.execute(asked)).scalar_one_or_none()
    return None if hashes is None or len(hashes) < width * HASH else hashes[: width * HASH]


# --- records -----------------------------------------------------------------------------------------


async def records(tx: Tx, log: int, start: int, limit: int) -> list[RecordRow]:
    """Records of one log from index ``start`` on, in order; those in a hole are left out."""
    c = usage_records.c
    asked = select(*RECORD_COLUMNS).where(c.log == log, c.seq >= start).order_by(c.seq).limit(limit)
    return [RecordRow(*row) for row in await tx.execute(asked)]


async def records_between(
    tx: Tx,
    from_ms: int,
    to_ms: int,
    *,
    logs: Collection[int] | None = None,
    types: Collection[str] = (),
    payer: str | None = None,
    workspace: str | None = None,
    app: str | None = None,
    limit: int = 1000,
    after: tuple[int, int] | None = None,
    newest: bool = False,
) -> list[RecordRow]:
    """Records that ended in the range (``to_ms`` excluded), as well as their times are known.

    In the order of log and index, so that ``after`` (log, seq) goes on behind a page; or, with ``newest``,
    the latest first, whatever the log.  Whoever bills looks at times again: see `RecordRow.certain`.
    """
    c = usage_records.c
    asked = _in_range(select(*RECORD_COLUMNS), from_ms, to_ms, logs)
    for column, wanted in ((c.payer, payer), (c.workspace, workspace), (c.app, app)):
        if wanted is not None:
            asked = asked.where(column == wanted)
    if types:
        asked = asked.where(c.type.in_(types))
    if after is not None:
        asked = asked.where(tuple_(c.log, c.seq) > tuple_(*after))
    order = (c.at_ms.desc(), c.log, c.seq.desc()) if newest else (c.log, c.seq)
    return [RecordRow(*row) for row in await tx.execute(asked.order_by(*order).limit(limit))]


async def find_record(tx: Tx, log: int, seq: int) -> RecordRow | None:
    """One record, or None when there is none, or it is in a hole."""
    c = usage_records.c
    row = (await tx.execute(select(*RECORD_COLUMNS).where(c.log == log, c.seq == seq))).one_or_none()
    return RecordRow(*row) if row else None


async def sums(
    tx: Tx,
    from_ms: int,
    to_ms: int,
    *,
    bucket_ms: int,
    by: Group,
    logs: Collection[int] | None = None,
    payer: str | None = None,
    workspace: str | None = None,
    app: str | None = None,
) -> list[Sums]:
    """What containers used in the range, in buckets of ``bucket_ms`` that begin at multiples of it."""
    c = usage_records.c
    key = usage_logs.c.board if by == "board" else c[by]
    bucket = c.at_ms - c.at_ms % bucket_ms
    amounts = (c.cpu_us, c.mem_byte_ms, c.io_r, c.io_w, c.net_rx, c.net_tx)
    cpu, memory, *others = (func.sum(each) for each in amounts)
    asked = select(bucket.label("bucket"), key, func.count(), cpu, memory, func.max(c.mem_peak), *others)
    if by == "board":
        asked = asked.join(usage_logs, usage_logs.c.id == c.log)
    asked = _in_range(asked, from_ms, to_ms, logs).where(c.type == "container")
    for column, wanted in ((c.payer, payer), (c.workspace, workspace), (c.app, app)):
        if wanted is not None:
            asked = asked.where(column == wanted)
    rows = await tx.execute(asked.group_by("bucket", key).order_by("bucket", key))
    return [Sums(*row) for row in rows]


async def mean_length_ms(
    tx: Tx, from_ms: int, to_ms: int, *, logs: Collection[int] | None = None, app: str | None = None
) -> int:
    """How long the time is, in the mean, that a record of a container in the range is about; 0 for none."""
    c = usage_records.c
    asked = _in_range(select(func.avg(c.mono1_ms - c.mono0_ms)), from_ms, to_ms, logs)
    asked = asked.where(c.type == "container")
    if app is not None:
        asked = asked.where(c.app == app)
    return int((await tx.execute(asked)).scalar_one() or 0)


async def boots(tx: Tx, log: int) -> dict[str, tuple[int, int]]:
    """Of each boot in a log the index of its first and last record that says so; for statements."""
    c = usage_records.c
    asked = select(c.boot, func.min(c.seq), func.max(c.seq)).where(c.log == log).group_by(c.boot)
    return {boot: (first, last) for boot, first, last in await tx.execute(asked)}


def _in_range(asked: Select[Any], from_ms: int, to_ms: int, logs: Collection[int] | None) -> Select[Any]:
    """With a list of logs, as the index is by log: without, SQLite would read every record there is."""
    c = usage_records.c
    which = select(usage_logs.c.id) if logs is None else logs
    return asked.where(c.log.in_(which), c.at_ms >= from_ms, c.at_ms < to_ms)
