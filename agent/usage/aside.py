"""Entries that lie aside: taken out of a log where others belong, and to be appended to it again.

That happens to a card that was set back to an old copy: what it wrote before it heard from its hub stands
where the hub has other entries of this board.  Those come back first (`agent.usage.volume`), and what lies
aside then follows under new numbers.  The file is on the disk before the log is cut, and goes when all of it
is in the log again; killed in between, an entry is recognised by its salt and is never there twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.base.files import exists
from agent.usage.frames import ENTRY, HEADER, SEAL, Disk, Frames, frame, has_seal, pack
from agent.usage.segments import Header
from agent.wire.decode import dumps
from agent.wire.errors import Corrupt
from agent.wire.usage import head

NAME = "aside"
CHUNK_BYTES = 65_536


class Aside:
    """The file of one log."""

    def __init__(self, directory: Path, origin: str, disk: Disk) -> None:
        self.path = directory / NAME
        self._origin = origin
        self._disk = disk

    def exists(self) -> bool:
        """Whether anything lies there."""
        return exists(self.path)

    def add(self, entries: Iterable[bytes]) -> None:
        """Put entries behind those that lie there.  They are on the disk when this returns.

        Raises OSError, Refused.
        """
        if not self.exists():
            self._disk.put(self.path, frame(HEADER, dumps(Header(1, self._origin, 0, ()))))
        frames = Frames(self.path)
        for _ in frames:
            pass  # what a power cut left behind the last whole one is overwritten
        file, at = self._disk.open(self.path), frames.at
        try:
            self._disk.cut(file, at)
            for chunk in _chunks(entries):
                self._disk.write(file, chunk, at)
                at += len(chunk)
            self._disk.sync(file)
            # From now on the log may be cut, and what stands before this frame must be sound.
            self._disk.write(file, frame(SEAL, b""), at)
            self._disk.sync(file)
        finally:
            os.close(file)

    def entries(self) -> Iterator[bytes]:
        """What lies there, in order.  Raises Corrupt."""
        if not self.exists():
            return
        frames = Frames(self.path)
        begin = next(each := iter(frames), None)
        if begin is None or begin.kind != HEADER:
            raise Corrupt(f"{self.path} is damaged at byte 0: it does not begin with a header")
        yield from (frame.payload for frame in each if frame.kind == ENTRY)
        if frames.broken and has_seal(self.path, frames.at):
            raise Corrupt(f"{self.path} is damaged at byte {frames.at}: {frames.broken}")

    def remove(self) -> None:
        """All of it is in the log again.  Raises OSError."""
        self._disk.remove(self.path)


def _chunks(entries: Iterable[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    for _, data in pack(entries):
        chunk += data
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def renumbered(entry: bytes, seq: int) -> bytes:
    """The entry under another number; what it says else stays, also what this version does not know."""
    old = b'"seq":%d,' % head(entry).seq
    return entry.replace(old, b'"seq":%d,' % seq, 1)


def salt_of(entry: bytes) -> bytes:
    """What tells one record from every other, whatever its number.  Raises Refused."""
    head(entry)
    at = entry.index(b'"salt":"') + 8
    return entry[at : at + 32]
