"""Clients that ask a port over HTTP again and again, each time by a new connection.

    async with Hammer("127.0.0.1", 8080) as hammer:
        await hammer.rounds(1)
        ...                                # a new version takes over
    assert hammer.failures == []

A request fails when it cannot connect, is cut off, waits over `PATIENCE_S`, or is not answered with
200.  `answers` counts what the bodies said, `took_ms` holds how long each request took.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import Self

PATIENCE_S = 10.0


class Hammer:
    """``clients`` that ask at the same time, as fast as they are answered."""

    def __init__(self, host: str, port: int, *, clients: int = 4, path: str = "/") -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self.took_ms: list[float] = []
        self._where = host, port
        self._request = f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode()
        self._clients = clients
        self._asked = asyncio.Condition()
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._tasks = [
            self._group.create_task(self._hammer(), name=f"client {number}")
            for number in range(self._clients)
        ]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    async def rounds(self, count: int) -> None:
        """Wait until every client could have asked so many times from now on."""
        goal = len(self.took_ms) + count * self._clients
        async with self._asked:
            await self._asked.wait_for(lambda: len(self.took_ms) >= goal)

    async def _hammer(self) -> None:
        while True:
            began = time.perf_counter()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    self.answers[await self.ask()] += 1
            except (OSError, ValueError, TimeoutError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.took_ms.append(1000 * (time.perf_counter() - began))
            async with self._asked:
                self._asked.notify_all()

    async def ask(self) -> str:
        """What one request is answered with.  Raises OSError, and ValueError when it is no 200."""
        reader, writer = await asyncio.open_connection(*self._where)
        try:
            writer.write(self._request)
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if " 200 " not in head.partition("\r\n")[0]:
            raise ValueError(f"answered {head[:80]!r}")
        return body.strip()
