"""How many readings of each sensor the hub has acknowledged, by the day on which it did.

Fed by the outbox with what it lets go, on its thread; `agent.usage` writes a day into the usage
log when it is over.  Readings without a value are not counted: nothing was delivered.

The count outlives a restart as a note in the outbox, written with a commit at most each ten minutes and at a
stop: a power cut takes what was counted since, and costs the card nothing.

>>> clock = Clock("b" * 32, lambda: 0, lambda: 20_000 * DAY_MS, lambda: "synced")
>>> deliveries = Deliveries(clock, recall="", remember=print)
>>> deliveries.add({"room": 2})
>>> deliveries.write()
{"20000":{"room":2}}
>>> deliveries.over(), deliveries.over(today=20_001)
({}, {20000: {'room': 2}})
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from agent.clock import Clock
from agent.outbox import Outbox
from agent.wire.decode import decode_json
from agent.wire.errors import LichenError, Refused
from agent.wire.plain import dumps

DAY_MS = 24 * 3_600_000
NOTE = "deliveries"
"""The name of the note."""
WRITE_EVERY_MS = 600_000
MAX_NOTE = 1024 * 1024
NO_DAY = 0
"""While nobody knows which day it is."""


class Deliveries:
    """The count.  ``recall`` is what ``remember`` was given last."""

    def __init__(self, clock: Clock, recall: str, remember: Callable[[str], None]) -> None:
        self._clock = clock
        self._remember = remember
        self._lock = threading.Lock()
        self._days = _read(recall)
        self._written_ms = clock.mono_ms()

    def add(self, counts: Mapping[str, int]) -> None:
        """The hub has so many more of each sensor."""
        with self._lock:
            _add(self._days.setdefault(self.today(), {}), counts)
        if self._clock.mono_ms() - self._written_ms >= WRITE_EVERY_MS:
            self.write()

    def over(self, today: int | None = None) -> dict[int, dict[str, int]]:
        """The counts of each day that is over, be it that the clock was set back."""
        today = self.today() if today is None else today
        if today == NO_DAY:
            return {}
        with self._lock:
            if early := self._days.pop(NO_DAY, {}):
                _add(self._days.setdefault(today, {}), early)
            return {day: dict(counts) for day, counts in self._days.items() if day != today}

    def forget(self, days: Iterable[int]) -> None:
        """These are written down elsewhere."""
        with self._lock:
            for day in days:
                self._days.pop(day, None)
        self.write()

    def write(self) -> None:
        """Let the count outlive a restart."""
        self._written_ms = self._clock.mono_ms()
        with self._lock:
            text = dumps({str(day): counts for day, counts in self._days.items()}).decode()
        self._remember(text)

    def today(self) -> int:
        """Days since 1970, or NO_DAY."""
        now_ms = self._clock.known_ms()
        return NO_DAY if now_ms is None else now_ms // DAY_MS


@asynccontextmanager
async def counted(outbox: Outbox, clock: Clock) -> AsyncIterator[Deliveries]:
    """The count of what ``outbox`` lets go."""
    deliveries = Deliveries(clock, outbox.recall(NOTE), partial(outbox.remember, NOTE))
    outbox.delivered = deliveries.add
    try:
        yield deliveries
    finally:
        with contextlib.suppress(LichenError):
            await outbox.settle()  # what the hub has, and waits for a commit
        deliveries.write()


def _add(day: dict[str, int], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        day[name] = day.get(name, 0) + count


def _read(text: str) -> dict[int, dict[str, int]]:
    """What was remembered; nothing, when it cannot be understood."""
    try:
        days = decode_json(dict[str, dict[str, int]], text.encode(), max_bytes=MAX_NOTE)
        return {int(day): counts for day, counts in days.items()}
    except (Refused, ValueError):
        return {}
