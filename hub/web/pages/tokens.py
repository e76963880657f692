"""The page that adds boards: make a join token, see its join file once, revoke tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tomli_w
from aiohttp import web

from agent.wire.decode import plain
from agent.wire.errors import Refused
from hub import qr
from hub.web.api import tokens as api
from hub.web.api.route import Call
from hub.web.guard import PRINCIPAL
from hub.web.pages.forms import integer_of, labels_of, read_form
from hub.web.pages.render import go, page
from hub.web.parts import parts_of
from hub.web.problems import status_of

DAY_S = 86_400
LENGTHS = ((DAY_S, "a day"), (7 * DAY_S, "a week"), (30 * DAY_S, "30 days"), (365 * DAY_S, "a year"))
EMPTY = {"name": "", "labels": "", "uses": "1", "ttl_s": str(api.WEEK_S), "replaces": ""}


@dataclass(frozen=True, slots=True)
class Made:
    """A join file, to be shown once, also as a QR code (SVG)."""

    text: str
    code: str
    uses: int
    expires_ms: int


async def show_tokens(request: web.Request) -> web.Response:
    """The page."""
    return await _page(request)


async def new_token(request: web.Request) -> web.Response:
    """What the form posts.  The answer is the page itself: a secret must not be in an address."""
    form = EMPTY | await read_form(request)
    try:
        wanted = api.NewToken(
            name=form["name"],
            labels=labels_of(form["labels"]),
            uses=integer_of("How many boards", form["uses"], 1, 10_000),
            ttl_s=integer_of("How long", form["ttl_s"], 60, 366 * DAY_S),
            replaces=form["replaces"],
        )
        made = await api.new_token(_call(request), wanted)
    except Refused as error:
        return await _page(request, error=error, form=form)
    text = tomli_w.dumps(plain(made.join_file)).rstrip()
    code = qr.svg(text, "The join file as a QR code")
    return await _page(request, made=Made(text, code, made.uses, made.expires_ms))


async def revoke_token(request: web.Request) -> web.Response:
    """The button beside a token."""
    await api.revoke_token(_call(request), request.match_info["token"])
    return go(request, "/tokens#tokens")


async def _page(
    request: web.Request,
    *,
    error: Refused | None = None,
    made: Made | None = None,
    form: dict[str, str] | None = None,
) -> web.Response:
    shown: dict[str, Any] = form or EMPTY
    listed = await api.list_tokens(_call(request), api.TokenQuery())
    values = {
        "here": "/tokens",
        "tokens": listed.tokens,
        "made": made,
        "error": error,
        "form": shown,
        "lengths": [(str(seconds), word) for seconds, word in LENGTHS],
    }
    return page(request, "tokens.html", values, status=status_of(error) if error else 200)


def _call(request: web.Request) -> Call:
    """A page does what the API does, in the name of whoever is logged in."""
    return Call(parts_of(request), request, request[PRINCIPAL])
