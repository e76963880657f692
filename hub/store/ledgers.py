"""Usage logs as their witness writes them: what is held, and up to where.

Owns the tables of `hub.store.usage_schema` as far as they are written.  `hub.ledger.witness` decides what is
true and calls these inside of one transaction; questions of pages, statements and proofs are answered by
`hub.store.usage`.  Nothing here is ever changed or removed but for what stands beside the entries: the
frontier, the tiles that are not full, the times of records whose clock became known.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from hub.store.database import Tx, upsert
from hub.store.usage_schema import (
    usage_allowances,
    usage_checkpoints,
    usage_conflicts,
    usage_logs,
    usage_packages,
    usage_records,
    usage_tiles,
)

TileKey = tuple[int, int]
"""(level, n)"""
SQUEEZE = 3
"""Level of zlib: twice as fast as the usual one, and hardly larger, as a quarter of an entry is chance."""


@dataclass(frozen=True, slots=True)
class LogRow:
    """One epoch of a board's usage log; see `usage_schema.usage_logs`."""

    id: int
    board: str
    epoch: str
    begun_ms: int
    heard_ms: int
    stored_ms: int
    claimed: int
    size: int
    entry_bytes: int
    frontier: bytes
    pending_size: int
    pending: str
    conflict_ms: int | None

    @property
    def origin(self) -> str:
        """Its name, as it stands in checkpoints."""
        return f"{self.board}/usage/{self.epoch}"


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint of which every entry is held; ``cosigned_ms`` is None while it is not cosigned."""

    log: int
    size: int
    note: str
    cosigned_ms: int | None


@dataclass(frozen=True, slots=True)
class RecordRow:
    """What an entry says, in columns (`usage_schema.usage_records`); None where its type has no such key."""

    log: int
    seq: int
    type: str
    boot: str
    mono0_ms: int
    mono1_ms: int
    wall0_ms: int
    wall1_ms: int
    clock: str
    at_ms: int
    certain: int
    payer: str | None = None
    workspace: str | None = None
    app: str | None = None
    service: str | None = None
    image: str | None = None
    container: str | None = None
    run: str | None = None
    lease: str | None = None
    generation: int | None = None
    cpu_us: int | None = None
    mem_byte_ms: int | None = None
    mem_sample_ms: int | None = None
    mem_peak: int | None = None
    io_r: int | None = None
    io_w: int | None = None
    net_rx: int | None = None
    net_tx: int | None = None
    reset: int | None = None
    oom_kills: int | None = None
    ended: int | None = None
    exit_code: int | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    sensor: str | None = None
    unit: str | None = None
    readings: int | None = None
    day: int | None = None


@dataclass(frozen=True, slots=True)
class ConflictRow:
    """Two notes of one board that cannot both be true: evidence; ``size`` of the tree they differ about."""

    id: int
    log: int
    at_ms: int
    size: int
    kept: str
    shown: str
    reason: str


RECORD_COLUMNS = [usage_records.c[field.name] for field in fields(RecordRow)]
_RECORD_NAMES = [field.name for field in fields(RecordRow)]
# Core would look at 40 values of each row to see how to bind them; SQLite takes them as they are.
_RECORD_SQL = (
    f"INSERT INTO usage_records ({','.join(_RECORD_NAMES)})"  # noqa: S608  names of ours alone
    f" VALUES ({','.join('?' * len(_RECORD_NAMES))})"
)


# --- what the witness asks ------------------------------------------------------------------------


async def find_log(tx: Tx, board: str, epoch: str) -> LogRow | None:
    """One epoch of a board's log, or None."""
    asked = select(usage_logs).where(usage_logs.c.board == board, usage_logs.c.epoch == epoch)
    row = (await tx.execute(asked)).one_or_none()
    return LogRow(*row) if row else None


async def newest_checkpoint(tx: Tx, log: int) -> CheckpointRow | None:
    """The largest checkpoint of which every entry is held, cosigned or not."""
    asked = select(usage_checkpoints).where(usage_checkpoints.c.log == log)
    row = (await tx.execute(asked.order_by(usage_checkpoints.c.size.desc()).limit(1))).one_or_none()
    return CheckpointRow(*row) if row else None


async def find_tiles(tx: Tx, log: int, keys: Sequence[TileKey]) -> dict[TileKey, bytes]:
    """The hashes of these tiles of a log, as many as there are yet; tiles that are not there are left out."""
    found: dict[TileKey, bytes] = {}
    for level, n in keys:
        asked = select(usage_tiles.c.hashes).where(
            usage_tiles.c.log == log, usage_tiles.c.level == level, usage_tiles.c.n == n
        )
        hashes = (await tx.execute(asked)).scalar_one_or_none()
        if hashes is not None:
            found[level, n] = hashes
    return found


async def last_time_ms(tx: Tx, log: int) -> int:
    """The time of the newest record of a log; 0 when it has none."""
    asked = select(usage_records.c.at_ms).where(usage_records.c.log == log)
    return (await tx.execute(asked.order_by(usage_records.c.seq.desc()).limit(1))).scalar() or 0


