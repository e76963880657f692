"""Usage logs in the API: which there are and how each stands; and entries that somebody brings by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from agent.wire.canonical import from_base64
from agent.wire.decode import Length, Range
from agent.wire.errors import Corrupt, Refused
from agent.wire.package import MAX_ENTRIES, MAX_PACKAGE, Package, Receipt, encode_package
from agent.wire.tlog import HASH
from agent.wire.usage import split_origin
from hub.store import boards, usage
from hub.store.database import Tx
from hub.store.ledgers import LogRow
from hub.web.api import table
from hub.web.api.paging import SAYS, After, id_after
from hub.web.api.route import Call
from hub.web.api.table import Table

MAX_IMPORT = 3 * MAX_PACKAGE
"""Bytes of a package as JSON: its quotes are escaped, its hashes longer."""

_Hash = Annotated[str, Length(44, 44)]


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which usage logs."""

    board: Annotated[str, Length(0, boards.LONGEST_NAME)] = field(
        default="", metadata={"says": "Only those of this board, by id or name"}
    )
    limit: Annotated[int, Range(1, 500)] = field(default=200, metadata={"says": "Most logs in one answer"})
    after: After = field(default="", metadata=SAYS)


@dataclass(frozen=True, slots=True)
class UsageLog:
    """How a usage log stands.

    ``size``: entries that this hub holds; ``claimed``: how many the board last said it has; ``behind``: how
    many of those are under no receipt yet.  ``is_current``: the board writes into this one, the others of it
    are over.  ``receipt_size`` and ``receipt_ms``: the newest receipt; null before the first.  ``lost``:
    entries of which nobody holds more than the hash.  ``conflicts``: how often the board signed something
    else than what is held; since ``conflict_ms`` nothing more is taken.
    """

    origin: str
    board: str
    name: str
    epoch: str
    is_current: bool
    begun_ms: int
    heard_ms: int
    stored_ms: int
    size: int
    claimed: int
    behind: int
    entry_bytes: int
    receipt_size: int | None
    receipt_ms: int | None
    lost: int
    conflicts: int
    conflict_ms: int | None


@dataclass(frozen=True, slots=True)
class LogList:
    """Usage logs in the order in which this hub first heard of them."""

    logs: tuple[UsageLog, ...]
    next: str | None = None


def table_of(page: LogList) -> Table:
    """Logs as CSV."""
    return Table(
        ("origin", "board", "current", "begun", "stored", "size", "behind", "receipt", "lost", "conflicts"),
        (
            (
                each.origin,
                table.text(each.name),
                int(each.is_current),
                table.time(each.begun_ms),
                table.time(each.stored_ms),
                each.size,
                each.behind,
                table.time(each.receipt_ms),
                each.lost,
                each.conflicts,
            )
            for each in page.logs
        ),
    )


async def list_logs(call: Call, query: LogQuery) -> LogList:
    """List usage logs, and how each stands.

    The files of a log, and the proof of each of its records, are below `/tlog/{board}/{epoch}/`, as
    https://c2sp.org/tlog-tiles has them.
    """
    after = id_after(query.after) or 0
    async with call.parts.store.read() as tx:
        of = [(await boards.get_board(tx, query.board)).id] if query.board else None
        rows = await usage.list_logs(tx, of=of, limit=query.limit + 1, after=after)
        page = rows[: query.limit]
        shown = await standing_of(tx, page)
    return LogList(tuple(shown), str(page[-1].id) if len(rows) > len(page) else None)


async def standing_of(tx: Tx, logs: Sequence[LogRow]) -> list[UsageLog]:
    """How these logs stand, in their order."""
    ids = [log.id for log in logs]
    owners = {log.board for log in logs}
    names = await usage.names_of(tx, owners)
    current = {log.id for log in (await usage.current_logs(tx, owners)).values()}
    heads = await usage.newest_checkpoints(tx, ids)
    lost, conflicts = await usage.lost_counts(tx, ids), await usage.conflict_counts(tx, ids)
    shown = []
    for log in logs:
        head = heads.get(log.id)
        receipted = head.size if head else 0
        shown.append(
            UsageLog(
                origin=log.origin,
                board=log.board,
                name=names.get(log.board, log.board),
                epoch=log.epoch,
                is_current=log.id in current,
                begun_ms=log.begun_ms,
                heard_ms=log.heard_ms,
                stored_ms=log.stored_ms,
                size=log.size,
                claimed=log.claimed,
                behind=max(log.claimed, log.size, log.pending_size) - receipted,
                entry_bytes=log.entry_bytes,
                receipt_size=head.size if head else None,
                receipt_ms=head.cosigned_ms if head else None,
                lost=lost.get(log.id, 0),
                conflicts=conflicts.get(log.id, 0),
                conflict_ms=log.conflict_ms,
            )
        )
    return shown


# --- import ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImportedPackage:
    """Entries of a log from ``start`` on, each the exact line, and the checkpoint that holds them.

    ``proof``: the consistency proof from the last of them to the checkpoint; ``lost``: leaf hashes of entries
    before the others that nobody holds any more.  Without entries it asks what this hub holds.  Hashes are in
    base64.
    """

    origin: Annotated[str, Length(1, 64)]
    start: Annotated[int, Range(0, 2**53)]
    checkpoint: Annotated[str, Length(0, 16_384)] = ""
    entries: Annotated[tuple[str, ...], Length(0, MAX_ENTRIES)] = ()
    proof: Annotated[tuple[_Hash, ...], Length(0, 64)] = ()
    lost: Annotated[tuple[_Hash, ...], Length(0, MAX_ENTRIES)] = ()


@dataclass(frozen=True, slots=True)
class ImportReceipt:
    """What this hub holds now, ``size`` entries, and the checkpoint that it cosigned.

    ``state``: "ok"; "behind" when the entries did not begin there; "unknown" before the first; "conflict"
    when the board signed another history than this hub holds, which is kept as evidence.
    """

    origin: str
    size: int
    note: str
    state: str
    reason: str


async def import_package(call: Call, body: ImportedPackage) -> ImportReceipt:
    """Bring entries of a board's usage log.

    For boards without a network: whoever carries an export hands it over here.  All of it is verified as if
    the board had sent it, by its key; who brings it does not matter.
    """
    package = Package(
        body.origin,
        "",
        body.start,
        tuple(entry.encode() for entry in body.entries),
        tuple(from_base64(each, "a hash of the proof", HASH) for each in body.proof),
        body.checkpoint,
        tuple(from_base64(each, "a hash of a lost entry", HASH) for each in body.lost),
    )
    encode_package(package)  # refuses what no board could have sent
    board, _ = split_origin(body.origin)
    try:
        receipt = await call.parts.witness.take(board, package)
    except Corrupt as error:
        raise Refused(str(error), code="invalid", hint=error.hint) from error
    return _shown(receipt)


def _shown(receipt: Receipt) -> ImportReceipt:
    return ImportReceipt(receipt.origin, receipt.size, receipt.note, receipt.state, receipt.reason)
