"""Periods of statements: a calendar month or a day, in UTC.

Owns their text and their borders.  Pure; used by `hub.ledger.billing` and whatever takes a period from a
person.

>>> november = Period.parse("2026-11")
>>> november.start_ms, november.end_ms
(1793491200000, 1796083200000)
>>> Period.parse("2026-11-30").end_ms == november.end_ms
True

A moment belongs to the period in which, or with which, it ends: what lasted until midnight is of the day
that ended then.  So a record, which has a beginning and an end, is in exactly one period, and borders of
rate cards are read in the same way.

>>> november.end_ms in november, november.start_ms in november
(True, False)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from agent.wire.errors import Refused

DAY_MS = 86_400_000
_TEXT = re.compile(r"(\d{4})-(\d{2})(?:-(\d{2}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Period:
    """``text`` is "2026-11" or "2026-11-30"; times in milliseconds since the Unix epoch."""

    text: str
    start_ms: int
    end_ms: int

    @classmethod
    def parse(cls, text: str) -> Period:
        """Raises Refused for what is no month and no day."""
        try:
            match = _TEXT.fullmatch(text)
            if match is None:
                raise ValueError(text)
            year, month, day = int(match[1]), int(match[2]), match[3]
            first = date(year, month, int(day or 1))
            after = date(year + month // 12, month % 12 + 1, 1)
        except ValueError:
            raise Refused(
                f"{text[:40]!r} is no period",
                hint="a month is written 2026-11, a day 2026-11-30; both are meant in UTC",
            ) from None
        start_ms = midnight_ms(first)
        return cls(text, start_ms, start_ms + DAY_MS if day else midnight_ms(after))

    def __contains__(self, at_ms: int) -> bool:
        return self.start_ms < at_ms <= self.end_ms


def midnight_ms(day: date) -> int:
    """When a day begins in UTC.

    >>> midnight_ms(date(1970, 1, 2))
    86400000
    """
    return (day - date(1970, 1, 1)).days * DAY_MS


def month_of(at_ms: int) -> str:
    """The month that a moment belongs to.

    >>> month_of(1796083200000), month_of(1796083200001)
    ('2026-11', '2026-12')
    """
    day = date.fromordinal(date(1970, 1, 1).toordinal() + (at_ms - 1) // DAY_MS)
    return f"{day.year:04}-{day.month:02}"