async def known_offset_ms(tx: Tx, log: int, boot: str) -> int | None:
    """What to add to the monotonic clock of a boot to have the time, if a record of it was certain."""
    asked = (
        select(usage_records.c.at_ms - usage_records.c.mono1_ms)
        .where(usage_records.c.log == log, usage_records.c.boot == boot, usage_records.c.certain == 1)
        .order_by(usage_records.c.seq.desc())
        .limit(1)
    )
    return (await tx.execute(asked)).scalar()


async def paid_until_ms(tx: Tx, board: str) -> int:
    """Up to when the allowance of a board is used; 0 when none of it is."""
    asked = select(usage_allowances.c.paid_ms).where(usage_allowances.c.board == board)
    return (await tx.execute(asked)).scalar() or 0


# --- what the witness writes ----------------------------------------------------------------------


async def add_log(tx: Tx, board: str, epoch: str, at_ms: int) -> LogRow:
    """Begin an empty log."""
    values: dict[str, Any] = {
        "board": board,
        "epoch": epoch,
        "begun_ms": at_ms,
        "heard_ms": at_ms,
        "stored_ms": at_ms,
        "claimed": 0,
        "size": 0,
        "entry_bytes": 0,
        "frontier": b"",
        "pending_size": 0,
        "pending": "",
        "conflict_ms": None,
    }
    id = (await tx.execute(insert(usage_logs).returning(usage_logs.c.id), values)).scalar_one()
    return LogRow(id, **values)


async def save_log(tx: Tx, log: LogRow) -> None:
    """Let the log stand where ``log`` says."""
    values = {field.name: getattr(log, field.name) for field in fields(log)}
    await tx.execute(update(usage_logs).where(usage_logs.c.id == values.pop("id")).values(values))


async def add_package(
    tx: Tx, log: int, first: int, entries: Sequence[bytes] | None, count: int, at_ms: int
) -> None:
    """Keep entries as they came; None for a hole of ``count`` entries that nobody holds."""
    text = b"".join(entry + b"\n" for entry in entries or ())
    values = {
        "log": log,
        "first": first,
        "count": count,
        "received_ms": at_ms,
        "entry_bytes": len(text) - len(entries or ()),
        "data": None if entries is None else zlib.compress(text, SQUEEZE),
    }
    await tx.execute(insert(usage_packages), values)


async def save_tiles(tx: Tx, log: int, tiles: Mapping[TileKey, bytes]) -> None:
    """Keep the hashes of these tiles in place of the fewer ones that were there."""
    adding = upsert(tx, usage_tiles)
    rows = [{"log": log, "level": level, "n": n, "hashes": hashes} for (level, n), hashes in tiles.items()]
    if rows:
        newer = {"hashes": adding.excluded.hashes}
        await tx.execute(adding.on_conflict_do_update(index_elements=["log", "level", "n"], set_=newer), rows)


async def add_records(tx: Tx, rows: Sequence[tuple[Any, ...]]) -> None:
    """Store what entries say: for each the values of a `RecordRow`."""
    if not rows:
        return
    if tx.dialect.name == "sqlite":
        await tx.exec_driver_sql(_RECORD_SQL, list(rows))
    else:
        named = [dict(zip(_RECORD_NAMES, each, strict=True)) for each in rows]
        await tx.execute(insert(usage_records), named)


async def set_times(tx: Tx, log: int, boot: str, offset_ms: int) -> None:
    """The clock of a boot is known now: its records that waited for that get their time."""
    waiting = (
        usage_records.c.log == bindparam("p_log"),
        usage_records.c.boot == bindparam("p_boot"),
        usage_records.c.certain == 0,
    )
    values = {"at_ms": usage_records.c.mono1_ms + offset_ms, "certain": 1}
    await tx.execute(update(usage_records).where(*waiting).values(values), {"p_log": log, "p_boot": boot})


async def add_checkpoints(tx: Tx, rows: Sequence[CheckpointRow]) -> None:
    """Keep checkpoints of which every entry is held; one that is there stays."""
    values = [{field.name: getattr(row, field.name) for field in fields(row)} for row in rows]
    if values:
        await tx.execute(upsert(tx, usage_checkpoints).on_conflict_do_nothing(), values)


async def save_cosignature(tx: Tx, row: CheckpointRow) -> None:
    """Keep a checkpoint with the cosignature that it has now."""
    which = (usage_checkpoints.c.log == row.log, usage_checkpoints.c.size == row.size)
    values = {"note": row.note, "cosigned_ms": row.cosigned_ms}
    await tx.execute(update(usage_checkpoints).where(*which).values(values))


async def add_conflict(tx: Tx, row: ConflictRow, *, most: int) -> bool:
    """Keep evidence (the id is drawn), the first ``most`` of a log.  Whether it is new."""
    c = usage_conflicts.c
    same = select(c.id).where(c.log == row.log, c.shown == row.shown).limit(1)
    if (await tx.execute(same)).first() is not None:
        return False
    count = select(func.count()).where(c.log == row.log)
    if (await tx.execute(count)).scalar_one() >= most:
        return False
    values = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "id"}
    await tx.execute(insert(usage_conflicts), values)
    return True


async def pay(tx: Tx, board: str, until_ms: int) -> None:
    """The allowance of a board is used up to then."""
    adding = upsert(tx, usage_allowances).values(board=board, paid_ms=until_ms)
    await tx.execute(
        adding.on_conflict_do_update(index_elements=["board"], set_={"paid_ms": adding.excluded.paid_ms})
    )
