"""Asks every sensor at its time, and hands the readings to the outbox.

Owns the sensors' tasks, their pace, and what each of them last said.  `agent.app` starts it and
hands in the outbox as its sink; `lichen-agent status` and the about message show `Sampler.latest`
and `Sampler.sensors`.  It never touches the network or a file.

    sampler = Sampler(config.sensors, clock=clock, sink=outbox, sysfs=config.sysfs, ...)
    async with asyncio.TaskGroup() as group:
        sampler.start(group)

What holds:

1.  Each sensor has a task of its own.  One that hangs is given up after its ``timeout_s``, one
    that fails in whatever way is asked again at its next time; neither delays another.
2.  Every asking leaves a trace: a value, or None for each channel that could not tell; or with a
    deadband, nothing as long as nothing changes, and a trace every ``heartbeat_s``.
3.  Readings are stamped when the sensor is asked, on a grid (see `agent.sensors.grid`), from
    both clocks.  A driver that sees something happen has its sensor asked at once, besides.
4.  Readings are committed every ``commit_every_s``, soon after the start, and at the stop.
    What waits is bounded (see `agent.sensors.pending`).
5.  While somebody watches (`Sampler.hurry`) askings and commits come at the pace of the watcher.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.clock import Clock
from agent.sensors.blocking import Lane, Threads
from agent.sensors.conditioning import Sieve
from agent.sensors.driver import Answer, Environment, Kind, SensorConfig, Stale, Turns, load_kind
from agent.sensors.grid import Grid, next_tick
from agent.sensors.pending import Pending, Sink
from agent.sensors.probe import Probe
from agent.wire.errors import Busy, LichenError, Refused
from agent.wire.messages import Quality, Reading, Sensor

log = logging.getLogger(__name__)

FIRST_COMMIT_S = 2.0
"""How long the first commit waits for the slowest sensor's first reading."""
LATE_MS = 50
"""What comes within this time of its tick has the tick's time."""
GRACE_MS = 500
"""How long after a tick a commit comes, so that it has the readings of that tick."""
WAKE_EVERY_MS = 100
"""The shortest time between two askings of a sensor that something happened to."""
MISSED = 3
"""A value is stale when no asking has ended for this many intervals."""
MAX_ERROR = 256
"""Characters of an error that are kept; the limit of the about message."""


@dataclass(frozen=True, slots=True)
class Latest:
    """One channel's last value and when it was (None: never).

    ``error`` and its ``code``: why the last asking failed; ``stale``: the driver says that the
    value is old.
    """

    value: float | None = None
    mono_ms: int = 0
    wall_ms: int = 0
    error: str = ""
    code: str = ""
    stale: bool = False

    @property
    def quality(self) -> Quality:
        return "failed" if self.error else "stale" if self.stale else "good"


