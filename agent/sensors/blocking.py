"""A thread for reads that may block, and another one when it does.

Owns the threads in which sysfs files, network mounts and whatever else the kernel may hold up
are read.  The sampler gives each sensor a `Lane`; nothing else uses them.

Reads that are asked for together are done by one thread, one after the other, and come back
together: ten sensors on one tick cost two switches of context, not thirty.  But a read in the
kernel cannot be interrupted, so:

- A thread whose read takes longer than ``patience_s`` loses the queue to a new one, and ends
  when its read does.  Slow sensors thus run side by side, and a hung one costs the others one
  patience, once.
- A lane whose last read has not come back answers Busy instead of queueing another, so no
  sensor ever holds more than one thread.
- ``max_threads`` bounds them all; beyond it reads wait, and their callers' timeouts tell.
- The threads are daemons, unlike those of `concurrent.futures`, which the interpreter waits
  for at exit: a dead disk must not keep an agent from stopping.

    lane = Threads().lane()
    text = await lane(lambda: path.read_text())
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from agent.wire.errors import Busy

T = TypeVar("T")

PATIENCE_S = 0.05
MAX_THREADS = 16


class Threads:
    """The threads of one event loop: the one that works, and those that are stuck."""

    def __init__(self, *, patience_s: float = PATIENCE_S, max_threads: int = MAX_THREADS) -> None:
        self._patience_s = patience_s
        self._max_threads = max_threads
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._returned: deque[_Job[Any]] = deque()
        self._away = 0
        self._worker: _Worker | None = None
        self._threads = 0
        self._timer: asyncio.TimerHandle | None = None

    def lane(self) -> Lane:
        """A way in for one sensor."""
        return Lane(self)

    def submit(self, job: _Job[Any]) -> None:
        """Have the job run, and then settled in the event loop, however late."""
        self._jobs.put(job)
        self._away += 1
        if self._worker is None:
            self._start()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._look)

    def close(self) -> None:
        """Let every thread go; one that is stuck ends with its read."""
        for _ in range(self._threads):
            self._jobs.put(None)
        if self._timer is not None:
            self._timer.cancel()

    def _start(self) -> None:
        if self._threads == self._max_threads:
            return
        self._threads += 1
        loop = asyncio.get_running_loop()
        self._worker = _Worker(
            self._jobs,
            self._returned,
            lambda: loop.call_soon_threadsafe(self._settle),
            lambda: loop.call_soon_threadsafe(self._on_end),
        )
        threading.Thread(target=self._worker.run, name="sensors", daemon=True).start()

    def _settle(self) -> None:
        """Hand the results out."""
        while self._returned:
            self._away -= 1
            self._returned.popleft().settle()
        if self._away == 0 and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Patience is over: whoever waits behind a slow read gets another thread."""
        self._timer = None
        self._settle()
        if self._jobs.empty():
            return
        if self._worker is not None and self._worker.is_slow(self._patience_s):
            self._worker.retired = True
            self._worker = None
        if self._worker is None:
            self._start()
        if self._worker is not None:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._look)

    def _on_end(self) -> None:
        """A thread that was stuck has come back and is gone; there may be work for a new one."""
        self._threads -= 1
        self._settle()
        if self._worker is None and not self._jobs.empty():
            self._start()


class Lane:
    """One sensor's way to the threads: one read at a time."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._job: _Job[Any] | None = None

    async def __call__(self, function: Callable[[], T], /) -> T:
        """What ``function`` returns or raises.  Raises Busy while an earlier read has not come back."""
        loop = asyncio.get_running_loop()
        if self._job is not None and not self._job.settled:
            stuck_s = loop.time() - self._job.since_s
            raise Busy(f"the read that began {stuck_s:.0f} s ago has not come back from the kernel")
        job: _Job[T] = _Job(function, loop.create_future(), loop.time())
        self._job = job
        self._threads.submit(job)
        return await job.answer


class _Job(Generic[T]):
    """One read: run in a thread, settled in the loop."""

    def __init__(self, function: Callable[[], T], answer: asyncio.Future[T], since_s: float) -> None:
        self.answer = answer
        self.since_s = since_s
        self.settled = False
        self._function = function
        self._result: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        if self.answer.done():
            return  # the caller gave up while it waited for its turn
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001  it is raised where the caller waits
            self._error = error

    def settle(self) -> None:
        self.settled = True
        if self.answer.done():
            return
        if self._error is not None:
            self.answer.set_exception(self._error)
        else:
            self.answer.set_result(cast("T", self._result))


class _Worker:
    """What one thread does: job after job, until there is None or it is retired.

    ``report`` and ``end`` call back into the event loop; it may be gone, and then nobody waits.
    """

    def __init__(
        self,
        jobs: queue.SimpleQueue[_Job[Any] | None],
        returned: deque[_Job[Any]],
        report: Callable[[], object],
        end: Callable[[], object],
    ) -> None:
        self.retired = False
        self._jobs, self._returned, self._report, self._end = jobs, returned, report, end
        self._since_s: float | None = None

    def is_slow(self, patience_s: float) -> bool:
        """Whether one read has been going on for as long as that."""
        since_s = self._since_s
        return since_s is not None and time.monotonic() - since_s >= patience_s / 2

    def run(self) -> None:
        with contextlib.suppress(RuntimeError):
            while not self.retired and (job := self._next()) is not None:
                self._since_s = time.monotonic()
                job.run()
                self._since_s = None
                self._returned.append(job)
            self._end()

    def _next(self) -> _Job[Any] | None:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            # Results are reported once, when there is nothing more to do.
            if self._returned:
                self._report()
            return self._jobs.get()
