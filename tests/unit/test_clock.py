"""The two clocks of a board, and what it thinks of the second."""

from __future__ import annotations

import doctest
import time
from pathlib import Path

import pytest

from agent import clock as module
from agent.clock import Clock, boot_id, judge
from agent.wire.decode import decode
from agent.wire.errors import ConfigError
from agent.wire.messages import BootId, ClockState

BOOT = "b" * 32
NOW_MS = 1_764_000_000_000
YEAR_MS = 365 * 24 * 3_600_000


def test_the_examples_hold() -> None:
    assert doctest.testmod(module).failed == 0


def test_the_boot_is_one_and_has_the_form_of_the_wire() -> None:
    assert boot_id() == boot_id() == Clock.system().boot
    assert decode(BootId, boot_id()) == boot_id()  # type: ignore[arg-type]


def test_without_proc_there_is_no_boot(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="boot_id cannot be read") as raised:
        boot_id(tmp_path / "boot_id")
    assert raised.value.hint == "mount /proc"


def test_times_are_integers_of_milliseconds() -> None:
    clock = Clock.system()
    before = time.clock_gettime(time.CLOCK_BOOTTIME), time.time()
    mono_ms, wall_ms = clock.mono_ms(), clock.wall_ms()
    after = time.clock_gettime(time.CLOCK_BOOTTIME), time.time()
    assert isinstance(mono_ms, int)
    assert before[0] * 1000 - 1 <= mono_ms <= after[0] * 1000
    assert isinstance(wall_ms, int)
    assert before[1] * 1000 - 1 <= wall_ms <= after[1] * 1000


class Machine:
    """A machine whose clock somebody sets; ``mono_ms`` goes on whatever happens to it."""

    def __init__(self, wall_ms: int, state: ClockState) -> None:
        self.mono_ms, self.wall_ms = 1_000, wall_ms
        self.state: ClockState = state
        self.clock = Clock(BOOT, lambda: self.mono_ms, lambda: self.wall_ms, lambda: self.state)

    def passes(self, ms: int) -> None:
        self.mono_ms += ms
        self.wall_ms += ms


def test_a_board_that_knows_nothing_says_so_and_what_it_believes() -> None:
    machine = Machine(0, "unsynced")
    assert (machine.clock.state(), machine.clock.wall_ms()) == ("unsynced", 0)
    assert machine.clock.known_ms() is None


def test_the_word_of_the_hub_holds_from_1970_on() -> None:
    machine = Machine(0, "unsynced")
    machine.clock.learn(NOW_MS)
    machine.passes(5_000)
    assert (machine.clock.state(), machine.clock.wall_ms()) == ("hub", NOW_MS + 5_000)


@pytest.mark.parametrize("jump_ms", [YEAR_MS, -YEAR_MS], ids=["forward", "back"])
def test_a_jump_of_a_year_is_not_followed_once_the_time_was_known(jump_ms: int) -> None:
    machine = Machine(NOW_MS, "synced")
    assert machine.clock.wall_ms() == NOW_MS
    machine.wall_ms, machine.state = NOW_MS + jump_ms, "unsynced"  # clock_settime(2) does both
    machine.passes(60_000)
    assert (machine.clock.state(), machine.clock.wall_ms()) == ("hub", NOW_MS + 60_000)
    machine.wall_ms, machine.state = NOW_MS + 90_000, "synced"  # and the daemon sets it right
    machine.mono_ms += 30_000
    assert (machine.clock.state(), machine.clock.wall_ms()) == ("synced", NOW_MS + 90_000)


def test_the_last_time_that_the_kernel_was_right_counts() -> None:
    machine = Machine(NOW_MS, "synced")
    machine.clock.state()
    machine.wall_ms += 7  # the daemon steps it a little
    machine.clock.state()
    machine.state = "unsynced"
    assert machine.clock.wall_ms() == NOW_MS + 7


def test_a_night_of_suspend_is_counted() -> None:
    machine = Machine(0, "unsynced")
    machine.clock.learn(NOW_MS)
    machine.mono_ms += 8 * 3_600_000  # CLOCK_BOOTTIME goes on; this machine's wall clock has no battery
    assert machine.clock.wall_ms() == NOW_MS + 8 * 3_600_000


def test_a_synced_kernel_knows_better_than_the_hub() -> None:
    machine = Machine(NOW_MS, "synced")
    machine.clock.learn(NOW_MS + YEAR_MS)
    assert machine.clock.wall_ms() == NOW_MS
    machine.state = "unsynced"
    assert machine.clock.wall_ms() == NOW_MS


def test_what_the_hub_says_later_replaces_it() -> None:
    machine = Machine(NOW_MS, "synced")
    machine.clock.state()
    machine.state = "unsynced"
    machine.clock.learn(NOW_MS - 500)
    assert (machine.clock.state(), machine.clock.known_ms()) == ("hub", NOW_MS - 500)


def test_the_kernel_is_asked() -> None:
    assert Clock.system().state() in ("synced", "unsynced")


# adjtimex(2): TIME_OK, _INS, _DEL, _OOP, _WAIT are states of a synchronised clock (leap seconds).
@pytest.mark.parametrize(
    ("answer", "expected"),
    [(0, "synced"), (1, "synced"), (4, "synced"), (5, "unsynced"), (-1, "unsynced")],
)
def test_the_kernels_answer_is_judged(answer: int, expected: str) -> None:
    assert judge(answer) == expected
