"""Rate cards in the API: what a use costs whom, and from when on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from agent.wire.decode import Length
from agent.wire.errors import ConfigError, Refused
from hub.ledger.books import KeptCard
from hub.ledger.meters import METERS
from hub.ledger.rates import MAX_CARD
from hub.web.api.route import Call
from hub.web.books import books_of


@dataclass(frozen=True, slots=True)
class RateCard:
    """A rate card; ``text`` is the TOML that was set, ``prices`` are in micro-units for one unit of a meter.

    ``payer``, ``workspace`` and ``label`` are empty where it is for all; ``is_in_force``: it counts now.
    """

    id: str
    name: str
    currency: str
    valid_from: str
    valid_until: str
    payer: str
    workspace: str
    label: str
    prices: dict[str, int]
    text: str
    set_ms: int
    author: str
    is_in_force: bool


@dataclass(frozen=True, slots=True)
class RateList:
    """The rate cards of this hub, by id."""

    rates: tuple[RateCard, ...]


@dataclass(frozen=True, slots=True)
class RateText:
    """A rate card as TOML."""

    text: Annotated[str, Length(1, MAX_CARD)] = field(metadata={"says": "The file"})


async def list_rates(call: Call) -> RateList:
    """List rate cards."""
    return RateList(tuple(_shown(kept) for kept in await books_of(call.parts).cards()))


async def set_rate(call: Call, body: RateText) -> RateCard:
    """Set a rate card.

    It takes the place of the one with its name and its first day.  Statements that were issued stay as they
    are; what differs now is in the next ones, as corrections.
    """
    try:
        return _shown(await books_of(call.parts).set_rate(body.text, call.admin))
    except ConfigError as error:
        raise Refused(str(error), code="rates", hint=error.hint) from error


async def remove_rate(call: Call, card: str) -> None:
    """Let a rate card not count any more."""
    await books_of(call.parts).remove_rate(card, call.admin)


def _shown(kept: KeptCard) -> RateCard:
    card = kept.card
    prices = {name: price for name in METERS if (price := card.price(name)) is not None}
    return RateCard(
        id=card.id,
        name=card.name,
        currency=card.currency,
        valid_from=card.valid_from,
        valid_until=card.valid_until or "",
        payer=card.payer,
        workspace=card.workspace,
        label=card.label,
        prices=prices,
        text=kept.text,
        set_ms=kept.set_ms,
        author=kept.author,
        is_in_force=kept.is_in_force,
    )
