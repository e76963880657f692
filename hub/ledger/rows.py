"""Lines of a log as rows of the store: when they were.  Pure.

`hub.ledger.pages` makes the rows of each package with it.  The time of a row is for lists and charts; what
is billed goes by `hub.ledger.times`, which looks at the whole log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agent.wire.usage import Other
from hub.ledger.lines import Line


@dataclass(slots=True)
class Clockwork:
    """What is known of time in one log, up to an entry of it.

    ``last_ms``: when the record before was; ``offsets``: what to add to the monotonic clock of each boot in
    question, None as long as no record of it had a clock that was right; ``learned``: those of the boots that
    it was None for, and that say so now: rows of them that are stored have to be set right.
    """

    last_ms: int
    offsets: dict[str, int | None]
    learned: dict[str, int] = field(default_factory=dict)

    def time(self, line: Line) -> tuple[int, int]:
        """When a record ended, and 1 if that is certain."""
        if line.clock != "unsynced":
            offset_ms = line.wall1_ms - line.mono1_ms
            if self.offsets.get(line.boot) is None:
                self.learned[line.boot] = offset_ms
            self.offsets[line.boot] = offset_ms
        known_ms = self.offsets.get(line.boot)
        if known_ms is None:
            return self.last_ms, 0
        self.last_ms = line.mono1_ms + known_ms
        return self.last_ms, 1


def boots_in(lines: Iterable[Line | Other]) -> set[str]:
    """The boots that lines speak of."""
    return {line.boot for line in lines if isinstance(line, Line)}


def rows_of(log: int, lines: Iterable[Line | Other], clockwork: Clockwork) -> list[tuple[Any, ...]]:
    """The values of a `RecordRow` for each line; those of a later version have none, and stay as entries.

    A record that comes before the one by which its boot knows the time gets its own with the stored ones.
    """
    return [
        (log, *line[:8], *clockwork.time(line), *line.columns) for line in lines if isinstance(line, Line)
    ]
