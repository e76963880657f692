"""Findings become problems when they last, and history when they end: hours of it in virtual time."""

from __future__ import annotations

import asyncio
import doctest
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agent import health
from agent.alarm import watching
from agent.checks import CHECKS, Check, Facts, Fault, Finding
from agent.clock import Clock
from agent.health import Health, joined
from agent.history import FILE, MAX_EPISODES, Episode, History, Tally, dated, read_history, write_history
from agent.status import LinkState
from agent.vitals import Disk, Vitals
from agent.wire.errors import Refused
from agent.wire.messages import OutboxState, Problem
from support.virtual import BOOT, WALL_MS, VirtualLoop, virtual, virtual_clock

T = TypeVar("T")

ONLINE = LinkState("online", WALL_MS, "hub:8422")
DOWN = LinkState("offline", WALL_MS, "hub:8422", error="nothing listens at hub:8422")
EMPTY = OutboxState(max_bytes=10_000)


class Gauges:
    """Vitals that a test sets; ``reads`` counts the looks."""

    def __init__(self) -> None:
        self.vitals = Vitals()
        self.failure: Exception | None = None
        self.reads = 0

    def read(self) -> Vitals:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return self.vitals


class Board:
    """A health with its facts in the hands of a test."""

    def __init__(self, folder: Path, clock: Clock | None = None, **options: Any) -> None:
        self.clock = clock or virtual_clock()
        self.gauges = Gauges()
        self.faults: tuple[Fault, ...] = ()
        self.unsaved = 0
        self.link, self.outbox = ONLINE, EMPTY
        self.health = Health(
            self.clock,
            folder,
            gauges=self.gauges,
            lane=lambda: run_here,
            gather=lambda: Facts(
                self.clock.wall_ms(), self.clock.state(), faults=self.faults, unsaved=self.unsaved
            ),
            **options,
        )

    def tell(self, **facts: Any) -> None:
        for name, value in facts.items():
            setattr(self, name, value)
        self.health.tell(self.link, self.outbox)

    @property
    def codes(self) -> list[str]:
        return [problem.code for problem in self.health.problems()]

    @property
    def one(self) -> Problem:
        (problem,) = self.health.problems()
        return problem


async def run_here(function: Callable[[], T], /) -> T:
    return function()


@asynccontextmanager
async def running(board: Board) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(board.health.run(), name="health")
        await asyncio.sleep(0)
        board.tell()
        yield board
        task.cancel()


def alive(test: Callable[[Board], Awaitable[None]]) -> Callable[[Path], None]:
    """Give a test a board whose health runs, in virtual time."""

    @virtual
    async def run(tmp_path: Path) -> None:
        async with running(Board(tmp_path)) as board:
            await test(board)

    return run


# --- time ------------------------------------------------------------------------------------------


@alive
async def test_a_problem_appears_after_its_grace_and_clears_by_itself(board: Board) -> None:
    board.tell(link=DOWN)
    await asyncio.sleep(59.9)
    assert board.codes == []
    await asyncio.sleep(0.2)
    problem = board.one
    assert problem.code == "hub-unreachable"
    assert problem.sentence == "The hub is not reached: nothing listens at hub:8422."
    assert problem.since_ms == pytest.approx(WALL_MS, abs=50)
    assert problem.count == 1
    assert problem.hint
    board.tell(link=ONLINE)
    assert board.codes == []


@alive
async def test_what_passes_within_its_grace_is_nobodys_business(board: Board) -> None:
    for _ in range(10):
        board.tell(link=DOWN)
        await asyncio.sleep(50)
        board.tell(link=ONLINE)
        await asyncio.sleep(10)
        assert board.codes == []
    assert board.health.history().episodes == ()


