"""The hub's books: rate cards as they are set, statements as they are drawn up and issued.

Owns the way from the store to `hub.ledger.billing` and back.  Pages and the API ask; nothing is kept in
memory.  Only records under the newest checkpoint that this hub has countersigned are read; what was issued
is never written again.

    books = Books(store, hub_id, name, now_ms)
    await books.set_rate(toml, author)
    statement = await books.draft(Period.parse("2026-11"), payer)
    issued = await books.issue(Period.parse("2026-11"), payer, author)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.wire import tlog
from agent.wire.canonical import to_base64
from agent.wire.errors import Busy, Refused
from agent.wire.usage import HoleRecord, read
from hub.ledger.billing import DEFAULT_WORKSPACE, FIELDS, Measured, Reckoning, Terms
from hub.ledger.corrections import continued
from hub.ledger.period import Period
from hub.ledger.rates import Card, in_force, parse_card
from hub.ledger.statement import Checkpoint, Hole, Statement, digest_of, encode, read_statement
from hub.ledger.times import Boot, Stamp, Times
from hub.store import billing as store
from hub.store import usage
from hub.store.billing import IssuedRow, RateRow
from hub.store.database import Store, Tx
from hub.store.events import add_event
from hub.store.ledgers import CheckpointRow, LogRow

LOGS = 500
"""Logs that are listed at once."""

Told = Mapping[str, tuple[Statement, ...]]
"""What was issued for a period: by payer, the first statement first."""


@dataclass(frozen=True, slots=True)
class KeptCard:
    """A rate card, the text that somebody wrote, and who that was; ``is_in_force`` now."""

    card: Card
    text: str
    set_ms: int
    author: str
    is_in_force: bool


@dataclass(frozen=True, slots=True)
class Account:
    """Where a payer stands in a period: all that was used, as of now, and what was issued of it.

    ``is_behind``: the period has ended, and issuing would make a statement, or a further one.
    """

    payer: str
    statement: Statement
    issued: tuple[Statement, ...]
    is_behind: bool


class Books:
    """See the module.  Made for each use: it has no state of its own."""

    def __init__(self, store: Store, hub: str, name: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._hub = hub
        self._name = name
        self._now_ms = now_ms

    # --- rate cards --------------------------------------------------------------------------------

    async def cards(self) -> list[KeptCard]:
        """The cards that are set, by id."""
        async with self._store.read() as tx:
            rows = await store.list_rates(tx)
        return self._kept(rows)

    async def set_rate(self, text: str, author: str) -> KeptCard:
        """Let a card count from now on.  Raises ConfigError for one that is wrong."""
        card = parse_card(text)
        row = RateRow(card.id, text, self._now_ms(), author)
        async with self._store.write() as tx:
            await store.add_rate(tx, row)
            said = f"rate card {card.id} set"
            await add_event(tx, at_ms=row.set_ms, kind="rate", text=said, actor=author)
            rows = await store.list_rates(tx)
        return next(kept for kept in self._kept(rows) if kept.card.id == card.id)

    async def remove_rate(self, id: str, author: str) -> None:
        """Let a card not count any more.  Raises Refused (code "not-found")."""
        async with self._store.write() as tx:
            if id not in {row.card for row in await store.list_rates(tx)}:
                hint = "`lichen rate ls` lists them"
                raise Refused(f"there is no rate card {id[:80]!r}", code="not-found", hint=hint)
            at_ms = self._now_ms()
            await store.add_rate(tx, RateRow(id, "", at_ms, author))
            await add_event(tx, at_ms=at_ms, kind="rate", text=f"rate card {id} removed", actor=author)

    def _kept(self, rows: Iterable[RateRow]) -> list[KeptCard]:
        read = [(parse_card(row.text), row) for row in rows]
        counting = {card.id for card in in_force([card for card, _ in read], self._now_ms())}
        return [KeptCard(card, row.text, row.set_ms, row.author, card.id in counting) for card, row in read]

    # --- statements --------------------------------------------------------------------------------

    async def accounts(self, period: Period) -> list[Account]:
        """Everybody who used something in a period, or was told that; this hub itself in any case."""
        async with self._store.read() as tx:
            told = await _told(tx, period)
            reckoning = await self._reckon(tx, period, told)
        names = sorted({*told, *reckoning.payers, self._hub})
        return [await self._account(reckoning, period, payer, told.get(payer, ())) for payer in names]

    async def draft(self, period: Period, payer: str) -> Statement:
        """All that a payer has used in a period, as of now, whatever was issued."""
        async with self._store.read() as tx:
            reckoning = await self._reckon(tx, period, await _told(tx, period))
        return await asyncio.to_thread(reckoning.statement, payer)

    async def issued(self, period: Period, payer: str) -> tuple[Statement, ...]:
        """What was issued to a payer for a period, the first one first."""
        async with self._store.read() as tx:
            return (await _told(tx, period)).get(payer, ())

    async def statement(self, period: Period, payer: str, number: int) -> Statement:
        """One statement: that of a number, or for 0 the `draft`.  Raises Refused (code "not-found")."""
        if not number:
            return await self.draft(period, payer)
        issued = await self.issued(period, payer)
        if number > len(issued):
            raise Refused(
                f"{len(issued)} statements of {period.text} were issued to {payer[:64]!r}, not {number}",
                code="not-found",
            )
        return issued[number - 1]

    async def told(self, period: Period) -> list[Statement]:
        """For each payer what was issued for a period, or what would be said of it now."""
        found: list[Statement] = []
        for account in await self.accounts(period):
            found += account.issued or (account.statement,)
        return found

    async def list_issued(self) -> list[IssuedRow]:
        """All that was ever issued, the newest period first."""
        async with self._store.read() as tx:
            return await store.list_statements(tx)

    async def issue(self, period: Period, payer: str, author: str) -> Statement:
        """Issue what is to be said of a period that has ended: the first statement, or what is new since.

        Raises Refused ("too-early", "unchanged"), Busy when somebody else does it just now.
        """
        now_ms = self._now_ms()
        if now_ms <= period.end_ms:
            raise Refused(
                f"{period.text} has not ended yet, by UTC",
                code="too-early",
                hint="what was used so far is in the statement that is not issued",
            )
        async with self._store.read() as tx:
            told = await _told(tx, period)
            reckoning = await self._reckon(tx, period, told)
        issued = told.get(payer, ())
        statement = await asyncio.to_thread(continued, reckoning, payer, issued, now_ms)
        if statement is None:
            raise Refused(f"statement {issued[-1].number} of {period.text} says it all", code="unchanged")
        await self._keep(statement, len(issued), author)
        return statement

    async def _keep(self, statement: Statement, before: int, author: str) -> None:
        """Write a statement down, unless others were issued since."""
        data = await asyncio.to_thread(encode, statement)
        await asyncio.to_thread(read_statement, data)  # what nobody could read must not be issued
        row = IssuedRow(
            period=statement.period,
            payer=statement.payer,
            number=statement.number,
            digest=digest_of(statement),
            issued_ms=statement.issued_ms,
            author=author,
        )
        async with self._store.write() as tx:
            known = await store.list_statements(tx, period=row.period, payer=row.payer)
            if len(known) != before:
                raise Busy(
                    f"statement {row.number} of {row.period} was issued by {known[-1].author} just now"
                )
            await store.add_statement(tx, row, data)
            said = f"statement {row.number} of {row.period} issued to {row.payer}"
            await add_event(tx, at_ms=row.issued_ms, kind="statement", text=said, actor=author)

    async def _account(
        self, reckoning: Reckoning, period: Period, payer: str, issued: Sequence[Statement]
    ) -> Account:
        statement = await asyncio.to_thread(reckoning.statement, payer)
        has_ended = self._now_ms() > period.end_ms
        # The hub's own first statement says that nothing was used, if so; nobody is told that.
        is_new = bool(issued or statement.lines) and has_ended
        further = await asyncio.to_thread(continued, reckoning, payer, issued, 0) if is_new else None
        return Account(payer, statement, tuple(issued), further is not None)

    # --- from the store ----------------------------------------------------------------------------

    async def _reckon(self, tx: Tx, period: Period, told: Told) -> Reckoning:
        """All logs of this hub gone through for a period."""
        logs = [log async for log in _logs(tx)]
        labels: dict[str, Mapping[str, str]] = {**await store.labels_of(tx, {log.board for log in logs})}
        # The first statement that names a board settles its labels: a later change changes no price of then.
        issued = sorted((each for some in told.values() for each in some), key=lambda each: each.issued_ms)
        for place in (place for statement in reversed(issued) for place in statement.boards):
            labels[place.board] = place.labels
        cards = tuple(parse_card(row.text) for row in await store.list_rates(tx))
        reckoning = Reckoning(Terms(self._hub, self._name, period, cards, labels))
        heads = await usage.newest_checkpoints(tx, [log.id for log in logs])
        for log in logs:
            if head := heads.get(log.id):
                await self._take(tx, reckoning, period, log, head)
        return reckoning

    async def _take(
        self, tx: Tx, reckoning: Reckoning, period: Period, log: LogRow, head: CheckpointRow
    ) -> None:
        checkpoint = _checkpoint(head)
        ends = await store.trusted_ends(tx, log.id, head.size)
        times = Times(Boot(Stamp(*first), Stamp(*last)) for first, last in ends)
        span = (period.start_ms, period.end_ms)
        async for rows in store.uses_trusted(tx, log.id, FIELDS, *span, head.size):
            reckoning.take(checkpoint, times, self._measured(rows))
        async for rows in store.uses_untrusted(tx, log.id, FIELDS, head.size):
            reckoning.take(checkpoint, times, self._measured(rows))
        reckoning.lose([hole async for hole in _holes(tx, log, head.size)])

    def _measured(self, rows: Iterable[Sequence[Any]]) -> Iterator[Measured]:
        for row in rows:
            payer, workspace, app, service, sensor = row[6:11]
            yield Measured(
                Stamp(*row[:6]),
                payer or self._hub,
                workspace or DEFAULT_WORKSPACE,
                app or "",
                service or "",
                sensor or "",
                tuple(row[11:]),
            )


async def _told(tx: Tx, period: Period) -> Told:
    rows = await store.list_statements(tx, period=period.text)
    told: dict[str, tuple[Statement, ...]] = {}
    for payer in sorted({row.payer for row in rows}):
        found = await store.statement_bytes(tx, period.text, payer)
        told[payer] = tuple([await asyncio.to_thread(read_statement, data) for data in found])
    return told


async def _logs(tx: Tx) -> AsyncIterator[LogRow]:
    """Every log of this hub."""
    after = 0
    while found := await usage.list_logs(tx, limit=LOGS, after=after):
        for log in found:
            yield log
        after = found[-1].id


async def _holes(tx: Tx, log: LogRow, below: int) -> AsyncIterator[Hole]:
    for seq in await store.hole_records(tx, log.id, below):
        [entry] = await usage.entries(tx, log.id, seq, 1)
        record = read(entry) if entry is not None else None
        if isinstance(record, HoleRecord):
            yield Hole(log.origin, record.first, record.count, record.reason)


def _checkpoint(row: CheckpointRow) -> Checkpoint:
    """What a note says that was checked when it was stored."""
    head = tlog.Checkpoint.parse(row.note[: row.note.rindex("\n\n") + 1])
    return Checkpoint(head.origin, head.size, to_base64(head.root))
