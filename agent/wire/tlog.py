"""Logs that cannot be rewritten unseen: trees of hashes, their proofs and their checkpoints.

A log is a list of entries (bytes), and a tree over it (RFC 6962, section 2.1, with SHA-256):

    leaf = SHA-256(0x00 || entry)         node = SHA-256(0x01 || left || right)

The root of n > 1 leaves is the node over the first 2**k of them (the largest power of two below n)
and the rest; that of none is SHA-256 of nothing.  Of a full subtree of 2**level leaves the hash never
changes again: it is named (level, index), begins at leaf index * 2**level, and all of the below reads
such hashes alone (`Read`), wherever they are kept.

>>> entries = [b"a", b"b", b"c", b"d", b"e"]
>>> tree = Frontier()
>>> stored = [tree.append(leaf_hash(entry)) for entry in entries]
>>> tree.size, tree.root().hex()[:16], len(tree.hashes)
(5, 'fe14a5426fbd70c0', 2)

What is stored for a leaf is its own hash and that of each full subtree that it completes; written one
after the other, (level, index) is found again at `stored_index`.

>>> hashes = [each for row in stored for each in row]
>>> read = lambda level, index: hashes[stored_index(level, index)]

The proof that an entry is in a log of some root, and that a log only grew:

>>> proof = inclusion_proof(1, 5, read)
>>> check_inclusion(leaf_hash(b"b"), 1, 5, proof, tree.root())
>>> check_inclusion(leaf_hash(b"B"), 1, 5, proof, tree.root())
Traceback (most recent call last):
agent.wire.errors.Corrupt: the proof does not lead from leaf 1 to the root of 5 leaves
>>> four = Frontier.of(4, tree.hashes[:1])
>>> check_consistency(4, 5, consistency_proof(4, 5, read), four.root(), tree.root())

A checkpoint (https://c2sp.org/tlog-checkpoint) is the text that a log signs of itself: who, how many
entries, the root.  A log never signs two roots for one size.

>>> print(Checkpoint("example.com/log", 5, tree.root()).text(), end="")
example.com/log
5
/hSlQm+9cMD6c/UjQq/tDaC9I8SDhmLM9riKMHDq2Xs=

Called by the ledger of a board, the witness of a hub, and whoever checks either.  It reads no files, holds
no keys (`agent.wire.note` signs), and knows nothing of what an entry says.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agent.wire.canonical import from_base64, to_base64
from agent.wire.errors import Corrupt, Refused

HASH = 32
"""Bytes of a hash."""
EMPTY_ROOT = hashlib.sha256(b"").digest()
MAX_SIZE = 2**63 - 1
"""Most entries of a log."""

Read = Callable[[int, int], bytes]
"""(level, index) -> hash of the full subtree of 2**level leaves that begins at leaf index * 2**level."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash that stands for ``entry`` in the tree."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the subtree made of two."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def stored_index(level: int, index: int) -> int:
    """Where the hash (level, index) stands among all stored ones, the first at 0."""
    last_leaf = ((index + 1) << level) - 1
    return stored_count(last_leaf) + level


def stored_count(size: int) -> int:
    """How many hashes are stored for a log of ``size`` entries: each leaf, and each full subtree."""
    return 2 * size - size.bit_count()


# --- the tree as it grows --------------------------------------------------------------------------