@alive
async def test_what_flutters_is_one_problem_that_counts(board: Board) -> None:
    room = (Fault("room", "no answer within 5 s"),)
    for _ in range(30):
        board.tell(faults=room)
        await asyncio.sleep(10)
        board.tell(faults=())
        await asyncio.sleep(10)
    assert board.codes == ["sensor-failing"]
    (episode,) = board.health.history().episodes
    assert episode.times == 30
    await asyncio.sleep(111)
    assert board.codes == []
    (episode,) = board.health.history().episodes
    assert episode.to_ms == pytest.approx(WALL_MS + 590_000, abs=50)  # when it was last found


@alive
async def test_a_dip_of_the_supply_stays_for_an_hour_and_the_next_counts(board: Board) -> None:
    for _ in range(3):
        board.gauges.vitals = Vitals(power=1)
        await asyncio.sleep(61)
        board.gauges.vitals = Vitals()
        await asyncio.sleep(1800)
    await asyncio.sleep(1000)
    assert board.one.code == "under-voltage"
    assert board.one.count == 3
    await asyncio.sleep(900)
    assert board.codes == []


@alive
async def test_several_sensors_are_one_problem_with_a_sentence_each(board: Board) -> None:
    board.tell(faults=(Fault("room", "unplugged"),))
    await asyncio.sleep(61)
    board.tell(faults=(Fault("room", "unplugged"), Fault("tank", "no answer within 5 s")))
    assert board.one.sentence == "room fails: unplugged."
    await asyncio.sleep(61)
    assert board.one.sentence == "room fails: unplugged. tank fails: no answer within 5 s."
    assert board.one.count == 2
    board.tell(faults=(Fault("tank", "no answer within 5 s"),))
    await asyncio.sleep(121)
    assert board.one.sentence == "tank fails: no answer within 5 s."


@alive
async def test_figures_are_said_anew_now_and_then_only(board: Board) -> None:
    """Each change of a problem travels to the hub."""
    board.gauges.vitals = Vitals(disk=Disk("/", 10**10, 500_000_000))
    await asyncio.sleep(361)
    said = {board.one.sentence}
    board.health.changed.clear()
    for free in range(499, 440, -1):
        board.gauges.vitals = Vitals(disk=Disk("/", 10**10, free * 10**6))
        await asyncio.sleep(60)
        said.add(board.one.sentence)
    assert 2 <= len(said) <= 5
    assert board.health.changed.is_set()


@alive
async def test_what_gets_worse_is_said_at_once_and_stays_so(board: Board) -> None:
    disk = Disk("/", 10**10, 500_000_000)
    board.gauges.vitals = Vitals(disk=disk)
    await asyncio.sleep(361)
    assert [problem.severity for problem in board.health.problems()] == ["warn"]
    board.gauges.vitals = Vitals(disk=disk._replace(free_bytes=0))
    await asyncio.sleep(60)
    assert [problem.severity for problem in board.health.problems()] == ["fail"]
    assert board.health.worst() == board.one


@alive
async def test_the_worst_is_the_gravest_and_then_the_first_to_mend(board: Board) -> None:
    assert board.health.worst() is None
    board.gauges.vitals = Vitals(memory_cgroup=False, power=1)
    board.tell(outbox=OutboxState(5, 9_000, 10_000))
    await asyncio.sleep(60)
    assert board.codes == ["under-voltage", "outbox-nearly-full", "memory-cgroup-off"]
    assert board.health.worst().code == "under-voltage"


