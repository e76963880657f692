"""The hub's books as pages and the API see them: made for each request, as they keep nothing in memory."""

from __future__ import annotations

from hub.ledger.books import Books
from hub.ledger.period import Period, month_of
from hub.web.parts import Parts


def books_of(parts: Parts) -> Books:
    """The books of this hub."""
    return Books(parts.store, parts.id, parts.name, parts.now_ms)


def period_of(parts: Parts, text: str) -> Period:
    """The period that was asked for; the month that goes on when none was.  Raises Refused."""
    return Period.parse(text or month_of(parts.now_ms()))
