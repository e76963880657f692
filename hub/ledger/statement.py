"""Statements: what was used in a period and what it costs, the same bytes on every machine.

Owns the form of a statement, and what must hold within one.  Pure; `hub.ledger.billing` draws statements
up, `hub.ledger.corrections` continues them, and whoever is handed one can `check` its sums without asking
anybody.

A *line* says for whom, on which board and in which app something was used, and from which records of the
board's log that follows: ``leaves`` are indexes (`hub.ledger.leaves`), and the checkpoint that has them is
in ``logs``.  Its *charges* are one for each meter: the sum of one field of these records (``null`` adds
nothing), the price of a unit, and the amount.  Quantities are text, as the sums are beyond what every reader
of JSON takes for an integer; amounts and prices are integers of micro-units.

What was once issued is never changed.  A later statement of the period has a higher ``number`` and names the
one before by its hash in ``previous``; its lines take lines of earlier ones back (``takes_back``: negative),
and say what is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from agent.wire.decode import Length, Match, Range, decode_json, dumps
from agent.wire.errors import Corrupt
from agent.wire.messages import Count, Millis
from agent.wire.usage import Origin
from hub.ledger.leaves import read
from hub.ledger.meters import METERS, amount_of
from hub.ledger.rates import Card

MAX_STATEMENT = 256 * 1024 * 1024
"""Most bytes of a statement that are read."""

Digest = Annotated[str, Match(r"[0-9a-f]{64}", "a SHA-256 in hexadecimal digits")]
Quantity = Annotated[str, Match(r"0|-?[1-9]\d{0,39}", "an integer")]
Text = Annotated[str, Length(0, 256)]
Money = Annotated[int, Range(-(2**53), 2**53)]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a board's log, under which every record of a statement lies; ``root`` is base64."""

    origin: Origin
    size: Count
    root: Annotated[str, Length(44, 44)]


@dataclass(frozen=True, slots=True)
class Place:
    """A board, and the labels by which rate cards may have been chosen."""

    board: Text
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Hole:
    """Records that nobody holds any more: what they say is in no statement."""

    origin: Origin
    first: Count
    count: Count
    reason: str


@dataclass(frozen=True, slots=True)
class Charge:
    """``quantity`` counts of a meter at ``price`` micro-units for one unit, by the card; without one both are
    free, and ``currency`` is empty."""

    meter: Text
    quantity: Quantity
    price: Money
    amount: Money
    currency: Text
    card: Text


@dataclass(frozen=True, slots=True)
class Reference:
    """A line of an earlier statement: the hash of its bytes, and which line, counted from 0."""

    statement: Digest
    line: Count


@dataclass(frozen=True, slots=True)
class Line:
    """What an app used, or a sensor delivered, on one board, and the leaf indexes of the records that say so.

    ``sensor`` is empty for an app, and ``app`` and ``service`` for a sensor; ``is_uncertain``: the board did
    not know the time.  ``takes_back``: the line that it names does not hold any more, and is subtracted.
    """

    workspace: Text
    board: Text
    origin: Origin
    app: Text
    service: Text
    sensor: Text
    is_uncertain: bool
    from_ms: Millis
    to_ms: Millis
    leaves: str
    charges: tuple[Charge, ...]
    takes_back: Reference | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of all amounts in one currency."""

    currency: Text
    amount: Money


@dataclass(frozen=True, slots=True)
class Statement:
    """What a payer used of a hub's boards in a period, and what it costs.  ``number`` 0: it was not issued.

    ``logs``, ``boards`` and ``cards`` are those that lines name; ``issued_ms``: when, by the hub's clock.
    """

    v: Literal[1]
    hub: Text
    name: Text
    period: Text
    from_ms: Millis
    to_ms: Millis
    payer: Text
    number: Count
    previous: Annotated[str, Match(r"([0-9a-f]{64})?", "a SHA-256 in hexadecimal digits, or nothing")]
    issued_ms: Millis
    logs: tuple[Checkpoint, ...]
    boards: tuple[Place, ...]
    cards: tuple[Card, ...]
    holes: tuple[Hole, ...]
    lines: tuple[Line, ...]
    totals: tuple[Total, ...]


def encode(statement: Statement) -> bytes:
    """The bytes of a statement: JSON in UTF-8 without blanks, keys in the order of the fields."""
    return dumps(statement)


def read_statement(data: bytes) -> Statement:
    """The statement of some bytes.  Raises Refused for what is none, Corrupt when `check` does."""
    statement = decode_json(Statement, data, max_bytes=MAX_STATEMENT)
    check(statement)
    return statement


def digest_of(statement: Statement) -> str:
    """The SHA-256 of its bytes, by which later ones name it."""
    return hashlib.sha256(encode(statement)).hexdigest()


def totals_of(lines: Iterable[Line]) -> tuple[Total, ...]:
    """The sums by currency."""
    sums: dict[str, int] = {}
    for charge in (charge for line in lines for charge in line.charges):
        if charge.currency:
            sums[charge.currency] = sums.get(charge.currency, 0) + charge.amount
    return tuple(Total(currency, amount) for currency, amount in sorted(sums.items()))


def check(statement: Statement) -> None:
    """Raise Corrupt when an amount, a price or a sum is not what follows from the rest."""
    cards = {card.id: card for card in statement.cards}
    sizes = {log.origin: log.size for log in statement.logs}
    for number, line in enumerate(statement.lines):
        leaves = read(line.leaves)
        if not leaves or leaves[-1] >= sizes.get(line.origin, 0):
            raise Corrupt(f"line {number}: no checkpoint of the statement has its records")
        for charge in line.charges:
            _check_charge(charge, line, cards, number)
    if statement.totals != totals_of(statement.lines):
        raise Corrupt("the totals are not the sums of the lines")


def _check_charge(charge: Charge, line: Line, cards: dict[str, Card], number: int) -> None:
    where = f"line {number}, {charge.meter}"
    meter, quantity = METERS.get(charge.meter), int(charge.quantity)
    if meter is None:
        raise Corrupt(f"{where}: there is no such meter")
    sign = -1 if line.takes_back else 1
    if quantity * sign < 0 or charge.amount != sign * amount_of(abs(quantity), charge.price, meter):
        raise Corrupt(f"{where}: {charge.quantity} at {charge.price} are not {charge.amount}")
    if line.takes_back:
        return  # its price is that of the line which it names, and the card may have been set right since
    card = cards.get(charge.card)
    if card is None and (charge.card or charge.price or charge.currency):
        raise Corrupt(f"{where}: the statement does not have the card {charge.card!r}")
    if card is not None and (card.price(charge.meter), card.currency) != (charge.price, charge.currency):
        raise Corrupt(f"{where}: the card {card.id} says another price")
