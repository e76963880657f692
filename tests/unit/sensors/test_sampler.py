"""The sampler: who is asked when, what is kept of it, and what reaches the outbox."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.sensors.driver import Conditioning, SensorConfig, Stale
from agent.sensors.pending import MAX_PENDING
from agent.sensors.sampler import LATE_MS, Sampler
from agent.wire.errors import Busy, LichenError, Refused
from agent.wire.messages import ClockState, Reading
from agent.wire.plain import dumps
from fakes.sensor import HANGS, FakeSensors
from support.virtual import WALL_MS, VirtualLoop, virtual, virtual_clock

START_MS = 3_000
"""The machine was up for 3 s when the agent began."""


@dataclass
class Box:
    """A sink that keeps what it takes, in commits; ``refusal`` is what it raises instead."""

    commits: list[list[Reading]] = field(default_factory=list)
    at_ms: list[int] = field(default_factory=list)
    states: list[ClockState] = field(default_factory=list)
    refusal: LichenError | None = None
    hold: asyncio.Event | None = None

    async def append(self, readings: Sequence[Reading], clock: ClockState, /) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.commits.append(list(readings))
        self.at_ms.append(now_ms())
        self.states.append(clock)
        if self.hold is not None:
            await self.hold.wait()

    @property
    def readings(self) -> list[Reading]:
        return [reading for commit in self.commits for reading in commit]

    def of(self, sensor: str) -> list[tuple[float | None, int]]:
        """Values and monotonic times of one sensor."""
        return [(reading.value, reading.mono_ms) for reading in self.readings if reading.sensor == sensor]


def now_ms() -> int:
    return virtual_clock(start_ms=START_MS).mono_ms()


def sampler(world: FakeSensors, box: Box, *sensors: SensorConfig, clock: Clock | None = None) -> Sampler:
    return Sampler(
        sensors,
        clock=clock or virtual_clock(start_ms=START_MS),
        sink=box,
        sysfs=Path("/nowhere"),
        state_dir=Path("/nowhere"),
        commit_every_s=60,
        load=world.load,
    )


@asynccontextmanager
async def running(sampling: Sampler) -> AsyncIterator[None]:
    """Sample in a group of its own, cancelled at the end as at a stop of the agent."""

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            sampling.start(group)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(), name="sampling")
        yield
        task.cancel()


# --- when --------------------------------------------------------------------------------------


@virtual
async def test_readings_lie_on_the_grid_of_the_boot() -> None:
    world, box = FakeSensors(), Box()
    world.says["room"] = 21.5
    async with running(sampler(world, box, world.configure("room", interval_s=10))):
        await asyncio.sleep(40)
    # At once, then at multiples of the interval since boot, not since the start.
    assert box.of("room") == [(21.5, 3_000), (21.5, 10_000), (21.5, 20_000), (21.5, 30_000), (21.5, 40_000)]
    assert [reading.wall_ms for reading in box.readings][:2] == [WALL_MS, WALL_MS + 7_000]


@virtual
async def test_a_tick_that_is_a_little_late_has_its_own_time() -> None:
    world, box = FakeSensors(), Box()
    world.says["room"] = 21.5
    even = virtual_clock(start_ms=START_MS)

    def late_ms() -> int:
        return {10_000: LATE_MS - 1, 20_000: LATE_MS}.get(even.mono_ms(), 0)

    clock = Clock(
        even.boot, lambda: even.mono_ms() + late_ms(), lambda: even.wall_ms() + late_ms(), even.state
    )
    async with running(sampler(world, box, world.configure("room", interval_s=10), clock=clock)):
        await asyncio.sleep(20)
    times = [(reading.mono_ms, reading.wall_ms - WALL_MS) for reading in box.readings]
    assert times[1:] == [(10_000, 7_000), (20_000 + LATE_MS, 17_000 + LATE_MS)]


@virtual
async def test_the_first_tick_leaves_room_for_a_difference() -> None:
    world, box = FakeSensors(), Box()
    world.says["room"] = 21.5
    async with running(sampler(world, box, world.configure("room", interval_s=3.5))):
        await asyncio.sleep(7)
    assert [at_ms for _, at_ms in box.of("room")] == [3_000, 7_000]


@virtual
async def test_sensors_of_one_interval_wake_the_process_together() -> None:
    world, box = FakeSensors(), Box()
    names = [f"s{number}" for number in range(10)]
    world.says |= dict.fromkeys(names, 1.0)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    async with running(sampler(world, box, *(world.configure(name, interval_s=10) for name in names))):
        await asyncio.sleep(28)
        before = loop.wakeups
        await asyncio.sleep(60)
        # Six ticks, one commit, and the end of this very sleep.
        assert loop.wakeups - before == 6 + 1 + 1
    assert len(box.readings) == 10 * 10


@virtual
async def test_a_slow_sensor_keeps_to_the_grid() -> None:
    world, box = FakeSensors(), Box()

    async def think() -> float:
        await asyncio.sleep(4)
        return 1.0

    world.says["slow"] = think
    async with running(sampler(world, box, world.configure("slow", interval_s=3))):
        await asyncio.sleep(20)
    # Asked at each second tick, because it is not through at the first.
    assert [at_ms for _, at_ms in box.of("slow")] == [3_000, 9_000, 15_000]


# --- what goes wrong ---------------------------------------------------------------------------


@virtual
async def test_a_sensor_that_hangs_or_throws_delays_nobody() -> None:
    world, box = FakeSensors(), Box()
    world.says |= {
        "well": 1.0,
        "hung": HANGS,
        "refused": Refused("unplugged"),
        "faulty": ZeroDivisionError("x"),
    }
    sampling = sampler(world, box, *(world.configure(name) for name in world.says))
    async with running(sampling):
        await asyncio.sleep(37.5)
        errors = {name: latest.error for name, latest in sampling.latest().items()}
    assert box.of("well") == [(1.0, at_ms) for at_ms in (3_000, 10_000, 20_000, 30_000, 40_000)]
    for name in ("refused", "faulty"):
        assert box.of(name) == [(None, at_ms) for at_ms in (3_000, 10_000, 20_000, 30_000, 40_000)]
    # The fifth is still being asked when the agent stops.
    assert box.of("hung") == [(None, at_ms) for at_ms in (3_000, 10_000, 20_000, 30_000)]
    assert errors == {
        "well": "",
        "hung": "no answer within 5 s",
        "refused": "unplugged",
        "faulty": "ZeroDivisionError: x",
    }


@virtual
async def test_a_failure_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world, box = FakeSensors(), Box()
    sampling = sampler(world, box, world.configure("room"))
    async with running(sampling):
        await asyncio.sleep(30)
        assert [record.message for record in caplog.records] == ["sensor fails"]
        assert vars(caplog.records[0])["reason"] == "room: not there"
        assert caplog.records[0].exc_info is None
        assert sampling.changed.is_set()
        sampling.changed.clear()
        world.says["room"] = 21.5
        await asyncio.sleep(30)
        assert [record.message for record in caplog.records] == ["sensor fails", "sensor answers again"]
        assert sampling.changed.is_set()
        assert [sensor.error for sensor in sampling.sensors()] == [""]


@virtual
async def test_a_fault_of_a_driver_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    world = FakeSensors()
    world.says["room"] = KeyError("x")
    async with running(sampler(world, Box(), world.configure("room"))):
        await asyncio.sleep(30)
    (record,) = caplog.records
    assert record.exc_info
    assert record.exc_info[0] is KeyError


async def gives_up() -> float:
    raise SystemExit(3)


async def is_left_alone() -> float:
    """Waits for something that is cancelled, as a library does with what it has lost."""
    lost = asyncio.get_running_loop().create_future()
    lost.cancel()
    return float(await lost)


@pytest.mark.parametrize("fault", [gives_up, is_left_alone], ids=["SystemExit", "CancelledError"])
@virtual
async def test_a_driver_ends_neither_the_agent_nor_its_own_task(
    fault: Callable[[], Awaitable[float]],
) -> None:
    world, box = FakeSensors(), Box()
    world.says["room"] = fault
    sampling = sampler(world, box, world.configure("room"))
    async with running(sampling):
        await asyncio.sleep(25)
        assert world.asked["room"] == 3
        assert sampling.latest()["room"].code == "fault"


@virtual
async def test_the_words_of_a_driver_can_be_sent() -> None:
    world = FakeSensors()
    world.says["room"] = Refused(f"no {os.fsdecode(bytes([0xFF]))} here")
    sampling = sampler(world, Box(), world.configure("room"))
    async with running(sampling):
        await asyncio.sleep(1)
        assert b"no ? here" in dumps(sampling.sensors())


@virtual
async def test_a_value_that_no_message_can_carry_is_a_failure() -> None:
    world, box = FakeSensors(), Box()
    world.says |= {"a": float("nan"), "b": float("inf")}
    world.says["c"] = [1.0]  # type: ignore[assignment]
    sampling = sampler(world, box, *(world.configure(name) for name in world.says))
    async with running(sampling):
        await asyncio.sleep(1)
        assert sampling.latest()["a"].error == "it said nan, which is no value"
        assert sampling.latest()["c"].error.startswith("TypeError: ")
    assert {reading.value for reading in box.readings} == {None}


@virtual
async def test_one_channel_may_fail_alone() -> None:
    world, box = FakeSensors(), Box()
    world.says |= {"soil.a": 1.0, "soil.b": 2.0}
    sampling = sampler(
        world, box, world.configure("soil", channels={"a": Conditioning(unit="%"), "b": Conditioning()})
    )
    async with running(sampling):
        await asyncio.sleep(1)
        world.says["soil.b"] = Refused("broken wire")
        await asyncio.sleep(7)
        a, b = sampling.latest()["soil.a"], sampling.latest()["soil.b"]
        assert (a.value, a.mono_ms, a.wall_ms, a.error) == (1.0, 10_000, WALL_MS + 7_000, "")
        # The last value stays beside the reason why there is no newer one.
        assert (b.value, b.mono_ms, b.wall_ms, b.error) == (2.0, 3_000, WALL_MS, "broken wire")
        first, second = sampling.sensors()
    assert (first.name, first.kind, first.unit, first.interval_ms, first.error) == (
        "soil.a",
        "fake",
        "%",
        10_000,
        "",
    )
    assert (second.name, second.error) == ("soil.b", "broken wire")


@virtual
async def test_every_sensor_is_closed_at_the_end() -> None:
    world = FakeSensors()
    world.says |= {"a": 1.0, "b": HANGS}
    async with running(sampler(world, Box(), world.configure("a"), world.configure("b"))):
        await asyncio.sleep(1)
        assert world.opened == {"a", "b"}
    assert world.opened == set()


@virtual
async def test_a_driver_that_cannot_be_closed_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("no bus")

    async def hang() -> None:
        await asyncio.sleep(3600)

    for close, reason in ((fail, "ZeroDivisionError: no bus"), (hang, "TimeoutError")):
        world = FakeSensors()
        world.says["a"] = 1.0
        world.close = close
        async with running(sampler(world, Box(), world.configure("a"))):
            await asyncio.sleep(1)
        assert reason in caplog.records[-1].reason  # type: ignore[attr-defined]


# --- quality -----------------------------------------------------------------------------------


@virtual
async def test_an_old_value_is_recorded_and_described_as_such() -> None:
    world, box = FakeSensors(), Box()
    world.says["room"] = Stale(21.5)
    config = world.configure("room", scale=2, measures="Cel", tags={"floor": "2"})
    sampling = sampler(world, box, config)
    async with running(sampling):
        await asyncio.sleep(1)
        (sensor,) = sampling.sensors()
        assert (sensor.quality, sensor.unit, sensor.tags) == ("stale", "Cel", {"floor": "2"})
        assert sampling.changed.is_set()
        sampling.changed.clear()
        world.says["room"] = 21.5
        await asyncio.sleep(10)
        assert sampling.changed.is_set()
        assert [sensor.quality for sensor in sampling.sensors()] == ["good"]
    assert [(reading.value, reading.quality) for reading in box.readings] == [(43.0, "stale"), (43.0, "good")]


@virtual
async def test_a_failure_has_its_code_and_quality() -> None:
    world, box = FakeSensors(), Box()
    world.says |= {"hot": 130.0, "gone": Refused("gone: unplugged", code="not-found")}
    sampling = sampler(world, box, world.configure("hot", maximum=85), world.configure("gone"))
    async with running(sampling):
        await asyncio.sleep(1)
        latest = sampling.latest()
        assert {name: (each.code, each.quality) for name, each in latest.items()} == {
            "hot": ("implausible", "failed"),
            "gone": ("not-found", "failed"),
        }
        assert [sensor.quality for sensor in sampling.sensors()] == ["failed", "failed"]
    assert {reading.value for reading in box.readings} == {None}


@virtual
async def test_a_sensor_that_nobody_hears_of_grows_stale() -> None:
    world, box = FakeSensors(), Box()
    world.says["room"] = 21.5
    sampling = sampler(world, box, world.configure("room", interval_s=10, timeout_s=300))
    async with running(sampling):
        await asyncio.sleep(8)
        world.says["room"] = HANGS  # asked at second 17 for the first time
        await asyncio.sleep(25)
        assert [sensor.quality for sensor in sampling.sensors()] == ["good"]
        await asyncio.sleep(15)
        assert [sensor.quality for sensor in sampling.sensors()] == ["stale"]


# --- on change, and at once ----------------------------------------------------------------------


@virtual
async def test_a_deadband_spares_the_outbox_and_is_told_to_the_hub() -> None:
    world, box = FakeSensors(), Box()
    world.says["room"] = 21.5
    sampling = sampler(world, box, world.configure("room", deadband=0.5, heartbeat_s=300))
    async with running(sampling):
        await asyncio.sleep(1000)
        assert world.asked["room"] == 101
        assert [sensor.interval_ms for sensor in sampling.sensors()] == [300_000]
        # What is shown on the board itself is as young as ever.
        assert sampling.latest()["room"].mono_ms == 1_000_000
    assert [at_ms // 1000 for _, at_ms in box.of("room")] == [3, 300, 600, 900]


@virtual
async def test_a_driver_that_wakes_is_asked_at_once_and_keeps_its_times() -> None:
    world, box = FakeSensors(), Box()
    world.says["button"] = 0.0
    async with running(sampler(world, box, world.configure("button"))):
        await asyncio.sleep(10.5)
        world.says["button"] = 1.0
        world.wake["button"]()
        await asyncio.sleep(10)
    assert box.of("button") == [(0.0, 3_000), (0.0, 10_000), (1.0, 13_500), (1.0, 20_000)]


@virtual
async def test_many_wakings_are_one_every_tenth_of_a_second() -> None:
    world, box = FakeSensors(), Box()
    world.says["meter"] = 1.0
    async with running(sampler(world, box, world.configure("meter", interval_s=60))):
        await asyncio.sleep(1)
        before = world.asked["meter"]
        for _ in range(1000):
            world.wake["meter"]()
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
        assert world.asked["meter"] - before == 10 + 1


@virtual
async def test_a_waking_during_the_asking_is_not_lost() -> None:
    world, box = FakeSensors(), Box()

    async def bounce() -> float:
        world.says["button"] = 2.0
        world.wake["button"]()
        return 1.0

    world.says["button"] = bounce
    async with running(sampler(world, box, world.configure("button"))):
        await asyncio.sleep(1)
    assert box.of("button") == [(1.0, 3_000), (2.0, 3_100)]


@virtual
async def test_who_wakes_disturbs_nobody_else() -> None:
    world, box = FakeSensors(), Box()
    world.says |= {"button": 0.0, "room": 21.5}
    async with running(sampler(world, box, world.configure("button"), world.configure("room"))):
        await asyncio.sleep(2)
        for _ in range(3):
            world.wake["button"]()
            await asyncio.sleep(0.5)
        await asyncio.sleep(10)
    assert [at_ms for _, at_ms in box.of("room")] == [3_000, 10_000]


# --- while somebody watches ------------------------------------------------------------------------


@virtual
async def test_a_watched_board_hurries_and_then_goes_back() -> None:
    world, box = FakeSensors(), Box()
    world.says |= {"room": 21.5, "quick": 1.0}
    sampling = sampler(world, box, world.configure("room"), world.configure("quick", interval_s=1))
    async with running(sampling):
        await asyncio.sleep(19.5)  # second 22.5
        sampling.hurry(2, 10)
        await asyncio.sleep(20)
        assert [at_ms for at_ms in box.at_ms if 22_000 < at_ms < 43_000] == [
            22_500, 24_500, 26_500, 28_500, 30_500, 32_500,
        ]  # fmt: skip
        await asyncio.sleep(20)
    asked = [at_ms for _, at_ms in box.of("room")]
    assert asked == [3_000, 10_000, 20_000, *range(24_000, 34_001, 2_000), 40_000, 50_000, 60_000]
    quick = [at_ms for _, at_ms in box.of("quick")]
    assert quick == list(range(3_000, 63_000, 1_000))


@virtual
async def test_hurrying_on_asks_nobody_besides() -> None:
    world, box = FakeSensors(), Box()
    world.says["room"] = 21.5
    sampling = sampler(world, box, world.configure("room"))
    async with running(sampling):
        for _ in range(10):
            sampling.hurry(2, 60)
            await asyncio.sleep(3)
    assert [at_ms for _, at_ms in box.of("room")] == [3_000, *range(6_000, 33_000, 2_000)]


@virtual
async def test_a_slow_sensor_is_spared_while_somebody_watches() -> None:
    world, box = FakeSensors(), Box()
    world.says |= {"slow": 1.0, "own": 2.0}
    slow, own = world.configure("slow", slow_s=5), world.configure("own", slow_s=10)
    sampling = sampler(world, box, slow, own)
    async with running(sampling):
        sampling.hurry(1, 60)
        await asyncio.sleep(28)
    assert [at_ms for _, at_ms in box.of("slow")] == [3_000, *range(10_000, 31_000, 5_000)]
    assert [at_ms for _, at_ms in box.of("own")] == [3_000, 10_000, 20_000, 30_000]


# --- committing --------------------------------------------------------------------------------


@virtual
async def test_commits_come_soon_then_behind_each_minute_and_at_the_stop() -> None:
    world, box = FakeSensors(), Box()
    world.says["room"] = 21.5
    async with running(sampler(world, box, world.configure("room"))):
        await asyncio.sleep(150)
    # Half a second behind the tick, so that a minute's last reading is in its commit.
    assert box.at_ms == [3_000, 60_500, 120_500, 153_000]
    assert [len(commit) for commit in box.commits] == [1, 6, 6, 3]
    assert box.states == ["synced"] * 4


@virtual
async def test_the_first_commit_does_not_wait_long_for_a_slow_sensor() -> None:
    world, box = FakeSensors(), Box()
    world.says |= {"room": 21.5, "hung": HANGS}
    async with running(sampler(world, box, world.configure("room"), world.configure("hung"))):
        await asyncio.sleep(3)
        assert box.at_ms == [5_000]
        assert box.of("room") == [(21.5, 3_000)]


@virtual
async def test_many_readings_bring_the_commit_forward() -> None:
    world, box = FakeSensors(), Box()
    channels = tuple(f"c{number}" for number in range(500))
    world.says |= {f"s.{channel}": 1.0 for channel in channels}
    async with running(sampler(world, box, world.configure("s", channels=channels, interval_s=1))):
        await asyncio.sleep(50)
    assert max(map(len, box.commits)) <= MAX_PENDING // 2
    assert len(box.readings) == 500 * 51


@pytest.mark.parametrize(
    "refusal", [Refused("the disk is full", code="disk-full"), Busy("somebody looks at the file")]
)
@virtual
async def test_a_sink_that_refuses_keeps_the_newest_and_counts_the_others(
    caplog: pytest.LogCaptureFixture, refusal: LichenError
) -> None:
    caplog.set_level(logging.INFO)
    world, box = FakeSensors(), Box(refusal=refusal)
    channels = tuple(f"c{number}" for number in range(100))
    world.says |= {f"s.{channel}": 1.0 for channel in channels}
    sampling = sampler(world, box, world.configure("s", channels=channels, interval_s=1))
    async with running(sampling):
        await asyncio.sleep(200)
        assert box.readings == []
        box.refusal = None
        await asyncio.sleep(60)
        # Asked from second 3 to 240 before the commit that succeeded; the newest hundred seconds are left.
        assert sampling.dropped == 100 * 238 - MAX_PENDING
    first = box.commits[0]
    assert [reading.mono_ms for reading in first] == [
        at_s * 1000 for at_s in range(141, 241) for _ in channels
    ]
    messages = [record.message for record in caplog.records]
    assert messages == ["readings cannot be committed", "readings are committed again"]


@virtual
async def test_a_stop_in_the_middle_of_a_commit_hands_nothing_over_twice() -> None:
    world, box = FakeSensors(), Box(hold=asyncio.Event())
    world.says["room"] = 21.5
    async with running(sampler(world, box, world.configure("room"))):
        await asyncio.sleep(8)
        assert len(box.commits) == 1
        assert box.hold is not None
        box.hold.set()
        box.hold = None
    assert [at_ms for _, at_ms in box.of("room")] == [3_000, 10_000]


@virtual
async def test_without_sensors_nothing_is_committed() -> None:
    world, box = FakeSensors(), Box()
    async with running(sampler(world, box)):
        await asyncio.sleep(130)
    assert box.commits == []


# --- time itself -------------------------------------------------------------------------------


@virtual
async def test_after_a_suspend_the_grid_goes_on_where_the_clock_is() -> None:
    world, box = FakeSensors(), Box()
    world.says["room"] = 21.5
    asleep_ms = 0
    awake = virtual_clock()
    clock = Clock(
        boot=awake.boot,
        mono_ms=lambda: awake.mono_ms() + asleep_ms,
        wall_ms=awake.wall_ms,
        state=awake.state,
    )
    async with running(sampler(world, box, world.configure("room"), clock=clock)):
        await asyncio.sleep(12)
        asleep_ms = 3_600_000
        await asyncio.sleep(20)
    # The timer of 20 s was suspended with the machine; what it wakes to is 20 s and an hour.
    assert [at_ms for _, at_ms in box.of("room")] == [0, 10_000, 3_620_000, 3_630_000]
