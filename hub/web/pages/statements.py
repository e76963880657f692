"""The pages of statements: who has used what in a period, and each line with the proofs of its records.

Owns how a statement looks in a browser.  Issuing one says first what it means, and is a button of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from urllib.parse import quote, urlencode

from aiohttp import web

from agent.wire.errors import Busy, Refused
from agent.wire.usage import split_origin
from hub.ledger.books import Account, Books
from hub.ledger.leaves import read as read_leaves
from hub.ledger.meters import METERS, Meter
from hub.ledger.money import cents, rough
from hub.ledger.period import Period, month_of
from hub.ledger.rates import Card
from hub.ledger.statement import Charge, Line, Statement, digest_of
from hub.store.billing import names_of
from hub.web.books import books_of, period_of
from hub.web.guard import PRINCIPAL
from hub.web.pages.forms import integer_of, read_form
from hub.web.pages.render import go, page
from hub.web.parts import Parts, parts_of
from hub.web.problems import status_of

LINES = 100
"""Lines on a page."""
PROOFS = 200
"""Records of a line whose proofs are linked one by one."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A charge in words."""

    said: str
    quantity: str
    price: str
    amount: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line: what it is for, its charges, its records and where their proofs are.

    ``back``: the number of the statement of which it takes a line back, and which line; "" for none.
    """

    number: int
    what: str
    board: str
    name: str
    workspace: str
    from_ms: int
    to_ms: int
    is_uncertain: bool
    back: str
    charges: tuple[Shown, ...]
    origin: str
    size: int
    leaves: str
    records: int
    proofs: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Payer:
    """An account, in words."""

    id: str
    name: str
    so_far: str
    issued: tuple[int, ...]
    is_behind: bool
    address: str


async def show_accounts(request: web.Request) -> web.Response:
    """Who has used something in a period; ``period``: this month without."""
    parts = parts_of(request)
    period = period_of(parts, request.query.get("period", ""))
    books = books_of(parts)
    accounts = await books.accounts(period)
    return page(
        request,
        "usage_statements.html",
        {
            "period": period,
            "goes_on": parts.now_ms() <= period.end_ms,
            "before": month_of(period.start_ms),
            "after": month_of(period.end_ms + 1),
            "payers": [_payer(parts, period, account) for account in accounts],
            "cards": [(kept, _prices(kept.card)) for kept in await books.cards()],
        },
    )


async def show_statement(request: web.Request) -> web.Response:
    """A statement: one that was issued (``number``), or all that was used, as of now."""
    return await _statement(request)


async def issue_statement(request: web.Request) -> web.Response:
    """What the button posts."""
    parts = parts_of(request)
    period = Period.parse(request.match_info["period"])
    payer = (await read_form(request)).get("payer", "") or parts.id
    try:
        statement = await books_of(parts).issue(period, payer, request[PRINCIPAL].admin)
    except (Refused, Busy) as error:
        return await _statement(request, payer, error)
    return go(request, _address(period, payer, statement.number))


async def _statement(
    request: web.Request, payer: str = "", error: Refused | Busy | None = None
) -> web.Response:
    parts = parts_of(request)
    period = Period.parse(request.match_info["period"])
    payer = payer or request.query.get("payer", "")[:256] or parts.id
    number = 0 if error else integer_of("number", request.query.get("number", "0"), 0, 10_000)
    first = integer_of("first", request.query.get("first", "0"), 0, 10**9)
    account, statement = await _found(books_of(parts), period, payer, number)
    digests = {digest_of(each): each.number for each in account.issued}
    shown = statement.lines[first : first + LINES]
    async with parts.store.read() as tx:
        names = await names_of(tx, {line.board for line in shown})
    query = {"payer": payer, "number": number}
    return page(
        request,
        "usage_statement.html",
        {
            "period": period,
            "statement": statement,
            "account": _payer(parts, period, account),
            "digest": digest_of(statement) if number else "",
            "totals": [(cents(total.amount), total.currency) for total in statement.totals],
            "rows": _rows(statement, shown, first, names, digests),
            "next": _address(period, payer, number, first + LINES)
            if first + LINES < len(statement.lines)
            else "",
            "json": f"/api/v1/usage/statements/{period.text}?{urlencode(query)}",
            "focus": f"/api/v1/usage/statements/{period.text}/focus?{urlencode(query)}",
            "error": error,
        },
        status=status_of(error) if error else 200,
    )


async def _found(books: Books, period: Period, payer: str, number: int) -> tuple[Account, Statement]:
    accounts = {account.payer: account for account in await books.accounts(period)}
    account = accounts.get(payer)
    if account is None:
        raise Refused(f"{payer[:64]} has used nothing in {period.text}", code="not-found")
    if number > len(account.issued):
        raise Refused(f"there is no statement {number} of {period.text} for {payer[:64]}", code="not-found")
    return account, account.issued[number - 1] if number else account.statement


# --- in words --------------------------------------------------------------------------------------


def _payer(parts: Parts, period: Period, account: Account) -> Payer:
    so_far = ", ".join(f"{cents(total.amount)} {total.currency}" for total in account.statement.totals)
    return Payer(
        id=account.payer,
        name=parts.name if account.payer == parts.id else "",
        so_far=so_far or ("nothing to pay" if account.statement.lines else "nothing"),
        issued=tuple(each.number for each in account.issued),
        is_behind=account.is_behind,
        address=_address(period, account.payer),
    )


def _address(period: Period, payer: str, number: int = 0, first: int = 0) -> str:
    given = {"payer": payer, **({"number": number} if number else {}), **({"first": first} if first else {})}
    return f"/usage/statements/{period.text}?{urlencode(given)}"


def _prices(card: Card) -> list[tuple[str, str]]:
    """What a card says, in words, and its price."""
    found = ((meter, card.price(meter.name)) for meter in METERS.values())
    return [
        (f"{meter.said}, {meter.unit or 'each'}", cents(price)) for meter, price in found if price is not None
    ]


def _rows(
    statement: Statement,
    lines: Sequence[Line],
    first: int,
    names: Mapping[str, str],
    digests: Mapping[str, int],
) -> list[Row]:
    sizes = {log.origin: log.size for log in statement.logs}
    return [
        _row(number, line, names.get(line.board, line.board), sizes[line.origin], digests)
        for number, line in enumerate(lines, first)
    ]


def _row(number: int, line: Line, name: str, size: int, digests: Mapping[str, int]) -> Row:
    leaves = read_leaves(line.leaves)
    board, epoch = split_origin(line.origin)
    back = line.takes_back
    return Row(
        number=number,
        what=line.sensor or f"{line.app}/{line.service}",
        board=line.board,
        name=name,
        workspace=line.workspace,
        from_ms=line.from_ms,
        to_ms=line.to_ms,
        is_uncertain=line.is_uncertain,
        back=f"line {back.line} of statement {digests.get(back.statement, '?')}" if back else "",
        charges=tuple(_charge(charge, METERS[charge.meter]) for charge in line.charges),
        origin=line.origin,
        size=size,
        leaves=line.leaves,
        records=len(leaves),
        proofs=tuple(
            (leaf, f"/tlog/{quote(board)}/{quote(epoch)}/proof/{leaf}.tlog-proof")
            for leaf in islice(leaves, PROOFS)
        ),
    )


def _charge(charge: Charge, meter: Meter) -> Shown:
    return Shown(
        said=meter.said,
        quantity=f"{rough(int(charge.quantity), meter.divisor)} {meter.unit}".strip(),
        price=f"{cents(charge.price)} {charge.currency}" if charge.card else "free",
        amount=cents(charge.amount) if charge.card else "",
    )
