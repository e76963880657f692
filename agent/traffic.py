"""How many bytes the link has used today: what a data plan is charged for.

`agent.link` counts into one `Gauge`, for the whole life of the agent, and shows it in the about
message and in the status.  It asks nobody: what a connection has used is told by
`agent.base.broker.Session.traffic`.  Not counted are what joining and renewing take over HTTPS
(some 10 kB each, a few times a year), attempts whose TLS handshake fails, and what lies below IP.

Days are those of the board's clock, UTC.  While that is not set, what is used counts for the day
that was known last.  The figures outlive a restart as a note in the outbox, which is written with
a commit at most once an hour and at a stop: a power cut takes the last hour's bytes from the
count, and costs the card nothing.

>>> clock = Clock("b" * 32, lambda: 0, lambda: 20_000 * DAY_MS, lambda: "synced")
>>> gauge = Gauge(clock, recall="", remember=print)
>>> gauge.count((300, 100))
[20000,300,100,0]
>>> gauge.count((500, 150))                  # of the same connection: 250 more
>>> gauge.begin()
>>> gauge.count((10, 10))
>>> gauge.today()
Traffic(day=20000, sent=510, received=160, before=0)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

from agent.clock import Clock
from agent.wire.decode import decode_json
from agent.wire.errors import Refused
from agent.wire.messages import Traffic
from agent.wire.plain import dumps

DAY_MS = 24 * 3_600_000
NOTE = "traffic"
"""The name of the note."""
WRITE_EVERY_MS = 3_600_000


class Gauge:
    """The count.  ``recall`` is what ``remember`` was given last."""

    def __init__(self, clock: Clock, recall: str, remember: Callable[[str], None]) -> None:
        self._clock = clock
        self._remember = remember
        self._today = _read(recall)
        self._last = (0, 0)  # of this connection, already counted
        self._written_ms = clock.mono_ms()

    def begin(self) -> None:
        """Another connection counts from nothing."""
        self._last = (0, 0)

    def count(self, used: tuple[int, int]) -> None:
        """A connection has sent and received so many bytes since it began."""
        known, day = self._today, self._day()
        if day is not None and day != known.day:
            before = known.sent + known.received if day == known.day + 1 else 0
            # Before the first day that is known, all was of today.
            known = Traffic(day, 0, 0, before) if known.day else Traffic(day, known.sent, known.received)
        sent, received = (max(0, now - before) for now, before in zip(used, self._last, strict=True))
        is_new, self._last = known.day != self._today.day, used
        self._today = Traffic(known.day, known.sent + sent, known.received + received, known.before)
        if is_new or self._clock.mono_ms() - self._written_ms >= WRITE_EVERY_MS:
            self.write()

    def today(self) -> Traffic:
        """What has been used today, and yesterday."""
        return self._today

    def write(self) -> None:
        """Let the count outlive a restart."""
        self._written_ms = self._clock.mono_ms()
        self._remember(dumps(astuple(self._today)).decode())

    def _day(self) -> int | None:
        """Days since 1970, or None while nobody knows."""
        now_ms = self._clock.known_ms()
        return None if now_ms is None else now_ms // DAY_MS


def _read(text: str) -> Traffic:
    """What was remembered; nothing, when it cannot be understood."""
    try:
        day, sent, received, before = decode_json(tuple[int, ...], text.encode(), max_bytes=1000)
    except (Refused, ValueError):
        return Traffic()
    return Traffic(day, sent, received, before)
