"""What the link has used today, over midnight, restarts and a clock that is not set."""

from __future__ import annotations

import doctest

from agent import traffic as module
from agent.clock import Clock
from agent.traffic import DAY_MS, WRITE_EVERY_MS, Gauge
from agent.wire.messages import ClockState, Traffic

DAY = 20_000


class Desk:
    """A gauge whose clock the test sets; ``noted`` is what was remembered."""

    def __init__(self, *, recall: str = "", state: ClockState = "synced") -> None:
        self.mono_ms, self.wall_ms = 0, DAY * DAY_MS
        self.state: ClockState = state
        self.noted: list[str] = []
        clock = Clock("b" * 32, lambda: self.mono_ms, lambda: self.wall_ms, lambda: self.state)
        self.gauge = Gauge(clock, recall, self.noted.append)


def test_the_examples_hold() -> None:
    assert doctest.testmod(module).failed == 0


def test_at_midnight_a_new_day_begins_and_the_old_one_is_known() -> None:
    desk = Desk()
    desk.gauge.count((100, 50))
    desk.wall_ms += DAY_MS
    desk.gauge.count((110, 55))
    assert desk.gauge.today() == Traffic(DAY + 1, 10, 5, 150)
    desk.wall_ms += 3 * DAY_MS  # two days without a word
    desk.gauge.count((110, 55))
    assert desk.gauge.today() == Traffic(DAY + 4, 0, 0, 0)


def test_it_goes_on_after_a_restart() -> None:
    desk = Desk()
    desk.gauge.count((100, 50))
    desk.gauge.write()
    again = Desk(recall=desk.noted[-1])
    again.gauge.count((1, 2))
    assert again.gauge.today() == Traffic(DAY, 101, 52, 0)


def test_a_note_that_is_none_begins_anew() -> None:
    for text in ("", "{", "[1,2]", "[1,2,3,4,5]", '["a",2,3,4]'):
        assert Desk(recall=text).gauge.today() == Traffic()


def test_what_is_used_before_the_clock_is_set_is_of_the_day_that_it_then_is() -> None:
    desk = Desk(state="unsynced")
    desk.wall_ms = 0
    desk.gauge.count((100, 50))
    desk.wall_ms, desk.state = DAY * DAY_MS, "synced"
    desk.gauge.count((130, 60))
    assert desk.gauge.today() == Traffic(DAY, 130, 60, 0)


def test_it_is_written_once_an_hour_and_no_more() -> None:
    desk = Desk()
    for minute in range(180):
        desk.mono_ms = minute * 60_000
        desk.gauge.count((minute, minute))
    assert len(desk.noted) == 1 + 179 * 60_000 // WRITE_EVERY_MS  # the first is of the day
