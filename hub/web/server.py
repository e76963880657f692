"""The web application, put together: middlewares, API, pages, live stream, static files.

`hub.app` calls `build` once and serves the result twice: as plain HTTP on the loopback
address, and as HTTPS on the address that boards use.
"""

from __future__ import annotations

from aiohttp import web

from hub.web.parts import PARTS, Parts

MAX_BODY = 64 * 1024
"""Largest request body in bytes; a join request, the largest there is, stays below half of it."""


def build(parts: Parts) -> web.Application:
    """The application that answers for this hub.  Streams end when it shuts down."""
    app = web.Application(client_max_size=MAX_BODY)
    app[PARTS] = parts
    return app
