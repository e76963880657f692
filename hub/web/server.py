"""The web application, put together: middlewares, API, pages, live stream, static files.

`hub.app` calls `build` once and serves the result twice: as plain HTTP on the loopback
address, and as HTTPS on the address that boards use.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from hub.web import guard, ledgers, metrics, openapi, problems, public, tlog
from hub.web.api import ROUTES
from hub.web.api.route import Call, Route
from hub.web.assets import Assets
from hub.web.census import Census
from hub.web.live import Streams
from hub.web.pages import board, fleet, login, render, settings, statements, tokens, usage
from hub.web.pages.apps import addresses as apps
from hub.web.parts import PARTS, Parts
from hub.web.wiring import ASSETS, CENSUS, DOCUMENT, STREAMS

MAX_BODY = 64 * 1024
"""Largest request body in bytes; a join request, the largest there is, stays below half of it."""


def build(parts: Parts) -> web.Application:
    """The application that answers for this hub.  Streams end when it shuts down."""
    app = web.Application(
        middlewares=[problems.errors(render.error_page), guard.guard], client_max_size=MAX_BODY
    )
    document: Callable[[], dict[str, Any]] = functools.cache(
        lambda: openapi.describe(ROUTES, version=parts.version)
    )
    app[PARTS] = parts
    app[ASSETS] = Assets.load()
    app[CENSUS] = Census(parts.store, parts.latest, parts.now_ms)
    app[STREAMS] = Streams()
    app[DOCUMENT] = document
    app.on_response_prepare.append(guard.add_headers)
    app.on_shutdown.append(_end_streams)
    render.set_up(app)
    _add_pages(app.router)
    for route in ROUTES:
        app.router.add_route(route.method, route.url, _handler(route))
    return app


def _add_pages(router: web.UrlDispatcher) -> None:
    router.add_get("/", fleet.show_fleet)
    router.add_get("/boards/{board}", board.show_board)
    router.add_post("/boards/{board}/rename", board.rename_board)
    router.add_post("/boards/{board}/labels", board.label_board)
    router.add_post("/boards/{board}/revoke", board.revoke_board)
    apps.add_pages(router)
    router.add_get("/usage", usage.show_usage)
    router.add_get("/usage/statements", statements.show_accounts)
    router.add_get("/usage/statements/{period}", statements.show_statement)
    router.add_post("/usage/statements/{period}/issue", statements.issue_statement)
    router.add_get("/tokens", tokens.show_tokens)
    router.add_post("/tokens", tokens.new_token)
    router.add_post("/tokens/{token}/revoke", tokens.revoke_token)
    router.add_get("/settings", settings.show_settings)
    router.add_post("/settings/api-tokens", settings.new_api_token)
    router.add_post("/settings/api-tokens/{token}/revoke", settings.revoke_api_token)
    router.add_get("/login", login.show_login)
    router.add_post("/login", login.log_in)
    router.add_get("/login/link", login.show_link)
    router.add_post("/login/link", login.redeem_link)
    router.add_post("/logout", login.log_out)
    router.add_get("/metrics", metrics.serve)
    router.add_get("/healthz", public.show_health)
    router.add_get("/ca.pem", public.show_ca)
    router.add_post("/join", public.join)
    router.add_get("/renew", public.draw_challenge)
    router.add_post("/renew", public.renew)
    router.add_post("/ledger", ledgers.take)
    router.add_get("/ledger/{epoch}", ledgers.give)
    tlog.add_files(router)
    router.add_get("/favicon.ico", _icon)
    router.add_get("/static/{version}/{path:.+}", _static)


def _handler(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An operation of the API as a handler."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await route.serve(Call(request.app[PARTS], request, request.get(guard.PRINCIPAL)))

    return handle


async def _static(request: web.Request) -> web.Response:
    return await request.app[ASSETS].serve(request)


async def _icon(request: web.Request) -> web.Response:
    """Browsers ask for this whatever a page says."""
    return web.Response(status=308, headers={"Location": request.app[ASSETS].url("icon.svg")})


async def _end_streams(app: web.Application) -> None:
    app[STREAMS].close()
