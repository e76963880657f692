"""Boots as ingest sees them: which are new, which came back, and when readings were made.

`BootNews` decides within one transaction, for `hub.fleet.commit`.  `KnownBoots` remembers the
offsets of boots between transactions, so that a board whose clock is right costs no query: an
offset that is stored never changes, so what is remembered is never wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.wire.errors import Refused
from agent.wire.messages import Batch, Block
from hub.fleet.arrivals import Arrival, PresenceCame, ReadingsCame
from hub.store import boots
from hub.store.boots import BootKey, BootRow
from hub.store.clocks import own_offset, span_of, timed
from hub.store.database import Tx

Span = tuple[int, int]
"""The smallest and the largest time."""
TOUCH_MS = 86_400_000
"""How old `heard_ms` of a boot may get before it is written again."""


class KnownBoots:
    """Of each board the boot that it spoke of last and whose offset is stored."""

    def __init__(self) -> None:
        self._offsets: dict[str, tuple[str, int]] = {}

    async def load(self, tx: Tx) -> None:
        """Remember what the store knows."""
        self._offsets = await boots.latest_offsets(tx)

    def offset_of(self, board: str, boot: str) -> int | None:
        """The offset of a boot; None when it is not remembered."""
        known = self._offsets.get(board)
        return known[1] if known is not None and known[0] == boot else None

    def learn(self, offsets: Mapping[BootKey, int]) -> None:
        """Remember offsets that are stored."""
        for (board, boot), offset_ms in offsets.items():
            self._offsets[board] = (boot, offset_ms)


@dataclass(slots=True)
class BootNews:
    """What one transaction hears of boots, and what is to be stored of it.

    ``offsets``: all that it came to know; ``learned``: those that nobody knew before; ``returned``:
    the boards of which an earlier boot is back, as two machines with one identity look.
    """

    known: KnownBoots
    offsets: dict[BootKey, int] = field(default_factory=dict)
    learned: set[BootKey] = field(default_factory=set)
    returned: set[str] = field(default_factory=set)
    _read: set[str] = field(default_factory=set)
    _rows: dict[BootKey, BootRow] = field(default_factory=dict)
    _changed: set[BootKey] = field(default_factory=set)

    async def look_up(self, tx: Tx, arrivals: Sequence[Arrival]) -> None:
        """Read the boots that boards speak of for which memory does not do, and which is their newest."""
        births = [each for each in arrivals if isinstance(each, PresenceCame) and _is_birth(each)]
        batches = [each for each in arrivals if isinstance(each, ReadingsCame) and each.batch.blocks]
        self._read = {each.board for each in births}
        self._read |= {each.board for each in batches if self._unsettled(each.board, each.batch.blocks)}
        if births:
            self._rows |= await boots.newest_boots(tx, {each.board for each in births})
        keys = {(each.board, each.presence.boot) for each in births}
        keys |= {(each.board, each.batch.blocks[0].boot) for each in batches if each.board in self._read}
        if keys:
            self._rows |= await boots.find_boots(tx, keys)

    async def write(self, tx: Tx) -> None:
        """Store what has changed."""
        await boots.save_boots(tx, [self._rows[key] for key in self._changed])

    def knows(self, board: str, boot: str) -> bool:
        """Whether a boot that a board speaks of was heard of before."""
        return board not in self._read or (board, boot) in self._rows

    def born(self, board: str, boot: str, at_ms: int) -> None:
        """A session of ``board`` has begun in ``boot``."""
        newest = max(
            (row for row in self._rows.values() if row.board == board and row.born_ms is not None),
            key=lambda row: row.born_ms or 0,
            default=None,
        )
        row = self._row(board, boot, at_ms)
        if newest is not None and newest.boot == boot:
            return
        if row.born_ms is not None:
            self.returned.add(board)
        # Later than the newest, though the hub's clock be set back: it is what counts as newest.
        born_ms = at_ms if newest is None else max(at_ms, (newest.born_ms or 0) + 1)
        self._change(replace(row, born_ms=born_ms))

    def time(self, board: str, batch: Batch, at_ms: int) -> tuple[Batch, bool, Span]:
        """A batch that came at ``at_ms`` with the right times, whether they are, and their span.

        Raises Refused for one with blocks of several boots: a stream is of one start of an agent.
        """
        blocks = batch.blocks
        boot = blocks[0].boot
        for block in blocks:
            if block.boot != boot:
                raise Refused(f"blocks: stream {block.stream} goes on in another boot")
        if board in self._read:
            offset_ms = self._offset(board, boot, blocks, at_ms)
        else:
            offset_ms = self.known.offset_of(board, boot)
        results = [timed(block, at_ms, offset_ms) for block in blocks]
        for result, block in zip(results, blocks, strict=True):
            if result.block is not block:
                batch = replace(batch, blocks=tuple([each.block for each in results]))
                break
        return batch, results[0].certain, span_of(results)

    def offset_of(self, board: str, boot: str) -> int:
        """The offset of a boot of which a batch has certain times."""
        found = self.offsets.get((board, boot))
        if found is None:
            found = self.known.offset_of(board, boot)
        assert found is not None, "times are certain only where the offset is known"
        return found

    # ---------------------------------------------------------------------------------------------

    def _unsettled(self, board: str, blocks: Sequence[Block]) -> bool:
        """Whether blocks need what is stored of their boot; those of a clock that is right do not."""
        if self.known.offset_of(board, blocks[0].boot) is None:
            return True
        for block in blocks:  # noqa: SIM110  each message comes by here, and any() takes three times as long
            if block.clock == "unsynced":
                return True
        return False

    def _offset(self, board: str, boot: str, blocks: Sequence[Block], at_ms: int) -> int | None:
        """The offset of a boot that memory does not have; learned from the blocks if need be."""
        row = self._row(board, boot, at_ms)
        if row.offset_ms is None:
            own = (own_offset(block, at_ms) for block in blocks)
            offset_ms = next((each for each in own if each is not None), None)
            if offset_ms is None:
                return None
            row = self._change(replace(row, offset_ms=offset_ms))
            self.learned.add((board, boot))
        assert row.offset_ms is not None
        self.offsets[board, boot] = row.offset_ms
        return row.offset_ms

    def _row(self, board: str, boot: str, at_ms: int) -> BootRow:
        row = self._rows.get((board, boot))
        if row is None:
            return self._change(BootRow(board, boot, born_ms=None, heard_ms=at_ms))
        if at_ms - row.heard_ms > TOUCH_MS:
            return self._change(replace(row, heard_ms=at_ms))
        return row

    def _change(self, row: BootRow) -> BootRow:
        key = row.board, row.boot
        self._rows[key] = row
        self._changed.add(key)
        return row


def _is_birth(came: PresenceCame) -> bool:
    return came.presence.state == "online"
