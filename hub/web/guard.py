"""Who may do what a request asks, and what every answer says to the browser.

Owns the session cookie, the Authorization header, the check against forged requests and the
security headers.  Deny is the default: `PUBLIC` names all that needs no login.  It decides
who, never what: rights come later, with grants.

A cookie travels by itself, so an unsafe request with one must also prove that our own page
sent it: Sec-Fetch-Site (Fetch Metadata) where the browser sends it, else Origin.  Logging in
is held to the same, or somebody could be logged in as somebody else without noticing.

A site whose name is made to point to 127.0.0.1 (DNS rebinding) looks to a browser like our own
page.  So over plain HTTP, which is for this machine, only names that nobody else can own count.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final
from urllib.parse import quote

from aiohttp import web

from agent.wire.errors import Refused
from hub.access.login import Principal
from hub.access.readers import Readers
from hub.store.readers import ReaderRow
from hub.web.parts import Parts, parts_of
from hub.web.peer import refuse_revoked_peer
from hub.web.problems import Handler, wants_page

COOKIE: Final = "lichen_session"
COOKIE_S = 400 * 86_400
"""As long as browsers keep one (RFC 6265bis, section 5.5): when a session ends, the hub decides."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
PUBLIC = frozenset(
    {
        "/healthz",
        "/ca.pem",
        "/join",
        "/renew",
        "/ledger",  # for who shows the certificate of a board, as the next
        "/ledger/{epoch}",
        "/login",
        "/login/link",
        "/static/{version}/{path}",
        "/favicon.ico",
        "/api/v1/login",
    }
)
PUBLIC_S = 30
"""What a stranger's request may take: long for a thin line, short enough to hold few of them open."""
PROGRAMS = frozenset({"/join", "/renew", "/ledger", "/api/v1/login"})
"""Public addresses that programs post to, who do not say where a request comes from, as browsers do.
They send no cookie; but any site in a browser could make attempts here until an admin is locked out."""

_LOCAL = re.compile(r"(localhost|[0-9.]+|\[[0-9a-f:.]+\])(:[0-9]*)?", re.ASCII | re.IGNORECASE)
"""What Host may be over plain HTTP: an address, as no DNS has a say in it, or localhost (RFC 6761)."""

LOGS = "/tlog/"
"""Below it usage logs are served, of which others than admins may see something, too: who has a reading
token.  What, the handlers decide (`hub.web.tlog`)."""

PRINCIPAL: Final = web.RequestKey("principal", Principal)
READER: Final = web.RequestKey("reader", ReaderRow)
"""Who asks with a reading token; then there is no `PRINCIPAL`."""

HEADERS = {
    "Server": "Lichen",  # versions are nobody's business who is not logged in
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with that, browsers send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Every answer carries `HEADERS`, and is kept by nobody unless it says so."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request through when it is public or somebody stands behind it."""
    check_host(request)
    await refuse_revoked_peer(request)
    resource = request.match_info.route.resource
    address = resource.canonical if resource else ""
    bearer = _bearer(request)
    if request.method not in SAFE and not bearer and (address not in PROGRAMS or _by_browser(request)):
        check_origin(request)
    if address in PUBLIC:
        return await _in_time(request, handler)
    if bearer and address.startswith(LOGS) and (reader := await readers_of(parts_of(request)).who(bearer)):
        request[READER] = reader
        return await handler(request)
    try:
        request[PRINCIPAL] = await identify(request)
    except Refused as error:
        if error.code != "unauthenticated" or not wants_page(request):
            raise
        return _to_login(request)
    return await handler(request)


async def _in_time(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a stranger, who may send a body byte by byte.  Raises Refused (code "too-slow")."""
    try:
        async with asyncio.timeout(PUBLIC_S):
            return await handler(request)
    except TimeoutError as error:
        raise Refused(f"the request took longer than {PUBLIC_S} s", code="too-slow") from error


async def identify(request: web.Request) -> Principal:
    """Whom the request's token or cookie stands for.  Raises Refused (code "unauthenticated")."""
    access = parts_of(request).access
    if bearer := _bearer(request):
        return await access.who(bearer, {"token"})
    if cookie := request.cookies.get(COOKIE, ""):
        return await access.who(cookie, {"session"})
    raise Refused("this needs a login", code="unauthenticated", hint="log in, or send an API token")


def readers_of(parts: Parts) -> Readers:
    """The reading tokens of this hub."""
    return Readers(parts.store, parts.now_ms)


def _bearer(request: web.Request) -> str:
    """The token of the Authorization header (RFC 6750, section 2.1); empty without one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _by_browser(request: web.Request) -> bool:
    return "Origin" in request.headers or "Sec-Fetch-Site" in request.headers


def check_host(request: web.Request) -> None:
    """Raise Refused (code "misdirected") for plain HTTP to a name that is not this machine's own."""
    given = request.headers.get("Host", "")
    if request.secure or not given or _LOCAL.fullmatch(given):
        return
    raise Refused(
        f"{given[:64]!r} is not a name of this page",
        code="misdirected",
        hint="open it as 127.0.0.1 or localhost; a proxy in front of it has to send one of them as Host",
    )


def check_origin(request: web.Request) -> None:
    """Raise Refused (code "forbidden") unless a page of ours sent this request."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin", "")
    same = site == "same-origin" if site is not None else origin == f"{request.scheme}://{request.host}"
    if not same:
        raise Refused(
            "this request does not come from a page of this hub",
            code="forbidden",
            hint="reload the page and try again; programs send an API token instead of a cookie",
        )


def _to_login(request: web.Request) -> web.Response:
    # What was asked for comes back after the login; an action is not repeated by itself.
    wanted = request.path_qs if request.method in SAFE and "HX-Request" not in request.headers else ""
    address = "/login" + (f"?next={quote(wanted, safe='')}" if wanted not in ("", "/") else "")
    if "HX-Request" in request.headers:
        return web.Response(headers={"HX-Redirect": address})
    return web.Response(status=303, headers={"Location": address})


def local_path(text: str) -> str:
    """``text`` when it is a path on this hub, else "/": nobody is sent elsewhere after a login.

    >>> local_path("/boards/pump-07?range=6h"), local_path("//evil.example"), local_path("/\\\\evil.example")
    ('/boards/pump-07?range=6h', '/', '/')
    """
    # Browsers read a backslash as a slash, and two of them as another site (WHATWG URL, section 4.4).
    fits = text.isascii() and text.isprintable() and re.match(r"/(?!/)[^\\]*$", text)
    return text if fits else "/"


def open_session(request: web.Request, response: web.StreamResponse, secret: str) -> None:
    """Give the browser the session's secret."""
    response.set_cookie(
        COOKIE,
        secret,
        max_age=COOKIE_S,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=request.secure,
    )


def close_session(response: web.StreamResponse) -> None:
    """Take it away again."""
    response.del_cookie(COOKIE, path="/")
