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
from agent.wire.messages import BootId


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


def test_the_kernel_is_asked() -> None:
    assert Clock.system().state() in ("synced", "unsynced")


# adjtimex(2): TIME_OK, _INS, _DEL, _OOP, _WAIT are states of a synchronised clock (leap seconds).
@pytest.mark.parametrize(
    ("answer", "expected"),
    [(0, "synced"), (1, "synced"), (4, "synced"), (5, "unsynced"), (-1, "unsynced")],
)
def test_the_kernels_answer_is_judged(answer: int, expected: str) -> None:
    assert judge(answer) == expected
