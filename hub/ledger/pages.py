"""One log as it is while a transaction lasts: what is held of it by then, and what is to be written of it.

`hub.ledger.hearing` opens a page for each log that packages come for, takes them in one after the other, and
writes the page at the end, so that many packages of one board cost little more than one.  What was not
written is as if never taken in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.wire.tlog import HASH, Frontier
from agent.wire.usage import Other
from hub.ledger.lines import Line
from hub.ledger.rows import Clockwork, boots_in, rows_of
from hub.ledger.trees import Growth, open_tiles
from hub.store import ledgers
from hub.store.database import Tx
from hub.store.ledgers import CheckpointRow, LogRow


@dataclass(slots=True)
class Page:
    """A log in a transaction.  Made by `Page.open`."""

    tx: Tx
    log: LogRow
    growth: Growth
    _clockwork: Clockwork | None = None
    _rows: list[tuple[Any, ...]] = field(default_factory=list)
    _checkpoints: list[CheckpointRow] = field(default_factory=list)

    @classmethod
    async def open(cls, tx: Tx, log: LogRow) -> Page:
        """The page of a log as it is stored.  Raises Corrupt when its tiles are not what it says."""
        hashes = [log.frontier[at : at + HASH] for at in range(0, len(log.frontier), HASH)]
        begun = await ledgers.find_tiles(tx, log.id, open_tiles(log.size))
        return cls(tx, log, Growth(Frontier.of(log.size, hashes), begun))

    async def add(
        self, log: LogRow, growth: Growth, lost: int, entries: Sequence[bytes], lines: Sequence[Line | Other]
    ) -> None:
        """Take in ``lost`` entries of which only the hashes are known, and then ``entries``.

        ``log`` and ``growth`` are what they make of it, at the time ``log.stored_ms``.
        """
        before, at_ms = self.log, log.stored_ms
        if lost:
            await ledgers.add_package(self.tx, log.id, before.size, None, lost, at_ms)
        if entries:
            await ledgers.add_package(self.tx, log.id, before.size + lost, entries, len(entries), at_ms)
        self._rows += rows_of(log.id, lines, await self._time(lines, at_ms))
        self.log, self.growth = log, growth

    def sign(self, checkpoint: str) -> None:
        """What is held now is exactly what this note covers."""
        self._checkpoints.append(CheckpointRow(self.log.id, self.log.size, checkpoint, None))

    async def write(self) -> None:
        """Store what the transaction made of the log."""
        await ledgers.add_records(self.tx, self._rows)
        self._rows = []
        if self._clockwork is not None:
            for boot, offset_ms in self._clockwork.learned.items():
                await ledgers.set_times(self.tx, self.log.id, boot, offset_ms)
            self._clockwork.learned.clear()
        await ledgers.save_tiles(self.tx, self.log.id, self.growth.take_grown())
        await ledgers.add_checkpoints(self.tx, self._checkpoints)
        self._checkpoints = []
        await ledgers.save_log(self.tx, self.log)

    async def _time(self, lines: Sequence[Line | Other], at_ms: int) -> Clockwork:
        if self._clockwork is None:
            last_ms = await ledgers.last_time_ms(self.tx, self.log.id) or at_ms
            self._clockwork = Clockwork(last_ms, {})
        for boot in sorted(boots_in(lines) - self._clockwork.offsets.keys()):
            offset_ms = await ledgers.known_offset_ms(self.tx, self.log.id, boot)
            self._clockwork.offsets[boot] = offset_ms
        return self._clockwork
