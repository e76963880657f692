"""Segments: the entries of a log in files of a bounded size, which can be removed one by one.

A segment is named by its first entry, ``<first>.seg``, and begins with a header that holds the frontier of
the tree before it: so the log can be checked, and goes on, when older segments are gone.  Where each 64th
entry begins is kept in memory, so that reading from anywhere costs little.

Read by whoever reads entries; made and written by `agent.usage.volume` alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from agent.usage.frames import ENTRY, HEADER, LOST, Disk, Frame, Frames, frame
from agent.wire.canonical import from_base64, to_base64
from agent.wire.decode import Length, decode_json, dumps
from agent.wire.errors import Corrupt, Refused
from agent.wire.messages import Count, Millis
from agent.wire.tlog import HASH, Frontier
from agent.wire.usage import Origin

SEGMENT_ENTRIES = 4096
SEGMENT_BYTES = 8_000_000
SEGMENT_DAYS = 7
MARK_EVERY = 64
DAY_MS = 86_400_000
MOVE = "move the folder away, and a new log begins at the next start; the hub keeps what it has of this one"
KEEP = f"keep a copy for study; {MOVE}"


@dataclass(frozen=True, slots=True)
class Header:
    """The first frame of a segment: of which log, from which entry on, the tree before it, and when made."""

    v: Literal[1]
    origin: Origin
    first: Count
    frontier: Annotated[tuple[str, ...], Length(0, 63)]
    made_ms: Millis = 0

    def tree(self) -> Frontier:
        """The tree of the entries before this segment.  Raises Refused."""
        return Frontier.of(self.first, [from_base64(each, "hash", HASH) for each in self.frontier])


def name_of(first: int) -> str:
    """The name of the file of the segment that begins with that entry."""
    return f"{first:016d}.seg"


@dataclass(slots=True)
class Segment:
    """One file: its entries from ``first`` on, and how many bytes of it count."""

    path: Path
    first: int
    made_ms: int
    length: int
    count: int = 0
    _marks: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def end(self) -> int:
        """The index behind its last entry."""
        return self.first + self.count

    @classmethod
    def make(cls, disk: Disk, directory: Path, origin: str, tree: Frontier, made_ms: int) -> Self:
        """A new one on the disk, for what comes behind ``tree``.  Raises Refused (code "disk-full")."""
        header = Header(1, origin, tree.size, tuple(map(to_base64, tree.hashes)), made_ms)
        data = frame(HEADER, dumps(header))
        path = directory / name_of(tree.size)
        disk.put(path, data)
        return cls(path, tree.size, made_ms, len(data))

    @classmethod
    def found(cls, path: Path, first: Frame | None) -> tuple[Self, Header]:
        """A file with its first frame; its entries are `noted` by the caller.  Raises Corrupt."""
        if first is None or first.kind != HEADER:
            raise Corrupt(f"{path} is damaged at byte 0: it does not begin with a header", hint=KEEP)
        try:
            header = decode_json(Header, first.payload, max_bytes=len(first.payload))
        except Refused as error:
            raise Corrupt(f"{path} has a header that cannot be understood: {error}", hint=KEEP) from error
        if path.name != name_of(header.first):
            raise Corrupt(f"{path} is of the entries from {header.first} on, and named otherwise", hint=KEEP)
        return cls(path, header.first, header.made_ms, first.end), header

    @classmethod
    def origin_of(cls, path: Path) -> str:
        """The log that a file says it is of.  Raises Corrupt."""
        return cls.found(path, next(iter(Frames(path)), None))[1].origin

    def noted(self, at: int, end: int) -> None:
        """One more entry, or the hash of a lost one, is in the file, from byte ``at`` up to ``end``."""
        if self.count % MARK_EVERY == 0:
            self._marks.append(at)
        self.count += 1
        self.length = end

    def place_of(self, index: int) -> int:
        """The byte at which that entry begins; for the one behind the last, at which the file ends."""
        for number, each in self._from(index):
            if number == index:
                return each.at
        return self.length

    def shorten(self, end: int, size: int) -> None:
        """The file was cut back to ``size`` bytes, which hold the entries up to ``end`` - 1."""
        self.count, self.length = end - self.first, size
        del self._marks[-(-self.count // MARK_EVERY) :]

    def entries(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Index and bytes of the entries from ``start`` up to ``stop`` - 1; of a lost one no bytes.

        Raises Corrupt, naming the place, for a file that is damaged.
        """
        for index, each in self._from(start):
            if index >= stop:
                return
            if index >= start:
                yield index, each.payload if each.kind == ENTRY else b""

    def _from(self, start: int) -> Iterator[tuple[int, Frame]]:
        if not self.first <= start < self.end:
            return
        mark = (start - self.first) // MARK_EVERY
        index = self.first + mark * MARK_EVERY
        frames = Frames(self.path, self._marks[mark])
        for each in frames:
            if each.kind in (ENTRY, LOST):
                yield index, each
                index += 1
                if index == self.end:
                    return
        raise damaged(self.path, frames.at, index, frames.broken or "the file ends")


def damaged(path: Path, at: int, entry: int, reason: str) -> Corrupt:
    """The error for a file of a log that is not as it was written."""
    return Corrupt(
        f"{path} is damaged at byte {at}, where entry {entry} of the log should be: {reason}",
        hint=KEEP,
    )
