"""Packages of the usage log, as they are sent: entries, or what stands for those that are gone.

`agent.usage.sync` asks for the next one.  What the hub has lost after this board had pruned it goes as leaf
hashes, so that the tree stays what it was, and a record says that nobody holds those entries any more.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

from agent.clock import Clock
from agent.usage.ledger import Ledger
from agent.wire.errors import Refused
from agent.wire.package import MAX_ENTRIES, Package, fitting
from agent.wire.usage import HoleRecord, head, read

log = logging.getLogger(__name__)


class Parcels:
    """The packages of one ledger."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    def question(self, checkpoint: str = "", proof: Sequence[bytes] = ()) -> Package:
        """What does the hub hold?  With a checkpoint to show."""
        ledger = self._ledger
        return Package(ledger.origin, _draw(), ledger.size, checkpoint=checkpoint, proof=tuple(proof))

    async def next(self, start: int) -> Package:
        """As many entries from ``start`` on as fit, with the checkpoint of exactly the last one.

        Raises Refused (code "hub-unknown", or "disk-full" where a hole has to be declared), Corrupt.
        """
        ledger, lost = self._ledger, 0
        entries: list[bytes] = []
        try:
            entries = await ledger.entries(start, MAX_ENTRIES)
        except Refused as error:
            if error.code != "not-held":
                raise
            lost = await self._lost(start)
            await self._declare(start, lost)
        entries = entries[: fitting(entries)]
        end = start + lost + len(entries)
        hashes = await ledger.leaf_hashes(start, lost)
        note = await ledger.checkpoint(end)
        return Package(ledger.origin, _draw(), start, tuple(entries), (), note, tuple(hashes))

    async def _lost(self, start: int) -> int:
        """How many entries from ``start`` on are not held, up to as many as go into a package."""
        ledger = self._ledger
        if start < ledger.held_from:
            return min(ledger.held_from - start, MAX_ENTRIES)
        count = 1
        while count < MAX_ENTRIES and start + count < ledger.size and not await self._is_held(start + count):
            count += 1
        return count

    async def _is_held(self, index: int) -> bool:
        try:
            return bool(await self._ledger.entries(index, 1))
        except Refused:
            return False

    async def _declare(self, first: int, count: int) -> None:
        """Write that nobody holds these entries any more, unless that is written already."""
        ledger = self._ledger
        end = max(ledger.held_from, first + count)
        if await self._is_declared(first, end):
            return
        mono_ms, wall_ms = self._clock.mono_ms(), self._clock.wall_ms()
        hole = HoleRecord(
            boot=self._clock.boot,
            mono0_ms=mono_ms,
            mono1_ms=mono_ms,
            wall0_ms=wall_ms,
            wall1_ms=wall_ms,
            clock=self._clock.state(),
            first=first,
            count=end - first,
            reason="the hub has lost them, and this board had removed them when the hub had them",
        )
        await ledger.append([hole])
        log.warning("usage records are lost", extra={"first": first, "records": end - first})

    async def _is_declared(self, first: int, end: int) -> bool:
        at = self._ledger.held_from
        while at < self._ledger.size:
            if not await self._is_held(at):
                at += 1
                continue
            entries = await self._ledger.entries(at, MAX_ENTRIES)
            if any(_declares(entry, first, end) for entry in entries):
                return True
            at += len(entries)
        return False


def _declares(entry: bytes, first: int, end: int) -> bool:
    """Whether an entry says that all of these are lost."""
    if head(entry).type != "hole":
        return False
    record = read(entry)
    return isinstance(record, HoleRecord) and record.first <= first and end <= record.first + record.count


def _draw() -> str:
    return secrets.token_hex(8)
