"""Corrections: readings that were stored before the clock of their boot was known get their times.

Owns the batches that wait for that: their span, their part in the roll-ups, and the times of the
gaps in front of them.  Ingest tells which boots have come to be known, and `hub.app` runs it beside.

It is safe to stop at any moment and to do again: a slice of batches is placed, counted and marked in
one transaction.  And none is counted by ingest's fold as well: that makes again, after a crash,
what is behind the id which the database holds as folded; here only batches up to that id count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice

from agent.wire.errors import Busy, Refused
from agent.wire.messages import Block
from hub.fleet.rollup import Fold
from hub.store import batches, boots, gaps
from hub.store.batches import NewBatch
from hub.store.boots import BootKey
from hub.store.clocks import gap_span, span_of
from hub.store.database import Store, Tx
from hub.store.facts import read_fact
from hub.store.gaps import GapRow
from hub.store.rollups import add_parts

SLICE = 16
"""Batches in one transaction: some ten milliseconds, for ingest waits as long."""

log = logging.getLogger(__name__)


class Corrections:
    """Corrects what waits.  Belongs to one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._due: set[BootKey] = set()
        self._bell = asyncio.Event()

    def tell(self, learned: Collection[BootKey], *, folded: bool) -> None:
        """The clocks of these boots are known now; ``folded``: the roll-ups have been written."""
        self._due.update(learned)
        if folded and self._due:
            self._bell.set()

    async def run(self) -> None:
        """Correct what is due, whenever the roll-ups have been written, until cancelled."""
        async with self._store.read() as tx:
            self._due |= await boots.uncorrected(tx)
        while True:
            try:
                await self.settle()
            except (Refused, Busy) as error:
                log.warning("cannot correct times", extra={"error": str(error), "boots": len(self._due)})
            await self._bell.wait()
            self._bell.clear()

    async def settle(self) -> int:
        """Correct what is due as far as its roll-ups may be written; returns how many batches.

        Raises Refused or Busy when the database takes nothing now; what is due stays so.
        """
        done = 0
        for key in sorted(self._due):
            corrected = await self._settle(key)
            async with self._store.read() as tx:
                if not await batches.any_pending(tx, key):
                    self._due.discard(key)
            if corrected:
                done += corrected
                board, boot = key
                log.info("corrected times", extra={"board": board, "boot": boot, "batches": corrected})
        return done

    async def _settle(self, key: BootKey) -> int:
        done = 0
        while True:
            async with self._store.read() as tx:
                folded = await read_fact(tx, "fold")
                rows = await batches.pending_batches(tx, key, folded, SLICE)
            if not rows:
                return done
            part = _Part()
            for id, row, offset_ms in rows:
                assert offset_ms is not None, "an offset that is stored stays"
                part.add(id, row, offset_ms)
                await asyncio.sleep(0)  # unpacking is work for a processor, and others have some as well
            async with self._store.write() as tx:
                if await batches.still_pending(tx, part.spans) < len(part.spans):
                    continue  # retention was here meanwhile
                await part.write(tx)
            done += len(rows)


class _Part:
    """Some batches of one boot, and what becomes of them."""

    def __init__(self) -> None:
        self.spans: dict[int, tuple[int, int]] = {}
        self._fold = Fold()
        # By stream and seq: of the first reading that counts its time, and that of the boot; of the
        # seq behind the last, when that was as it was stored, and when it was.
        self._begins: dict[tuple[str, int], tuple[int, int]] = {}
        self._ends: dict[tuple[str, int], tuple[int, int]] = {}
        self._board = ""

    def add(self, id: int, row: NewBatch, offset_ms: int) -> None:
        found = row.blocks(offset_ms)
        blocks = [each.block for each in found]
        self.spans[id] = span_of(found)
        self._fold.add(row.board, blocks, row.skip)
        self._begins[row.stream, row.seq0 + row.skip] = (_time_of(blocks, row.skip), offset_ms)
        self._ends[row.stream, row.seq0 + row.count] = (row.to_ms, self.spans[id][1])
        self._board = row.board

    async def write(self, tx: Tx) -> None:
        await batches.place_batches(tx, self.spans)
        await add_parts(tx, self._fold.parts())
        streams = {stream for stream, _ in (*self._begins, *self._ends)}
        before = await gaps.gaps_of(tx, self._board, streams)
        after = [self._placed(gap) for gap in before]
        await gaps.place_gaps(tx, [gap for gap, old in zip(after, before, strict=True) if gap != old])

    def _placed(self, gap: GapRow) -> GapRow:
        from_ms, to_ms = gap.from_ms, gap.to_ms
        stored_ms, end_ms = self._ends.get((gap.stream, gap.seq0), (None, None))
        if from_ms is not None and from_ms == stored_ms:  # of what is lost only the time before it is known
            from_ms = end_ms
        if (gap.stream, gap.next) in self._begins:
            next_ms, boot_ms = self._begins[gap.stream, gap.next]
            from_ms, to_ms = gap_span(from_ms, to_ms, boot_ms=boot_ms, next_ms=next_ms)
        return replace(gap, from_ms=from_ms, to_ms=to_ms)


def _time_of(blocks: Sequence[Block], row: int) -> int:
    """The wall time of a reading, counted from the first."""
    for block in blocks:
        if row < len(block.sensor):
            return sum(islice(block.wall_ms, row + 1))
        row -= len(block.sensor)
    raise IndexError(row)
