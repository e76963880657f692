"""Answers as CSV (RFC 4180): for spreadsheets, and for whoever has no JSON at hand.

Owns how a cell is written: times as RFC 3339 in UTC, what is not known empty, and text so that no
spreadsheet takes it for a formula, as boards choose some of it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiohttp import web

from agent.wire import words

MEDIA = "text/csv"
Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Table:
    """Named columns, and rows of cells that `time`, `text` and numbers make."""

    columns: tuple[str, ...]
    rows: Iterable[Sequence[Cell]]


def is_wanted(request: web.Request) -> bool:
    """Whether a request asks for CSV."""
    return MEDIA in request.headers.get("Accept", "")


def encode(table: Table) -> bytes:
    """The whole file."""
    return lines([table.columns, *table.rows])


def lines(rows: Iterable[Sequence[Cell]]) -> bytes:
    """Some lines of a file."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerows(rows)
    return written.getvalue().encode()


def time(at_ms: int | None) -> str:
    """A time as RFC 3339 in UTC; empty when there is none."""
    return "" if at_ms is None else words.exact(at_ms)


def text(said: str) -> str:
    """Text that somebody chose, so that it is no formula (OWASP, CSV injection).

    >>> text("=cmd|x"), text("roof")
    ("'=cmd|x", 'roof')
    """
    return "'" + said if said[:1] in ("=", "+", "-", "@", "\t", "\r") and said else said


def labels(pairs: dict[str, str]) -> str:
    """Labels in one cell."""
    return text(" ".join(words.labels(pairs)))
