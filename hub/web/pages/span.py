"""The time that charts show, as the address says it: ``range=6h``, or ``from_ms`` and ``to_ms``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.wire.errors import Refused

HOUR_MS = 3_600_000
LENGTHS_MS = {"1h": HOUR_MS, "6h": 6 * HOUR_MS, "1d": 24 * HOUR_MS, "1w": 168 * HOUR_MS}
RANGES = (("1h", "1 h"), ("6h", "6 h"), ("1d", "1 d"), ("1w", "1 w"))
LATEST_MS = 2**53


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when; ``name`` is empty for one that was cut out by hand and stands still."""

    name: str
    from_ms: int
    to_ms: int

    @property
    def following(self) -> bool:
        """Whether it goes on as time does."""
        return bool(self.name)


def read_span(query: Mapping[str, str], now_ms: int) -> Span:
    """The span in the address; the last hour without one.  Raises Refused.

    >>> read_span({"range": "6h"}, 30_000_000)
    Span(name='6h', from_ms=8400000, to_ms=30000000)
    """
    if "from_ms" in query or "to_ms" in query:
        from_ms, to_ms = _time(query, "from_ms"), _time(query, "to_ms")
        if from_ms >= to_ms:
            raise Refused(f"from_ms: {from_ms} is not before to_ms, {to_ms}")
        return Span("", from_ms, to_ms)
    name = query.get("range", "1h")
    if name not in LENGTHS_MS:
        raise Refused(f"range: {name[:16]!r} is not one of {', '.join(LENGTHS_MS)}")
    return Span(name, now_ms - LENGTHS_MS[name], now_ms)


def _time(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > LATEST_MS:
        raise Refused(f"{name}: {text[:32]!r} is not a time in milliseconds")
    return int(text)
