"""When readings were made: which times of a block can be believed, and what the others become.  Pure.

Whoever stores, folds or shows readings asks `timed`, so a reading has the same time everywhere.

A board gives each reading two times: by its wall clock, which may be wrong, and since the start of
its boot, which is right.  A block says in which state the wall clock was at its commit.

1.  When the clock was right then, the block's last reading tells the offset between the two.  Its
    readings keep their wall times, unless the clock jumped within the block: then they get offset
    and time since the boot.
2.  When it was not, they get the offset of the boot, which is that of the first block of the boot
    whose clock was right.  While there is none, their times are uncertain.
3.  A clock is not right because its board says so: it must not be before the first board was made,
    nor a day ahead of the hub's.

>>> from agent.wire.messages import Reading, block_of
>>> readings = [Reading("room", 21.0, 5_000, 5_400), Reading("room", 22.0, 15_000, 15_400)]
>>> block = block_of(readings, boot="0" * 32, stream="s" * 16, seq0=1, clock="unsynced")
>>> timed(block, 1_700_000_100_000, None).certain
False
>>> span_of([timed(block, 1_700_000_100_000, 1_700_000_000_000)])
(1700000005000, 1700000015000)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

from agent.wire.messages import Block

EARLIEST_MS = 1_577_836_800_000
"""2020-01-01: before any board, so a clock that says less is not set."""
AHEAD_MS = 86_400_000
"""How far the clock of a board may be ahead of the hub's."""
JUMP_MS = 1_000
"""What the two times of a block may drift apart; beyond, the wall clock was set in between."""


class Timed(NamedTuple):
    """A block whose wall times are right, as far as it is ``certain``, and the span of them."""

    block: Block
    certain: bool
    from_ms: int
    to_ms: int


def own_offset(block: Block, received_ms: int) -> int | None:
    """What to add to ``mono_ms`` for the time, by the block's own clock; None when that was not right."""
    if block.clock == "unsynced":
        return None
    last_ms = sum(block.wall_ms)
    if not EARLIEST_MS <= last_ms <= received_ms + AHEAD_MS:
        return None
    return last_ms - sum(block.mono_ms)


def timed(block: Block, received_ms: int, offset_ms: int | None) -> Timed:
    """The block with the best times there are; ``offset_ms`` is that of its boot, if known."""
    # A hub does this a thousand times a second, nearly always for a clock that is right and went on
    # as the time since the boot did.  One that went away and came back shows in the span, unless it
    # stayed within that of the block: then it was not wrong by much.
    times = list(accumulate(block.wall_ms))
    from_ms, to_ms = min(times), max(times)
    own_ms = own_offset(block, received_ms)
    if own_ms is not None:
        begin_ms = block.mono_ms[0] + own_ms
        if abs(times[0] - begin_ms) <= JUMP_MS and to_ms - from_ms <= times[-1] - begin_ms + JUMP_MS:
            return Timed(block, True, from_ms, to_ms)
        offset_ms = own_ms
    if offset_ms is None:
        return Timed(block, False, from_ms, to_ms)
    block = replace(block, wall_ms=(block.mono_ms[0] + offset_ms, *block.mono_ms[1:]))
    times = list(accumulate(block.wall_ms))
    return Timed(block, True, min(times), max(times))


def span_of(blocks: Sequence[Timed]) -> tuple[int, int]:
    """The smallest and the largest wall time."""
    return min([each.from_ms for each in blocks]), max([each.to_ms for each in blocks])


def gap_span(
    from_ms: int | None, to_ms: int | None, *, boot_ms: int, next_ms: int
) -> tuple[int | None, int | None]:
    """When the readings of a gap were made, from what its board says.

    They were made after the start of their boot, ``boot_ms``, and before the reading that follows
    them, ``next_ms``.  A clock that said otherwise was wrong; but how long the gap was, it knew.

    >>> gap_span(1_000, 61_000, boot_ms=1_700_000_000_000, next_ms=1_700_000_090_000)
    (1700000030000, 1700000090000)
    """
    if from_ms is None or to_ms is None:
        return from_ms, to_ms
    if boot_ms - JUMP_MS <= from_ms <= to_ms <= next_ms + JUMP_MS:
        return from_ms, to_ms
    return max(next_ms - max(to_ms - from_ms, 0), boot_ms), next_ms
