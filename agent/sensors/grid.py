"""A grid of monotonic time: who waits for the same moment wakes in the same turn of the loop.

Owns the timers of the sampler.  Every tick is a multiple of its interval since boot, so ten
sensors of 10 s wake the process once in 10 s, one of 5 s shares every second of its own ticks
with them, and a late reading never pushes the later ones back.

>>> next_tick(20_000, every_ms=10_000), next_tick(20_001, every_ms=10_000)
(30000, 30000)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Grid:
    """The moments that somebody waits for, each with one timer."""

    def __init__(self, mono_ms: Callable[[], int]) -> None:
        self._mono_ms = mono_ms
        self._moments: dict[int, set[asyncio.Event]] = {}

    async def reach(self, at_ms: int, bell: asyncio.Event) -> bool:
        """Wait until the monotonic clock says ``at_ms``, or somebody rings the waiter's own bell.

        Whether the time has come; after a suspend it may be later.  The bell is quiet afterwards.
        """
        while (left_ms := at_ms - self._mono_ms()) > 0:
            waiting = self._moments.get(at_ms)
            if waiting is None:
                waiting = self._moments[at_ms] = set()
                asyncio.get_running_loop().call_later(left_ms / 1000, self._arrive, at_ms)
            waiting.add(bell)
            try:
                await bell.wait()
            finally:
                waiting.discard(bell)
            bell.clear()
            if self._moments.get(at_ms) is waiting:
                return False  # the moment is still to come
        bell.clear()
        return True

    def _arrive(self, at_ms: int) -> None:
        for bell in self._moments.pop(at_ms):
            bell.set()


def next_tick(now_ms: int, every_ms: int) -> int:
    """The first multiple of ``every_ms`` after ``now_ms``."""
    return (now_ms // every_ms + 1) * every_ms
