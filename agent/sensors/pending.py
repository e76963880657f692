"""Readings between two commits: bounded, and handed over once.

Owned by the sampler.  What waits here may be lost in a power cut, and nowhere else.  While the
sink refuses (a full disk), the oldest beyond MAX_PENDING are dropped and counted.

A commit says once how sure the clock was, so its readings get the wall times of that moment's
clock: one that was taken just before the clock was set would otherwise pass for right.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from agent.clock import Clock
from agent.wire.errors import Busy, Refused
from agent.wire.messages import ClockState, Reading

log = logging.getLogger(__name__)

MAX_PENDING = 10_000
"""Readings that may wait for a commit."""


class Sink(Protocol):
    """Where readings go: the outbox."""

    async def append(self, readings: Sequence[Reading], clock: ClockState, /) -> None:
        """Keep them all, or raise Refused or Busy and keep none.  When cancelled, end what was begun."""
        ...


class Pending:
    """What waits for the sink.

    ``due`` is set when so much waits that it should not wait longer, ``changed`` when the sink
    has refused, and when it ceases to; ``dropped`` counts what found no room; ``refusal`` is why the sink
    did not take the last commit, None when it did.
    """

    def __init__(self, sink: Sink, clock: Clock, due: asyncio.Event, changed: asyncio.Event) -> None:
        self.dropped = 0
        self.refusal: Refused | Busy | None = None
        self._changed = changed
        self._sink = sink
        self._clock = clock
        self._due = due
        self._readings: deque[Reading] = deque(maxlen=MAX_PENDING)

    def keep(self, reading: Reading) -> None:
        """Let a reading wait for the next commit."""
        if len(self._readings) == MAX_PENDING:
            self.dropped += 1  # the deque lets its oldest go
        self._readings.append(reading)
        if len(self._readings) >= MAX_PENDING // 2 and not self.refusal:
            self._due.set()

    async def commit(self) -> None:
        """Hand over what waits.  A sink that refuses, or is busy, is asked again at the next commit."""
        if not self._readings:
            return
        # Taken out first: a cancelled append ends what it began, and handing the same readings
        # over again would store them twice.
        state = self._clock.state()
        offset_ms = self._clock.wall_ms() - self._clock.mono_ms()
        batch = [reading._replace(wall_ms=reading.mono_ms + offset_ms) for reading in self._readings]
        # Sensors of one tick end as they like; always in one order, they take fewer bytes.
        batch.sort(key=lambda reading: (reading.mono_ms, reading.sensor))
        self._readings.clear()
        try:
            await self._sink.append(batch, state)
        except (Refused, Busy) as error:
            self._put_back(batch)
            if not self.refusal:
                log.warning("readings cannot be committed", extra={"reason": str(error)})
            self.refusal = error
            self._changed.set()  # no commit rings for what was read meanwhile
        else:
            if self.refusal:
                log.info("readings are committed again", extra={"dropped": self.dropped})
                self._changed.set()
            self.refusal = None

    def _put_back(self, batch: list[Reading]) -> None:
        """Before what came meanwhile, dropping the oldest beyond the bound."""
        batch.extend(self._readings)
        self.dropped += max(0, len(batch) - MAX_PENDING)
        self._readings = deque(batch, maxlen=MAX_PENDING)