class Sampler:
    """All sensors of a board.

    ``changed`` rings when the quality of a sensor's values changes, and when the sink has
    refused them, or ceases to.
    """

    def __init__(
        self,
        sensors: Sequence[SensorConfig],
        *,
        clock: Clock,
        sink: Sink,
        sysfs: Path,
        state_dir: Path,
        commit_every_s: float,
        load: Callable[[str], Kind] = load_kind,
    ) -> None:
        self.changed = asyncio.Event()
        self._clock = clock
        self._commit_every_ms = round(commit_every_s * 1000)
        self._threads = Threads()
        turns = Turns()
        self._sensors = [
            _Sensor(config, load, sysfs, state_dir, self._threads, turns, clock.mono_ms())
            for config in sensors
        ]
        self._grid = Grid(clock.mono_ms)
        self._due = asyncio.Event()
        self._pending = Pending(sink, clock, self._due, self.changed)
        self._unasked = len(self._sensors)
        self._hurry_every_ms = 0
        self._hurry_until_ms = 0

    @property
    def dropped(self) -> int:
        """How many readings found no room while the sink did not take them."""
        return self._pending.dropped

    @property
    def refusal(self) -> Refused | Busy | None:
        """Why the sink did not take the last commit; None when it did."""
        return self._pending.refusal

    def lane(self) -> Lane:
        """A way to the sampler's threads for somebody else whose reads may hang."""
        return self._threads.lane()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin to sample, one task per sensor; cancelling the group ends it with a last commit."""
        for sensor in self._sensors:
            group.create_task(self._sample(sensor), name=f"sensor {sensor.probe.config.name}")
        group.create_task(self._commit_at_times(), name="sampler")

    def latest(self) -> dict[str, Latest]:
        """What each channel last said."""
        return {name: latest for sensor in self._sensors for name, latest in sensor.latest.items()}

    def sensors(self) -> tuple[Sensor, ...]:
        """Each channel as the about message describes it."""
        now_ms = self._clock.mono_ms()
        return tuple(described for sensor in self._sensors for described in sensor.describe(now_ms))

    def hurry(self, every_s: float, for_s: float) -> None:
        """Ask and commit every ``every_s`` for the next ``for_s``: somebody is watching.

        A sensor that is asked more often than that keeps its pace.  Called again it replaces what
        was said before; readings go on being stamped and stored as ever.
        """
        every_ms, now_ms = round(every_s * 1000), self._clock.mono_ms()
        as_before = now_ms < self._hurry_until_ms and every_ms == self._hurry_every_ms
        self._hurry_every_ms = every_ms
        self._hurry_until_ms = now_ms + round(for_s * 1000)
        if not as_before:
            self._due.set()
            for sensor in self._sensors:
                sensor.bell.set()

    def _pace(self, every_ms: int, fastest_ms: int = 0) -> int:
        """How often something happens that is done every ``every_ms`` while nobody watches."""
        if self._clock.mono_ms() >= self._hurry_until_ms:
            return every_ms
        return min(every_ms, max(self._hurry_every_ms, fastest_ms))

    # --- sampling ------------------------------------------------------------------------------

    async def _sample(self, sensor: _Sensor) -> None:
        """A sensor's life: asked at once, then at every tick of its interval."""
        # The first tick may follow at once; a difference over that moment would be noise.
        not_before_ms = self._clock.mono_ms() + sensor.interval_ms // 2
        tick_ms = None
        try:
            while True:
                asked_ms = self._clock.mono_ms()
                await self._ask(sensor, tick_ms)
                tick_ms = await self._until_next(sensor, asked_ms, not_before_ms)
        finally:
            await sensor.probe.close()

    async def _until_next(self, sensor: _Sensor, asked_ms: int, not_before_ms: int) -> int | None:
        """Wait for the next tick and return it, or None when the driver has something to tell first."""
        tick_ms = None
        while not sensor.woken:
            pace_ms = self._pace(sensor.interval_ms, sensor.fastest_ms)
            # The pace may have changed when the bell rings.
            now_ms = max(self._clock.mono_ms(), min(not_before_ms, asked_ms + pace_ms // 2))
            tick_ms = next_tick(now_ms, pace_ms)
            if await self._grid.reach(tick_ms, sensor.bell):
                break
            tick_ms = None
        else:
            left_ms = asked_ms + WAKE_EVERY_MS - self._clock.mono_ms()
            if left_ms > 0:
                await asyncio.sleep(left_ms / 1000)
        sensor.woken = False
        return tick_ms

    async def _ask(self, sensor: _Sensor, tick_ms: int | None) -> None:
        mono_ms, wall_ms = self._clock.mono_ms(), self._clock.wall_ms()
        # A tick comes a few milliseconds late, and each sensor a little later than the one before.
        # That is no news, and each report would pay for it.
        if tick_ms is not None and (late_ms := mono_ms - tick_ms) < LATE_MS:
            mono_ms, wall_ms = tick_ms, wall_ms - late_ms
        answers = await sensor.probe.ask()
        sensor.ended_ms = self._clock.mono_ms()
        before = sensor.qualities()
        for name, answer in answers.items():
            for reading in sensor.take(name, answer, mono_ms, wall_ms):
                self._pending.keep(reading)
        sensor.tell(answers)
        if sensor.qualities() != before:
            self.changed.set()
        if not sensor.asked:
            sensor.asked = True
            self._unasked -= 1
            if self._unasked == 0:
                self._due.set()

    # --- committing ----------------------------------------------------------------------------

    async def _commit_at_times(self) -> None:
        first_ms = min(self._pace(self._commit_every_ms), round(FIRST_COMMIT_S * 1000))
        try:
            await self._until_due(self._clock.mono_ms() + first_ms)
            while True:
                await self._pending.commit()
                every_ms = self._pace(self._commit_every_ms)
                grace_ms = min(GRACE_MS, every_ms // 4)
                await self._until_due(next_tick(self._clock.mono_ms() - grace_ms, every_ms) + grace_ms)
        finally:
            self._threads.close()
            await self._pending.commit()

    async def _until_due(self, at_ms: int) -> None:
        """Wait until ``at_ms``, or until something brings the commit forward."""
        delay_s = (at_ms - self._clock.mono_ms()) / 1000
        timer = asyncio.get_running_loop().call_later(delay_s, self._due.set)
        try:
            await self._due.wait()
        finally:
            timer.cancel()
            self._due.clear()


class _Sensor:
    """One sensor in the sampler's hands: its probe, what it last said, and what wakes its task."""

    def __init__(
        self,
        config: SensorConfig,
        load: Callable[[str], Kind],
        sysfs: Path,
        state_dir: Path,
        threads: Threads,
        turns: Turns,
        now_ms: int,
    ) -> None:
        self.probe = Probe(config, Environment(sysfs, state_dir, threads.lane(), self.wake, turns), load)
        self.interval_ms = round(config.interval_s * 1000)
        self.fastest_ms = round(config.fastest_s * 1000)
        self.latest = {channel.name: Latest() for channel in self.probe.channels}
        self.bell = asyncio.Event()
        self.woken = False
        self.asked = False
        self.ended_ms = now_ms
        self._failing = False
        heartbeat_ms = round(config.heartbeat_s * 1000)
        self._sieves = {
            name: Sieve(
                config.conditioning(name).deadband, heartbeat_ms=heartbeat_ms, interval_ms=self.interval_ms
            )
            for name in self.latest
        }

    def wake(self) -> None:
        """The driver says that something has happened (`Environment.wake`)."""
        self.woken = True
        self.bell.set()

    def take(self, name: str, answer: Answer, mono_ms: int, wall_ms: int) -> Sequence[Reading]:
        """Remember what a channel said; the readings that are to be kept of it."""
        if isinstance(answer, LichenError):
            before = self.latest[name]
            # A driver may quote bytes that are no text, which no message can carry.
            text = str(answer)[:MAX_ERROR].encode("utf-8", "replace").decode()
            self.latest[name] = Latest(before.value, before.mono_ms, before.wall_ms, text, answer.code)
            return self._sieves[name].sift(Reading(name, None, mono_ms, wall_ms))
        value, stale = (answer.value, True) if isinstance(answer, Stale) else (answer, False)
        self.latest[name] = Latest(value, mono_ms, wall_ms, stale=stale)
        return self._sieves[name].sift(Reading(name, value, mono_ms, wall_ms, stale))

    def qualities(self) -> list[Quality]:
        """How far each channel's last word can be relied on."""
        return [latest.quality for latest in self.latest.values()]

    def describe(self, now_ms: int) -> list[Sensor]:
        """Each channel for the about message."""
        config, described = self.probe.config, []
        overdue = now_ms - self.ended_ms > MISSED * self.interval_ms + GRACE_MS
        for channel in self.probe.channels:
            latest = self.latest[channel.name]
            is_sifted = config.conditioning(channel.name).deadband is not None
            heartbeat_ms = round(config.heartbeat_s * 1000) if is_sifted else 0
            described.append(
                Sensor(
                    name=channel.name,
                    kind=config.kind,
                    unit=channel.unit,
                    quantity=channel.quantity,
                    interval_ms=max(self.interval_ms, heartbeat_ms),
                    error=latest.error,
                    quality="stale" if overdue and latest.quality == "good" else latest.quality,
                    tags=dict(config.tags),
                )
            )
        return described

    def tell(self, answers: Mapping[str, Answer]) -> None:
        """Log that the sensor began or ceased to fail."""
        errors = [answer for answer in answers.values() if isinstance(answer, LichenError)]
        if bool(errors) == self._failing:
            return
        self._failing = bool(errors)
        name = self.probe.config.name
        if errors:
            error = errors[0]
            # A fault of the driver is somebody's to mend, and a traceback says where.
            cause = error.__cause__ if error.code == "fault" else None
            log.warning("sensor fails", extra={"sensor": name, "reason": str(error)}, exc_info=cause)
        else:
            log.info("sensor answers again", extra={"sensor": name})
