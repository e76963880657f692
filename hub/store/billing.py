"""Questions of whoever bills: rate cards, statements that were issued, and what was used when.

Owns the tables of `hub.store.billing_schema`, and how the records of `hub.store.usage_schema` are read for a
statement: all of them, a part at a time, without an opinion on their times (`hub.ledger.times` has one).
`hub.ledger.books` asks.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, func, insert, select, tuple_

from hub.store.billing_schema import usage_rates, usage_statements
from hub.store.database import Tx
from hub.store.schema import boards
from hub.store.usage_schema import usage_records

PART = 5_000
"""Records that are read at once."""
UNTRUSTED = "unsynced"
BILLED = ("container", "sensor")


@dataclass(frozen=True, slots=True)
class RateRow:
    """A rate card as it was written, and by whom; ``card`` is its id."""

    card: str
    text: str
    set_ms: int
    author: str


@dataclass(frozen=True, slots=True)
class IssuedRow:
    """A statement that was issued, without what it says."""

    period: str
    payer: str
    number: int
    digest: str
    issued_ms: int
    author: str


# --- rate cards ------------------------------------------------------------------------------------


async def add_rate(tx: Tx, row: RateRow) -> None:
    """Let a card count from now on in place of the one with its id; an empty ``text`` ends that."""
    values = {"card": row.card, "text": row.text, "set_ms": row.set_ms, "author": row.author}
    await tx.execute(insert(usage_rates), values)


async def list_rates(tx: Tx) -> list[RateRow]:
    """The cards that count, by id."""
    newest = select(func.max(usage_rates.c.id)).group_by(usage_rates.c.card)
    asked = select(usage_rates).where(usage_rates.c.id.in_(newest), usage_rates.c.text != "")
    rows = await tx.execute(asked.order_by(usage_rates.c.card))
    return [RateRow(row.card, row.text, row.set_ms, row.author) for row in rows]


# --- statements ------------------------------------------------------------------------------------


async def add_statement(tx: Tx, row: IssuedRow, data: bytes) -> None:
    """Keep a statement for good."""
    values = {name: getattr(row, name) for name in IssuedRow.__slots__}
    await tx.execute(insert(usage_statements), {**values, "data": zlib.compress(data)})


async def list_statements(tx: Tx, *, period: str = "", payer: str = "") -> list[IssuedRow]:
    """What was issued for a period, to a payer, or at all; by period, payer and number."""
    c = usage_statements.c
    columns = [c[name] for name in IssuedRow.__slots__]
    asked = select(*columns).order_by(c.period.desc(), c.payer, c.number)
    for column, wanted in ((c.period, period), (c.payer, payer)):
        if wanted:
            asked = asked.where(column == wanted)
    return [IssuedRow(*row) for row in await tx.execute(asked)]


async def statement_bytes(tx: Tx, period: str, payer: str) -> list[bytes]:
    """What was issued to a payer for a period, the first one first."""
    c = usage_statements.c
    asked = select(c.data).where(c.period == period, c.payer == payer).order_by(c.number)
    return [zlib.decompress(data) for (data,) in await tx.execute(asked)]


# --- records ---------------------------------------------------------------------------------------


_STAMP = ("seq", "boot", "mono0_ms", "mono1_ms", "wall1_ms", "clock")
_WHOSE = ("payer", "workspace", "app", "service", "sensor")


async def uses_trusted(
    tx: Tx, log: int, fields: Sequence[str], from_ms: int, to_ms: int, below: int
) -> AsyncIterator[Sequence[Any]]:
    """Records below an index, of a trusted clock, that ended after ``from_ms`` and not after ``to_ms``.

    They come in parts; a row is what `hub.ledger.times.Stamp` has, payer, workspace, app, service, sensor,
    and ``fields``.
    """
    c = usage_records.c
    after: tuple[int, int] = (from_ms, 2**62)
    while True:
        # The time of such a record is what its clock said, and that is what the index is by.
        behind = (c.at_ms > from_ms, c.at_ms <= to_ms, tuple_(c.at_ms, c.seq) > tuple_(*after))
        asked = _uses(log, fields, below).where(c.clock != UNTRUSTED, *behind)
        rows = (await tx.execute(asked.order_by(c.at_ms, c.seq).limit(PART))).all()
        yield rows
        if len(rows) < PART:
            return
        after = (rows[-1].wall1_ms, rows[-1].seq)


async def uses_untrusted(tx: Tx, log: int, fields: Sequence[str], below: int) -> AsyncIterator[Sequence[Any]]:
    """All records of a clock that was not trusted, whenever that was; as `uses_trusted`."""
    c = usage_records.c
    after = -1
    while True:
        asked = _uses(log, fields, below).where(c.clock == UNTRUSTED, c.seq > after)
        rows = (await tx.execute(asked.order_by(c.seq).limit(PART))).all()
        yield rows
        if len(rows) < PART:
            return
        after = rows[-1].seq


def _uses(log: int, fields: Sequence[str], below: int) -> Select[Any]:
    c = usage_records.c
    columns = [c[name] for name in (*_STAMP, *_WHOSE, *fields)]
    return select(*columns).where(c.log == log, c.seq < below, c.type.in_(BILLED))


async def trusted_ends(tx: Tx, log: int, below: int) -> list[tuple[Sequence[Any], Sequence[Any]]]:
    """Of each boot of a log its first and its last record of a trusted clock, as `hub.ledger.times.Stamp`s.

    Reads all of the log; what has no untrusted record needs no answer and has none.
    """
    c = usage_records.c
    columns = [c[name] for name in _STAMP]
    untrusted = select(c.seq).where(c.log == log, c.clock == UNTRUSTED, c.seq < below).limit(1)
    if (await tx.execute(untrusted)).first() is None:
        return []
    ends = (
        select(func.min(c.seq).label("first"), func.max(c.seq).label("last"))
        .where(c.log == log, c.seq < below, c.clock != UNTRUSTED)
        .group_by(c.boot)
        .subquery()
    )
    found = []
    for end in (ends.c.first, ends.c.last):
        asked = select(*columns).join(ends, and_(c.log == log, c.seq == end)).order_by(ends.c.first)
        found.append([tuple(row) for row in await tx.execute(asked)])
    return list(zip(*found, strict=True))


async def hole_records(tx: Tx, log: int, below: int) -> list[int]:
    """The indexes of the records that declare a hole."""
    c = usage_records.c
    asked = select(c.seq).where(c.log == log, c.type == "hole", c.seq < below).order_by(c.seq)
    return [seq for (seq,) in await tx.execute(asked)]


async def labels_of(tx: Tx, ids: Collection[str]) -> dict[str, dict[str, str]]:
    """The labels of boards, by id."""
    asked = select(boards.c.id, boards.c.labels).where(boards.c.id.in_(ids))
    return {row.id: row.labels for row in await tx.execute(asked)}


async def names_of(tx: Tx, ids: Collection[str]) -> dict[str, str]:
    """What boards are called, those that were put out, too; by id."""
    asked = select(boards.c.id, boards.c.name).where(boards.c.id.in_(ids))
    return {row.id: row.name for row in await tx.execute(asked)}