@virtual
async def test_a_clock_that_is_set_later_dates_the_problem_anew(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    offset = [0]
    clock = Clock(
        BOOT,
        mono_ms=lambda: int(loop.time() * 1000 + 1e-3),
        wall_ms=lambda: int(loop.time() * 1000) + offset[0],
        state=lambda: "unsynced" if offset[0] == 0 else "synced",
    )
    async with running(Board(tmp_path, clock)) as board:
        board.tell(link=DOWN)
        await asyncio.sleep(400)
        assert [problem.code for problem in board.health.problems()] == ["hub-unreachable", "clock-unsynced"]
        assert board.health.problems()[0].since_ms < 1000  # 1970
        offset[0] = WALL_MS
        board.tell()
        assert board.codes == ["hub-unreachable"]
        assert board.one.since_ms == pytest.approx(WALL_MS, abs=50)
    ended, going_on = (dated(each, clock) for each in read_history(tmp_path).episodes)
    assert ended.code == "clock-unsynced"
    assert ended.from_ms == pytest.approx(WALL_MS, abs=50)
    assert going_on.to_ms is None


# --- looking ---------------------------------------------------------------------------------------


@alive
async def test_it_looks_once_a_minute_on_the_grid(board: Board) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    before = loop.wakeups
    await asyncio.sleep(3600)
    assert board.gauges.reads == 60
    assert loop.wakeups - before <= 61  # a timer each minute, and ours


@alive
async def test_a_disk_that_hangs_or_goes_away_leaves_what_was_known(board: Board) -> None:
    board.gauges.vitals = Vitals(disk=Disk("/", 10**10, 0))
    await asyncio.sleep(61)
    assert board.codes == ["disk-full"]
    board.gauges.failure = FileNotFoundError("/gone")
    await asyncio.sleep(600)
    assert board.codes == ["disk-full"]


@virtual
async def test_a_look_that_never_ends_is_given_up(tmp_path: Path) -> None:
    async def hang(function: Callable[[], T], /) -> T:
        await asyncio.get_running_loop().create_future()
        return function()

    board = Board(tmp_path)
    board.health = Health(
        board.clock, tmp_path, gauges=board.gauges, lane=lambda: hang, gather=lambda: Facts(0, link=DOWN)
    )
    async with running(board):
        board.tell(link=DOWN)
        await asyncio.sleep(61)
        assert board.codes == ["hub-unreachable"]


MOUNT = """
import asyncio, subprocess
from pathlib import Path
from agent.alarm import watching

async def main():
    rung = asyncio.Event()
    with watching(Path("/proc/self/mountinfo"), rung.set):
        for _ in range(2):
            await asyncio.sleep(0)
            assert not rung.is_set()
            subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], check=True)
            await asyncio.wait_for(rung.wait(), 5)
            rung.clear()
            print("rung")

asyncio.run(main())
"""


def test_a_change_that_the_kernel_announces_rings() -> None:
    """/proc/self/mountinfo announces its changes as the alarms of hwmon do; mounted in a world apart."""
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, "-c", MOUNT],
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["rung", "rung"], done.stderr


