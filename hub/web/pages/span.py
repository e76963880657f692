"""The time that charts show, as the address says it: ``range=6h``, or ``from_ms`` and ``to_ms``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.wire.errors import Refused

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LENGTHS_MS = {
    "1h": HOUR_MS,
    "6h": 6 * HOUR_MS,
    "1d": DAY_MS,
    "1w": 7 * DAY_MS,
    "1m": 30 * DAY_MS,
    "1y": 365 * DAY_MS,
}
RANGES = (("1h", "1 h"), ("6h", "6 h"), ("1d", "1 d"), ("1w", "1 w"), ("1m", "1 mo"), ("1y", "1 y"))
LATEST_MS = 2**53
LEAST_MS = 5 * 60_000
"""What a chart of a board that has only just joined shows at least."""


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when; ``name`` is empty for one that was cut out by hand and stands still.

    ``length_ms`` is how long it is to become: before a board joined there is nothing to show.
    """

    name: str
    from_ms: int
    to_ms: int
    length_ms: int

    @property
    def following(self) -> bool:
        """Whether it goes on as time does."""
        return bool(self.name)


def read_span(query: Mapping[str, str], joined_ms: int, now_ms: int) -> Span:
    """The span in the address; the last hour without one.  Raises Refused.

    >>> read_span({"range": "6h"}, 0, 30_000_000)
    Span(name='6h', from_ms=8400000, to_ms=30000000, length_ms=21600000)
    """
    if "from_ms" in query or "to_ms" in query:
        from_ms, to_ms = _time(query, "from_ms"), _time(query, "to_ms")
        if from_ms >= to_ms:
            raise Refused(f"from_ms: {from_ms} is not before to_ms, {to_ms}")
        return Span("", from_ms, to_ms, to_ms - from_ms)
    name = query.get("range", "1h")
    if name not in LENGTHS_MS:
        raise Refused(f"range: {name[:16]!r} is not one of {', '.join(LENGTHS_MS)}")
    return Span(name, begin_ms(LENGTHS_MS[name], joined_ms, now_ms), now_ms, LENGTHS_MS[name])


def begin_ms(length_ms: int, joined_ms: int, now_ms: int) -> int:
    """Where something that shows the last ``length_ms`` of a board begins."""
    return min(max(now_ms - length_ms, joined_ms), now_ms - LEAST_MS)


def _time(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > LATEST_MS:
        raise Refused(f"{name}: {text[:32]!r} is not a time in milliseconds")
    return int(text)
