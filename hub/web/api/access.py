"""Logins in the API: trade a password or a link for an API token, and look after API tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from agent.wire.decode import Length, Range
from agent.wire.errors import Refused
from hub.web.api.route import Call

COMMAND_LINE = "command line"
YEAR_S = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Login:
    """Either ``link``, the code of a one-time link, or ``name`` and ``password``."""

    name: Annotated[str, Length(0, 64)] = ""
    password: Annotated[str, Length(0, 1024)] = ""
    link: Annotated[str, Length(0, 128)] = ""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The API token to send as ``Authorization: Bearer``; it holds until it is revoked."""

    admin: str
    token: str


@dataclass(frozen=True, slots=True)
class Me:
    """Who is asking, and by what: "session" or "token"."""

    admin: str
    kind: str


@dataclass(frozen=True, slots=True)
class NewApiToken:
    """An API token to make; without ``ttl_s`` it holds until it is revoked."""

    name: Annotated[str, Length(1, 64)]
    ttl_s: Annotated[int, Range(60, 10 * YEAR_S)] | None = None


@dataclass(frozen=True, slots=True)
class MadeApiToken:
    """A new API token, which cannot be asked for again."""

    name: str
    token: str


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token without its secret; ``expires_ms`` is null when it holds until revoked."""

    id: str
    name: str
    created_ms: int
    expires_ms: int | None


@dataclass(frozen=True, slots=True)
class ApiTokenList:
    """The newest API tokens first."""

    tokens: tuple[ApiToken, ...]


async def log_in(call: Call, body: Login) -> LoggedIn:
    """Trade a password, or a one-time link, for an API token."""
    access = call.parts.access
    if body.link:
        session = await access.redeem_link(body.link)
    elif body.name:
        session = await access.log_in(body.name, body.password)
    else:
        raise Refused("a login needs name and password, or the code of a link", code="invalid")
    # A program keeps no session: what it gets can be listed and revoked by name.
    admin = (await access.who(session, {"session"})).admin
    token = await access.new_api_token(admin, COMMAND_LINE)
    await access.log_out(session)
    return LoggedIn(admin, token)


async def show_me(call: Call) -> Me:
    """Say who is asking."""
    assert call.principal is not None, "not a public route"
    return Me(call.principal.admin, call.principal.kind)


async def list_api_tokens(call: Call) -> ApiTokenList:
    """List your API tokens."""
    found = await call.parts.access.list_api_tokens(call.admin)
    return ApiTokenList(
        tuple(ApiToken(each.id, each.name, each.created_ms, each.expires_ms) for each in found)
    )


async def new_api_token(call: Call, body: NewApiToken) -> MadeApiToken:
    """Make an API token; it is shown this once."""
    ttl_ms = None if body.ttl_s is None else body.ttl_s * 1000
    return MadeApiToken(body.name, await call.parts.access.new_api_token(call.admin, body.name, ttl_ms))


async def revoke_api_token(call: Call, token: str) -> None:
    """Revoke one of your API tokens, by its id."""
    await call.parts.access.revoke_api_token(call.admin, token)
