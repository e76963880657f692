"""Logging in: with a password, with a one-time link; and out again."""

from __future__ import annotations

from aiohttp import web

from agent.wire.errors import Refused
from hub.web.guard import COOKIE, close_session, local_path, open_session
from hub.web.pages.forms import read_fields, read_form
from hub.web.pages.render import page
from hub.web.parts import parts_of
from hub.web.problems import status_of

LONGEST_PASSWORD = 1024


async def show_login(request: web.Request) -> web.Response:
    """The form."""
    return page(request, "login.html", {"next": local_path(request.query.get("next", "/")), "name": ""})


async def log_in(request: web.Request) -> web.Response:
    """What the form posts."""
    form = await read_fields(request)
    name, password = form.get("name", "").strip(), form.get("password", "")
    wanted = local_path(form.get("next", "/"))
    try:
        secret = await parts_of(request).access.log_in(name[:64], password[:LONGEST_PASSWORD])
    except Refused as error:
        return page(
            request,
            "login.html",
            {"error": error, "next": wanted, "name": name[:64]},
            status=status_of(error),
        )
    return _opened(request, secret, wanted)


async def show_link(request: web.Request) -> web.Response:
    """A link was opened, by a person or by a chat program that shows a preview: nothing is used up."""
    code = request.query.get("code", "")[:128]
    holds = await parts_of(request).access.link_holds(code)
    return page(request, "link.html", {"code": code, "holds": holds}, status=200 if holds else 410)


async def redeem_link(request: web.Request) -> web.Response:
    """The button below the link."""
    form = await read_form(request)
    try:
        secret = await parts_of(request).access.redeem_link(form.get("code", "")[:128])
    except Refused as error:
        return page(request, "link.html", {"code": "", "holds": False}, status=status_of(error))
    return _opened(request, secret, "/")


async def log_out(request: web.Request) -> web.Response:
    """End the session of this browser."""
    await parts_of(request).access.log_out(request.cookies.get(COOKIE, ""))
    response = web.Response(status=303, headers={"Location": "/login"})
    close_session(response)
    return response


def _opened(request: web.Request, secret: str, wanted: str) -> web.Response:
    response = web.Response(status=303, headers={"Location": wanted})
    open_session(request, response, secret)
    return response
