"""Lines of a log on their way from a board to whoever asked: a short, bounded queue.

Owns what happens when a reader is slower than a board: lines are dropped, and their number is told with the
next ones, so that nobody takes a cut log for a whole one.  `hub.fleet.commands` makes one for each command
that is answered with lines; ingest pushes what comes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from agent.wire.apps import LogLines
from agent.wire.errors import LinkDown, Refused
from agent.wire.messages import Reply

MOST_LINES = 10_000
"""Lines that wait for a reader."""
MOST_CHARACTERS = 4 * 1024 * 1024
"""And characters in them."""


class LineStream:
    """The lines of one command, in order, until it ends."""

    def __init__(self, board: str, name: str) -> None:
        self._board = board
        self._name = name
        self._waiting: deque[LogLines] = deque()
        self._lines = self._characters = self._dropped = 0
        self._has_end = False
        self._reply: Reply | None = None
        self._bell = asyncio.Event()

    def push(self, came: LogLines) -> None:
        """Lines have come.  What is too much is dropped, and counted; what says nothing takes no room."""
        if self._has_end:
            return
        if not came.lines and not came.end:
            if self._waiting:
                last = self._waiting.pop()
                self._waiting.append(replace(last, dropped=last.dropped + came.dropped))
                return
            if not came.dropped:
                return
        size = sum(len(line.text) for line in came.lines)
        if self._lines + len(came.lines) > MOST_LINES or self._characters + size > MOST_CHARACTERS:
            self._dropped += len(came.lines) + came.dropped
            came = replace(came, lines=(), dropped=0)
            size = 0
            if not came.end:
                return
        self._lines += len(came.lines)
        self._characters += size
        self._has_end = came.end
        self._waiting.append(replace(came, dropped=came.dropped + self._dropped))
        self._dropped = 0
        self._bell.set()

    def end(self, reply: Reply) -> None:
        """The board says what became of the command: nothing more comes."""
        if reply.status != "running":
            self._reply = reply
            self._bell.set()

    async def read(self, *, first_s: float, whole_s: float) -> AsyncIterator[LogLines]:
        """What comes, until the end.  The first sign has to come within ``first_s``, all within ``whole_s``.

        Raises Refused (code "refused") when the board does not do it, LinkDown (code "no-answer").
        """
        clock_s = asyncio.get_running_loop().time
        until_s, due_s = clock_s() + whole_s, clock_s() + min(first_s, whole_s)
        while True:
            while self._waiting:
                came = self._waiting.popleft()
                self._lines -= len(came.lines)
                self._characters -= sum(len(line.text) for line in came.lines)
                yield came
                if came.end:
                    return
            if self._reply is not None:
                self._check(self._reply)
                return
            self._bell.clear()
            try:
                async with asyncio.timeout_at(due_s):
                    await self._bell.wait()
            except TimeoutError:
                raise LinkDown(
                    f"board {self._board} has not gone on with {self._name!r}",
                    code="no-answer",
                    hint="its connection may have just broken, or its agent knows no such command",
                ) from None
            due_s = until_s

    def _check(self, reply: Reply) -> None:
        if reply.status in ("failed", "refused"):
            raise Refused(f"board {self._board}: {reply.error or reply.status}", code="refused")
