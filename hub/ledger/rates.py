"""Rate cards: what a use costs whom, and from when on.

Owns the file in which an operator writes one, and the choice among several.  Pure; `hub.ledger.books` keeps
cards, `hub.ledger.billing` asks for prices.

    name = "house"
    currency = "EUR"
    valid_from = "2026-11-01"

    [prices]
    cpu_hour = "0.02"
    memory_gib_hour = "0.005"

Prices are decimal numbers in quotation marks, as TOML's own would not be exact.  A card without ``payer``,
``workspace`` and ``label`` is for everybody.  For each meter the most particular card that has a price for
it counts: one for a payer before one for a workspace, that before one for boards with a label, and among
equals the first by name.  From its first day on a card takes the place of those of the same name, for good:
after its last day the name has no prices until there is another one.

>>> card = parse_card('''name = "house"
... currency = "EUR"
... valid_from = "2026-11-01"
... [prices]
... cpu_hour = "0.02"
... ''')
>>> card.id, card.price("cpu_hour"), card.price("reading")
('house@2026-11-01', 20000, None)
>>> tariff = choose([card], Customer("p", "default", {}), Period.parse("2026-11").end_ms)
>>> tariff["cpu_hour"].price
20000
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, NamedTuple

from agent.wire.decode import Length, Match, decode
from agent.wire.errors import ConfigError
from hub.ledger.meters import METERS
from hub.ledger.money import micro
from hub.ledger.period import Period, midnight_ms

MAX_CARD = 16 * 1024
"""Most bytes of a rate card."""

Price = Annotated[str, Match(r"\d{1,9}(\.\d{1,6})?", 'a price in quotation marks, such as "0.02"')]
Day = Annotated[str, Match(r"\d{4}-\d{2}-\d{2}", 'a day, such as "2026-11-01"')]


@dataclass(frozen=True, slots=True)
class Prices:
    """Of one unit each.  What has no price in any card costs nothing."""

    cpu_hour: Price | None = None
    """One processor, wholly busy for an hour."""
    memory_gib_hour: Price | None = None
    """2**30 bytes of memory for an hour."""
    network_in_gb: Price | None = None
    """10**9 bytes received."""
    network_out_gb: Price | None = None
    """10**9 bytes sent."""
    io_read_gb: Price | None = None
    """10**9 bytes read from disks."""
    io_write_gb: Price | None = None
    """10**9 bytes written to disks."""
    reading: Price | None = None
    """One reading of a sensor that the hub has acknowledged."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a use costs whom, from when on."""

    name: Annotated[
        str, Match(r"[a-z0-9][a-z0-9_-]{0,39}", "lower-case letters, digits, '_' or '-', at most 40")
    ]
    """What it is called. A later card of this name takes its place."""
    currency: Annotated[str, Match(r"[A-Z]{3}", "a currency of ISO 4217, such as EUR")]
    """The currency of its prices."""
    valid_from: Day
    """The first day (UTC) on which it counts."""
    prices: Prices
    valid_until: Day | None = None
    """The last day on which it counts; without, until another card of this name does."""
    payer: Annotated[str, Length(0, 256)] = ""
    """Only for what this payer has to pay."""
    workspace: Annotated[str, Length(0, 256)] = ""
    """Only for this workspace."""
    label: Annotated[
        str, Match(r"([a-z0-9][a-z0-9_./-]{0,62}(=.{0,128})?)?", "a label, such as site=north")
    ] = ""
    """Only for boards with this label, written `site=north`."""

    @property
    def id(self) -> str:
        """The name and the first day; two cards of one id are one, of which the later set counts."""
        return f"{self.name}@{self.valid_from}"

    @property
    def from_ms(self) -> int:
        """Its first day begins."""
        return midnight_ms(date.fromisoformat(self.valid_from))

    @property
    def until_ms(self) -> int | None:
        """Its last day ends."""
        return Period.parse(self.valid_until).end_ms if self.valid_until else None

    def price(self, meter: str) -> int | None:
        """The price of one unit, in micro-units; None when it has none."""
        text = getattr(self.prices, meter)
        return None if text is None else micro(text)


class Customer(NamedTuple):
    """For whom something was used, and the labels of the board on which it was."""

    payer: str
    workspace: str
    labels: Mapping[str, str]


class Priced(NamedTuple):
    """The price of one unit of a meter, in micro-units, and the card that says so."""

    price: int
    card: Card


Tariff = Mapping[str, Priced]
"""By meter; what costs nothing is not in it."""


def parse_card(text: str) -> Card:
    """Read a rate card.  Raises ConfigError that names the key which is wrong."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the rate card is not TOML: {error}", hint="docs/usage-log.md has one") from error
    try:
        card = decode(Card, {key: _plain_day(value) for key, value in data.items()}, strict=True)
    except ConfigError as error:
        if str(error).startswith("prices.") and not error.hint:
            error.hint = 'prices are written in quotation marks, such as cpu_hour = "0.02"'
        raise
    _check_days(card)
    if all(card.price(name) is None for name in METERS):
        raise ConfigError("prices: there is none", hint=f"known: {', '.join(METERS)}")
    return card


def _plain_day(value: Any) -> Any:
    """A day that was written without quotation marks, which TOML knows."""
    return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value


def _check_days(card: Card) -> None:
    for key in ("valid_from", "valid_until"):
        text = getattr(card, key)
        if text is None:
            continue
        try:
            date.fromisoformat(text)
        except ValueError as error:
            raise ConfigError(f"{key}: {text} is no day: {error}") from error
    if card.valid_until is not None and card.valid_until < card.valid_from:
        raise ConfigError(f"valid_until: {card.valid_until} is before the first day, {card.valid_from}")


# --- choosing ------------------------------------------------------------------------------------


def choose(cards: Iterable[Card], customer: Customer, at_ms: int) -> Tariff:
    """What each meter costs a customer at a moment."""
    tariff: dict[str, Priced] = {}
    for card in sorted(in_force(cards, at_ms), key=_place):
        if not _is_for(card, customer):
            continue
        for name in METERS:
            price = card.price(name)
            if price is not None:
                tariff.setdefault(name, Priced(price, card))
    return tariff


def in_force(cards: Iterable[Card], at_ms: int) -> list[Card]:
    """Of each name the card that counts at a moment, read as `hub.ledger.period` says."""
    newest: dict[str, Card] = {}
    for card in sorted(cards, key=lambda card: card.from_ms):
        if card.from_ms < at_ms:
            newest[card.name] = card
    return [card for card in newest.values() if card.until_ms is None or at_ms <= card.until_ms]


def _place(card: Card) -> tuple[bool, bool, bool, str]:
    """The most particular first."""
    return (not card.payer, not card.workspace, not card.label, card.name)


def _is_for(card: Card, customer: Customer) -> bool:
    if card.payer not in ("", customer.payer) or card.workspace not in ("", customer.workspace):
        return False
    key, _, value = card.label.partition("=")
    return not key or customer.labels.get(key) == value
