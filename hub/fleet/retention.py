"""Retention: what the hub drops to stay within what its operator gave it, the oldest first.

Owns when and how much is dropped, and how that is told: an event on each day on which single
readings go, and `Storage` for the API and the pages.  `hub.app` runs it beside ingest.

It goes by the time of receipt, because clocks of boards may be wrong.  It deletes a slice at a time
and lets others in between, so ingest never waits longer than for one.  What is deleted leaves room
that the database uses again; its file does not get smaller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, TypeVar

from agent.wire import words
from agent.wire.errors import Busy, Refused
from hub.config import Retention as Config
from hub.store import retention as store
from hub.store.database import Store, Tx
from hub.store.events import add_event
from hub.store.facts import read_fact, write_fact
from hub.store.problems import prune_problems
from hub.store.retention import Held

T = TypeVar("T")
log = logging.getLogger(__name__)

EVERY_S = 60.0
PAUSE_S = 0.05
"""Between two slices, for others."""
BATCHES = 100
"""Batches in one slice; the others are as quick."""
ROWS = 500
COUNTED = 2000
"""Batches whose bytes are counted in one query; nobody waits for that."""

DAY_MS = 86_400_000
FIRST = ("", "")
"""Before every key."""
STREAM_DAYS = 366
"""How long a stream that has ended is remembered at least: a board may come back from a year away."""
CALM_DAYS = 30
BOOT_DAYS = 400


@dataclass(frozen=True, slots=True)
class Storage:
    """How much room readings take, and what had to go.

    ``bytes`` of ``max_bytes`` are used by single readings.  ``dropped_readings`` of them are gone,
    received until ``dropped_until_ms`` (None: none are).
    """

    bytes: int = 0
    max_bytes: int = 0
    dropped_readings: int = 0
    dropped_until_ms: int | None = None


class Retention:
    """Drops what is too old or too much.  Belongs to one event loop."""

    def __init__(self, store: Store, config: Config, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._config = config
        self._now_ms = now_ms
        self._counted_id = 0  # up to here batches are in `_bytes`
        self._bytes = 0
        self._dropped = 0
        self._dropped_until_ms = 0
        self._history_due_ms = 0
        self._failing = False

    def storage(self) -> Storage:
        """How much room is used."""
        return Storage(
            bytes=self._bytes,
            max_bytes=self._config.max_bytes,
            dropped_readings=self._dropped,
            dropped_until_ms=self._dropped_until_ms or None,
        )

    async def run(self) -> NoReturn:
        """Keep to the bounds until cancelled."""
        while True:
            try:
                await self.turn()
                self._failing = False
            except (Refused, Busy) as error:
                if not self._failing:
                    log.warning("cannot drop what is old", extra={"error": str(error), "hint": error.hint})
                self._failing = True
            await asyncio.sleep(EVERY_S)

    async def turn(self) -> None:
        """Count what is new, and drop what is beyond the bounds.  Raises Refused, Busy."""
        await self._count()
        await self._drop_batches()
        if self._now_ms() >= self._history_due_ms:
            await self._drop_history()
            self._history_due_ms = self._now_ms() + DAY_MS

    # --- single readings -----------------------------------------------------------------------------

    async def _count(self) -> None:
        """Add what has been stored since the last time; at a start that is everything."""
        async with self._store.read() as tx:
            low, high = await store.batch_ids(tx)
            if not self._counted_id:
                self._counted_id = max(low - 1, 0)
                self._dropped = await read_fact(tx, "dropped-readings")
                self._dropped_until_ms = await read_fact(tx, "dropped-until")
        while self._counted_id < high:
            last = min(self._counted_id + COUNTED, high)
            async with self._store.read() as tx:
                self._bytes += await store.payload_bytes(tx, self._counted_id + 1, last)
            self._counted_id = last

    async def _drop_batches(self) -> None:
        before = self._dropped
        async with self._store.read() as tx:
            if not await self._beyond(tx, 1):
                return
        while True:
            async with self._store.write() as tx:
                gone = await self._drop_slice(tx)
            self._bytes -= sum(row.bytes for row in gone)
            self._dropped += sum(row.readings for row in gone)
            self._dropped_until_ms = max([self._dropped_until_ms, *(row.received_ms for row in gone)])
            if len(gone) < BATCHES:
                break
            await asyncio.sleep(PAUSE_S)
        log.info("dropped old readings", extra={"readings": self._dropped - before})

    async def _drop_slice(self, tx: Tx) -> list[Held]:
        """Drop the oldest batches that are beyond a bound, and tell so in the same transaction."""
        gone = await self._beyond(tx, BATCHES)
        if gone:
            until_ms = max(row.received_ms for row in gone)
            await store.drop_batches(tx, [row.id for row in gone])
            await write_fact(tx, "dropped-readings", self._dropped + sum(row.readings for row in gone))
            await write_fact(tx, "dropped-until", max(until_ms, self._dropped_until_ms))
            await self._tell(tx, until_ms)
        return gone

    async def _beyond(self, tx: Tx, most: int) -> list[Held]:
        """The oldest batches that must go, at most so many."""
        folded = await read_fact(tx, "fold")  # what is behind it is in no roll-up yet
        days = self._config.raw_days
        expired_ms = 0 if days is None else self._now_ms() - days * DAY_MS
        excess, gone = self._bytes - self._config.max_bytes, []
        for row in await store.oldest_batches(tx, min(folded, self._counted_id), most):
            if excess <= 0 and row.received_ms >= expired_ms:
                break
            gone.append(row)
            excess -= row.bytes
        return gone

    async def _tell(self, tx: Tx, until_ms: int) -> None:
        """An event, but no more than one a day: a hub that is full drops something each minute."""
        now_ms = self._now_ms()
        if now_ms // DAY_MS == await read_fact(tx, "dropped-told") // DAY_MS:
            return
        days, most = self._config.raw_days, words.plain(words.value(self._config.max_bytes, "By"))
        bound = most if days is None else f"{most} and {days} days"
        text = f"single readings received until {words.utc(until_ms)} are dropped: the bound is {bound}"
        await add_event(tx, at_ms=now_ms, kind="dropped", text=text)
        await write_fact(tx, "dropped-told", now_ms)

    # --- what is only history ------------------------------------------------------------------------

    async def _drop_history(self) -> None:
        """Look through everything that ages; done once a day, as a day is little of it."""
        now_ms = self._now_ms()
        rollups_ms = now_ms - self._config.rollup_days * DAY_MS
        history_ms = now_ms - self._config.history_days * DAY_MS
        streams_ms = now_ms - STREAM_DAYS * DAY_MS
        async with self._store.read() as tx:
            oldest_ms = await store.oldest_receipt(tx)
        # A boot is touched once a day, so the batches that need it may be newer by that.
        boots_ms = min(now_ms - BOOT_DAYS * DAY_MS, (now_ms if oldest_ms is None else oldest_ms) - DAY_MS)

        gone = {
            "rollups": await self._sweep(partial(store.drop_rollups, before_ms=rollups_ms, most=ROWS), 0),
            "gaps": await self._sweep(partial(store.drop_gaps, before_ms=rollups_ms, most=ROWS), 0),
            "events": await self._sweep(partial(store.drop_events, before_ms=history_ms, most=ROWS), 0),
            "problems": await self._sweep(partial(_drop_problems, before_ms=history_ms), 0),
            "streams": await self._sweep(
                partial(store.drop_streams, before_ms=streams_ms, calm_ms=CALM_DAYS * DAY_MS, most=ROWS),
                FIRST,
            ),
            "boots": await self._sweep(partial(store.drop_boots, before_ms=boots_ms, most=ROWS), FIRST),
        }
        if any(gone.values()):
            log.info("dropped old history", extra={name: count for name, count in gone.items() if count})

    async def _sweep(self, drop: Callable[[Tx, T], Awaitable[tuple[int, T | None]]], begin: T) -> int:
        """Call ``drop``, each time in a transaction and from where it stopped, to its end."""
        gone = 0
        at: T | None = begin
        while at is not None:
            async with self._store.write() as tx:
                count, at = await drop(tx, at)
            gone += count
            await asyncio.sleep(PAUSE_S)
        return gone


async def _drop_problems(tx: Tx, at: int, *, before_ms: int) -> tuple[int, int | None]:
    count = await prune_problems(tx, before_ms, most=ROWS)
    return count, at if count == ROWS else None
