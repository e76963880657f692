"""Statements in the API: what was used in a period and what it costs, as JSON and as FOCUS."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from aiohttp import web

from agent.wire.decode import Length, Range
from hub.ledger import focus
from hub.ledger.books import Account
from hub.ledger.period import Period
from hub.ledger.statement import Statement, Total, digest_of
from hub.web.api import table
from hub.web.api.route import Call
from hub.web.books import books_of, period_of

Payer = Annotated[str, Length(0, 256)]
WHO = {"says": "Who pays; this hub itself when left out"}
MOST = Range(0, 10_000)


@dataclass(frozen=True, slots=True)
class AccountsQuery:
    """Of which period."""

    period: Annotated[str, Length(0, 10)] = field(
        default="",
        metadata={"says": "A month or a day, in UTC; this month when left out", "example": "2026-11"},
    )


@dataclass(frozen=True, slots=True)
class IssuedStatement:
    """A statement that was issued; ``digest`` is the SHA-256 of its bytes."""

    number: int
    digest: str
    issued_ms: int
    lines: int
    totals: tuple[Total, ...]


@dataclass(frozen=True, slots=True)
class AccountOfPayer:
    """What a payer has used, as of now, and what was issued of it.

    ``is_behind``: the period has ended, and there is something to issue.
    """

    payer: str
    lines: int
    totals: tuple[Total, ...]
    issued: tuple[IssuedStatement, ...]
    is_behind: bool


@dataclass(frozen=True, slots=True)
class Accounts:
    """Everybody who used something in a period, and this hub itself."""

    period: str
    from_ms: int
    to_ms: int
    accounts: tuple[AccountOfPayer, ...]


@dataclass(frozen=True, slots=True)
class StatementQuery:
    """Which statement."""

    payer: Payer = field(default="", metadata=WHO)
    number: Annotated[int, MOST] = field(
        default=0, metadata={"says": "One that was issued; 0: all that was used, as of now"}
    )


@dataclass(frozen=True, slots=True)
class FocusQuery:
    """Which statements."""

    payer: Payer = field(default="", metadata={"says": "Who pays; everybody when left out"})
    number: Annotated[int, MOST] | None = field(
        default=None,
        metadata={"says": "As for a statement; when left out, all that were issued, or else what is so far"},
    )


@dataclass(frozen=True, slots=True)
class Issue:
    """To whom."""

    payer: Payer = ""


async def list_accounts(call: Call, query: AccountsQuery) -> Accounts:
    """List who has used something in a period, and what was issued."""
    period = period_of(call.parts, query.period)
    found = await books_of(call.parts).accounts(period)
    return Accounts(period.text, period.start_ms, period.end_ms, tuple(_shown(each) for each in found))


async def show_statement(call: Call, period: str, query: StatementQuery) -> Statement:
    """Show a statement.

    The body of the answer is the statement: the bytes of which an issued one's digest is made.
    """
    payer = query.payer or call.parts.id
    return await books_of(call.parts).statement(Period.parse(period), payer, query.number)


async def issue_statement(call: Call, period: str, body: Issue) -> Statement:
    """Issue a statement of a period that has ended.

    The first one says it all.  Each further one only corrects: its lines take back what is not right any
    more, and say what is.
    """
    return await books_of(call.parts).issue(Period.parse(period), body.payer or call.parts.id, call.admin)


async def export_focus(call: Call, period: str, query: FocusQuery) -> web.Response:
    """Export statements as FOCUS 1.2.

    The FinOps Open Cost and Usage Specification, as CSV: a row for each charge of each line, with the origin
    of the log, the leaf indexes and the size of the checkpoint in columns of its own.
    """
    books, of = books_of(call.parts), Period.parse(period)
    if query.number is not None:
        found = [await books.statement(of, query.payer or call.parts.id, query.number)]
    else:
        found = [each for each in await books.told(of) if query.payer in ("", each.payer)]
    body = await asyncio.to_thread(focus.export, found)
    response = web.Response(body=body, content_type=table.MEDIA, charset="utf-8")
    response.enable_compression()
    return response


def _shown(account: Account) -> AccountOfPayer:
    return AccountOfPayer(
        payer=account.payer,
        lines=len(account.statement.lines),
        totals=account.statement.totals,
        issued=tuple(
            IssuedStatement(each.number, digest_of(each), each.issued_ms, len(each.lines), each.totals)
            for each in account.issued
        ),
        is_behind=account.is_behind,
    )
