"""Reading tokens in the API: who else may see something of the usage logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from agent.wire.decode import Length, Range
from hub.store.readers import ReaderRow, Scope
from hub.web.api.access import YEAR_S
from hub.web.api.route import Call
from hub.web.guard import readers_of


@dataclass(frozen=True, slots=True)
class NewReadingToken:
    """A reading token to make; without ``ttl_s`` it holds until it is revoked.

    ``scope`` "peer" opens checkpoints and tiles of hashes, "payer" the proofs of single records that are
    about ``payer``.
    """

    name: Annotated[str, Length(1, 64)]
    scope: Scope
    payer: Annotated[str, Length(0, 256)] = field(default="", metadata={"says": "For the scope payer alone"})
    ttl_s: Annotated[int, Range(60, 10 * YEAR_S)] | None = None


@dataclass(frozen=True, slots=True)
class ReadingToken:
    """A reading token without its secret; ``expires_ms`` is null when it holds until it is revoked."""

    id: str
    name: str
    scope: Scope
    payer: str
    created_ms: int
    expires_ms: int | None
    author: str


@dataclass(frozen=True, slots=True)
class MadeReadingToken:
    """A new reading token, which cannot be asked for again."""

    id: str
    name: str
    token: str


@dataclass(frozen=True, slots=True)
class ReadingTokenList:
    """The newest first."""

    tokens: tuple[ReadingToken, ...]


async def list_reading_tokens(call: Call) -> ReadingTokenList:
    """List reading tokens of the usage logs."""
    found = await readers_of(call.parts).list()
    return ReadingTokenList(tuple(_shown(row) for row in found))


async def new_reading_token(call: Call, body: NewReadingToken) -> MadeReadingToken:
    """Make a reading token; it is shown this once.

    Such a token opens files below `/tlog/` and nothing else.
    """
    ttl_ms = None if body.ttl_s is None else body.ttl_s * 1000
    row, secret = await readers_of(call.parts).new(
        body.name, body.scope, payer=body.payer, ttl_ms=ttl_ms, author=call.admin
    )
    return MadeReadingToken(row.id, row.name, secret)


async def revoke_reading_token(call: Call, token: str) -> None:
    """Revoke a reading token, by its id."""
    await readers_of(call.parts).revoke(token, call.admin)


def _shown(row: ReaderRow) -> ReadingToken:
    return ReadingToken(row.id, row.name, row.scope, row.payer, row.created_ms, row.expires_ms, row.author)
