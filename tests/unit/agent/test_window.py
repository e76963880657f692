"""The window sends again as often as it must, and never in a storm."""

from __future__ import annotations

from agent.outbox import Cursor, Parcel
from agent.window import Window
from agent.wire.messages import Ack

STREAM = "s" * 16


def filled(count: int, size: int = 16) -> Window:
    """A window with batches 1 to ``count`` of ten readings under way, since second 0."""
    window = Window(size=size, resend_s=30, high_s=100)
    send(window, *range(1, count + 1))
    return window


def send(window: Window, *batches: int, now_s: float = 0) -> None:
    for number in batches:
        window.sent(Parcel(b"", STREAM, 10 * number, 10, Cursor(number)), now_s)


def acknowledge(window: Window, seq: int, *, advanced: bool = True, now_s: float = 0) -> None:
    window.acknowledged(Ack({STREAM: seq}), advanced=advanced, now_s=now_s)


def test_it_closes_when_so_many_are_under_way() -> None:
    window = filled(2, size=3)
    assert window.is_open
    send(window, 3)
    assert (window.is_open, window.under_way) == (False, 3)
    acknowledge(window, 20)
    assert (window.is_open, window.under_way) == (True, 1)


def test_without_progress_it_goes_back_ever_later() -> None:
    window = filled(1)
    waits = []
    now_s = 0.0
    for _ in range(4):
        assert window.deadline_s is not None
        waits.append(window.deadline_s - now_s)
        assert not window.go_back_if_late(window.deadline_s - 1)
        now_s = window.deadline_s
        assert window.go_back_if_late(now_s)
        assert window.is_back
        assert window.under_way == 0
        send(window, 1, now_s=now_s)
    assert waits == [30, 60, 100, 100]


def test_progress_starts_the_time_anew() -> None:
    window = filled(2)
    window.go_back_if_late(30)
    send(window, 1, 2, now_s=30)
    acknowledge(window, 10, now_s=50)
    assert window.deadline_s == 80
    acknowledge(window, 20, now_s=51)
    assert window.deadline_s is None


def test_an_acknowledgement_that_moves_nothing_sends_again_at_once_but_once() -> None:
    window = filled(3)
    acknowledge(window, 0, advanced=False)
    assert window.is_back
    send(window, 1, 2, 3)
    for _ in range(5):  # what the hub says to each of the others that it ignored
        acknowledge(window, 0, advanced=False)
    assert window.cursor == Cursor(3)
    acknowledge(window, 10)
    acknowledge(window, 10, advanced=False)
    assert window.is_back


def test_an_acknowledgement_that_moves_nothing_is_nothing_when_all_is_quiet() -> None:
    window = filled(1)
    acknowledge(window, 10)
    acknowledge(window, 10, advanced=False)
    assert window.cursor == Cursor(1)
