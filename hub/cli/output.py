"""How results look: tables for people, JSON for programs, words for ages and values.

Owns every byte that `lichen` prints on success; called by the commands.  With ``--json`` the
API's own answer goes out unchanged, one document on standard output.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

NO_VALUE = "–"


def console() -> Console:
    """Standard output; plain and unwrapped when it is not a terminal."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, no_color=True, width=200)


def print_json(value: Any) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """A table with one header line and nothing that has to be cut away again."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console().print(table)


def age(then_ms: int | None, now_ms: int) -> str:
    """How long ago, in the two largest units.

    >>> age(0, 11_520_000), age(0, 42_000), age(None, 0)
    ('3 h 12 min', '42 s', 'never')
    """
    if then_ms is None:
        return "never"
    left = max(0, now_ms - then_ms) // 1000
    words: list[str] = []
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, seconds)
        if amount or words:
            words.append(f"{amount} {unit}")
    return " ".join(word for word in words[:2] if not word.startswith("0 ")) or "0 s"


def value(number: float | None, unit: str) -> str:
    """A value with its unit, bytes in powers of 1000.

    >>> value(61.5, "Cel"), value(1_234_000_000, "By"), value(41.234, "%"), value(None, "%")
    ('61.5 °C', '1.23 GB', '41.2 %', '–')
    """
    if number is None:
        return NO_VALUE
    if unit in ("By", "By/s"):
        return _scaled(number, unit.replace("By", "B"))
    shown = {"Cel": "°C", "1": ""}.get(unit, unit)
    return f"{number:.3g} {shown}".rstrip() if abs(number) < 1000 else f"{number:,.0f} {shown}".rstrip()


def _scaled(number: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G"):
        if abs(number) < 1000:
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return f"{number:.3g} T{unit}"


def when(at_ms: int) -> str:
    """A local time to the second."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().isoformat(sep=" ", timespec="seconds")


def labels(pairs: Mapping[str, str]) -> str:
    """Labels as they are typed."""
    return " ".join(f"{key}={text}" if text else key for key, text in sorted(pairs.items()))
