"""What is held of one log, to read from: entries that are not pruned, and every hash of the tree.

A root or a proof is handed out only when it leads to the root of the whole log, which was computed from
entries: a damaged file of hashes is found out here, before anybody signs or sends what came from it.
`agent.usage.volume` changes what is in it; whoever looks from outside has one that stands still.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agent.usage.hashes import REMOVE, Hashes
from agent.usage.recovery import Found
from agent.usage.segments import Segment
from agent.wire.errors import Corrupt, Refused
from agent.wire.tlog import (
    EMPTY_ROOT,
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    subtree_root,
)


class Holdings:
    """Segments and hashes of a log of ``size`` entries with that ``root``."""

    def __init__(self, found: Found, hashes: Hashes) -> None:
        self.segments: list[Segment] = found.segments
        self.hashes = hashes
        self.tree = found.tree
        self.root = found.tree.root()

    @property
    def size(self) -> int:
        """How many entries the log has."""
        return self.tree.size

    @property
    def held_from(self) -> int:
        """The first entry that has not been pruned."""
        return self.segments[0].first

    def grow(self, tree: Frontier) -> None:
        """The log is this one now."""
        self.tree, self.root = tree, tree.root()

    def entries(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Index and bytes of the entries from ``start`` up to ``stop`` - 1; of a lost one no bytes."""
        for segment in self.segments:
            if segment.first < stop and start < segment.end:
                yield from segment.entries(max(start, segment.first), min(stop, segment.end))

    def stretch(self, start: int, count: int) -> list[bytes]:
        """Up to ``count`` entries from ``start`` on: up to the end, or to one that is lost.

        Raises Refused (code "not-held") when the first is not held.
        """
        if not 0 <= start <= self.size:
            raise Refused(f"there is no entry {start} in a log of {self.size}")
        found = []
        for _, entry in self.entries(start, min(start + count, self.size)):
            if not entry:
                break
            found.append(entry)
        if start < self.held_from or (not found and start < self.size and count):
            raise Refused(f"entry {start} is not held any more, only its hash", code="not-held")
        return found

    def root_at(self, size: int) -> bytes:
        """The root of the first ``size`` entries.  Raises Corrupt, Refused."""
        if not 0 <= size <= self.size:
            raise Refused(f"there is no root of {size} entries in a log of {self.size}")
        if size == self.size:
            return self.root
        root = subtree_root(0, size, self.hashes.read) if size else EMPTY_ROOT
        self._prove(size, self.size, root, self.root)
        return root

    def tree_at(self, size: int) -> Frontier:
        """The tree of the first ``size`` entries.  Raises Corrupt, Refused."""
        root, tree = self.root_at(size), self.hashes.frontier(size)
        if tree.root() != root:
            raise Corrupt(f"{self.hashes.path} is damaged: it has two roots for {size} entries", hint=REMOVE)
        return tree

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that the log of ``new`` entries begins with that of ``old``.  Raises Corrupt, Refused."""
        return self._prove(old, new, self.root_at(old), self.root_at(new))

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The proof that entry ``index`` is in the log of ``size``.  Raises Corrupt, Refused."""
        root = self.root_at(size)
        proof = inclusion_proof(index, size, self.hashes.read)
        try:
            check_inclusion(self.hashes.read(0, index), index, size, proof, root)
        except Corrupt as error:
            raise self._damaged(error) from error
        return proof

    def _prove(self, old: int, new: int, old_root: bytes, new_root: bytes) -> list[bytes]:
        proof = consistency_proof(old, new, self.hashes.read)
        try:
            check_consistency(old, new, proof, old_root, new_root)
        except Corrupt as error:
            raise self._damaged(error) from error
        return proof

    def _damaged(self, error: Corrupt) -> Corrupt:
        return Corrupt(f"{self.hashes.path} is damaged: {error}", hint=REMOVE)

    def disk_bytes(self) -> int:
        """Bytes on the disk."""
        return sum(segment.length for segment in self.segments) + _size_of(self.hashes.path)


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
