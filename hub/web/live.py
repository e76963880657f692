"""The live stream: what changes, as server-sent events (HTML Living Standard, section 9.2).

Owns the open streams: how many one login may hold, how they begin (with the full state, so a
browser that comes back needs no memory), how they stay alive, and that they end at once when
the hub stops.  `hub.fleet.latest` merges what a slow browser misses.

    event: hub      data: {"now_ms":1700000000000,"counts":{"boards":3,...}}     first, and when it changes
    event: board    data: {"board":"k3yd...","heard_ms":...,"presence":"online","every_ms":60000,
                           "problem":"","waiting":0,"values":{"room":[21.5,1700000000000]}}
    : still here    every 15 s
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from aiohttp import web

from agent.wire.decode import dumps
from agent.wire.errors import Refused
from hub.fleet.latest import Change, Latest
from hub.web.board import known_of, measured_ms, problem_of
from hub.web.census import Census, Counts

MOST_PER_LOGIN = 16
"""Streams that one session or token may hold open."""
BEAT_S = 15.0
COUNT_S = 2.0
"""How often the counts are looked at."""

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # proxies (nginx) would keep events back
}


@dataclass(frozen=True, slots=True)
class BoardChange:
    """``event: board``: what is new about a board; ``values``: sensor to (value, time in ms).

    ``waiting``: readings that it still holds; null when it has not said.
    """

    board: str
    heard_ms: int | None
    presence: str
    every_ms: int
    problem: str
    waiting: int | None
    values: dict[str, tuple[float | None, int]]


@dataclass(frozen=True, slots=True)
class HubChange:
    """``event: hub``: the hub's clock, and the fleet in numbers."""

    now_ms: int
    counts: Counts | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a stream is to tell.  Empty: all boards, all sensors."""

    boards: frozenset[str] = frozenset()
    sensors: frozenset[str] = frozenset()
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """What a stream tells of.

    ``still_holds`` raises Refused once the login behind it has ended.  ``watching`` is entered
    while somebody looks at one board, which then reports every few seconds.
    """

    latest: Latest
    census: Census
    now_ms: Callable[[], int]
    still_holds: Callable[[], Awaitable[object]]
    watching: Callable[[str], AbstractContextManager[None]]


class Streams:
    """The open streams of a hub.  `close` ends them all."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._closing = asyncio.Event()

    @property
    def open(self) -> int:
        """How many there are."""
        return self._held.total()

    def close(self) -> None:
        """End every stream, and let no new one begin."""
        self._closing.set()

    @contextmanager
    def hold(self, login: str) -> Iterator[asyncio.Event]:
        """Take a place; yields what rings when streams have to end.  Raises Refused ("too-many")."""
        if self._held[login] >= MOST_PER_LOGIN:
            raise Refused(
                f"this login holds {MOST_PER_LOGIN} live streams already",
                code="too-many",
                hint="close some of the pages that are open",
            )
        self._held[login] += 1
        try:
            yield self._closing
        finally:
            self._held[login] -= 1
            if not self._held[login]:
                del self._held[login]


class Ended(Exception):
    """The stream is over: the hub stops, or the login does not hold any more."""


async def stream(
    request: web.Request, wanted: Wanted, source: Source, closing: asyncio.Event
) -> web.StreamResponse:
    """Answer with the live stream, until the browser goes away or ``closing`` rings."""
    response = web.StreamResponse(headers=HEADERS)
    writer = _Writer(response, wanted, source)
    only = next(iter(wanted.boards)) if len(wanted.boards) == 1 else None
    looking = source.watching(only) if only and not wanted.counts else nullcontext()
    with source.latest.watch(only) as changes, looking:
        try:
            await response.prepare(request)
            await writer.begin()
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.follow(changes), name="live changes")
                group.create_task(writer.beat(), name="live beat")
                group.create_task(_end(closing), name="live end")
        except* (Ended, ConnectionError, Refused):
            pass  # nobody is there to be told, or nobody who may hear it
    return response


async def _end(closing: asyncio.Event) -> None:
    await closing.wait()
    raise Ended


class _Writer:
    """Writes one stream."""

    def __init__(self, response: web.StreamResponse, wanted: Wanted, source: Source) -> None:
        self._response = response
        self._wanted = wanted
        self._latest = source.latest
        self._source = source

    async def begin(self) -> None:
        """The full state.  The time that the browser waits before it comes back: 2 s."""
        await self._response.write(b"retry: 2000\n\n")
        await self._tell_hub(await self._counts())
        for board in self._wanted.boards or tuple(self._latest.boards):
            known = known_of(self._latest, board)
            await self._tell_board(board, known.values)

    async def follow(self, changes: AsyncIterator[Change]) -> None:
        """What changes, as it does."""
        async for change in changes:
            if self._wanted.boards and change.board not in self._wanted.boards:
                continue
            await self._tell_board(change.board, change.values)

    async def beat(self) -> None:
        """A sign of life, so that both sides notice when the other is gone; the counts in between."""
        counts = await self._counts()
        looks = round(BEAT_S / COUNT_S) if self._wanted.counts else 1
        while True:
            for _ in range(looks):
                await asyncio.sleep(BEAT_S / looks)
                before, counts = counts, await self._counts()
                if counts != before:
                    await self._tell_hub(counts)
            await self._response.write(b": still here\n\n")
            await self._source.still_holds()

    async def _counts(self) -> Counts | None:
        return (await self._source.census.take()).counts if self._wanted.counts else None

    async def _tell_hub(self, counts: Counts | None) -> None:
        await self._write("hub", HubChange(self._source.now_ms(), counts))

    async def _tell_board(self, board: str, sensors: Collection[str]) -> None:
        known = known_of(self._latest, board)
        names = self._wanted.sensors.intersection(sensors) if self._wanted.sensors else sensors
        values = {
            name: (known.values[name].value, measured_ms(known.values[name], known))
            for name in names
            if name in known.values
        }
        await self._write(
            "board",
            BoardChange(
                board,
                known.heard_ms,
                known.presence,
                known.every_ms,
                problem_of(known),
                known.waiting,
                values,
            ),
        )

    async def _write(self, event: str, data: object) -> None:
        await self._response.write(b"event: %s\ndata: %s\n\n" % (event.encode(), dumps(data)))
