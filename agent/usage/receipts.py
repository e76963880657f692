"""What the hub has said that it holds: the newest receipt of a log, and one beside each closed segment.

A receipt is a checkpoint of ours with the hub's cosignature, as a note.  ``receipt`` is the newest.  One
comes after each batch, so it is written over the one before, without waiting for the disk, which wears the
card a third as much as a new file; one that a power cut took comes again with the next session.  The first
one that covers a closed segment is kept for ever as ``<first>.receipt``.  Its time is the hub's, so how long
the hub has had a segment can be told on a board whose own clock was wrong all the while.

Used by `agent.usage.volume`; it removes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from agent.usage.frames import Disk, reading
from agent.usage.seals import Sealer
from agent.usage.segments import Segment
from agent.wire.cosignature import CosignatureVerifier, open_cosigned
from agent.wire.errors import Corrupt, Refused
from agent.wire.note import split_note
from agent.wire.tlog import Checkpoint

log = logging.getLogger(__name__)

NAME = "receipt"
STAMPED = 72
"""Bytes of a cosignature: eight of its time, and 64."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """At ``at_ms`` the hub held all entries up to ``size`` - 1, whose root this is."""

    size: int
    root: bytes
    at_ms: int
    note: str


class Receipts:
    """The receipts of one log, in its folder."""

    def __init__(self, directory: Path, sealer: Sealer, disk: Disk) -> None:
        self._directory = directory
        self._sealer = sealer
        self._disk = disk
        self.newest = self._read(directory / NAME)

    def opened(self, note: str, hub_key: CosignatureVerifier) -> Receipt:
        """The receipt in a note.  Raises Corrupt unless this board and that hub signed it, Refused."""
        checkpoint = self._sealer.open_checkpoint(note)
        _, at_s = open_cosigned(note, hub_key)
        return Receipt(checkpoint.size, checkpoint.root, at_s * 1000, note)

    def keep(self, receipt: Receipt) -> None:
        """Make it the newest.  Raises OSError."""
        data, file = receipt.note.encode(), self._disk.open(self._directory / NAME)
        try:
            self._disk.write(file, data, 0)
            self._disk.cut(file, len(data))
        finally:
            os.close(file)
        self.newest = receipt

    def cover(self, segment: Segment) -> None:
        """Keep the newest for a segment that it covers, if it is the first.  Raises Refused."""
        if self.newest is None or self.newest.size < segment.end:
            return
        if received_at_ms(segment.path, segment.end) is None:
            self._disk.put(_beside(segment.path), self.newest.note.encode())

    def _read(self, path: Path) -> Receipt | None:
        with reading(path):
            data = path.read_bytes() if path.exists() else b""
        if not data:
            return None
        try:
            note = data.decode()
            checkpoint = self._sealer.open_checkpoint(note)
            return Receipt(checkpoint.size, checkpoint.root, _time_of(note, path), note)
        except (UnicodeDecodeError, Refused, Corrupt) as error:
            # Not a reason to stop: it may be what a power cut left, and the hub tells it again.
            log.warning(
                "receipt of the usage log is damaged", extra={"path": str(path), "reason": str(error)}
            )
            return None


def received_at_ms(segment: Path, end: int) -> int | None:
    """Since when, by its clock, the hub has had a segment up to entry ``end`` - 1; None if it may not."""
    path = _beside(segment)
    with reading(path):
        note = path.read_text("utf-8", "replace") if path.exists() else ""
    with contextlib.suppress(Refused, Corrupt):
        if Checkpoint.parse(split_note(note)[0]).size >= end:
            return _time_of(note, path)
    return None


def _beside(segment: Path) -> Path:
    return segment.with_suffix(".receipt")


def _time_of(note: str, path: Path) -> int:
    """When the hub cosigned; it was verified when the note was kept, and the key may be another by now."""
    times = [int.from_bytes(raw[:8], "big") for _, _, raw in split_note(note)[1] if len(raw) == STAMPED]
    if not times:
        raise Corrupt(f"{path} holds no cosignature")
    return max(times) * 1000
