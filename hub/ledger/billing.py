"""Records and rate cards to statements: what was used in a period, by whom, and what it costs.

Owns how records become lines.  Pure, and the same everywhere: it is given the records of each log, the
cards and the labels of boards, and asks nobody.  `hub.ledger.books` feeds it from the store.

    reckoning = Reckoning(Terms(hub, name, period, cards, labels))
    for each log:
        reckoning.take(checkpoint, Times(boots_of(stamps)), measured_of(records))
    statement = reckoning.statement(payer)

A record is a whole: it is in the one period, and has the one price, of the moment in which it ended
(`hub.ledger.period`, `hub.ledger.times`).  So nothing is divided, every record is in exactly one line for
all time, and with records of ten minutes no more than ten minutes are on the other side of a border.  Only
records under a checkpoint that the hub has countersigned count.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from agent.wire.usage import ContainerRecord, Record, SensorRecord, split_origin
from hub.ledger.leaves import write
from hub.ledger.meters import METERS, amount_of
from hub.ledger.period import Period
from hub.ledger.rates import Card, Customer, choose
from hub.ledger.statement import Charge, Checkpoint, Hole, Line, Place, Statement, totals_of
from hub.ledger.times import Span, Stamp, Times

DEFAULT_WORKSPACE = "default"

FIELDS = tuple(meter.field for meter in METERS.values())
"""The fields of records that are added up, in the order of `Measured.counts`."""


class Measured(NamedTuple):
    """What a record says was used, and by whom; ``counts`` are of `FIELDS`, None where nobody counted."""

    stamp: Stamp
    payer: str
    workspace: str
    app: str
    service: str
    sensor: str
    counts: tuple[int | None, ...]


def measured_of(records: Iterable[Record], hub: str) -> Iterator[Measured]:
    """Those of the records of a log that tell of a use; what sensors delivered is the hub's own."""
    for record in records:
        if not isinstance(record, ContainerRecord | SensorRecord):
            continue
        stamp = Stamp(
            record.seq, record.boot, record.mono0_ms, record.mono1_ms, record.wall1_ms, record.clock
        )
        counts = tuple(getattr(record, name, None) for name in FIELDS)
        if isinstance(record, SensorRecord):
            yield Measured(stamp, hub, DEFAULT_WORKSPACE, "", "", record.sensor, counts)
        else:
            whose = (record.payer or hub, record.workspace or DEFAULT_WORKSPACE)
            yield Measured(stamp, *whose, record.app, record.service, "", counts)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a reckoning is made by: whose, for which period, rate cards, and the labels of boards by id."""

    hub: str
    name: str
    period: Period
    cards: tuple[Card, ...]
    labels: Mapping[str, Mapping[str, str]]


class _Price(NamedTuple):
    """What a meter costs on a line."""

    price: int
    currency: str
    card: str


_FREE = _Price(0, "", "")
_Prices = tuple[_Price, ...]  # of all meters, in their order


class _Key(NamedTuple):
    """What the records of a line have in common; lines are listed in this order."""

    payer: str
    workspace: str
    origin: str
    sensor: str
    app: str
    service: str
    is_uncertain: bool
    prices: _Prices


@dataclass(slots=True)
class _Sum:
    """A line as it grows."""

    leaves: array[int] = field(default_factory=lambda: array("q"))
    from_ms: int = 2**63
    to_ms: int = -(2**63)
    counts: list[int | None] = field(default_factory=lambda: [None] * len(FIELDS))

    def add(self, seq: int, span: Span, counts: tuple[int | None, ...]) -> None:
        self.leaves.append(seq)
        self.from_ms = min(self.from_ms, span.from_ms)
        self.to_ms = max(self.to_ms, span.to_ms)
        for place, count in enumerate(counts):
            if count is not None:
                self.counts[place] = count + (self.counts[place] or 0)


class Reckoning:
    """All lines of a period, of all payers, while the logs are gone through one after the other."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._sums: dict[_Key, _Sum] = {}
        self._logs: dict[str, Checkpoint] = {}
        self._holes: list[Hole] = []
        self._tariffs = _Tariffs(terms)

    def take(self, log: Checkpoint, times: Times, measured: Iterable[Measured]) -> None:
        """Add records of a log; may be called with one part after the other, in any order."""
        self.reach(log)
        board, _ = split_origin(log.origin)
        for stamp, payer, workspace, app, service, sensor, counts in measured:
            span = times.span(stamp)
            if span.to_ms not in self._terms.period or stamp.seq >= log.size:
                continue
            prices = self._tariffs.at(payer, workspace, board, span.to_ms)
            key = _Key(payer, workspace, log.origin, sensor, app, service, not span.is_certain, prices)
            self._sums.setdefault(key, _Sum()).add(stamp.seq, span, counts)

    def reach(self, log: Checkpoint) -> None:
        """Know a checkpoint; the largest of a log is the one that statements name."""
        known = self._logs.get(log.origin)
        if known is None or known.size < log.size:
            self._logs[log.origin] = log

    def lose(self, holes: Iterable[Hole]) -> None:
        """Say what nobody holds of these logs any more."""
        self._holes += holes

    @property
    def payers(self) -> list[str]:
        """Who has used anything."""
        return sorted({key.payer for key in self._sums})

    def statement(self, payer: str) -> Statement:
        """What a payer has used, as a statement that was not issued."""
        lines = tuple(_line(key, self._sums[key]) for key in sorted(self._sums) if key.payer == payer)
        return self.compose(payer, lines)

    def compose(
        self, payer: str, lines: tuple[Line, ...], *, number: int = 0, previous: str = "", issued_ms: int = 0
    ) -> Statement:
        """A statement of these lines, with all that they name."""
        terms = self._terms
        origins = sorted({line.origin for line in lines})
        boards = sorted({line.board for line in lines})
        named = {charge.card for line in lines for charge in line.charges if not line.takes_back}
        return Statement(
            v=1,
            hub=terms.hub,
            name=terms.name,
            period=terms.period.text,
            from_ms=terms.period.start_ms,
            to_ms=terms.period.end_ms,
            payer=payer,
            number=number,
            previous=previous,
            issued_ms=issued_ms,
            logs=tuple(self._logs[origin] for origin in origins),
            boards=tuple(Place(board, dict(sorted(self._labels(board).items()))) for board in boards),
            cards=tuple(sorted((card for card in terms.cards if card.id in named), key=lambda card: card.id)),
            holes=tuple(
                sorted(
                    (hole for hole in self._holes if hole.origin in origins),
                    key=lambda hole: (hole.origin, hole.first),
                )
            ),
            lines=lines,
            totals=totals_of(lines),
        )

    def _labels(self, board: str) -> Mapping[str, str]:
        return self._terms.labels.get(board, {})


