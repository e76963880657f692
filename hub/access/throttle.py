"""A growing wait after failed attempts, per name or per address.

Owns the counts of failures, in memory and bounded: when the table is full the oldest entry
goes.  Joining and logging in call it.  It never waits itself: who is early is refused.

>>> time = [0]
>>> throttle = Throttle(lambda: time[0], free=2, base_ms=1000, high_ms=60_000)
>>> throttle.charge("ada"); throttle.charge("ada"); throttle.charge("ada")
>>> throttle.charge("ada")
Traceback (most recent call last):
agent.wire.errors.Refused: too many failed attempts; the next is possible in 1 s
>>> time[0] = 1000
>>> throttle.charge("ada")
>>> throttle.wait_ms("ada"), throttle.wait_ms("bob")
(2000, 0)
>>> throttle.clear("ada"); throttle.wait_ms("ada")
0
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from agent.wire.errors import Refused


@dataclass(slots=True)
class _Failures:
    count: int
    until_ms: int


class Throttle:
    """``free`` failures cost nothing; each further one doubles the wait from ``base_ms`` to ``high_ms``."""

    def __init__(
        self, now_ms: Callable[[], int], *, free: int, base_ms: int, high_ms: int, size: int = 1024
    ) -> None:
        self._now_ms = now_ms
        self._free = free
        self._base_ms = base_ms
        self._high_ms = high_ms
        self._size = size
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def wait_ms(self, key: str) -> int:
        """How long ``key`` must wait before its next attempt; 0 when it may try."""
        failures = self._failures.get(key)
        return max(0, failures.until_ms - self._now_ms()) if failures else 0

    def check(self, key: str) -> None:
        """Raise Refused (code "too-many") while ``key`` has to wait."""
        wait_ms = self.wait_ms(key)
        if wait_ms:
            raise Refused(
                f"too many failed attempts; the next is possible in {-(-wait_ms // 1000)} s",
                code="too-many",
                hint="wait, then try again",
            )

    def charge(self, key: str) -> None:
        """Count an attempt as failed, before it is known: so attempts at once gain nothing."""
        self.check(key)
        failures = self._failures.pop(key, None) or _Failures(0, 0)
        failures.count += 1
        excess = failures.count - self._free
        if excess > 0:
            # 2**32 base waits are beyond any high_ms; the cap keeps the integer small.
            delay_ms = min(self._high_ms, self._base_ms * 2 ** min(excess - 1, 32))
            failures.until_ms = self._now_ms() + delay_ms
        self._failures[key] = failures
        if len(self._failures) > self._size:
            self._failures.popitem(last=False)

    def clear(self, key: str) -> None:
        """Forget the failures of ``key``: it has succeeded."""
        self._failures.pop(key, None)