@pytest.mark.parametrize("name", ["file", "gone"])
async def test_a_file_that_announces_nothing_is_not_watched(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("0\n")
    with watching(tmp_path / name, lambda: None):
        await asyncio.sleep(0)


async def test_an_alarm_is_looked_at_at_once(tmp_path: Path) -> None:
    board = Board(tmp_path, Clock(BOOT, lambda: 0, lambda: WALL_MS, lambda: "synced"))
    async with running(board):
        board.gauges.vitals = Vitals(power=1)
        board.health._alarmed.set()
        async with asyncio.timeout(5):
            while board.codes != ["under-voltage"]:
                await asyncio.sleep(0)


# --- lost readings -----------------------------------------------------------------------------------


@virtual
async def test_dropped_readings_are_told_until_a_day_has_passed_without_more(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.outbox = OutboxState(dropped=5)  # that was long ago, and the hub knows
    async with running(board):
        assert board.codes == []
        board.tell(outbox=OutboxState(dropped=25))
        assert board.one.sentence == "20 readings were dropped because the outbox was full."
        await asyncio.sleep(80_000)
        board.tell(outbox=OutboxState(dropped=30))
        await asyncio.sleep(80_000)
        assert board.one.sentence == "25 readings were dropped because the outbox was full."
        await asyncio.sleep(10_000)
        assert board.codes == []


@alive
async def test_readings_that_found_no_room_are_told(board: Board) -> None:
    board.tell(unsaved=7)
    assert board.one.code == "readings-unsaved"
    assert board.one.severity == "fail"


@pytest.mark.parametrize(
    ("total", "now_ms", "expected"),
    [
        (12, 500, Tally(5, 12, 500)),
        (10, 500, Tally(5, 10, 100)),
        (10, 1100, Tally(10, 10, 100)),  # a day is over
        (10, 50, Tally(5, 10, 50)),  # the clock went back
        (3, 500, Tally(3, 3, 100)),  # another outbox
    ],
)
def test_a_tally(total: int, now_ms: int, expected: Tally) -> None:
    assert Tally(5, 10, 100).grown(total, now_ms, stay_ms=1000) == expected


# --- the history -------------------------------------------------------------------------------------


def restart(folder: Path, *, boot: str, start_ms: int, wall_ms: int) -> Board:
    elapsed = virtual_clock(start_ms=start_ms, wall_ms=wall_ms)
    return Board(folder, Clock(boot, elapsed.mono_ms, elapsed.wall_ms, lambda: "synced"))


@virtual
async def test_a_problem_goes_on_after_a_restart_and_is_not_counted_anew(tmp_path: Path) -> None:
    async with running(Board(tmp_path)) as board:
        board.tell(link=DOWN)
        await asyncio.sleep(100)
        before = board.one
    again = Board(tmp_path)
    again.link = DOWN
    async with running(again) as board:
        await asyncio.sleep(1)
        assert board.one == before
        await asyncio.sleep(300)
        board.tell(link=ONLINE)
        await asyncio.sleep(0)
        assert board.codes == []
    (episode,) = read_history(tmp_path).episodes
    assert (episode.times, episode.from_ms) == (1, before.since_ms)


@virtual
async def test_a_problem_goes_on_after_a_reboot(tmp_path: Path) -> None:
    async with running(Board(tmp_path)) as board:
        board.tell(link=DOWN)
        await asyncio.sleep(100)
        before = board.one
    again = restart(tmp_path, boot="c" * 32, start_ms=0, wall_ms=WALL_MS + 10**6)
    again.link = DOWN
    async with running(again) as board:
        await asyncio.sleep(1)
        assert board.one.since_ms == before.since_ms


@virtual
async def test_a_problem_that_a_restart_has_cured_ends(tmp_path: Path) -> None:
    async with running(Board(tmp_path)) as board:
        board.tell(faults=(Fault("room", "unplugged"),))
        await asyncio.sleep(100)
    async with running(Board(tmp_path)) as board:
        await asyncio.sleep(60)
        assert board.codes == ["sensor-failing"]  # it may not have been asked yet
        await asyncio.sleep(61)
        assert board.codes == []
        assert board.health.history().episodes[0].to_ms is not None


@virtual
async def test_a_sticky_bit_counts_once_for_each_start_of_the_board(tmp_path: Path) -> None:
    for boot, count in (("a" * 32, 1), ("a" * 32, 1), ("b" * 32, 2)):
        board = restart(tmp_path, boot=boot, start_ms=0, wall_ms=WALL_MS)
        board.gauges.vitals = Vitals(power=1 << 16)
        async with running(board):
            await asyncio.sleep(4000)
            assert board.codes == []
            assert len(board.health.history().episodes) == count


@virtual
async def test_dropped_readings_are_not_told_again_after_a_restart(tmp_path: Path) -> None:
    async with running(Board(tmp_path)) as board:
        board.tell(outbox=OutboxState(dropped=5))
        board.tell(outbox=OutboxState(dropped=9))
        await asyncio.sleep(90_000)
        assert board.codes == []
    again = Board(tmp_path)
    again.outbox = OutboxState(dropped=9)
    async with running(again) as board:
        assert board.codes == []
        board.tell(outbox=OutboxState(dropped=11))
        assert board.one.sentence.startswith("2 readings")


@virtual
async def test_the_history_is_bounded_and_spares_the_card(tmp_path: Path) -> None:
    """A sensor that fails and recovers all day: an episode each 200 s, a writing each 10 minutes."""
    writings = set()
    async with running(Board(tmp_path)) as board:
        for _ in range(400):
            board.tell(faults=(Fault("room", "unplugged"),))
            await asyncio.sleep(70)
            board.tell()
            board.tell(faults=())
            await asyncio.sleep(130)
            if (tmp_path / FILE).exists():
                writings.add((tmp_path / FILE).stat().st_ino)
    history = read_history(tmp_path)
    assert len(history.episodes) == MAX_EPISODES
    assert (tmp_path / FILE).stat().st_size < 32_000
    assert len(writings) <= 400 * 200 / 600 + 1


@virtual
async def test_a_full_disk_costs_the_history_not_the_agent(tmp_path: Path) -> None:
    def full(function: Callable[[], object], /) -> Any:
        if getattr(function, "__name__", "") != "<lambda>":
            return run_here(function)
        raise Refused("the disk is full", code="disk-full")

    board = Board(tmp_path)
    lanes: Iterator[Any] = iter((run_here, full))
    board.health = Health(
        board.clock, tmp_path, gauges=board.gauges, lane=lambda: next(lanes), gather=lambda: Facts(0)
    )
    async with running(board):
        board.tell(link=DOWN)
        await asyncio.sleep(1300)
        assert board.codes == ["hub-unreachable"]
        assert not (tmp_path / FILE).exists()
    assert read_history(tmp_path).episodes  # the stop tries once more


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 10_000,
        "\0" * 4096,
        '{"dropped": []}',
        '{"episodes": 5, "dropped": []}',
        '{"episodes": [5], "dropped": []}',
        '{"episodes": [[]], "dropped": []}',
        '{"episodes": [{}], "dropped": []}',
        '{"episodes": [], "dropped": [1, 2]}',
        '{"episodes": [["a", "", "bad", "", "", 1, 2, null, 0, 1]], "dropped": []}',
        '{"episodes": [["a", "", "warn", "", "", 1, 2, "x", 0, 1]], "dropped": []}',
    ],
    ids=lambda text: text[:40].replace("\0", "0"),
)
def test_a_file_that_is_no_history_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_history(tmp_path) == History()


