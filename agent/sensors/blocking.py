"""A few threads for reads that may block, and for some of them may never return.

Owns the threads in which sysfs files, network mounts and whatever else the kernel may hold up
are read.  The sampler gives each sensor a `Lane`; nothing else uses them.

A read in the kernel cannot be interrupted.  So that one hung read costs one thread, and never
the others their turn:

- `AT_ONCE` reads run at a time.  A caller that gives up (`asyncio.timeout`) frees its turn at
  once, although its thread is still in the kernel.
- A lane whose last read has not come back answers Busy instead of starting another, so no
  sensor ever holds more than one thread.
- `MAX_THREADS` bounds them all; beyond it reads wait for a thread, and their timeouts tell.
- The threads are daemons, unlike those of `concurrent.futures`, which the interpreter waits
  for at exit: a dead disk must not keep an agent from stopping.

    lane = Threads().lane()
    text = await lane(lambda: path.read_text())
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from typing import TypeAlias, TypeVar, cast

from agent.wire.errors import Busy

T = TypeVar("T")

Finish: TypeAlias = Callable[[T | None, BaseException | None], None]

AT_ONCE = 2
MAX_THREADS = 16


class Threads:
    """Threads of one event loop, started when needed and kept for the next read."""

    def __init__(self, *, at_once: int = AT_ONCE, max_threads: int = MAX_THREADS) -> None:
        self.turn = asyncio.Semaphore(at_once)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._max_threads = max_threads
        self._threads = 0
        self._unfinished = 0

    def lane(self) -> Lane:
        """A way in for one sensor."""
        return Lane(self)

    def close(self) -> None:
        """Let every thread go; one in the middle of a read ends with it."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def submit(self, function: Callable[[], T], finish: Finish[T]) -> None:
        """Run ``function`` in a thread, then ``finish(result, error)`` in the event loop, however late."""
        loop = asyncio.get_running_loop()

        def finish_here(result: T | None, error: BaseException | None) -> None:
            self._unfinished -= 1
            finish(result, error)

        def job() -> None:
            result, error = _outcome(function)
            # The loop may be gone: then nobody waits for this any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish_here, result, error)

        self._unfinished += 1
        self._jobs.put(job)
        if self._threads < min(self._unfinished, self._max_threads):
            self._threads += 1
            name = f"sensors-{self._threads}"
            threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()


class Lane:
    """One sensor's way to the threads: one read at a time."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._away_since_s: float | None = None

    async def __call__(self, function: Callable[[], T], /) -> T:
        """What ``function`` returns or raises.  Raises Busy while an earlier read has not come back."""
        loop = asyncio.get_running_loop()
        if self._away_since_s is not None:
            stuck_s = loop.time() - self._away_since_s
            raise Busy(f"the read that began {stuck_s:.0f} s ago has not come back from the kernel")
        async with self._threads.turn:
            answer: asyncio.Future[T] = loop.create_future()
            self._away_since_s = loop.time()
            self._threads.submit(function, functools.partial(self._back, answer))
            return await answer

    def _back(self, answer: asyncio.Future[T], result: T | None, error: BaseException | None) -> None:
        self._away_since_s = None
        if answer.done():
            return  # the caller gave up
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(cast("T", result))


def _outcome(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001  it is raised where the caller waits
        return None, error


def _work(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    """A thread's life: one job after the other, until there is None."""
    while (job := jobs.get()) is not None:
        job()
