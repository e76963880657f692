"""When something was used: the times of records, from their log alone.

Owns the one rule by which a record gets its time, so that whoever holds the log finds the same.  Pure;
`hub.ledger.billing` asks.

A record whose clock was trusted ended when it says.  One whose clock was not ended as long before, or after,
the first trusted record of the same boot as the clock of that boot counts, which no one can set.  In a boot
that never knew the time everything is *uncertain*: it counts for the last time that the log knew before, as
it cannot have been earlier; in a log that begins so, for the first one known after; and else for what the
clock said.

>>> early = Stamp(0, "b" * 32, 0, 60_000, 5_000, "unsynced")
>>> later = Stamp(1, "b" * 32, 60_000, 120_000, 1_700_000_120_000, "synced")
>>> times = Times(boots_of([early, later]))
>>> times.span(early)
Span(from_ms=1700000000000, to_ms=1700000060000, is_certain=True)
>>> Times([]).span(early)
Span(from_ms=-55000, to_ms=5000, is_certain=False)

Its beginning is its end less its length by the clock of the boot: a wall clock that was set in between makes
nothing longer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from agent.wire.messages import ClockState


class Stamp(NamedTuple):
    """What a record says of its time; ``seq`` is its leaf index."""

    seq: int
    boot: str
    mono0_ms: int
    mono1_ms: int
    wall1_ms: int
    clock: ClockState

    @property
    def is_trusted(self) -> bool:
        """Whether the board's clock was known to be right."""
        return self.clock != "unsynced"


class Span(NamedTuple):
    """From when to when, in milliseconds since the Unix epoch."""

    from_ms: int
    to_ms: int
    is_certain: bool


class Boot(NamedTuple):
    """The first and the last trusted record of a boot; one that has none is not told of."""

    first: Stamp
    last: Stamp


def boots_of(stamps: Iterable[Stamp]) -> list[Boot]:
    """The boots of the records of a log, which come in its order."""
    found: dict[str, Boot] = {}
    for stamp in stamps:
        if stamp.is_trusted:
            first = found[stamp.boot].first if stamp.boot in found else stamp
            found[stamp.boot] = Boot(first, stamp)
    return list(found.values())


class Times:
    """What a log knows of time."""

    def __init__(self, boots: Iterable[Boot]) -> None:
        known = list(boots)
        self._offsets = {boot.first.boot: boot.first.wall1_ms - boot.first.mono1_ms for boot in known}
        self._known = sorted({(end.seq, end.wall1_ms) for boot in known for end in boot})

    def span(self, stamp: Stamp) -> Span:
        """When a record was made."""
        is_certain = True
        if stamp.is_trusted:
            to_ms = stamp.wall1_ms
        elif stamp.boot in self._offsets:
            to_ms = self._offsets[stamp.boot] + stamp.mono1_ms
        else:
            to_ms, is_certain = self._near(stamp), False
        return Span(to_ms - (stamp.mono1_ms - stamp.mono0_ms), to_ms, is_certain)

    def _near(self, stamp: Stamp) -> int:
        """The nearest time that is known at all, rather the one before."""
        place = bisect_left(self._known, (stamp.seq,))
        if place:
            return self._known[place - 1][1]
        return self._known[0][1] if self._known else stamp.wall1_ms
