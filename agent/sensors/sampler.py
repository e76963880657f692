"""Asks every sensor at its time, and hands the readings to the outbox.

Owns the sensors' tasks, the readings between two commits, and what each sensor last said.
`agent.app` starts it and hands in the outbox as its sink; `lichen-agent status` and the about
message show `Sampler.latest` and `Sampler.sensors`.  It never touches the network or a file.

    sampler = Sampler(config.sensors, clock=clock, sink=outbox, sysfs=config.sysfs, ...)
    async with asyncio.TaskGroup() as group:
        sampler.start(group)

What holds:

1.  Each sensor has a task of its own.  One that hangs is given up after its ``timeout_s``, one
    that fails in whatever way is asked again at its next time; neither delays another.
2.  Every asking leaves a trace: a value, or None for each channel that could not tell.
3.  Readings are stamped when the sensor is asked, on a grid (see `agent.sensors.grid`), from
    both clocks.
4.  Readings are committed every ``commit_every_s``, soon after the start, and at the stop.
    What waits is bounded: half of MAX_PENDING brings the commit forward; while the sink refuses
    (a full disk), the oldest beyond MAX_PENDING are dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.clock import Clock
from agent.sensors.blocking import Threads
from agent.sensors.driver import Answer, Channel, Driver, Environment, Kind, SensorConfig, Stale, load_kind
from agent.sensors.grid import Grid, next_tick
from agent.wire.errors import Busy, LichenError, Refused
from agent.wire.messages import ClockState, Reading, Sensor

log = logging.getLogger(__name__)

MAX_PENDING = 10_000
"""Readings that may wait for a commit."""
FIRST_COMMIT_S = 2.0
"""How long the first commit waits for the slowest sensor's first reading."""
GRACE_MS = 500
"""How long after a tick a commit comes, so that it has the readings of that tick."""
MAX_ERROR = 256
"""Characters of an error that are kept; the limit of the about message."""


class Sink(Protocol):
    """Where readings go: the outbox."""

    async def append(self, readings: Sequence[Reading], clock: ClockState, /) -> None:
        """Keep them all, or raise Refused or Busy and keep none.  When cancelled, end what was begun."""
        ...


@dataclass(frozen=True, slots=True)
class Latest:
    """One channel's last value and when it was (None: never); ``error`` when the last asking failed."""

    value: float | None = None
    mono_ms: int = 0
    wall_ms: int = 0
    error: str = ""


