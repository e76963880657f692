"""Segments: the entries of a log in files of a bounded size, which can be removed one by one.

A segment is named by its first entry, ``<first>.seg``, and begins with a header that holds the frontier of
the tree before it: so the log can be checked, and goes on, when older segments are gone.  Where some of the
frames begin is kept in memory, so that reading from anywhere costs little.

Read by whoever reads entries; made and written by `agent.usage.volume` alone.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
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
MARK_EVERY = 32
"""How many entries are between two places that are kept, at least."""
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
    _at: int = 0  # where the frame of the last entry begins
    _marks: array[int] = field(default_factory=lambda: array("Q"))  # entries that are the first of a frame
    _places: array[int] = field(default_factory=lambda: array("Q"))  # where those frames begin

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
        """One more entry, or the hash of a lost one, is in the file, in the frame from ``at`` to ``end``."""
        if at != self._at and (not self._marks or self.end - self._marks[-1] >= MARK_EVERY):
            self._marks.append(self.end)
            self._places.append(at)
        self._at = at
        self.count += 1
        self.length = end

    def place_of(self, index: int) -> tuple[int, int]:
        """The frame with that entry: the byte at which it begins, and its first entry.

        For the entry behind the last one that is the end of the file.
        """
        place, first = self.length, self.end
        for number, each in self._from(index):
            if each.at != place:
                place, first = each.at, number
            if number == index:
                break
        return place, first

    def shorten(self, end: int, size: int) -> None:
        """The file was cut back to ``size`` bytes, which hold the entries up to ``end`` - 1."""
        self.count, self.length, self._at = end - self.first, size, 0
        while self._places and self._places[-1] >= size:
            self._places.pop()
            self._marks.pop()

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
        mark = bisect_right(self._marks, start) - 1
        index, frames = self._marks[mark], Frames(self.path, self._places[mark])
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
