"""How much each board may send, and who sends more.  Pure, but for the clock that it is given.

Ingest asks about every message before it looks into it, so this is a hot path; `hub.fleet.throttle`
asks who goes on beyond the limits and keeps those out at the broker for a while.

Rates are kept as the generic cell rate algorithm does (ITU-T I.371, annex A): of each board one
time for messages and one for bytes, which moves on with each message by what it is worth, and
may run ahead of the clock by ``BURST_S``.  A board that drains a backlog stays far below; one that
runs wild is held at the limits, and costs hardly more than the look.

>>> now_s = 0.0
>>> limits = Allowances(Limits(messages_per_s=2, bytes_per_s=1024), lambda: now_s)
>>> [limits.admit("a", 10) for _ in range(22)].count(True)   # ten seconds' worth at once
20
>>> limits.admit("b", 10), limits.admit("a", 10)
(True, False)
>>> now_s = 0.5
>>> limits.admit("a", 10), limits.admit("a", 10)
(True, False)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from agent.wire.errors import Refused
from agent.wire.messages import Block
from hub.config import Limits

BURST_S = 10.0
"""How many seconds' worth may come at once."""
PATIENCE_S = 10.0
"""How long a board may go on beyond its limits before it is kept out, or how much of what it may
send in that time: a board that sends far more is out sooner."""
CALM_S = 3.0
"""Within its limits for so long, it has stopped: what comes later begins anew."""

NEWS_PER_S = 2.0
"""Rows that a board may leave beside its readings, each second: starts of its agent, boots, gaps, comings
and goings.  They stay for years and belong to no quota.  A board that is well leaves some in a day."""
NEWS_BURST = 2000
"""And so many at once: a hub that was restored may have to learn of all that a board still holds."""


@dataclass(slots=True)
class _Excess:
    """One time that a board went beyond its limits; by the clock given."""

    first_s: float
    last_s: float
    messages: int = 1


class Allowances:
    """What each board has left.  Times in seconds of ``clock_s``, any one that never goes back."""

    def __init__(
        self, limits: Limits, clock_s: Callable[[], float], *, patience_s: float = PATIENCE_S
    ) -> None:
        self.limits = limits
        self._clock_s = clock_s
        self._patience_s = patience_s
        self._message_s = 1 / limits.messages_per_s
        self._byte_s = 1 / limits.bytes_per_s
        self._spent: dict[str, list[float]] = {}  # of each board: messages and bytes are paid up to
        self.bell = asyncio.Event()  # somebody exceeds the limits
        self._excess: dict[str, _Excess] = {}
        self._news: dict[str, float] = {}  # of each board: they are paid up to
        self._new_names: dict[str, set[str]] = {}  # of sensors that no commit has brought yet

    def admit(self, board: str, size: int) -> bool:
        """Whether a message of ``size`` bytes may be looked at; if so, it is paid for."""
        now_s = self._clock_s()
        spent = self._spent.get(board)
        if spent is None:
            spent = self._spent[board] = [0.0, 0.0]
        messages_s, bytes_s = spent
        messages_s = (messages_s if messages_s > now_s else now_s) + self._message_s
        bytes_s = (bytes_s if bytes_s > now_s else now_s) + self._byte_s * size
        # A message that is larger than a whole burst could never be sent: it costs one.
        if messages_s > now_s + BURST_S or bytes_s > now_s + BURST_S + self._byte_s * size:
            self._exceeded(board, now_s)
            return False
        spent[0], spent[1] = messages_s, bytes_s
        return True

    def _exceeded(self, board: str, now_s: float) -> None:
        excess = self._excess.get(board)
        if excess is None or now_s - excess.last_s > CALM_S:
            self._excess[board] = _Excess(now_s, now_s)
            self.bell.set()
        else:
            excess.last_s = now_s
            excess.messages += 1

    def stubborn(self) -> list[str]:
        """The boards that have gone on beyond their limits for long, and still do.

        Each is told once: who goes on after that is told again after as long.
        """
        now_s = self._clock_s()
        for board in [board for board, each in self._excess.items() if now_s - each.last_s > CALM_S]:
            del self._excess[board]
        found = [board for board, each in self._excess.items() if now_s - each.first_s >= self._patience_s]
        for board in found:
            del self._excess[board]
        return found

    @property
    def exceeding(self) -> bool:
        """Whether `stubborn` may have somebody to tell of before long."""
        return bool(self._excess)

    def check_news(self, board: str, rows: int) -> None:
        """Refuse what would leave so many rows, when a board leaves too many; else they are paid for.

        Raises Refused (code "too-much-news").
        """
        if not rows:
            return
        now_s = self._clock_s()
        paid_s = max(self._news.get(board, now_s), now_s) + rows / NEWS_PER_S
        if paid_s > now_s + NEWS_BURST / NEWS_PER_S:
            raise Refused(
                f"it tells of more starts, gaps, comings and goings than {NEWS_PER_S:.0f} a second",
                code="too-much-news",
            )
        self._news[board] = paid_s

    # --- sensors -----------------------------------------------------------------------------------

    def check_sensors(self, board: str, blocks: Iterable[Block], known: Collection[str]) -> None:
        """Refuse readings that would give a board more sensors than it may have.

        ``known``: the names that it has.  Raises Refused (code "too-many-sensors").
        """
        new = {name for block in blocks for name in block.sensors if name not in known}
        if not new:
            return
        pending = self._new_names.setdefault(board, set())
        count = len(known) + len(new | pending)
        if count > self.limits.sensors:
            raise Refused(
                f"with {min(new)} it would have {count} sensors, and it may have {self.limits.sensors}",
                code="too-many-sensors",
            )
        pending |= new

    def forget_new_sensors(self) -> None:
        """A commit has ended: the names that came with it are known now, or come again."""
        self._new_names.clear()
