"""The command "logs": what the containers of an app wrote, sent to the hub on ``up/stream/<id>``.

Owned by a session of the link, which makes one `Logs` and cancels what it does when it ends.  Lines
of several containers are merged by their time.  Following is asking again each second for what came
since, and for a bounded time: a log that Podman is asked to follow makes it grow without end.

What a request may send is bounded: BURST bytes at once, REFILL more for each second that it follows.
Of what is more the oldest lines are left out, and counted.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from agent.base.broker import Message
from agent.containers.engine import LABEL_APP, Container, Engine
from agent.containers.names import LABEL_SERVICE
from agent.wire import topics
from agent.wire.apps import LogLine, LogLines, LogsWanted
from agent.wire.envelope import pack
from agent.wire.errors import LinkDown, Refused
from agent.wire.messages import Reply
from agent.wire.plain import dumps

BURST = 256 * 1024
REFILL = 16 * 1024
LOOK_S = 1.0
CHUNK_LINES = 200
CHUNK_BYTES = 32 * 1024
MAX_TEXT = 4096
"""Characters of a line that are sent, so that one fits into a chunk whatever is in it."""

Publish = Callable[[Message], Awaitable[bool]]


class Logs:
    """Answers "logs" in one session of the ``board``; any number of commands at a time."""

    def __init__(self, board: str, engine: Engine, publish: Publish) -> None:
        self._board = board
        self._engine = engine
        self._publish = publish

    async def answer(self, wanted: LogsWanted, id: str, containers: Sequence[Container]) -> Reply:
        """Send the lines of those ``containers`` that are wanted, and return what became of it.

        ``id`` is that of the command; the reply is to be published after this has returned, for then
        the stream has ended.  Raises what publishing raises, and Refused when the broker takes nothing.
        """
        logs = [Log(each, wanted.since_ms) for each in containers if _is_wanted(each, wanted)]
        if not logs:
            what = f"{wanted.service!r} of the app {wanted.app!r}" if wanted.service else repr(wanted.app)
            return Reply(id, "refused", error=f"there is no container of {what} on this board")
        stream = _Stream(topics.up(self._board, "stream", id), self._publish)
        error = await self._send(stream, wanted, logs)
        await stream.end()
        told = {"lines": stream.lines, "dropped": stream.dropped}
        return Reply(id, "failed" if error else "done", told, error=error[:4096])

    async def _send(self, stream: _Stream, wanted: LogsWanted, logs: list[Log]) -> str:
        """Send what is there, and what comes as long as is wanted.  Returns what hindered it, or ""."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wanted.follow_s
        tail: int | None = wanted.tail
        budget = BURST
        while True:
            try:
                lines, dropped = await self._read(logs, tail)
            except (LinkDown, Refused) as error:
                return str(error)
            budget = await stream.send(lines, budget, dropped)
            left_s = until_s - loop.time()
            if left_s <= 0 or not logs:
                return ""
            await asyncio.sleep(min(LOOK_S, left_s))
            budget = min(BURST, budget + REFILL)
            tail = None

    async def _read(self, logs: list[Log], tail: int | None) -> tuple[list[LogLine], int]:
        """The next lines of all of them, the last ``tail`` if that is given; who is gone leaves ``logs``.

        Held are never more than can be sent, and one log; the second is how many that left out.
        """
        merged: list[LogLine] = []
        dropped = 0
        asked = None if tail is None else max(1, tail)  # from the last line the next look goes on
        for log in tuple(logs):
            try:
                lines = await self._engine.logs(log.container.id, tail=asked, since_ms=log.at_ms)
            except Refused as error:
                if error.code != "not-found":
                    raise
                logs.remove(log)
            else:
                found = merge([merged, log.take(lines)])
                if tail is not None:
                    found = found[max(0, len(found) - tail) :]
                merged, _ = newest(found, BURST)
                dropped += len(found) - len(merged)
        return merged, dropped


