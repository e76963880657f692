"""The settings page: API tokens, and what this hub is."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from agent.wire import words
from agent.wire.errors import Refused
from hub.web.guard import PRINCIPAL
from hub.web.pages.forms import integer_of, read_form
from hub.web.pages.render import go, page
from hub.web.parts import parts_of
from hub.web.problems import status_of
from hub.web.wiring import CENSUS

DAY_S = 86_400
LENGTHS = (("0", "until revoked"), (str(30 * DAY_S), "30 days"), (str(365 * DAY_S), "a year"))


@dataclass(frozen=True, slots=True)
class Made:
    """A new API token, to be shown once."""

    name: str
    secret: str


async def show_settings(request: web.Request) -> web.Response:
    """The page."""
    return await _page(request)


async def new_api_token(request: web.Request) -> web.Response:
    """What the form posts; the answer is the page itself, for the secret's sake."""
    form = await read_form(request)
    name = form.get("name", "")
    try:
        ttl_s = integer_of("How long", form.get("ttl_s", "0"), 0, 366 * DAY_S)
        access = parts_of(request).access
        secret = await access.new_api_token(request[PRINCIPAL].admin, name, ttl_s * 1000 or None)
    except Refused as error:
        return await _page(request, error=error)
    return await _page(request, made=Made(name, secret))


async def revoke_api_token(request: web.Request) -> web.Response:
    """The button beside an API token."""
    await parts_of(request).access.revoke_api_token(request[PRINCIPAL].admin, request.match_info["token"])
    return go(request, "/settings#api")


async def _page(
    request: web.Request, *, error: Refused | None = None, made: Made | None = None
) -> web.Response:
    tally = await request.config_dict[CENSUS].count()
    values = {
        "here": "/settings",
        "tokens": await parts_of(request).access.list_api_tokens(request[PRINCIPAL].admin),
        "made": made,
        "error": error,
        "lengths": LENGTHS,
        "boards": tally.counts.boards,
        "storage": (storage := parts_of(request).storage()),
        "stored": f"{words.value(storage.bytes, 'By')} of {words.value(storage.max_bytes, 'By')}",
    }
    return page(request, "settings.html", values, status=status_of(error) if error else 200)
