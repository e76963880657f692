"""What a start finds on the disk: the segments of a log read from end to end, and held against their seals.

A seal is written when the entries before it are on the disk, so of a file that was cut off by a power cut
everything up to the last sound seal was there and must be sound still.  What is behind it may be anything:
sound entries are kept, for nobody was told that they are not there; from the first frame that is not sound
the file is *torn*, and the writer drops that.  A frame that is not sound before a seal, entries that do not
have the root that was sealed, a segment that is missing between two: that is Corrupt, names the place, and
nothing is repaired.

Reading changes nothing, so that it serves those who look from another process as well (`agent.usage.peek`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.usage.frames import ENTRY, LOST, SEAL, Frame, Frames, has_seal
from agent.usage.seals import Seal, read_seal
from agent.usage.segments import KEEP, MOVE, Segment, damaged
from agent.wire.errors import Corrupt, Refused
from agent.wire.tlog import Frontier, leaf_hash
from agent.wire.usage import ContainerRecord, Record, head, read

CHUNK_BYTES = 65_536
_RUN = re.compile(rb'"run":"((?:[^"\\]|\\.)*)"')
_ENDED = b'"ended":true'

Keep = Callable[[int, bytes, bool], None]
"""(size, the hashes that the entries from there on complete, whether the file of hashes must have them)."""


@dataclass(slots=True)
class Found:
    """What is on the disk of one log.

    ``before`` is the tree of the entries before the first segment, ``tree`` that of all.  ``runs`` is the
    last entry of each cgroup in which runs are counted, ``latest`` the last one of each other kind.
    """

    segments: list[Segment] = field(default_factory=list)
    before: Frontier = field(default_factory=Frontier)
    tree: Frontier = field(default_factory=Frontier)
    seal: Seal | None = None
    checkpoint: Seal | None = None
    torn_bytes: int = 0
    runs: dict[bytes, bytes] = field(default_factory=dict)
    latest: dict[str, bytes] = field(default_factory=dict)

    def note_run(self, entry: bytes) -> None:
        """Remember a record of a container as the last of its run.

        The counters of one that has ended count in those of the next that has its stem (what is before the
        point, `agent.usage.lives`); one without a cgroup above (a ":" in it) has none.
        """
        # Inside of a string each quotation mark has a backslash before it, so this is the key itself.
        match = _RUN.search(entry)
        if match is None:
            return
        stem = match[1].partition(b".")[0]
        self.runs.pop(stem, None)
        if _ENDED not in entry or b":" not in stem:
            self.runs[stem] = entry

    def note_aside(self, entry: bytes) -> None:
        """Remember an entry that lies aside, unless the log says something later of its run."""
        record = _readable(entry)
        if not isinstance(record, ContainerRecord):
            return
        stem = record.run.partition(".")[0]
        later = (each for each in self.last().values() if each.run.partition(".")[0] == stem)
        if all(each.mono1_ms <= record.mono1_ms or each.boot != record.boot for each in later):
            self.note_run(entry)

    def last(self) -> dict[str, ContainerRecord]:
        """The last record of each run that may go on, or whose counters may."""
        records = (_readable(entry) for entry in self.runs.values())
        return {record.run: record for record in records if isinstance(record, ContainerRecord)}

    def others(self) -> dict[str, Record]:
        """The last record of each other kind."""
        records = ((kind, _readable(entry)) for kind, entry in self.latest.items())
        return {kind: record for kind, record in records if record is not None}


def _readable(entry: bytes) -> Record | None:
    try:
        return read(entry)
    except Refused:  # of a version that knew more: its run goes on from what is measured now
        return None


def recover(paths: Sequence[Path], origin: str, keep: Keep) -> Found:
    """Read the segments of a log, the oldest first.  Raises Corrupt, naming the place."""
    found = Found()
    for path in paths:
        _Walk(found, path, origin, keep, is_newest=path == paths[-1]).run()
    return found


class _Walk:
    """One segment, read from its begin to its end."""

    def __init__(self, found: Found, path: Path, origin: str, keep: Keep, *, is_newest: bool) -> None:
        self._found = found
        self._path = path
        self._origin = origin
        self._keep = keep
        self._is_newest = is_newest
        self._hashes = bytearray()
        self._hashed = 0  # the size from which on those are

    def run(self) -> None:
        frames = Frames(self._path)
        each = iter(frames)
        segment = self._begin(next(each, None))
        for frame in each:
            if frame.kind == ENTRY or frame.kind == LOST:
                self._entry(frame)
                segment.noted(frame.at, frame.end)
            elif frame.kind == SEAL:
                self._seal(frame)
                segment.length = frame.end
            else:
                raise damaged(self._path, frame.at, segment.end, "a second header")
        self._flush()
        if frames.broken:
            self._torn(frames, segment)

    def _begin(self, first: Frame | None) -> Segment:
        segment, header = Segment.found(self._path, first)
        found = self._found
        if header.origin != self._origin:
            raise Corrupt(f"{self._path} is of the log {header.origin}, not of {self._origin}", hint=MOVE)
        try:
            tree = header.tree()
        except Refused as error:
            raise Corrupt(f"{self._path} has a header that cannot be: {error}", hint=KEEP) from error
        if found.segments and (tree.size, tree.hashes) != (found.tree.size, found.tree.hashes):
            raise Corrupt(
                f"{self._path} does not go on where {found.segments[-1].path.name} ends, at entry"
                f" {found.tree.size}: a segment between them is missing, or one is of another history",
                hint="put the missing file back from a backup",
            )
        if not found.segments:
            found.before = tree.copy()
        found.tree = tree
        found.segments.append(segment)
        self._hashed = tree.size
        return segment

    def _entry(self, frame: Frame) -> None:
        found, entry = self._found, frame.payload
        if frame.kind == LOST:
            leaf = entry
        else:
            leaf = leaf_hash(entry)
            try:
                _, seq, kind = head(entry)
            except Refused as error:
                raise damaged(self._path, frame.at, found.tree.size, str(error)) from error
            if seq != found.tree.size:
                raise damaged(self._path, frame.at, found.tree.size, f"it is entry {seq}")
            if kind == "container":
                found.note_run(entry)
            else:
                found.latest[kind] = entry
        self._hashes += b"".join(found.tree.append(leaf))
        if len(self._hashes) >= CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._hashes:
            self._keep(self._hashed, bytes(self._hashes), not self._is_newest)
            self._hashed = self._found.tree.size
            self._hashes.clear()

    def _seal(self, frame: Frame) -> None:
        tree = self._found.tree
        try:
            seal = read_seal(frame.payload, self._origin)
        except Refused as error:
            raise damaged(self._path, frame.at, tree.size, f"a seal that cannot be read: {error}") from error
        if (seal.size, seal.root) != (tree.size, tree.root()):
            raise damaged(
                self._path,
                frame.at,
                tree.size,
                f"the seal of {seal.size} entries does not have the root of the {tree.size} before it",
            )
        self._found.seal = seal
        if seal.is_checkpoint:
            self._found.checkpoint = seal

    def _torn(self, frames: Frames, segment: Segment) -> None:
        if not self._is_newest or has_seal(self._path, frames.at):
            raise damaged(self._path, frames.at, segment.end, frames.broken)
        self._found.torn_bytes = self._path.stat().st_size - frames.at
