"""What containers used is told once, to the microsecond, whatever happens to them, the agent and clocks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

import pytest

from agent.clock import Clock
from agent.runs import Run
from agent.usage.meter import Meter
from agent.wire.messages import ClockState
from agent.wire.usage import ContainerRecord, encode, numbered, read
from support.kernel import BOARD, Box, Kernel

BOOT = "b" * 32
WALL_MS = 1_700_000_000_000
SAMPLE_MS = 30_000
MOST_CLOSED = 8


class Board:
    """A board with a meter, a log that is a list, and time that a test makes pass."""

    def __init__(self, folder: Path, version: Literal[1, 2] = 1) -> None:
        self.mono_ms, self.wall_ms = 100_000, WALL_MS
        self.state: ClockState = "synced"
        self.clock = self._clock(BOOT)
        self.kernel = Kernel(folder, version, lambda: self.mono_ms, lambda: self.wall_ms)
        self.log: list[ContainerRecord] = []
        self.full = False
        self.meter = self._meter()

    def _clock(self, boot: str) -> Clock:
        return Clock(boot, lambda: self.mono_ms, lambda: self.wall_ms, lambda: self.state)

    def _meter(self) -> Meter:
        last: dict[str, ContainerRecord] = {}
        for record in self.log:  # as `agent.usage.recovery` finds them
            stem = record.run.partition(".")[0]
            last.pop(stem, None)
            if not record.ended or ":" not in stem:
                last[stem] = record
        return Meter(
            self.clock, BOARD, payer="hub", sample_ms=SAMPLE_MS,
            last={record.run: record for record in last.values()}, parents=self.kernel.parents,
            most_closed=MOST_CLOSED,
        )  # fmt: skip

    def passes(self, ms: int) -> None:
        self.mono_ms += ms
        self.wall_ms += ms

    def see(self) -> None:
        self.meter.see(self.kernel.runs())

    def write(self, *, urgent: bool = False) -> list[ContainerRecord]:
        """Write what is due, if the disk takes it."""
        drafts = self.meter.draft(urgent=urgent)
        if self.full:
            return []
        found = []
        for draft in drafts:
            record = numbered(draft.record, len(self.log))
            assert read(encode(record)) == record
            self.log.append(record)
            found.append(record)
            draft.written()
        self.meter.tidy()
        return found

    def one(self) -> ContainerRecord:
        [record] = self.write()
        return record

    def crash(self) -> None:
        """The agent dies, and is back."""
        for box in self.kernel.boxes:
            box.forget()
        self.meter = self._meter()

    def come_back(self) -> None:
        """It opens the counters of what runs, and looks."""
        for box in self.kernel.boxes:
            if box.state == "alive":
                box.open()
        self.see()

    def reboot(self) -> None:
        self.kernel.reboot()
        self.mono_ms = 5_000
        self.clock = self._clock("c" * 32)
        self.meter = self._meter()

    def sum_us(self, box: Box) -> int:
        label = box.parent.rpartition("_")[2]
        return sum(record.cpu_us or 0 for record in self.log if record.run.startswith(f"{label}-"))


@pytest.fixture(params=[1, 2])
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Board:
    return Board(tmp_path, request.param)


# --- one container ---------------------------------------------------------------------------------


def test_a_container_that_runs_has_a_record_each_period(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(1_500, conmon_us=400, memory=1000, net=(7, 8), io=(3, 4))
    board.meter.sample()
    board.passes(60_000)
    box.burn(500, net=(1, 1))
    first = board.one()
    assert (first.cpu_us, first.net_rx, first.net_tx, first.mem_peak) == (2_000, 8, 9, 1000)
    assert (first.mono0_ms, first.mono1_ms) == (100_000, 160_000)
    assert (first.wall0_ms, first.wall1_ms) == (WALL_MS, WALL_MS + 60_000)
    assert first.mem_byte_ms == 1000 * 60_000
    assert first.abs.cpu_us == 2_000
    assert (first.app, first.service, first.payer, first.workspace) == ("shop", "web", "hub", "default")
    assert (first.order, first.mem_sample_ms, first.oom_kills) == (3, SAMPLE_MS, 0)
    assert (first.reset, first.ended, first.exit_code) == (False, False, None)
    board.passes(60_000)
    second = board.one()
    assert (second.cpu_us, second.net_rx, second.run) == (0, 0, first.run)
    assert (second.mono0_ms, second.abs) == (160_000, first.abs)


def test_disks_are_counted_where_the_kernel_does(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(io=(3, 4))
    record = board.one()
    expected = (3, 4) if board.kernel.version == 2 else (None, None)
    assert (record.io_r, record.io_w) == (record.abs.io_r, record.abs.io_w) == expected


def test_the_network_of_the_board_is_nobodys(board: Board) -> None:
    box = board.kernel.create(net=False)
    box.start()
    board.see()
    assert (board.one().net_rx, board.log[0].net_tx) == (None, None)


def test_memory_is_what_each_sample_found_until_the_next(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    for held in (100, 300, 50):
        box.burn(memory=held)
        board.meter.sample()
        board.passes(SAMPLE_MS)
    record = board.one()
    assert (record.mem_byte_ms, record.mem_peak) == (450 * SAMPLE_MS, 300)
    board.passes(1_000)
    box.die()
    board.see()
    board.passes(9_000)
    assert board.one().mem_byte_ms == 50 * 1_000  # the dead hold none


def test_one_that_lived_for_milliseconds_is_exact(board: Board) -> None:
    """It began and ended between two looks."""
    box = board.kernel.create()
    box.start()
    box.burn(1_234, memory=500, net=(5, 6))
    board.passes(20)
    box.die(3, conmon_us=90_000)
    board.see()
    board.passes(60_000)
    record = board.one()
    assert (record.cpu_us, record.net_rx, record.net_tx) == (1_234, 5, 6)
    assert (record.mono0_ms, record.mono1_ms) == (100_000, 100_020)
    assert (record.ended, record.exit_code, record.mem_peak) == (True, 3, 500)
    assert record.mem_byte_ms is None  # nobody looked
    assert board.write() == []


def test_one_that_nobody_ever_watched_is_exact_too(board: Board) -> None:
    """Its life was over before the agent was back."""
    box = board.kernel.create()
    box.start(watched=False)
    board.passes(3_000)
    box.burn(777)
    box.die(1)
    board.passes(5_000)
    board.see()
    record = board.one()
    assert (record.cpu_us, record.ended, record.exit_code) == (777, True, 1)
    assert (record.mono0_ms, record.mono1_ms) == (100_000, 103_000)
    assert (record.net_rx, record.mem_byte_ms, record.mem_peak) == (None, None, None)


def test_deaths_for_lack_of_memory_are_told(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    board.one()
    box.kill_for_memory()
    board.see()
    record = board.one()
    assert (record.oom_kills, record.exit_code, record.ended) == (1, 137, True)
    box.start()
    board.see()
    assert board.one().oom_kills == 0


def test_one_that_died_of_it_while_the_agent_was_down(tmp_path: Path) -> None:
    """Version 2 counts them in the cgroups above, too."""
    board = Board(tmp_path, 2)
    box = board.kernel.create()
    box.start()
    board.see()
    board.one()
    board.crash()
    box.kill_for_memory()
    board.come_back()
    assert board.one().oom_kills == 1


# --- its end ---------------------------------------------------------------------------------------


def test_a_cgroup_goes_when_its_container_has_and_that_is_written(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(10)
    box.die()
    board.see()
    assert board.write(urgent=True) == []  # it may be started again
    [ended] = board.write()
    assert ended.ended
    assert board.kernel.there() == {box.parent}
    board.kernel.remove(box)
    board.see()
    assert board.kernel.there() == set()
    assert not board.kernel.house()
    assert not board.meter.has_work


def test_the_end_of_one_that_is_gone_is_written_at_once(board: Board) -> None:
    box = board.kernel.create()
    other = board.kernel.create("other")
    for each in (box, other):
        each.start()
    board.see()
    box.burn(10)
    board.kernel.remove(box)
    board.see()
    assert board.meter.is_urgent
    [record] = board.write(urgent=True)
    assert (record.container, record.cpu_us, record.ended) == ("web", 10, True)
    assert board.kernel.there() == {other.parent}
    assert not board.meter.is_urgent


def test_conmon_is_waited_for(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(10)
    procs = next(board.kernel.cgroups.rglob("conmon/cgroup.procs")).parent
    box.die(conmon_us=5_000)
    for each in board.kernel.cgroups.rglob("conmon/cgroup.procs"):
        each.write_text("77\n")
    board.kernel.boxes.remove(box)
    board.see()
    assert board.write(urgent=True) == []
    board.passes(10_000)  # it hangs
    [record] = board.write(urgent=True)
    assert record.cpu_us == 10
    assert procs.exists()  # it is in use
    for each in board.kernel.cgroups.rglob("conmon/cgroup.procs"):
        each.write_text("")
    board.see()
    assert board.kernel.there() == set()


def test_one_that_was_made_and_never_began_leaves_nothing(board: Board) -> None:
    box = board.kernel.create()
    board.kernel.write(box)
    board.see()
    assert board.write() == []
    board.kernel.boxes.remove(box)
    board.see()
    assert board.write() == []
    assert board.kernel.there() == set()


def test_one_that_waits_to_begin_is_nobodys_business_yet(board: Board) -> None:
    box = board.kernel.create()
    box.start(seen=False)
    board.see()
    assert board.write() == []
    assert board.kernel.there() == {box.parent}
    box.state = "alive"
    board.see()
    assert board.one().mono0_ms == 100_000


# --- started again ---------------------------------------------------------------------------------


def test_a_restarted_container_is_another_run(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(100, net=(50, 60))
    box.die(1)
    board.see()
    first = board.one()
    board.passes(5_000)
    box.start()
    board.see()
    box.burn(30, net=(5, 6))
    board.passes(1_000)
    second = board.one()
    assert second.run == f"{first.run}.2"
    assert (second.cpu_us, second.net_rx, second.net_tx, second.reset) == (30, 5, 6, True)
    assert (second.mono0_ms, second.abs.cpu_us, second.abs.net_rx) == (105_000, 130, 5)
    assert board.sum_us(box) == box.total_us


def test_ends_between_two_batches_are_each_told(board: Board) -> None:
    """It ends and is started again, three times in one period."""
    box = board.kernel.create()
    for number in (1, 2, 3):
        box.start()
        board.see()
        box.burn(number * 100, net=(number, 0))
        board.passes(1_000)
        box.die(number)
        board.see()
        board.passes(1_000)
    records = board.write()
    assert [(each.cpu_us, each.net_rx, each.exit_code) for each in records] == [
        (100, 1, 1), (200, 2, 2), (300, 3, 3),
    ]  # fmt: skip
    assert [each.mono1_ms - each.mono0_ms for each in records] == [1_000] * 3
    assert len({each.run for each in records}) == 3
    assert all(each.ended for each in records)


def test_one_that_began_and_ended_while_a_batch_was_written(board: Board) -> None:
    """Of two starts the first was seen alive, the second only dead."""
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(100)
    box.die(1)
    box.start()
    box.burn(7)
    box.die(2)
    board.see()
    records = board.write()
    assert sum(each.cpu_us or 0 for each in records) == 107
    assert [each.exit_code for each in records][-1] == 2


def test_where_podman_makes_no_cgroup_above_each_start_is_counted_by_its_own(board: Board) -> None:
    box = board.kernel.create(parent=False)
    for number in (1, 2):
        box.start()
        board.see()
        box.burn(number * 100)
        board.passes(1_000)
        box.die(number)
        board.see()
        board.passes(60_000)
    first, second = board.write()
    assert (first.cpu_us, second.cpu_us, second.abs.cpu_us) == (100, 200, 200)
    assert first.run.partition(".")[0] != second.run.partition(".")[0]
    board.crash()
    board.come_back()
    assert board.write() == []
    board.kernel.remove(box)
    board.see()
    assert board.write() == []


# --- the agent dies --------------------------------------------------------------------------------


def test_after_a_crash_it_goes_on_from_what_is_written(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(100, net=(10, 20), memory=1000)
    before = board.one()
    box.burn(40, net=(1, 2))  # nobody writes this down
    board.crash()
    box.burn(5)
    board.passes(60_000)
    board.come_back()
    record = board.one()
    assert (record.cpu_us, record.net_rx, record.net_tx) == (45, 1, 2)
    assert (record.run, record.mono0_ms, record.reset) == (before.run, before.mono1_ms, False)
    assert board.sum_us(box) == 145


def test_one_that_died_while_the_agent_was_down(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(100)
    before = board.one()
    board.crash()
    board.passes(10_000)
    box.burn(23)
    box.die(9)
    board.passes(10_000)
    board.come_back()
    record = board.one()
    assert (record.cpu_us, record.ended, record.exit_code, record.run) == (23, True, 9, before.run)
    assert record.mono1_ms == 110_000
    board.crash()
    board.come_back()
    assert board.write() == []  # it is written down


def test_one_that_was_removed_while_the_agent_was_down(board: Board) -> None:
    box, other = board.kernel.create(), board.kernel.create("other")
    for each in (box, other):
        each.start()
    board.see()
    box.burn(100)
    board.write()
    board.crash()
    box.burn(23)
    board.kernel.remove(box)
    stranger = board.kernel.cgroups / ("cpuacct" if board.kernel.version == 1 else "") / "lichen/another_x"
    stranger.mkdir()
    board.come_back()
    [record] = board.write(urgent=True)
    assert (record.container, record.app, record.cpu_us, record.ended) == ("web", "shop", 23, True)
    assert board.kernel.there() == {other.parent, "another_x"}  # which is another board's


def test_one_of_which_nothing_was_ever_written_is_told_without_its_name(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    board.crash()
    box.burn(23)
    board.kernel.remove(box)
    board.come_back()
    record = board.one()
    assert (record.container, record.cpu_us, record.ended) == ("", 23, True)
    assert board.kernel.there() == set()


def test_a_crash_between_a_record_and_the_removal_of_the_cgroup(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(10)
    box.die()
    board.see()
    board.write()
    board.kernel.boxes.remove(box)
    board.crash()
    board.come_back()
    assert board.write() == []
    assert board.kernel.there() == set()


def test_one_that_is_started_again_after_a_crash(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(10, net=(100, 100))
    first = board.one()
    board.crash()
    box.burn(1)
    box.die(2)
    board.come_back()  # the agent looks before it starts anything
    box.start()
    board.see()
    box.burn(4, net=(3, 3))
    records = board.write()
    assert [(each.cpu_us, each.ended, each.exit_code) for each in records] == [(1, True, 2), (4, False, None)]
    assert records[0].run == first.run
    assert (records[1].run, records[1].net_rx) == (f"{first.run}.2", 3)


def test_nobody_pays_for_what_was_not_measured(board: Board) -> None:
    """Its interfaces were made anew, and the agent that had added them up is gone."""
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(net=(1000, 1000))
    first = board.one()
    board.crash()
    box.net = (400, 400)
    board.kernel.write(box)
    board.come_back()
    box.burn(net=(5, 6))
    second = board.one()
    assert (second.net_rx, second.net_tx, second.reset, second.run) == (5, 6, True, f"{first.run}.2")
    assert second.abs.net_rx == 405


def test_a_counter_that_goes_back_begins_another_run(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(1_000_000)
    first = board.one()
    box.cpu_us = 200  # a kernel that has lost its count
    board.kernel.write(box)
    second = board.one()
    assert (second.cpu_us, second.reset, second.run) == (200, True, f"{first.run}.2")
    box.burn(50)
    third = board.one()
    assert (third.cpu_us, third.reset, third.run) == (50, False, second.run)


def test_conmon_that_does_not_stand_still_takes_nothing_back(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(5_000)
    board.one()
    box.cpu_us -= 900  # so it looks for a moment
    board.kernel.write(box)
    assert (board.one().cpu_us, board.log[-1].reset) == (0, False)
    box.cpu_us += 900
    box.burn(11)
    assert board.one().cpu_us == 11


# --- disks and clocks ------------------------------------------------------------------------------


def test_a_record_that_the_disk_refuses_is_covered_by_the_next(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(100, memory=10, net=(1, 2))
    board.meter.sample()
    board.full = True
    board.passes(60_000)
    assert board.write() == []
    box.burn(50)
    box.die(4)
    board.see()
    assert board.write() == []
    box.start()
    board.see()
    box.burn(3)
    board.passes(1_000)
    assert board.write() == []
    board.full = False
    ended, goes_on = board.write()
    assert (ended.cpu_us, ended.net_tx, ended.mem_byte_ms, ended.exit_code) == (150, 2, 600_000, 4)
    assert (ended.mono0_ms, ended.mono1_ms) == (100_000, 160_000)
    assert (goes_on.cpu_us, goes_on.ended) == (3, False)


def test_a_disk_that_stays_full_does_not_fill_the_memory(board: Board) -> None:
    box = board.kernel.create()
    board.full = True
    for _ in range(20):
        box.start()
        board.see()
        box.burn(10)
        box.die(1)
        board.see()
    board.full = False
    records = board.write()
    assert len(records) == MOST_CLOSED + 1
    assert board.sum_us(box) == 200


def test_a_clock_at_1970_that_is_set_and_jumps_changes_no_duration(board: Board) -> None:
    board.wall_ms, board.state = 90_000, "unsynced"  # it has been up for 100 s
    box = board.kernel.create()
    box.start()
    board.see()
    board.passes(60_000)
    first = board.one()
    assert (first.wall0_ms, first.wall1_ms, first.clock) == (90_000, 150_000, "unsynced")
    board.wall_ms, board.state = WALL_MS, "synced"
    board.passes(60_000)
    year_ms = 365 * 86_400_000
    board.wall_ms += year_ms
    second = board.one()
    board.wall_ms -= year_ms
    board.passes(60_000)
    third = board.one()
    assert [each.mono1_ms - each.mono0_ms for each in board.log] == [60_000] * 3
    assert [each.wall1_ms - each.wall0_ms for each in board.log] == [60_000] * 3
    assert second.wall1_ms == WALL_MS + 60_000 + year_ms
    assert third.wall1_ms == WALL_MS + 120_000


def test_sleep_counts(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    box.burn(memory=10)
    board.see()
    board.passes(8 * 3_600_000)  # and nobody looked meanwhile
    record = board.one()
    assert record.mono1_ms - record.mono0_ms == 8 * 3_600_000
    assert record.mem_byte_ms == 10 * 8 * 3_600_000


def test_a_reboot_without_a_shutdown_invents_no_time(board: Board) -> None:
    box = board.kernel.create()
    box.start()
    board.see()
    box.burn(100)
    before = board.one()
    box.burn(999)
    board.passes(30_000)
    board.reboot()
    board.see()  # Podman says that it has ended
    assert board.write() == []
    board.passes(1_000)
    box.start()
    board.see()
    box.burn(7)
    board.passes(60_000)
    record = board.one()
    assert (record.boot, record.cpu_us, record.reset) == ("c" * 32, 7, False)
    assert (record.mono0_ms, record.mono1_ms) == (6_000, 66_000)
    assert record.run != before.run


# --- at random -------------------------------------------------------------------------------------


class Life:
    """Three containers, to which anything happens."""

    def __init__(self, board: Board, chance: random.Random) -> None:
        self.board, self.chance = board, chance
        self.boxes = [board.kernel.create(f"box{number}") for number in range(3)]
        self.gone: list[Box] = []

    def live(self, turns: int) -> None:
        deeds = (
            self.burn, self.burn, self.start, self.start, self.die, self.write, self.write_urgent,
            self.crash, self.remove, self.sample,
        )  # fmt: skip
        for _ in range(turns):
            self.board.passes(self.chance.randrange(20_000))
            self.chance.choice(deeds)()

    def sample(self) -> None:
        self.board.meter.sample()

    def pick(self, state: str) -> Box | None:
        found = [box for box in self.boxes if box.state == state]
        return self.chance.choice(found) if found else None

    def burn(self) -> None:
        if (box := self.pick("alive")) is not None:
            memory = self.chance.randrange(99)
            box.burn(self.chance.randrange(10**6), conmon_us=self.chance.randrange(1000), memory=memory)

    def start(self) -> None:
        if (box := self.pick("dead")) is not None:
            box.start()
            self.board.see()

    def die(self) -> None:
        if (box := self.pick("alive")) is not None:
            box.die(self.chance.randrange(3), conmon_us=self.chance.randrange(9000))
            self.board.see()

    def write(self) -> None:
        self.board.full = self.chance.random() < 0.3
        self.board.write()

    def write_urgent(self) -> None:
        self.board.write(urgent=True)

    def crash(self) -> None:
        self.board.crash()
        box = self.pick("alive")
        if box is not None and self.chance.random() < 0.5:
            box.burn(self.chance.randrange(10**6))
            box.die(1)
        self.board.come_back()

    def remove(self) -> None:
        if self.chance.random() < 0.3:
            box = self.chance.choice(self.boxes)
            self.board.kernel.remove(box)
            self.gone.append(box)
            self.boxes[self.boxes.index(box)] = self.board.kernel.create(f"{box.name}+")
            self.board.see()

    def end(self) -> None:
        """All of them end, and the disk has room."""
        self.board.full = False
        for box in self.boxes:
            if box.state == "alive":
                box.die(0)
        self.board.see()
        self.board.write()


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_the_sum_is_what_the_kernel_counted(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    board = Board(tmp_path, chance.choice((1, 2)))
    life = Life(board, chance)
    life.live(120)
    life.end()
    for box in (*life.boxes, *life.gone):
        assert board.sum_us(box) == box.total_us, box.name
    for box in list(life.boxes):
        board.kernel.remove(box)
    board.see()
    board.write()
    assert board.kernel.there() == set()
    _check_runs(board.log)


def _check_runs(log: list[ContainerRecord]) -> None:
    """Each run is told without a hole, and what it used is what its counters moved by."""
    runs: dict[str, ContainerRecord] = {}
    for record in log:
        before = runs.get(record.run)
        if before is not None:
            assert record.mono0_ms >= before.mono1_ms
            assert not before.ended
            if not record.reset:
                assert (record.abs.cpu_us or 0) - (before.abs.cpu_us or 0) == record.cpu_us
        runs[record.run] = record


def test_what_the_meter_is_told_is_what_it_knows(board: Board) -> None:
    """A name that is too long for a record is cut, and not a reason to write none."""
    box = board.kernel.create("n" * 300)
    box.start()
    board.see()
    assert isinstance(box.run(), Run)
    assert board.one().container == "n" * 256
