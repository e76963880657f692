"""The keeper of the usage log over hours in milliseconds: when it writes, what it does when it cannot, how it
ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.config import Config
from agent.config import Usage as UsageConfig
from agent.identity import open_identity
from agent.usage.peek import peek
from agent.usage.usage import AGAIN_MS, LATE_MS, Usage
from agent.wire.errors import LinkDown
from agent.wire.messages import ClockState, Sensor
from agent.wire.usage import (
    BoardRecord,
    ClockRecord,
    ContainerRecord,
    OrderRecord,
    Record,
    SensorRecord,
    read,
)
from support.homehub import HomeHub
from support.kernel import Kernel
from support.ledgers import Full
from support.virtual import BOOT, WALL_MS, virtual

HOUR_S = 3600
PERIOD_S = 600


class Deliveries:
    """What was delivered, as a test says it."""

    def __init__(self) -> None:
        self.days: dict[int, dict[str, int]] = {}

    def over(self) -> dict[int, dict[str, int]]:
        return dict(self.days)

    def forget(self, days: Sequence[int]) -> None:
        for day in days:
            del self.days[day]


class Card(Full):
    """A disk that can be held in the midst of a change: `began` rings then, and it goes on with `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.began, self.go = asyncio.Event(), threading.Event()
        self.is_held = False

    def step(self, partly: Callable[[], None] = lambda: None) -> None:
        if self.is_held:
            self.loop.call_soon_threadsafe(self.began.set)
            self.go.wait(10)
        super().step(partly)


class Board:
    """What outlives the agent of a board."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.loop = folder, asyncio.get_running_loop()
        self.identity = open_identity(folder / "state")
        HomeHub(folder / "hub").admit(self.identity)
        self.config = Config(state_dir=folder / "state", usage=UsageConfig(period_s=PERIOD_S))
        self.state: ClockState = "synced"
        self.skew_ms = 0
        self.boot = BOOT
        self.deliveries = Deliveries()
        self.kernel = Kernel(folder, mono_ms=self.mono_ms, wall_ms=self.wall_ms, board=self.identity.board)
        self.disk = Card()
        self.usage: Usage | None = None

    def mono_ms(self) -> int:
        return int(self.loop.time() * 1000 + 1e-3) + 7_000

    def wall_ms(self) -> int:
        return self.mono_ms() + WALL_MS + self.skew_ms

    def make(self) -> Usage:
        clock = Clock(self.boot, self.mono_ms, self.wall_ms, lambda: self.state)
        return Usage(
            self.config, clock, self.identity, deliveries=self.deliveries,
            sensors=lambda: (Sensor("room", "iio", "Cel"),),
            cgroups=self.kernel.cgroups, rmdir=self.kernel.rmdir, disk=self.disk,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Usage]:
        """An agent, until it is told to stop."""
        self.usage = usage = self.make()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(usage.run(), name="usage")
            await asyncio.sleep(0.1)
            yield usage
            task.cancel()

    def see(self) -> None:
        assert self.usage is not None
        self.usage.see(self.kernel.runs())

    def log(self) -> list[Record]:
        log = peek(self.folder / "state/usage")
        try:
            return [read(entry) for _, entry in log.entries(0, log.size)]
        finally:
            log.close()

    def of(self, kind: type[OrderRecord]) -> list[OrderRecord]:
        return [record for record in self.log() if isinstance(record, kind)]

    def containers(self) -> list[ContainerRecord]:
        return [record for record in self.log() if isinstance(record, ContainerRecord)]


@virtual
async def test_a_board_without_apps_says_each_hour_what_it_offers(tmp_path: Path) -> None:
    board = Board(tmp_path)
    async with board.running():
        await asyncio.sleep(3 * HOUR_S)
        spans = [(each.mono0_ms, each.mono1_ms) for each in board.log() if isinstance(each, BoardRecord)]
    assert [to_ms for _, to_ms in spans] == [3_600_000, 7_200_000, 10_800_000]
    assert [from_ms for from_ms, _ in spans] == [7_000, 3_600_000, 7_200_000]
    assert len(board.log()) == 4, "and why the log began, and nothing else"


@virtual
async def test_each_period_has_a_record_of_what_runs(tmp_path: Path) -> None:
    board = Board(tmp_path)
    box = board.kernel.create()
    async with board.running():
        box.start()
        box.burn(memory=1000)
        board.see()
        for _ in range(3):
            await asyncio.sleep(PERIOD_S)
            box.burn(100)
        records = board.containers()
        assert [each.mono1_ms for each in records] == [600_000, 1_200_000, 1_800_000]
        assert [each.cpu_us for each in records] == [0, 100, 100]
        assert records[1].mem_byte_ms == 1000 * 600_000
        assert records[0].mem_sample_ms == 30_000
    last = board.containers()[-1]
    assert (last.cpu_us, last.ended) == (100, False), "a stop writes what was used since"


@virtual
async def test_the_next_agent_goes_on(tmp_path: Path) -> None:
    board = Board(tmp_path)
    box = board.kernel.create()
    async with board.running():
        box.start()
        board.see()
        box.burn(100)
        await asyncio.sleep(1)
    box.burn(7)
    box.forget()
    async with board.running():
        box.open()
        board.see()
        await asyncio.sleep(1)
    assert [each.cpu_us for each in board.containers()] == [100, 7]


@virtual
async def test_a_stop_in_the_midst_of_a_batch_writes_nothing_twice(tmp_path: Path) -> None:
    board = Board(tmp_path)
    box = board.kernel.create()
    async with board.running():
        box.start()
        board.see()
        box.burn(100)
        board.disk.is_held = True
        await board.disk.began.wait()
        asyncio.get_running_loop().call_soon(board.disk.go.set)
    assert [each.cpu_us for each in board.containers()] == [100]
    box.burn(7)
    box.forget()
    async with board.running():
        box.open()
        board.see()
        await asyncio.sleep(1)
    assert [each.cpu_us for each in board.containers()] == [100, 7]


@virtual
async def test_the_end_of_a_container_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    board = Board(tmp_path)
    box = board.kernel.create()
    async with board.running():
        box.start()
        board.see()
        await asyncio.sleep(1)
        box.burn(5)
        board.kernel.remove(box)
        board.see()
        await asyncio.sleep(1)
        [record] = board.containers()
        assert (record.cpu_us, record.ended) == (5, True)
        assert board.kernel.there() == set()
        assert not board.kernel.house()


@virtual
async def test_what_an_agent_left_is_cleaned_up_by_one_without_apps(tmp_path: Path) -> None:
    board = Board(tmp_path)
    box = board.kernel.create()
    async with board.running():
        box.start()
        board.see()
        await asyncio.sleep(1)
    box.burn(5)
    board.kernel.remove(box)
    async with board.running() as usage:
        usage.see(())  # no reconciler: there are no apps
        await asyncio.sleep(1)
    assert sum(each.cpu_us or 0 for each in board.containers()) == 5
    assert board.containers()[-1].container == "web"
    assert board.kernel.there() == set()


@virtual
async def test_an_order_that_is_taken_is_written_at_once_and_one_that_is_not_with_the_next_batch(
    tmp_path: Path,
) -> None:
    board = Board(tmp_path)
    async with board.running() as usage:
        usage.note_order(1, "a" * 64, True)
        await asyncio.sleep(1)
        assert len(board.of(OrderRecord)) == 1
        usage.note_order(0, "b" * 64, False, "it is older than 1")
        await asyncio.sleep(1)
        assert len(board.of(OrderRecord)) == 1
        await asyncio.sleep(PERIOD_S)
        assert len(board.of(OrderRecord)) == 2
    async with board.running() as usage:
        usage.note_order(0, "b" * 64, False, "it is older than 1")  # the broker has kept it
        await asyncio.sleep(1)
    assert len(board.of(OrderRecord)) == 2


@virtual
async def test_what_was_delivered_and_what_happened_to_the_clock(tmp_path: Path) -> None:
    board = Board(tmp_path)
    async with board.running():
        board.deliveries.days = {20_000: {"room": 1440}}
        await asyncio.sleep(100)
        board.skew_ms = 365 * 86_400_000
        await asyncio.sleep(100)
        board.skew_ms = 0
        await asyncio.sleep(PERIOD_S)
    [sensor] = [each for each in board.log() if isinstance(each, SensorRecord)]
    assert (sensor.sensor, sensor.unit, sensor.readings, sensor.day) == ("room", "Cel", 1440, 20_000)
    steps = [each.step_ms for each in board.log() if isinstance(each, ClockRecord)]
    assert steps == [365 * 86_400_000, -365 * 86_400_000]
    assert board.deliveries.days == {}


# --- bad days --------------------------------------------------------------------------------------


@virtual
async def test_on_a_full_disk_nothing_is_lost_and_somebody_is_told(tmp_path: Path) -> None:
    board = Board(tmp_path)
    box = board.kernel.create()
    async with board.running() as usage:
        box.start()
        board.see()
        board.disk.room = 0
        await asyncio.sleep(PERIOD_S)
        box.burn(100)
        [(code, _, sentence)] = usage.troubles()
        assert code == "usage-disk-full"
        assert "full" in sentence
        assert usage.changed.is_set()
        board.kernel.remove(box)
        board.see()
        await asyncio.sleep(10)
        assert board.kernel.there() == {box.parent}, "it says what is not written yet"
        board.disk.room = None
        await asyncio.sleep(AGAIN_MS / 1000)
        [record] = board.containers()
        assert (record.cpu_us, record.mono0_ms, record.ended) == (100, 7_100, True)
        assert usage.troubles() == []
        assert board.kernel.there() == set()


@virtual
async def test_a_damaged_log_stops_the_log_and_nothing_else(tmp_path: Path) -> None:
    board = Board(tmp_path)
    async with board.running() as usage:
        usage.note_order(1, "a" * 64, True)
        await asyncio.sleep(1)
    [segment] = (board.folder / "state/usage").glob("*/*.seg")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    box = board.kernel.create()
    async with board.running() as usage:
        box.start()
        board.see()
        await asyncio.sleep(2 * PERIOD_S)
        [(code, _, sentence)] = usage.troubles()
        assert code == "usage-stopped"
        assert segment.name in sentence
        for _ in range(200):
            board.see()
    assert segment.read_bytes() == bytes(data), "nothing is repaired"
    assert board.kernel.there() == {box.parent}


@virtual
async def test_a_hub_that_is_silent_is_told_of_after_days(tmp_path: Path) -> None:
    board = Board(tmp_path)
    async with board.running() as usage:
        await asyncio.sleep(HOUR_S)
        assert usage.troubles() == []
        await asyncio.sleep(LATE_MS / 1000)
        [(code, _, sentence)] = usage.troubles()
        assert code == "usage-unreceipted"
        assert "countersigned nothing of the usage log yet" in sentence


@virtual
async def test_a_session_waits_for_the_log_and_ends_with_it(tmp_path: Path) -> None:
    board = Board(tmp_path)
    sent: list[object] = []

    async def publish(message: object) -> bool:
        sent.append(message)
        return True

    async def break_off(message: object) -> bool:
        raise LinkDown("the broker went away")

    usage = board.make()
    async with asyncio.TaskGroup() as group:
        session = group.create_task(usage.keep(publish), name="session")
        await asyncio.sleep(1)
        assert sent == []
        keeping = group.create_task(usage.run(), name="usage")
        await asyncio.sleep(1)
        assert sent, "the hub is asked what it holds"
        session.cancel()
        await asyncio.sleep(0)
        with pytest.raises(BaseExceptionGroup) as failed:
            await usage.keep(break_off)
        assert failed.group_contains(LinkDown)
        session = group.create_task(usage.keep(publish), name="session")
        await asyncio.sleep(1)
        keeping.cancel()
        await asyncio.sleep(1)
        assert not session.done(), "it waits for another log"
        session.cancel()
