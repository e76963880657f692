"""Sets of leaf indexes as short text: which records of a log a line of a statement is made of.

Pure; used by `hub.ledger.billing`, which writes them, and by whoever looks a record up.  The records of one
app lie between those of others in even steps, so a range may have a step, as in a crontab:

>>> write([4, 5, 6, 9, 20, 23, 26, 29])
'4-6,9,20-29/3'
>>> read("4-6,9,20-29/3")
[4, 5, 6, 9, 20, 23, 26, 29]

There is one way to write each set; everything else is Refused.

>>> read("4,5,6")
Traceback (most recent call last):
agent.wire.errors.Refused: '4,5,6' is not how these leaf indexes are written
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from agent.wire.errors import Refused

MAX_LEAVES = 10_000_000
"""Most indexes that `read` accepts; a board that writes a record each second needs four months for them."""
_RANGE = re.compile(r"(0|[1-9]\d{0,15})(?:-([1-9]\d{0,15})(?:/([1-9]\d{0,15}))?)?", re.ASCII)


def write(indexes: Iterable[int]) -> str:
    """The text of a set of indexes, given in any order, none of them twice."""
    return ",".join(_runs(sorted(indexes)))


def _runs(ordered: list[int]) -> Iterator[str]:
    """Each run as long as it goes, from the left."""
    start = 0
    while start < len(ordered):
        end = start + 1
        step = ordered[end] - ordered[start] if end < len(ordered) else 1
        while end < len(ordered) and ordered[end] - ordered[end - 1] == step:
            end += 1
        first, last = ordered[start], ordered[end - 1]
        if step == 1 and last > first:
            yield f"{first}-{last}"
        elif end - start > 2:
            yield f"{first}-{last}/{step}"
        else:  # two that are apart say nothing of a step
            yield str(first)
            end = start + 1
        start = end


def read(text: str) -> list[int]:
    """The indexes of a text, ascending.  Raises Refused for what `write` would not have written."""
    found: list[int] = []
    for part in text.split(",") if text else ():
        match = _RANGE.fullmatch(part)
        if match is None:
            raise Refused(f"{part[:40]!r} is no range of leaf indexes")
        run = range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))
        if len(found) + len(run) > MAX_LEAVES:
            raise Refused(f"over {MAX_LEAVES} leaf indexes are refused", code="too-large")
        found += run
    if write(found) != text or len(set(found)) != len(found):
        raise Refused(f"{text[:64]!r} is not how these leaf indexes are written")
    return found