class Frontier:
    """A tree that can grow, and nothing more: the roots of its full subtrees, the largest first.

    A subtree for each bit of ``size``, so 1,000,000 entries take 7 hashes.
    """

    __slots__ = ("_hashes", "size")

    def __init__(self) -> None:
        self.size = 0
        self._hashes: list[bytes] = []

    @classmethod
    def of(cls, size: int, hashes: Sequence[bytes]) -> Frontier:
        """The frontier that once was written down.  Raises Refused for a number of hashes that cannot be."""
        if not 0 <= size <= MAX_SIZE or len(hashes) != size.bit_count():
            raise Refused(f"{len(hashes)} hashes cannot be the frontier of a tree of {size} leaves")
        if any(len(each) != HASH for each in hashes):
            raise Refused(f"a hash of the frontier has not {HASH} bytes")
        frontier = cls()
        frontier.size, frontier._hashes = size, list(hashes)
        return frontier

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The roots of the full subtrees, the largest first."""
        return tuple(self._hashes)

    def copy(self) -> Frontier:
        """One that grows on its own."""
        return Frontier.of(self.size, self._hashes)

    def append(self, leaf: bytes) -> list[bytes]:
        """Add a leaf.  Returns the hashes to store for it: its own, then each subtree that it completes."""
        stored = [leaf]
        size = self.size
        while size & 1:
            leaf = node_hash(self._hashes.pop(), leaf)
            stored.append(leaf)
            size >>= 1
        self._hashes.append(leaf)
        self.size += 1
        return stored

    def extend(self, leaves: Iterable[bytes]) -> list[bytes]:
        """Add leaves.  Returns all hashes to store for them, in order."""
        return [each for leaf in leaves for each in self.append(leaf)]

    def root(self) -> bytes:
        """The root of the tree as it is."""
        return fold(self._hashes)


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over full subtrees that get smaller from left to right."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in hashes[-2::-1]:
        root = node_hash(left, root)
    return root


# --- proofs ------------------------------------------------------------------------------------------


def inclusion_proof(index: int, size: int, read: Read) -> list[bytes]:
    """That leaf ``index`` is in the tree of ``size`` leaves (RFC 6962, section 2.1.1).  Raises Refused."""
    if not 0 <= index < size <= MAX_SIZE:
        raise Refused(f"there is no entry {index} in a log of {size}")
    beside = []
    low, high = 0, size
    while high - low > 1:
        middle = _middle(low, high)
        if index < middle:
            beside.append((middle, high))
            high = middle
        else:
            beside.append((low, middle))
            low = middle
    return [subtree_root(*each, read) for each in reversed(beside)]


def consistency_proof(old: int, new: int, read: Read) -> list[bytes]:
    """That the first ``old`` of ``new`` leaves are the tree of ``old`` (RFC 6962, 2.1.2).  Raises Refused."""
    if not 0 <= old <= new <= MAX_SIZE:
        raise Refused(f"a log of {new} entries cannot have grown from one of {old}")
    if old == 0:
        return []
    beside = []
    low, high = 0, new
    while old < high:
        middle = _middle(low, high)
        if old <= middle:
            beside.append((middle, high))
            high = middle
        else:
            beside.append((low, middle))
            low = middle
    if low:
        beside.append((low, high))
    return [subtree_root(*each, read) for each in reversed(beside)]


def subtree_root(low: int, high: int, read: Read) -> bytes:
    """The root over leaves ``low`` to ``high`` - 1, where ``low`` is as in a proof: 0 or a whole multiple."""
    hashes = []
    while low < high:
        level = (high - low).bit_length() - 1
        hashes.append(read(level, low >> level))
        low += 1 << level
    return fold(hashes)


def _middle(low: int, high: int) -> int:
    """Where RFC 6962 divides: after the largest power of two that is smaller than the whole."""
    return low + (1 << (high - low - 1).bit_length() - 1)


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that ``leaf`` is number ``index`` of the ``size`` leaves under ``root``.  Raises Corrupt."""
    if not 0 <= index < size <= MAX_SIZE:
        raise Corrupt(f"there is no entry {index} in a log of {size}")
    # Up to where the way to the leaf leaves the right edge, each level has a sibling; above it only
    # those to the left do.
    inner = (index ^ (size - 1)).bit_length()
    if len(proof) != inner + (index >> inner).bit_count():
        raise Corrupt(f"a proof of {len(proof)} hashes cannot be that of entry {index} of {size}")
    _check_hashes(leaf, root, *proof)
    top = leaf
    for level, other in enumerate(proof):
        left = level >= inner or index >> level & 1
        top = node_hash(other, top) if left else node_hash(top, other)
    if top != root:
        raise Corrupt(f"the proof does not lead from leaf {index} to the root of {size} leaves")


def check_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that the tree of ``new`` leaves begins with the tree of ``old``.  Raises Corrupt.

    Every tree begins with the empty one, which takes no proof.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise Corrupt(f"a log of {new} entries cannot have grown from one of {old}")
    if old < new:
        _check_hashes(old_root, new_root, *proof)
    if old in (0, new):
        if proof:
            raise Corrupt(f"a proof from {old} to {new} entries has no hashes, not {len(proof)}")
        if old_root != (EMPTY_ROOT if old == 0 else new_root) or (new == 0 and new_root != EMPTY_ROOT):
            raise Corrupt(f"two roots for one log of {old} entries")
        return
    before, after = _both_roots(old, new, list(proof), old_root)
    if before != old_root or after != new_root:
        which = old if before != old_root else new
        raise Corrupt(f"the proof from {old} to {new} entries does not lead to the root of {which}")


def _both_roots(old: int, new: int, proof: list[bytes], old_root: bytes) -> tuple[bytes, bytes]:
    """What ``proof`` says the roots of both sizes are.  Raises Corrupt for a wrong number of hashes."""
    # The proof climbs from the last full subtree of the old tree; where that is the old tree
    # itself, its root is not in the proof again.
    level = (old & -old).bit_length() - 1
    index, last = (old - 1) >> level, (new - 1) >> level
    steps = proof if index == 0 else proof[1:]
    inner = (index ^ last).bit_length()
    if (index and not proof) or len(steps) != inner + (index >> inner).bit_count():
        raise Corrupt(f"a proof of {len(proof)} hashes cannot lead from {old} entries to {new}")
    before = after = old_root if index == 0 else proof[0]
    for step, other in enumerate(steps):
        if step >= inner or index >> step & 1:
            before, after = node_hash(other, before), node_hash(other, after)
        else:
            after = node_hash(after, other)
    return before, after


def _check_hashes(*hashes: bytes) -> None:
    if any(len(each) != HASH for each in hashes):
        raise Corrupt(f"a hash of the proof has not {HASH} bytes")


# --- checkpoints -------------------------------------------------------------------------------------

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: its name, how many entries it has, and their root.

    ``extensions`` are lines of others that are kept, and mean nothing here.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """The text to sign."""
        return "\n".join((self.origin, str(self.size), to_base64(self.root), *self.extensions)) + "\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a note whose signature was checked.  Raises Refused."""
        lines = text.split("\n")
        # SPEC tlog-checkpoint: The note text is a sequence of at least three non-empty lines.
        if len(lines) < 4 or lines.pop() != "" or not all(lines):
            raise Refused("a checkpoint is at least three lines, none of them empty: origin, size, root")
        origin, size, root, *extensions = lines
        # SPEC tlog-checkpoint: decimal representation of the number of leaves, with no leading zeroes.
        if not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
            raise Refused(f"the size of the checkpoint is {size[:64]!r}, not a number of entries")
        return cls(origin, int(size), from_base64(root, "root of the checkpoint", HASH), tuple(extensions))
