"""The logs of an app on one board: the last lines, asked for at the board when the page is.

Without JavaScript that is all; with it `static/logs.js` goes on with what is written next, for a while.
"""

from __future__ import annotations

from collections import deque
from urllib.parse import urlencode

from aiohttp import web

from agent.wire.apps import LogLine, LogsWanted
from agent.wire.decode import plain
from agent.wire.errors import LinkDown, Refused
from hub.apps.view import AppOnBoard, AppPicture
from hub.web.pages.apps.one import app_page, picture_at
from hub.web.pages.apps.shown import logs_link
from hub.web.pages.forms import integer_of
from hub.web.parts import parts_of
from hub.web.problems import status_of

TAILS = (100, 500, 2000)
MOST_SHOWN = 4_000
"""Lines on a page: several containers have as many last lines each."""
FOLLOW_S = 300


async def show_logs(request: web.Request) -> web.Response:
    """The page; ``board`` by id or name, ``service``, and ``tail`` lines of each container."""
    picture = await picture_at(request)
    tail = integer_of("tail", request.query.get("tail", str(TAILS[0])), 1, 10_000)
    service = request.query.get("service", "")[:128]
    there = [place for place in picture.boards if place.state != "gone"]
    place = _chosen(picture, there, request.query.get("board", ""))
    lines: list[LogLine] = []
    error: Refused | LinkDown | None = None
    if place is not None:
        try:
            lines = await _read(request, place, LogsWanted(picture.name, service, tail))
        except (Refused, LinkDown) as refusal:
            error = refusal
    follow = {"board": place.board if place else "", "service": service, "tail": 0, "follow_s": FOLLOW_S}
    values = {
        "there": there,
        "place": place,
        "service": service,
        "services": _services(place),
        "tail": tail,
        "tails": TAILS,
        "lines": lines,
        "error": error,
        "again": logs_link(picture.name, place.name if place else "", service=service, tail=str(tail)),
        "follow": f"/api/v1/apps/{picture.name}/logs?{urlencode(follow)}",
        "follow_min": FOLLOW_S // 60,
    }
    return app_page(
        request, picture, "app_logs.html", values, status=status_of(error) if error is not None else 200
    )


def _chosen(picture: AppPicture, there: list[AppOnBoard], asked: str) -> AppOnBoard | None:
    """The board in the address, or the first.  Raises Refused (code "not-found")."""
    if not asked:
        return there[0] if there else None
    for place in there:
        if asked in (place.board, place.name):
            return place
    names = ", ".join(place.name for place in there[:10]) or "no board"
    raise Refused(f"{picture.name} is not on {asked[:64]!r}", code="not-found", hint=f"it is on {names}")


def _services(place: AppOnBoard | None) -> list[str]:
    said = place.reported if place else None
    return sorted({container.service for container in said.containers}) if said else []


async def _read(request: web.Request, place: AppOnBoard, wanted: LogsWanted) -> list[LogLine]:
    """The last lines, as the board tells them.  Raises Refused (code "offline") and LinkDown."""
    found: deque[LogLine] = deque(maxlen=MOST_SHOWN)
    async with parts_of(request).commands.follow(place.board, "logs", plain(wanted)) as told:
        async for each in told:
            found.extend(each.lines)
    return list(found)