def _is_wanted(container: Container, wanted: LogsWanted) -> bool:
    labels = container.labels
    return labels.get(LABEL_APP) == wanted.app and wanted.service in ("", labels.get(LABEL_SERVICE))


@dataclass(slots=True)
class Log:
    """The log of one container, and how far it has been read."""

    container: Container
    at_ms: int | None = None
    """Lines before this are of no interest, or known."""
    seen: list[str] = field(default_factory=list)
    """The lines of the millisecond ``at_ms`` that are known."""

    def take(self, lines: Iterable[LogLine]) -> list[LogLine]:
        """Of lines that may begin among those that are known, the new ones.

        Those of one millisecond keep their order, so as many are known as there were; one that was not
        finished then reads differently now, and is new.  A line without a time was written at that
        of the one before.
        """
        fresh = []
        first_ms, now_ms, position = self.at_ms, self.at_ms, 0
        for line in lines:
            now_ms = now_ms if line.at_ms is None else line.at_ms
            if first_ms is not None and now_ms is not None and now_ms < first_ms:
                continue
            if now_ms is not None and (self.at_ms is None or now_ms > self.at_ms):
                self.at_ms, self.seen, position = now_ms, [], 0
            if now_ms == self.at_ms:
                is_known = self.seen[position : position + 1] == [line.text]
                self.seen[position : position + 1] = [line.text]
                position += 1
                if is_known:
                    continue
            fresh.append(replace(line, container=self.container.name, at_ms=now_ms))
        return fresh


def merge(parts: Iterable[Sequence[LogLine]]) -> list[LogLine]:
    """Lines of several containers by their time; those of one keep their order."""
    return list(heapq.merge(*parts, key=lambda line: line.at_ms or 0))


class _Stream:
    """The messages that answer one command."""

    def __init__(self, topic: str, publish: Publish) -> None:
        self.lines = 0
        self.dropped = 0
        self._topic = topic
        self._publish = publish
        self._seq = 0

    async def send(self, lines: Sequence[LogLine], budget: int, dropped: int) -> int:
        """Send the newest of the lines that fit into ``budget`` bytes.  Returns what is left of it.

        ``dropped`` older ones were too many before that.
        """
        kept, budget = newest(lines, budget)
        dropped += len(lines) - len(kept)
        self.lines += len(kept)
        self.dropped += dropped
        for chunk in chunks(kept):
            await self._put(LogLines(self._next(), chunk, dropped=dropped))
            dropped = 0
        if dropped:
            await self._put(LogLines(self._next(), dropped=dropped))
        return budget

    async def end(self) -> None:
        await self._put(LogLines(self._next(), end=True))

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    async def _put(self, lines: LogLines) -> None:
        payload, content_type = pack(dumps(lines))
        if not await self._publish(Message(self._topic, payload, content_type=content_type)):
            raise Refused(f"the broker does not take {self._topic}", code="forbidden")


def newest(lines: Sequence[LogLine], budget: int) -> tuple[list[LogLine], int]:
    """The last lines that fit into ``budget`` bytes, none longer than MAX_TEXT, and what is left of it."""
    kept: list[LogLine] = []
    for line in reversed(lines):
        if len(line.text) > MAX_TEXT:
            line = replace(line, text=line.text[: MAX_TEXT - 1] + "…")
        size = len(dumps(line))
        if size > budget:
            break
        budget -= size
        kept.append(line)
    return kept[::-1], budget


def chunks(lines: Iterable[LogLine]) -> Iterator[tuple[LogLine, ...]]:
    """Lines in portions of at most CHUNK_LINES and CHUNK_BYTES."""
    chunk: list[LogLine] = []
    room = CHUNK_BYTES
    for line in lines:
        size = len(dumps(line))
        if chunk and (size > room or len(chunk) == CHUNK_LINES):
            yield tuple(chunk)
            chunk, room = [], CHUNK_BYTES
        chunk.append(line)
        room -= size
    if chunk:
        yield tuple(chunk)