def test_a_history_is_read_back(tmp_path: Path) -> None:
    episode = Episode("disk-full", "", "fail", "Full.", BOOT, 5, 6, to_ms=7, to_mono_ms=8, times=9)
    history = History((episode,), Tally(1, 2, 3))
    write_history(tmp_path, history)
    assert read_history(tmp_path) == history
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_problem_that_this_version_does_not_know_is_history(tmp_path: Path) -> None:
    write_history(tmp_path, History((Episode("gone", "", "fail", "Old.", BOOT, 5, 6),)))

    @virtual
    async def run() -> None:
        async with running(Board(tmp_path)) as board:
            assert board.codes == []
            await asyncio.sleep(0)

    run()


# --- words -------------------------------------------------------------------------------------------


def test_sentences_that_do_not_fit_are_counted() -> None:
    sentences = [f"sensor-{number:03} fails: no answer within 5 s." for number in range(40)]
    text = joined(sentences)
    assert len(text) <= 256
    assert text.endswith(" more.")
    shown = text.count("fails:")
    assert text.endswith(f"And {40 - shown} more.")


def test_a_long_sentence_is_cut() -> None:
    look = lambda facts, known: iter([Finding("x" * 400)])  # noqa: E731
    check = Check("long", "warn", 0, 0, look, "Do something about it.")

    @virtual
    async def run(folder: Path) -> None:
        async with running(Board(folder, checks=(check,))) as board:
            assert len(board.one.sentence) == 256

    run(Path(os.devnull).parent)


def test_examples_are_right() -> None:
    assert doctest.testmod(health).failed == 0


def test_problems_fit_into_the_about_message() -> None:
    assert len(CHECKS) <= 128
