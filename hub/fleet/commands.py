"""What the hub tells boards to do, and what time it is: signed, for one session, soon stale.

Owns the commands under way and who waits for their replies; the boards whose pages are open,
which are told to report live; and who is to be told the time, as each board is at its birth.
`hub.fleet.link` runs it on each connection to the broker, ingest tells it of births and replies.
It keeps nothing: a command that is lost fails for whoever waits, a board that still does not know
the time says so in its next about and is told again.

    reply = await commands.send(board, "ping")      # Refused: it is offline; LinkDown: no answer
    with commands.watching(board):                  # its page is open: it reports every 2 s
        ...

A command names the nonce of the session that it is for, so one that waited in a queue does
nothing later; the broker drops it after its expiry.  Nothing here is retained, ever.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NoReturn

from agent.base.broker import Message, Session
from agent.wire import note, topics
from agent.wire.apps import LogLines
from agent.wire.errors import LinkDown, Refused
from agent.wire.messages import Command, HubTime, Live, Reply, compose
from agent.wire.plain import plain
from hub.access.keys import Keyring
from hub.fleet.lines import LineStream
from hub.store import boards
from hub.store.boards import Standing
from hub.store.database import Store

TIMEOUT_S = 10.0
LIVE = Live(for_s=60, every_s=2)
LIVE_AGAIN_S = 45.0
"""Soon enough that a board which hears it never falls back in between."""
TIME_EXPIRY_S = 60
SLICE = 500
"""Boards that are looked up at once."""
MOST_WAITING = 256
"""Commands under way at once; more is no operator but a loop."""


class Commands:
    """The commands of one hub.  Belongs to one event loop; runs on one session at a time.

    ``keys`` may be replaced when they were rotated: what is signed next is signed with the new ones.
    """

    def __init__(self, store: Store, keys: Keyring, now_ms: Callable[[], int]) -> None:
        self.keys = keys
        self._store = store
        self._now_ms = now_ms
        self._session: Session | None = None
        self._waiting: dict[tuple[str, str], asyncio.Future[Reply]] = {}
        self._streams: dict[tuple[str, str], LineStream] = {}
        self._watched: Counter[str] = Counter()
        self._live_at_s: dict[str, float] = {}  # of each board that is watched: when to tell it next
        self._timeless: set[str] = set()  # boards that are to be told the time
        self._bell = asyncio.Event()

    # --- who asks ----------------------------------------------------------------------------------

    async def send(
        self, board: str, name: str, args: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> Reply:
        """Tell a board (by id) to do something, and wait for what became of it.

        Raises Refused (code "offline" when the board is not there, or "too-many"), and LinkDown when
        no reply has come in time: it may have been done all the same.
        """
        standing = await self._admit(board, name)
        id = secrets.token_urlsafe(16)
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[board, id] = waiting
        try:
            async with asyncio.timeout(timeout_s):
                await self._tell(board, standing.nonce, name, args or {}, id, expiry_s=math.ceil(timeout_s))
                return await waiting
        except TimeoutError:
            raise LinkDown(
                f"board {board} has not answered {name!r} within {timeout_s:g} s",
                code="no-answer",
                hint="its connection may have just broken, or its agent knows no such command",
            ) from None
        finally:
            del self._waiting[board, id]

    @asynccontextmanager
    async def follow(
        self,
        board: str,
        name: str,
        args: Mapping[str, Any] | None = None,
        *,
        for_s: float = 0,
        timeout_s: float = TIMEOUT_S,
    ) -> AsyncIterator[AsyncIterator[LogLines]]:
        """Tell a board (by id) to do something that it answers with lines, for ``for_s`` or until it is done.

        What comes when nobody listens any more is dropped.  Raises as `send` does, while lines are read
        as well.
        """
        standing = await self._admit(board, name)
        id = secrets.token_urlsafe(16)
        stream = self._streams[board, id] = LineStream(board, name)
        try:
            await self._tell(board, standing.nonce, name, args or {}, id, expiry_s=math.ceil(timeout_s))
            yield stream.read(first_s=timeout_s, whole_s=for_s + timeout_s)
        finally:
            del self._streams[board, id]

    async def _admit(self, board: str, name: str) -> Standing:
        """In which session a board can be told something now.  Raises Refused."""
        standing = (await self._online([board])).get(board)
        if standing is None:
            raise Refused(
                f"board {board} is offline, so it cannot do {name!r} now",
                code="offline",
                hint="commands are not kept for later; try again when it is back",
            )
        if len(self._waiting) + len(self._streams) >= MOST_WAITING:
            raise Refused(f"{MOST_WAITING} commands are under way already", code="too-many")
        return standing

    @property
    def watched(self) -> frozenset[str]:
        """The boards (ids) that somebody looks at."""
        return frozenset(self._watched)

    @contextmanager
    def watching(self, board: str) -> Iterator[None]:
        """Somebody looks at this board (an id) while the block runs: it is told to report live."""
        self._watched[board] += 1
        self._live_at_s.setdefault(board, -math.inf)
        self._bell.set()
        try:
            yield
        finally:
            self._watched[board] -= 1
            if not self._watched[board]:  # it falls back by itself, within the minute
                del self._watched[board], self._live_at_s[board]

    # --- what ingest tells -------------------------------------------------------------------------

    def born(self, board: str) -> None:
        """A session of a board has begun: all that it was told before is forgotten."""
        if board in self._live_at_s:
            self._live_at_s[board] = -math.inf
        self.tell_time(board)

    def tell_time(self, board: str) -> None:
        """A board does not know the time, or may not."""
        self._timeless.add(board)
        self._bell.set()

    def replied(self, board: str, reply: Reply) -> None:
        """A reply has come on a topic of ``board``, which the broker lets only that board write on."""
        waiting = self._waiting.get((board, reply.id))
        # One that nobody waits for is late, or made up; "running" is a sign of life, not an answer.
        if waiting is not None and not waiting.done() and reply.status != "running":
            waiting.set_result(reply)
        if (stream := self._streams.get((board, reply.id))) is not None:
            stream.end(reply)

    def streamed(self, board: str, id: str, lines: LogLines) -> None:
        """Lines have come that a command is answered with; those that nobody waits for are dropped."""
        if (stream := self._streams.get((board, id))) is not None:
            stream.push(lines)

    # --- the connection ----------------------------------------------------------------------------

    async def run(self, session: Session) -> NoReturn:
        """Tell boards what there is to tell them until the link ends.  Raises LinkDown."""
        self._session = session
        try:
            while True:
                await self._wait()
                self._bell.clear()
                await self._tell_times(session)
                await self._tell_live()
        finally:
            self._session = None

    async def _wait(self) -> None:
        """Until somebody is to be told something."""
        due_s = min(self._live_at_s.values(), default=math.inf)
        left_s = None if due_s == math.inf else max(due_s - _clock_s(), 0)
        try:
            async with asyncio.timeout(left_s):
                await self._bell.wait()
        except TimeoutError:
            pass

    async def _tell_times(self, session: Session) -> None:
        while self._timeless:
            some = [self._timeless.pop() for _ in range(min(len(self._timeless), SLICE))]
            for board, standing in (await self._online(some)).items():
                time = HubTime(board, standing.nonce, self._now_ms())
                signed = note.sign(compose("time", time), self.keys.time)
                told = Message(topics.down(board, "time"), signed.encode(), qos=1, expiry_s=TIME_EXPIRY_S)
                await session.publish(told)

    async def _tell_live(self) -> None:
        due = [board for board, at_s in self._live_at_s.items() if at_s <= _clock_s()]
        for board in due:
            if board in self._live_at_s:  # somebody may have looked away meanwhile
                self._live_at_s[board] = _clock_s() + LIVE_AGAIN_S
        for board, standing in (await self._online(due)).items():
            id = secrets.token_urlsafe(16)
            await self._tell(board, standing.nonce, "live", plain(LIVE), id, expiry_s=LIVE.for_s)

    async def _tell(
        self, board: str, nonce: str, name: str, args: Mapping[str, Any], id: str, *, expiry_s: int
    ) -> None:
        if self._session is None:
            raise LinkDown("the hub is not connected to its broker", hint="it tries again by itself")
        command = Command(id, board, nonce, name, self._now_ms(), dict(args))
        signed = note.sign(compose("command", command), self.keys.command)
        sent = Message(topics.down(board, "command"), signed.encode(), qos=1, expiry_s=expiry_s)
        await self._session.publish(sent)

    async def _online(self, ids: Iterable[str]) -> dict[str, Standing]:
        """Those of these boards that are there, and in which session."""
        if not (wanted := set(ids)):
            return {}
        async with self._store.read() as tx:
            found = await boards.standings(tx, wanted)
        return {
            board: each for board, each in found.items() if each.presence == "online" and not each.revoked
        }


def _clock_s() -> float:
    return asyncio.get_running_loop().time()
