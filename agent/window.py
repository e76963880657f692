"""How many batches may be under way, and when to send some of them again.  Pure.

`agent.reports` asks before it sends and tells what was sent and what was acknowledged.  The hub
takes batches in order and ignores one that leaves a hole, so sending again always means going
back to the first one that is not acknowledged (go-back-N): the outbox passes over what is, so
that is the ``start`` of the window's range.

- At most ``size`` batches are under way.
- Without progress for ``resend_s`` the window goes back; that time then doubles, up to
  ``high_s``, and is as before once there is progress.
- An acknowledgement that moves nothing says that the hub ignored something: the window goes
  back at once, but once only until there is progress.  Otherwise each batch that arrives twice
  would cause an acknowledgement that moves nothing, and that the next resend.

>>> window = Window(size=2, resend_s=30, high_s=300)
>>> window.sent(Parcel(b"", "s" * 16, 60, 60, Cursor(7)), now_s=100)
>>> window.cursor, window.deadline_s, window.is_open
(Cursor(row=7), 130, True)
>>> window.acknowledged(Ack({"s" * 16: 60}), advanced=True, now_s=101)
>>> window.under_way, window.deadline_s
(0, None)
"""

from __future__ import annotations

from agent.outbox import START, Cursor, Parcel
from agent.wire.messages import Ack


class Window:
    """The batches of one session that are sent and not acknowledged.  Times in seconds of any one clock.

    ``cursor`` is where to take the next one, from ``start`` on.  ``deadline_s`` is when to go back,
    or None while nothing is under way.  ``size`` may change.  ``resend_s`` is as it was set, not doubled.
    """

    def __init__(self, *, size: int, resend_s: float, high_s: float, start: Cursor = START) -> None:
        self.cursor = start
        self.deadline_s: float | None = None
        self.size = size
        self._start = start
        self.resend_s = self._resend_s = resend_s
        self._high_s = max(high_s, resend_s)
        self._under_way: list[tuple[str, int]] = []  # stream and last seq of each batch
        self._went_back = False

    def beside(self, size: int, start: Cursor) -> Window:
        """Another window of the same session, for what lies behind ``start``."""
        return Window(size=size, resend_s=self.resend_s, high_s=self._high_s, start=start)

    @property
    def is_open(self) -> bool:
        """Whether another batch may be sent."""
        return len(self._under_way) < self.size

    @property
    def is_back(self) -> bool:
        """Whether the next batch is the first one that is held."""
        return self.cursor == self._start

    @property
    def is_late(self) -> bool:
        """Whether a deadline has passed, and there was no progress since."""
        return self._resend_s > self.resend_s

    @property
    def under_way(self) -> int:
        """How many batches are sent and not acknowledged."""
        return len(self._under_way)

    def sent(self, parcel: Parcel, now_s: float) -> None:
        """A batch goes out."""
        self.cursor = parcel.cursor
        self._under_way.append((parcel.stream, parcel.last_seq))
        if self.deadline_s is None:
            self.deadline_s = now_s + self._resend_s

    def acknowledged(self, ack: Ack, *, advanced: bool, now_s: float) -> None:
        """An acknowledgement came in; ``advanced`` tells whether the outbox could delete something."""
        before = len(self._under_way)
        self._under_way = [
            (stream, last_seq)
            for stream, last_seq in self._under_way
            if ack.streams.get(stream, 0) < last_seq
        ]
        if advanced or len(self._under_way) < before:
            self._resend_s = self.resend_s
            self._went_back = False
            self.deadline_s = now_s + self._resend_s if self._under_way else None
        elif self._under_way and not self._went_back:
            self._go_back()

    def go_back_if_late(self, now_s: float) -> bool:
        """Go back when the deadline has passed.  True when it had."""
        if self.deadline_s is None or now_s < self.deadline_s:
            return False
        self._resend_s = min(2 * self._resend_s, self._high_s)
        self._go_back()
        return True

    def _go_back(self) -> None:
        self.cursor = self._start
        self.deadline_s = None
        self._under_way.clear()
        self._went_back = True
