"""What the usage log says besides what containers used: what the board offered, what became of orders, how
many readings were delivered, and what happened to the clock.

Made by `agent.usage.usage` when the log is open, with the last records of each kind, so that nothing is
written twice; it says when to look (`look`) and when the hour is over (`draft`), and writes what is due.
Nothing here waits or writes.

A clock record says between which two looks the wall clock was set, or was trusted more or less than before;
what it says of the time in between is the reader's to correct.  Orders that are refused are told once each,
and only those that the hub has signed: whoever else can send some must not be able to fill the card.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agent.clock import Clock
from agent.wire.messages import ClockState, Sensor
from agent.wire.usage import BoardRecord, ClockRecord, Common, Known, OrderRecord, Record, SensorRecord

STEP_MS = 1_000
"""By how much the wall clock must have moved against the monotonic one to have been set: a daemon that
corrects it slowly moves it less between two looks."""
MOST_STEPS = 8
"""How many steps of a clock that finds no rest are told one by one in a period."""
MOST_ORDERS = 16
"""How many orders wait to be written; a hub that sends more of them in one period has told enough."""
REASON = 4096


class Tally(Protocol):
    """The readings that the hub has (`agent.deliveries`)."""

    def over(self) -> dict[int, dict[str, int]]:
        """Of each day that is over, how many of each sensor."""

    def forget(self, days: Sequence[int]) -> None:
        """These are written down."""


class Chronicle:
    """The records of one board."""

    def __init__(
        self,
        clock: Clock,
        *,
        disk: Path,
        deliveries: Tally,
        sensors: Callable[[], Sequence[Sensor]],
        latest: Mapping[str, Record],
    ) -> None:
        """``disk`` is on the file system that the board offers; ``latest`` the last record of each kind."""
        self._clock, self._disk, self._deliveries, self._sensors = clock, disk, deliveries, sensors
        self._from_ms = clock.mono_ms()  # what the board offered is written down up to here
        self._waiting: deque[Known] = deque()
        self._orders: deque[tuple[str, bool]] = deque(maxlen=MOST_ORDERS)
        order, sensor = latest.get("order"), latest.get("sensor")
        if isinstance(order, OrderRecord):
            self._orders.append((order.sha256, order.accepted))
        self._last_day = sensor.day if isinstance(sensor, SensorRecord) else None
        known = [each for each in latest.values() if isinstance(each, Common) and each.boot == clock.boot]
        last = max(known, key=lambda record: record.seq, default=None)
        if last is None:
            self._seen = self._now()
        else:
            self._seen = last.mono1_ms, last.wall1_ms, last.clock
        self._told = self._seen

    def look(self) -> None:
        """See whether something has happened to the clock."""
        before_ms, _, _ = self._seen
        told_ms, told_wall_ms, told_state = self._told
        self._seen = now_ms, wall_ms, state = self._now()
        step_ms = (wall_ms - now_ms) - (told_wall_ms - told_ms)
        if state == told_state and abs(step_ms) < STEP_MS:
            return
        if sum(isinstance(record, ClockRecord) for record in self._waiting) >= MOST_STEPS:
            return  # what is told next covers it
        self._told = self._seen
        self._waiting.append(
            ClockRecord(
                boot=self._clock.boot,
                mono0_ms=before_ms,
                mono1_ms=now_ms,
                wall0_ms=told_wall_ms - told_ms + before_ms,
                wall1_ms=wall_ms,
                clock=state,
                from_state=told_state,
                to_state=state,
                step_ms=step_ms,
            )
        )

    def note_order(self, generation: int, sha256: str, *, accepted: bool, reason: str = "") -> bool:
        """An order came.  Whether that is to be written."""
        if (sha256, accepted) in self._orders:
            return False
        self._orders.append((sha256, accepted))
        orders = [record for record in self._waiting if isinstance(record, OrderRecord)]
        if len(orders) >= MOST_ORDERS and not accepted:
            return False
        now_ms, wall_ms, state = self._now()
        self._waiting.append(
            OrderRecord(
                boot=self._clock.boot,
                mono0_ms=now_ms,
                mono1_ms=now_ms,
                wall0_ms=wall_ms,
                wall1_ms=wall_ms,
                clock=state,
                generation=generation,
                sha256=sha256,
                accepted=accepted,
                reason=reason[:REASON],
            )
        )
        return True

    def draft(self, *, hour: bool = False) -> tuple[list[Known], Callable[[], None]]:
        """The records that are due, and what to call when they have been written; ``hour``: one is over."""
        waiting = list(self._waiting)
        days = self._deliveries.over()
        records: list[Known] = [*waiting, *self._of_days(days)]
        now_ms = self._clock.mono_ms()
        if hour and (offer := self._of_board(now_ms)) is not None:
            records.append(offer)

        def written() -> None:
            for record in waiting:
                self._waiting.remove(record)
            if days:
                self._last_day = max(days)
                self._deliveries.forget(list(days))
            if hour:
                self._from_ms = now_ms

        return records, written

    def _of_days(self, days: Mapping[int, Mapping[str, int]]) -> list[SensorRecord]:
        """What was delivered on days that are over; of the last that is written down the count was not yet
        forgotten when the agent died."""
        units = {sensor.name: sensor.unit for sensor in self._sensors()} if days else {}
        now_ms, wall_ms, state = self._now()
        return [
            SensorRecord(
                boot=self._clock.boot,
                mono0_ms=now_ms,
                mono1_ms=now_ms,
                wall0_ms=wall_ms,
                wall1_ms=wall_ms,
                clock=state,
                sensor=name,
                unit=units.get(name, ""),
                readings=count,
                day=day,
            )
            for day, counts in sorted(days.items())
            if day != self._last_day
            for name, count in sorted(counts.items())
        ]

    def _of_board(self, now_ms: int) -> BoardRecord | None:
        try:
            disk = os.statvfs(self._disk)
        except OSError:  # a card that fails offers nothing
            return None
        boot_ms = self._clock.wall_ms() - now_ms
        return BoardRecord(
            boot=self._clock.boot,
            mono0_ms=self._from_ms,
            mono1_ms=now_ms,
            wall0_ms=boot_ms + self._from_ms,
            wall1_ms=boot_ms + now_ms,
            clock=self._clock.state(),
            cpus=os.cpu_count() or 1,
            memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            disk_bytes=disk.f_blocks * disk.f_frsize,
        )

    def _now(self) -> tuple[int, int, ClockState]:
        return self._clock.mono_ms(), self._clock.wall_ms(), self._clock.state()
