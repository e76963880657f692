"""One app: its state in a sentence, what can be done with it, and how it is on each of its boards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import web

from hub.apps.placement import successors
from hub.apps.view import AppPicture, picture_of
from hub.store import apps
from hub.store.boards import BoardRow
from hub.web.pages.apps.shown import DONE, LOOKS, away, place_of, summed
from hub.web.pages.render import page
from hub.web.parts import Parts, parts_of

OPEN_CONTAINERS = 3
"""With so many boards the containers of each are shown; with more they are folded."""


async def show_app(request: web.Request) -> web.Response:
    """The page."""
    picture = await picture_at(request)
    places = [
        place_of(
            at,
            app=picture.name,
            title=at.name,
            link=f"/boards/{quote(at.name, safe='')}",
            version=picture.version,
        )
        for at in picture.boards
    ]
    return app_page(
        request,
        picture,
        "app.html",
        {"is_live": True, "places": places, "unfolded": len(places) <= OPEN_CONTAINERS},
    )


async def picture_at(request: web.Request) -> AppPicture:
    """The app in the address.  Raises Refused (code "not-found")."""
    parts = parts_of(request)
    async with parts.store.read() as tx:
        return await picture_of(tx, request.match_info["app"][:64], parts.now_ms())


async def boards_of(parts: Parts, app: str) -> list[BoardRow]:
    """The boards on which an app is to be by its newest revision; one that it is leaving is none of them."""
    async with parts.store.read() as tx:
        return await successors(tx, (await apps.get_app(tx, app)).boards)


def app_page(
    request: web.Request,
    picture: AppPicture,
    template: str,
    values: Mapping[str, Any],
    *,
    status: int = 200,
) -> web.Response:
    """One of the pages of an app, below the header that they share; ``is_live`` ones follow what happens."""
    there = [place for place in picture.boards if place.state != "gone"]
    shared = {
        "app": picture,
        "look": LOOKS[picture.state],
        "summary": summed(picture),
        "away": away(picture),
        "is_live": False,
        "done": DONE,
        "is_there": bool(there) and picture.action != "undeploy",
        "is_pending": any(place.is_pending for place in there),
    }
    return page(request, template, {**shared, **values}, status=status)