class Sampler:
    """All sensors of a board.

    ``changed`` rings when a sensor begins or ceases to fail; ``dropped`` counts readings that
    found no room.
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
        self.dropped = 0
        self._clock = clock
        self._sink = sink
        self._commit_every_ms = round(commit_every_s * 1000)
        self._threads = Threads()
        self._sensors = [
            _Sensor(config, load, Environment(sysfs, state_dir, self._threads.lane())) for config in sensors
        ]
        self._grid = Grid(clock.mono_ms)
        self._pending: deque[Reading] = deque(maxlen=MAX_PENDING)
        self._unasked = len(self._sensors)
        self._due = asyncio.Event()
        self._refused = False
        self._hurry_every_ms = 0
        self._hurry_until_ms = 0

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin to sample, one task per sensor; cancelling the group ends it with a last commit."""
        for sensor in self._sensors:
            group.create_task(self._sample(sensor), name=f"sensor {sensor.config.name}")
        group.create_task(self._commit_at_times(), name="sampler")

    def latest(self) -> dict[str, Latest]:
        """What each channel last said."""
        return {name: latest for sensor in self._sensors for name, latest in sensor.latest.items()}

    def sensors(self) -> tuple[Sensor, ...]:
        """Each channel as the about message describes it."""
        return tuple(
            Sensor(
                name=channel.name,
                kind=sensor.config.kind,
                unit=channel.unit,
                quantity=channel.quantity,
                interval_ms=sensor.interval_ms,
                error=sensor.latest[channel.name].error,
            )
            for sensor in self._sensors
            for channel in sensor.channels
        )

    def hurry(self, every_s: float, for_s: float) -> None:
        """Ask and commit every ``every_s`` for the next ``for_s``: somebody is watching.

        A sensor that is asked more often than that keeps its pace.  Called again it replaces what
        was said before; readings go on being stamped and stored as ever.
        """
        self._hurry_every_ms = round(every_s * 1000)
        self._hurry_until_ms = self._clock.mono_ms() + round(for_s * 1000)

    # --- sampling ------------------------------------------------------------------------------

    async def _sample(self, sensor: _Sensor) -> None:
        """A sensor's life: asked at once, then at every tick of its interval."""
        # The first tick may follow at once; a difference over that moment would be noise.
        not_before_ms = self._clock.mono_ms() + sensor.interval_ms // 2
        try:
            while True:
                await self._ask(sensor)
                now_ms = max(self._clock.mono_ms(), not_before_ms)
                await self._grid.reach(next_tick(now_ms, sensor.interval_ms))
        finally:
            await sensor.close()

    async def _ask(self, sensor: _Sensor) -> None:
        mono_ms, wall_ms = self._clock.mono_ms(), self._clock.wall_ms()
        answers = await sensor.ask()
        for name, answer in answers.items():
            if isinstance(answer, LichenError):
                value, before = None, sensor.latest[name]
                text = str(answer)[:MAX_ERROR]
                sensor.latest[name] = Latest(before.value, before.mono_ms, before.wall_ms, text)
            else:
                value = answer.value if isinstance(answer, Stale) else answer
                sensor.latest[name] = Latest(value, mono_ms, wall_ms)
            self._keep(Reading(name, value, mono_ms, wall_ms, isinstance(answer, Stale)))
        if sensor.tell(answers):
            self.changed.set()
        if not sensor.asked:
            sensor.asked = True
            self._unasked -= 1
            if self._unasked == 0:
                self._due.set()

    # --- committing ----------------------------------------------------------------------------

    def _keep(self, reading: Reading) -> None:
        if len(self._pending) == MAX_PENDING:
            self.dropped += 1  # the deque lets its oldest go
        self._pending.append(reading)
        if len(self._pending) >= MAX_PENDING // 2 and not self._refused:
            self._due.set()

    async def _commit_at_times(self) -> None:
        every_ms = self._commit_every_ms
        grace_ms = min(GRACE_MS, every_ms // 4)
        try:
            await self._until_due(self._clock.mono_ms() + min(every_ms, round(FIRST_COMMIT_S * 1000)))
            while True:
                await self._commit()
                await self._until_due(next_tick(self._clock.mono_ms() - grace_ms, every_ms) + grace_ms)
        finally:
            self._threads.close()
            await self._commit()

    async def _until_due(self, at_ms: int) -> None:
        """Wait until ``at_ms``, or until something brings the commit forward."""
        delay_s = (at_ms - self._clock.mono_ms()) / 1000
        timer = asyncio.get_running_loop().call_later(delay_s, self._due.set)
        try:
            await self._due.wait()
        finally:
            timer.cancel()
            self._due.clear()

    async def _commit(self) -> None:
        """Hand over what waits.  A sink that refuses, or is busy, is asked again at the next commit."""
        if not self._pending:
            return
        # Taken out first: a cancelled append ends what it began, and handing the same readings
        # over again would store them twice.
        batch = list(self._pending)
        self._pending.clear()
        try:
            await self._sink.append(batch, self._clock.state())
        except (Refused, Busy) as error:
            self._put_back(batch)
            if not self._refused:
                log.warning("readings cannot be committed", extra={"reason": str(error)})
            self._refused = True
        else:
            if self._refused:
                log.info("readings are committed again", extra={"dropped": self.dropped})
            self._refused = False

    def _put_back(self, batch: list[Reading]) -> None:
        """Before what came meanwhile, dropping the oldest beyond the bound."""
        batch.extend(self._pending)
        self.dropped += max(0, len(batch) - MAX_PENDING)
        self._pending = deque(batch, maxlen=MAX_PENDING)


class _Sensor:
    """One sensor: its configuration, its driver once it is open, and what it last said."""

    def __init__(self, config: SensorConfig, load: Callable[[str], Kind], env: Environment) -> None:
        self.config = config
        self.channels: tuple[Channel, ...] = config.list_channels()
        self.interval_ms = round(config.interval_s * 1000)
        self.latest = {channel.name: Latest() for channel in self.channels}
        self.asked = False
        self._load = load
        self._env = env
        self._driver: Driver | None = None
        self._failing = False

    async def ask(self) -> Mapping[str, Answer]:
        """Open the sensor if need be and read it: a value, or what is wrong, for each channel."""
        error: LichenError
        try:
            async with asyncio.timeout(self.config.timeout_s):
                if self._driver is None:
                    self._driver = await self._load(self.config.kind).open(self.config, self._env)
                answers = await self._driver.read()
            return {name: _finite(answers[name]) for name in self.latest if name in answers}
        except TimeoutError:
            error = Refused(f"no answer within {self.config.timeout_s:g} s", code="timeout")
        except LichenError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001  a driver's fault costs its own sensor, not the board
            error = Refused(f"{type(failure).__name__}: {failure}", code="fault")
            error.__cause__ = failure
        return dict.fromkeys(self.latest, error)

    def tell(self, answers: Mapping[str, Answer]) -> bool:
        """Log that the sensor began or ceased to fail; whether it did."""
        errors = [answer for answer in answers.values() if isinstance(answer, LichenError)]
        if bool(errors) == self._failing:
            return False
        self._failing = bool(errors)
        if errors:
            error = errors[0]
            # A fault of the driver is somebody's to mend, and a traceback says where.
            cause = error.__cause__ if error.code == "fault" else None
            extra = {"sensor": self.config.name, "reason": str(error)}
            log.warning("sensor fails", extra=extra, exc_info=cause)
        else:
            log.info("sensor answers again", extra={"sensor": self.config.name})
        return True

    async def close(self) -> None:
        if self._driver is not None:
            await self._driver.close()


def _finite(answer: Answer) -> Answer:
    """An answer that can be stored and sent, or why not."""
    if isinstance(answer, LichenError):
        return answer
    value = answer.value if isinstance(answer, Stale) else answer
    if not math.isfinite(value):
        return Refused(f"it said {value}, which is no value")
    return Stale(float(value)) if isinstance(answer, Stale) else float(value)
