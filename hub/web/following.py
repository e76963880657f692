"""Streams about apps, as server-sent events: a picture as it changes, logs, a bell for open pages.

Owns how they begin, go on and end; `hub.web.live` owns the places that a login has for streams, and the
stream of the fleet.  Nothing polls: whoever changes an app, and every report of its boards, rings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from agent.wire.apps import LogLine, LogLines, LogsWanted
from agent.wire.decode import dumps, plain
from agent.wire.errors import LinkDown, Refused
from hub.apps.reports import Watch
from hub.apps.view import AppOnBoard, picture_of
from hub.web import problems
from hub.web.live import BEAT_S, HEADERS, Ended
from hub.web.parts import Parts

PAUSE_S = 0.2
"""Between two pictures, so that a chatty board does not flood a browser."""


@dataclass(frozen=True, slots=True)
class Lines:
    """``event: lines``: of a log, in order; ``dropped`` were too many to send."""

    board: str
    lines: tuple[LogLine, ...]
    dropped: int


async def follow_app(
    request: web.Request,
    parts: Parts,
    app: str,
    closing: asyncio.Event,
    *,
    still_holds: Callable[[], Awaitable[object]],
) -> web.StreamResponse:
    """Answer with the picture of an app whenever it changes, until the browser goes or ``closing`` rings."""
    response = web.StreamResponse(headers=HEADERS)
    with parts.desk.reports.watch(app) as watch:
        try:
            await response.prepare(request)
            await response.write(b"retry: 2000\n\n")
            async with asyncio.TaskGroup() as group:
                group.create_task(_tell(response, parts, watch), name="app changes")
                group.create_task(_beat(response, still_holds), name="app beat")
                group.create_task(_end(closing), name="app end")
        except* (Ended, ConnectionError, Refused):
            pass  # nobody is there to be told, or nobody who may hear it
    return response


async def _tell(response: web.StreamResponse, parts: Parts, watch: Watch) -> None:
    told = b""
    while True:
        watch.bell.clear()
        async with parts.store.read() as tx:
            picture = await picture_of(tx, watch.app, parts.now_ms())
        boards = frozenset(place.board for place in picture.boards)
        if boards != watch.boards:  # what has happened there meanwhile has rung no bell
            watch.boards = boards
            watch.bell.set()
        if (now := dumps(picture)) != told:
            told = now
            await _write(response, "app", told)
        await asyncio.sleep(PAUSE_S)
        await watch.bell.wait()


async def follow_changes(
    request: web.Request,
    watch: Watch,
    closing: asyncio.Event,
    *,
    pause_s: float = PAUSE_S,
    still_holds: Callable[[], Awaitable[object]],
) -> web.StreamResponse:
    """Answer with ``event: changed`` at once and whenever the bell of ``watch`` has rung: look again."""
    response = web.StreamResponse(headers=HEADERS)
    try:
        await response.prepare(request)
        await response.write(b"retry: 2000\n\n")
        async with asyncio.TaskGroup() as group:
            group.create_task(_say_changed(response, watch, pause_s), name="page changes")
            group.create_task(_beat(response, still_holds), name="page beat")
            group.create_task(_end(closing), name="page end")
    except* (Ended, ConnectionError, Refused):
        pass  # nobody is there to be told, or nobody who may hear it
    return response


async def _say_changed(response: web.StreamResponse, watch: Watch, pause_s: float) -> None:
    while True:
        watch.bell.clear()
        await _write(response, "changed", b"{}")
        await asyncio.sleep(pause_s)
        await watch.bell.wait()


async def _beat(
    response: web.StreamResponse, still_holds: Callable[[], Awaitable[object]], beat_s: float = BEAT_S
) -> None:
    while True:
        await asyncio.sleep(beat_s)
        await response.write(b": still here\n\n")
        await still_holds()


async def _end(closing: asyncio.Event) -> None:
    await closing.wait()
    raise Ended


async def follow_logs(
    request: web.Request,
    parts: Parts,
    place: AppOnBoard,
    wanted: LogsWanted,
    closing: asyncio.Event,
    *,
    beat_s: float = BEAT_S,
    still_holds: Callable[[], Awaitable[object]],
) -> web.StreamResponse:
    """Answer with lines as the board sends them, until it has sent all or ``closing`` rings.

    Raises Refused (code "offline") and LinkDown as long as nothing has been answered.
    """
    response = web.StreamResponse(headers=HEADERS)
    asked = parts.commands.follow(place.board, "logs", plain(wanted), for_s=wanted.follow_s)
    async with asked as lines:
        await response.prepare(request)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(response, place.board, lines), name="log lines")
                group.create_task(_beat(response, still_holds, beat_s), name="log beat")
                group.create_task(_end(closing), name="log end")
        except* (Ended, ConnectionError, Refused):
            pass  # nobody is there to be told, or nobody who may hear it
    return response


async def _pass_on(response: web.StreamResponse, board: str, lines: AsyncIterator[LogLines]) -> None:
    """Pass lines on, and how it ended."""
    try:
        async for each in lines:
            await _write(response, "lines", dumps(Lines(board, each.lines, each.dropped)))
    except (LinkDown, Refused) as error:
        await _write(response, "error", dumps(problems.document(error)))
    await _write(response, "end", b"{}")
    raise Ended


async def _write(response: web.StreamResponse, event: str, data: bytes) -> None:
    await response.write(b"event: %s\ndata: %s\n\n" % (event.encode(), data))
