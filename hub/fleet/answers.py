"""Which acks are worth sending.  Pure.

A board deletes by an ack and, when one does not move on while batches are under way, sends
again from there.  So an ack that says the same as the last one is a message in itself, and
answering each of a window of late batches would set off a resend for each:

*   what moved on is told at once;
*   a hole is told once, so that the board need not wait for its own timer;
*   anything else is told again only after ``repeat_every_ms``, which is less than the time
    after which a board resends: a lost ack is answered when the board asks again.

>>> answers = Answers(repeat_every_ms=10_000)
>>> [answers.due("board", {"s": seq}, stalled, at_ms)
...  for seq, stalled, at_ms in [(7, False, 0), (7, False, 1), (7, True, 2), (7, True, 3), (9, False, 4)]]
[True, False, True, False, True]
"""

from __future__ import annotations

from collections.abc import Mapping


class Answers:
    """Remembers the last ack of each board."""

    def __init__(self, repeat_every_ms: int) -> None:
        self._repeat_every_ms = repeat_every_ms
        self._last: dict[str, tuple[dict[str, int], bool, int]] = {}

    def due(self, board: str, streams: Mapping[str, int], stalled: bool, now_ms: int) -> bool:
        """Whether to send this ack now; if so, it counts as sent."""
        last = self._last.get(board)
        if last is not None:
            said, told_of_hole, at_ms = last
            news = streams != said or (stalled and not told_of_hole)
            if not news and 0 <= now_ms - at_ms < self._repeat_every_ms:
                return False
        self._last[board] = (dict(streams), stalled, now_ms)
        return True

    def clear(self) -> None:
        """Forget: the broker may have lost what it kept."""
        self._last.clear()
