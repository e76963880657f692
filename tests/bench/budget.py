"""Measured values beside their budgets: the table, bench.json and the verdict.  Pure but for the file."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.  Without a budget it only informs.

    >>> Row("agent: RSS", 30.0, "MB", budget=33, aim=28).verdict
    'ok'
    >>> Row("backlog drained", 1500.0, "readings/s", budget=2000, aim=10000, better="more").verdict
    'MISSED'
    """

    what: str
    value: float
    unit: str
    budget: float | None = None
    aim: float | None = None
    better: Literal["less", "more"] = "less"
    note: str = ""

    @property
    def verdict(self) -> Literal["", "aim", "ok", "MISSED"]:
        """Whether the value keeps its budget, and even reaches its aim."""
        if self.budget is None:
            return ""
        if not self._within(self.budget):
            return "MISSED"
        return "aim" if self.aim is not None and self._within(self.aim) else "ok"

    @property
    def distance(self) -> str:
        """How far the aim is, in parts of it: "7 % over" or "25 % short"; "reached" when it is not far.

        >>> Row("agent: RSS", 30.0, "MB", budget=33, aim=28).distance
        '7 % over'
        """
        if self.aim is None or math.isnan(self.value):
            return ""
        if self._within(self.aim):
            return "reached"
        percent = f"{abs(self.value - self.aim) / self.aim * 100:.0f} %"
        return f"{percent} {'over' if self.better == 'less' else 'short'}"

    def _within(self, limit: float) -> bool:
        # A value that could not be measured (NaN) is within nothing.
        return self.value <= limit if self.better == "less" else self.value >= limit


def table(rows: Sequence[Row]) -> str:
    """The rows as text, with their notes below."""
    cells = [HEAD, *map(_cells, rows)]
    widths = [max(len(cell[column]) for cell in cells) for column in range(len(HEAD))]
    lines = []
    for number, cell in enumerate(cells):
        left = cell[0].ljust(widths[0])
        right = [text.rjust(width) for text, width in zip(cell[1:5], widths[1:5], strict=True)]
        lines.append("  ".join([left, *right, cell[5]]).rstrip())
        if number == 0:
            lines.append("-" * (sum(widths) + 10))
    return "\n".join([*lines, "", *_notes(rows)])


def page(rows: Sequence[Row]) -> str:
    """The rows as a page of Markdown, with the machine that they were measured on."""
    found = machine()
    table = [_markdown((*HEAD[:5], "")), "|---|--:|--:|--:|--:|---|", *map(_markdown, map(_cells, rows))]
    return PAGE.format(
        table="\n".join(table), notes="\n".join(_notes(rows)), date=f"{datetime.now(UTC):%Y-%m-%d}", **found
    )


PAGE = """\
# Figures

<!-- Written by `.venv/bin/python tests/bench --page docs/figures.md`. -->

What Lichen costs, measured by `make bench` with real processes. A row with a budget is a promise: `make bench` fails when it is missed. The aim is where we want to be.

Measured on {date} on {arch} with {cores} cores, Linux {kernel}, Python {python}. Expect two to four times the processor time on a Raspberry Pi.

{table}

## How each was measured

{notes}
"""  # noqa: E501  a paragraph is one line
HEAD = ("what", "measured", "budget", "aim", "from the aim", "")


def _cells(row: Row) -> tuple[str, ...]:
    value = f"{_number(row.value)} {row.unit}".strip()
    return row.what, value, _number(row.budget), _number(row.aim), row.distance, row.verdict


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _notes(rows: Sequence[Row]) -> list[str]:
    return [f"- {row.what}: {row.note}" for row in rows if row.note]


def write(parts: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Write bench.json: the machine, and every row of each part."""
    found = [{"part": part, **_plain(row)} for part, rows in parts.items() for row in rows]
    path.write_text(json.dumps({"machine": machine(), "rows": found}, indent=1) + "\n")


def _plain(row: Row) -> dict[str, Any]:
    value = None if math.isnan(row.value) else round(row.value, 3)
    return {**asdict(row), "value": value, "from_aim": row.distance, "verdict": row.verdict}


def read(path: Path) -> dict[str, list[Row]]:
    """The rows of a bench.json, by part; nothing where there is none."""
    parts: dict[str, list[Row]] = {}
    for found in json.loads(path.read_text())["rows"] if path.exists() else ():
        known = {each.name: found[each.name] for each in fields(Row)}
        row = Row(**{**known, "value": math.nan if known["value"] is None else known["value"]})
        parts.setdefault(found["part"], []).append(row)
    return parts


def machine() -> dict[str, Any]:
    """What the values were measured on."""
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if math.isnan(value):
        return "none"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
