"""The hashes of a log's tree in one file, in the order in which the tree completes them.

32 bytes each, at ``stored_index(level, index)`` (`agent.wire.tlog`).  They outlive the entries that they are
of: proofs and tiles are made from them after the entries are pruned.  What the open segment is answerable
for is written without waiting for the disk, since it can be computed again from entries, and is at the next
start; the rest is synced when a segment is closed.  Used by `agent.usage.volume` and those who look.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.usage.frames import Disk, reading
from agent.wire.errors import Corrupt
from agent.wire.tlog import HASH, Frontier, stored_count, stored_index

NAME = "hashes"
REMOVE = "keep a copy for study; where no segment was pruned yet, remove it: it is made anew from the entries"


class Hashes:
    """The file, open; `close` it."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        self._file = disk.open(path)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def read(self, level: int, index: int) -> bytes:
        """A `agent.wire.tlog.Read`.  Raises Corrupt where nothing is stored."""
        return self.stretch(stored_index(level, index), 1)

    def stretch(self, at: int, count: int) -> bytes:
        """``count`` hashes from the one with number ``at`` on.  Raises Corrupt when the file ends before."""
        found = self._held(at, count)
        if len(found) < count * HASH:
            raise Corrupt(f"{self.path} ends before hash {at + len(found) // HASH}", hint=REMOVE)
        return found

    def _held(self, at: int, count: int) -> bytes:
        with reading(self.path):
            return os.pread(self._file, count * HASH, at * HASH)

    def leaves(self, start: int, count: int) -> list[bytes]:
        """The leaf hashes of ``count`` entries from ``start`` on."""
        first = stored_count(start)
        found = self.stretch(first, stored_index(0, start + count - 1) + 1 - first) if count else b""
        places = ((stored_index(0, index) - first) * HASH for index in range(start, start + count))
        return [found[place : place + HASH] for place in places]

    def frontier(self, size: int) -> Frontier:
        """The tree of the first ``size`` entries."""
        roots, low = [], 0
        for level in range(size.bit_length() - 1, -1, -1):
            if size >> level & 1:
                roots.append(self.read(level, low >> level))
                low += 1 << level
        return Frontier.of(size, roots)

    def check(self, size: int, hashes: bytes, is_durable: bool) -> None:
        """Hold ``hashes``, computed from the entries from ``size`` on, against the file; write what it lacks.

        Where it must have them (``is_durable``) and has others it is Corrupt.  Raises OSError.
        """
        at = stored_count(size) * HASH
        found = self._held(stored_count(size), len(hashes) // HASH)
        if found == hashes:
            return
        if is_durable and not hashes.startswith(found):
            wrong = at + next(place for place, byte in enumerate(found) if byte != hashes[place])
            raise Corrupt(
                f"{self.path} is damaged at byte {wrong}: hash {wrong // HASH} is not that of the entries",
                hint=REMOVE,
            )
        self.write(size, hashes)

    def write(self, size: int, hashes: bytes) -> None:
        """Write what the entries from ``size`` on complete.  Raises OSError."""
        self._disk.write(self._file, hashes, stored_count(size) * HASH)

    def sync(self) -> None:
        """Wait until all is on the disk.  Raises OSError."""
        self._disk.sync(self._file)
