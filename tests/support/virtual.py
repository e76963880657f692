"""Time that passes only while everybody waits: hours of it in milliseconds, the same every run.

    @virtual
    async def test_a_day_passes() -> None:
        clock = virtual_clock()
        await asyncio.sleep(86_400)
        assert clock.mono_ms() == 86_400_000

The event loop is asyncio's own but for its selector, which instead of waiting for a timer sets
the time to it.  Work in an executor takes no time: the clock stands still until it is done.
Other threads, and sockets, are not for such tests: nobody waits for them.  (aiosqlite has a thread of
its own for each connection: see `database_takes_no_time`.)
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from agent.clock import Clock
from agent.wire.messages import ClockState

BOOT = "b" * 32
WALL_MS = 1_700_000_000_000
"""What the wall clock says at the start."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that begins at second 0.  ``wakeups`` counts how often it waited for a timer."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.wakeups = 0
        self.working = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now_s

    def run_in_executor(  # type: ignore[override]  # typed by what func returns, which nobody asks here
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        self.working += 1
        future.add_done_callback(self._worked)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        self.working += 1  # a thread waits for the others
        await super().shutdown_default_executor()
        self.working -= 1

    def _worked(self, _: object) -> None:
        self.working -= 1


class _CountedQueue(SimpleQueue[Any]):
    """What aiosqlite hands work to its thread through; the loop's time waits for it, as for an executor."""

    def put_nowait(self, item: tuple[asyncio.Future[Any] | None, Any]) -> None:
        future, _ = item
        if future is not None and isinstance(loop := future.get_loop(), VirtualLoop):
            loop.working += 1
            future.add_done_callback(loop._worked)
        super().put_nowait(item)


@contextmanager
def database_takes_no_time() -> Iterator[None]:
    """Let the clock stand still as long as a thread of aiosqlite works, too."""
    from aiosqlite import core

    names = vars(core)
    before = names["SimpleQueue"]
    names["SimpleQueue"] = _CountedQueue
    try:
        yield
    finally:
        names["SimpleQueue"] = before


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready: list[Any] = super().select(0)
        if ready or timeout == 0:
            return ready
        if self._loop.working:
            return list(super().select(None))  # the executor wakes the loop when something is done
        if timeout is None:
            raise RuntimeError("everybody waits, and nobody for a timer")
        self._loop.now_s += timeout
        self._loop.wakeups += 1
        return []


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test, or whatever else, on a loop of virtual time."""

    @functools.wraps(test)
    def run(*args: Any, **keys: Any) -> None:
        async def main() -> None:
            await test(*args, **keys)

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(main())

    return run


def virtual_clock(
    *, start_ms: int = 0, wall_ms: int = WALL_MS, state: Callable[[], ClockState] = lambda: "synced"
) -> Clock:
    """A clock on the running loop's time; ``start_ms`` and ``wall_ms`` are what it says at second 0."""
    loop = asyncio.get_running_loop()

    def elapsed_ms() -> int:
        # A timer of 0.1 s must not read as 99 ms because of the float's last digit.
        return int(loop.time() * 1000 + 1e-3)

    return Clock(
        boot=BOOT,
        mono_ms=lambda: start_ms + elapsed_ms(),
        wall_ms=lambda: wall_ms + elapsed_ms(),
        state=state,
    )
