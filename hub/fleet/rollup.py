"""The fold: readings in, what they add to the 15-minute roll-ups out.  Pure.

Ingest folds every batch it has committed, and every few seconds adds what has come together
to the store; many readings then cost one row.  A `Fold` is emptied by that, and made again
from the stored batches after a crash.

>>> from agent.wire.messages import Reading, block_of
>>> readings = [Reading("room", value, 0, BUCKET_MS * 3 + at) for at, value in enumerate([21.0, None, 23.0])]
>>> fold = Fold()
>>> fold.add("b" * 16, [block_of(readings, boot="0" * 32, stream="s" * 16, seq0=1, clock="synced")])
>>> [part] = fold.parts()
>>> part.bucket_ms, part.low, part.high, part.total, part.readings
(2700000, 21, 23, 44, 2)
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, islice

from agent.wire.messages import Block
from hub.store.ranges import BUCKET_MS
from hub.store.rollups import Part

Cell = tuple[float, float, float, int]
"""(min, max, sum, count) of one bucket: a plain tuple, which the garbage collector passes over."""


class Fold:
    """What readings add to roll-ups since it was last emptied."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str, int], Cell] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def add(self, board: str, blocks: Sequence[Block], skip: int = 0) -> None:
        """Count the readings of a batch but its first ``skip``; those without a value do not count."""
        for block in blocks:
            for (index, bucket), cell in _cells(block, skip).items():
                key = (board, block.sensors[index], bucket * BUCKET_MS)
                known = self._cells.get(key)
                self._cells[key] = cell if known is None else _merged(known, cell)
            skip = max(skip - len(block.sensor), 0)

    def parts(self) -> list[Part]:
        """What to add to the store, one part for each sensor and bucket."""
        return [Part(board, sensor, at_ms, *cell) for (board, sensor, at_ms), cell in self._cells.items()]


def _cells(block: Block, skip: int) -> dict[tuple[int, int], Cell]:
    """Cells by (index of the sensor, number of the bucket)."""
    # The hub's hottest loop, so it only sorts; min, max and sum run over the lists in C.
    values: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    rows = zip(block.sensor, accumulate(block.wall_ms), block.value, strict=True)
    for index, at_ms, value in islice(rows, skip, None):
        if value is not None:
            values[index, at_ms // BUCKET_MS].append(value)
    return {key: (min(some), max(some), _finite(sum(some)), len(some)) for key, some in values.items()}


def _merged(one: Cell, other: Cell) -> Cell:
    total = _finite(one[2] + other[2])
    return min(one[0], other[0]), max(one[1], other[1]), total, one[3] + other[3]


def _finite(total: float) -> float:
    # Enormous values can add up to infinity, and that minus infinity is no number: the database
    # would refuse it, in every commit from then on.
    return min(max(total, -sys.float_info.max), sys.float_info.max)
