"""Debouncing of a line whose chip cannot.

Owns the level that counts.  `agent.sensors.gpio.pins` uses it where the kernel refuses to debounce, and
it does the same as the kernel: a level counts once it has held for a while.  Whether it has is
judged by when the kernel saw the edges, so an event loop that is late takes no bouncing for a
press; a timer only tells of a level after which nothing happened any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Settling:
    """``tell`` is called with the time of its edge when a level has held for ``period_s``."""

    def __init__(self, period_s: float, tell: Callable[[float, bool], object]) -> None:
        self.level = False
        self._period_s = period_s
        self._tell = tell
        self._last: tuple[float, bool] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def see(self, at_s: float, level: bool) -> None:
        """An edge to ``level``."""
        if self._last is not None and at_s - self._last[0] >= self._period_s:
            self._settle()
        self.close()
        self._last = (at_s, level)
        self._timer = asyncio.get_running_loop().call_later(self._period_s, self._settle)

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _settle(self) -> None:
        self.close()
        if self._last is None:
            return
        (at_s, level), self._last = self._last, None
        if level != self.level:
            self.level = level
            self._tell(at_s, level)
