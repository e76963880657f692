"""Logs of apps, in the API: asked for at the board, and passed on as they come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from aiohttp import web

from agent.wire.apps import LogsWanted
from agent.wire.decode import Length, Range
from agent.wire.errors import Refused
from agent.wire.order import AppName
from hub.apps.view import picture_of
from hub.web import following
from hub.web.api.route import Call
from hub.web.guard import identify
from hub.web.wiring import STREAMS


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines."""

    board: Annotated[str, Length(0, 64)] = field(
        default="", metadata={"says": "The board, by id or name; not needed when the app is on one only"}
    )
    service: Annotated[str, Length(0, 128)] = field(default="", metadata={"says": "Of this service only"})
    tail: Annotated[int, Range(0, 10_000)] = field(
        default=100, metadata={"says": "So many of the last lines of each container"}
    )
    since_ms: int | None = field(default=None, metadata={"says": "Only lines written since then"})
    follow_s: Annotated[int, Range(0, 600)] = field(
        default=0, metadata={"says": "For so many seconds go on with what is written next"}
    )


async def read_logs(call: Call, app: AppName, query: LogQuery) -> web.StreamResponse:
    """Read the logs of an app, as server-sent events.

    `event: lines` has board and lines, each with container, at_ms (or null), stream (stdout or stderr) and
    text, and dropped: how many were too many to send. `event: error` is a problem document: the board went
    away, say. `event: end` ends it.
    """
    async with call.parts.store.read() as tx:
        picture = await picture_of(tx, app, call.parts.now_ms())
    places = [each for each in picture.boards if each.state != "gone"]
    found = [each for each in places if query.board in ("", each.board, each.name)]
    if len(found) != 1:
        names = ", ".join(each.name for each in places[:10]) or "no board"
        raise Refused(
            f"{app} is not on {query.board!r}" if query.board else f"{app} is on {len(places)} boards",
            code="not-found" if query.board or not places else "invalid",
            hint=f"it is on {names}",
        )
    wanted = LogsWanted(app, query.service, query.tail, query.since_ms, query.follow_s)
    assert call.principal is not None, "not a public route"
    with call.request.config_dict[STREAMS].hold(call.principal.id) as closing:
        return await following.follow_logs(
            call.request,
            call.parts,
            found[0],
            wanted,
            closing,
            still_holds=lambda: identify(call.request),
        )
