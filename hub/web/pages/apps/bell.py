"""The bell of open pages: an event when something of a board's apps, or of any app, has changed.

It says only that; `static/fresh.js` then asks for its page again and puts in what is new, so that words are
made in one place.  The page of one app follows the API's stream of that app instead.
"""

from __future__ import annotations

from aiohttp import web

from hub.store import boards
from hub.web.following import PAUSE_S, follow_changes
from hub.web.guard import PRINCIPAL, identify
from hub.web.parts import parts_of
from hub.web.wiring import STREAMS

FLEET_PAUSE_S = 2.0
"""Between two rings for whoever looks at all apps: some board has always just said something."""


async def ring(request: web.Request) -> web.StreamResponse:
    """Server-sent events for the apps of ``?board=ID``, or for all of them."""
    parts = parts_of(request)
    on: frozenset[str] | None = None
    if board := request.query.get("board", ""):
        async with parts.store.read() as tx:
            on = frozenset([(await boards.get_board(tx, board)).id])
    with (
        request.config_dict[STREAMS].hold(request[PRINCIPAL].id) as closing,
        parts.desk.reports.watch("", on) as watch,
    ):
        return await follow_changes(
            request,
            watch,
            closing,
            pause_s=PAUSE_S if on else FLEET_PAUSE_S,
            still_holds=lambda: identify(request),
        )
