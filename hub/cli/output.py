"""How results look: tables for people, JSON for programs, words for ages and values.

Owns every byte that `lichen` prints on success; called by the commands.  With ``--json`` the
API's own answer goes out unchanged, one document on standard output.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.wire import words


def console() -> Console:
    """Standard output; plain and unwrapped when it is not a terminal."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, no_color=True, width=200)


def print_json(value: Any, *, line: bool = False) -> None:
    """One JSON document; ``line``: in one line, at once, for those of whom more follow."""
    print(json_text(value, line=line), flush=line)


def json_text(value: Any, *, line: bool = False) -> str:
    r"""A document with its letters as they are, and escapes for all that a terminal might obey or not show.

    >>> print(json_text("21 °C \x1b[2J \x9b2J \u202e \u2028", line=True))
    "21 °C \u001b[2J \u009b2J \u202e \u2028"
    """
    text = json.dumps(value, indent=None if line else 2, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """A table with one header line and nothing that has to be cut away again."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # What boards say of themselves gives no orders to the terminal.
        table.add_row(*(cell if isinstance(cell, Text) else Text(words.plain(cell)) for cell in row))
    console().print(table)


def print_difference(lines: Iterable[str], *, indent: str = "") -> None:
    """What is new, in lines that begin with + and -."""
    for line in lines:
        style = {"+": "green", "-": "red"}.get(line[:1], "")
        console().print(Text(words.plain(f"{indent}{line}"), style=style), soft_wrap=True)


def age(then_ms: int | None, now_ms: int) -> str:
    """How long ago.

    >>> age(0, 11_520_000), age(0, 42_000), age(None, 0)
    ('3 h 12 min', '42 s', 'never')
    """
    return "never" if then_ms is None else words.plain(words.duration(now_ms - then_ms))


def value(number: float | None, unit: str) -> str:
    """A value with its unit.

    >>> value(61.5, "Cel"), value(1_234_000_000, "By"), value(None, "%")
    ('61.5 °C', '1.23 GB', '–')
    """
    return words.plain(words.value(number, unit))


def when(at_ms: int) -> str:
    """A local time to the second.

    >>> when(2**53)[:4]
    '9999'
    """
    return (
        # By way of UTC: Python 3.13 cannot tell the zone of a local time on its last days.
        datetime.fromtimestamp(words.believable(at_ms) / 1000, UTC)
        .astimezone()
        .isoformat(sep=" ", timespec="seconds")
    )


def labels(pairs: Mapping[str, str]) -> str:
    """Labels as they are typed."""
    return " ".join(words.labels(pairs))