class _Tariffs:
    """The prices of each customer, looked up once for as long as they hold."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        changes = chain.from_iterable((card.from_ms, card.until_ms) for card in terms.cards)
        self._borders = sorted({at_ms for at_ms in changes if at_ms is not None})
        self._known: dict[tuple[str, str, str, int], _Prices] = {}

    def at(self, payer: str, workspace: str, board: str, at_ms: int) -> _Prices:
        """The prices of all meters at a moment; a border belongs to what ends with it."""
        place = (payer, workspace, board, bisect_left(self._borders, at_ms))
        known = self._known.get(place)
        if known is None:
            customer = Customer(payer, workspace, self._terms.labels.get(board, {}))
            tariff = choose(self._terms.cards, customer, at_ms)
            known = tuple(
                _Price(priced.price, priced.card.currency, priced.card.id)
                if (priced := tariff.get(name))
                else _FREE
                for name in METERS
            )
            self._known[place] = known
        return known


def _line(key: _Key, found: _Sum) -> Line:
    board, _ = split_origin(key.origin)
    charges = tuple(
        Charge(
            meter=meter.name,
            quantity=str(count),
            price=price.price,
            amount=amount_of(count, price.price, meter),
            currency=price.currency,
            card=price.card,
        )
        for meter, count, price in zip(METERS.values(), found.counts, key.prices, strict=True)
        if count is not None
    )
    return Line(
        workspace=key.workspace,
        board=board,
        origin=key.origin,
        app=key.app,
        service=key.service,
        sensor=key.sensor,
        is_uncertain=key.is_uncertain,
        from_ms=found.from_ms,
        to_ms=found.to_ms,
        leaves=write(found.leaves),
        charges=charges,
    )
