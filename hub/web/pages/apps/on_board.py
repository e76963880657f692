"""The apps of one board: a part of the page of that board, and a page of their own."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from hub.apps.view import board_picture_of
from hub.store.boards import BoardRow, get_board
from hub.store.database import Tx
from hub.web.pages.apps.shown import Place, place_of
from hub.web.pages.render import page
from hub.web.parts import parts_of


@dataclass(frozen=True, slots=True)
class BoardApps:
    """The apps of a board; ``reason`` is why it does not take its newest order, or cannot keep apps at all,
    ``unknown`` are apps that it has and this hub knows nothing of."""

    places: tuple[Place, ...]
    unknown: tuple[str, ...]
    reason: str
    hint: str


async def show_board_apps(request: web.Request) -> web.Response:
    """The page."""
    parts = parts_of(request)
    async with parts.store.read() as tx:
        row = await get_board(tx, request.match_info["board"])
        found = await apps_on(tx, row, parts.now_ms())
    return page(request, "board_apps.html", {"board": row, "apps": found})


async def apps_on(tx: Tx, board: BoardRow, now_ms: int) -> BoardApps:
    """The apps of a board, as they were asked for and as it says."""
    found = await board_picture_of(tx, board, now_ms)
    said = found.report.apps if found.report else None
    places = tuple(
        place_of(at, app=row.app, title=row.app, link=f"/apps/{row.app}", version=row.version)
        for row, at in found.apps
    )
    return BoardApps(
        places=places,
        unknown=found.unknown,
        reason=said.reason if said else "",
        hint=said.hint if said else "",
    )
