"""The check of a whole usage log, from its files and the public keys alone.

The files are those of c2sp.org/tlog-tiles (`agent.wire.tiles`): ``checkpoint``, ``tile/...`` and
``tile/entries/...``; and ``receipt``, the newest checkpoint that the hub cosigned, unless ``checkpoint``
itself carries the cosignature.  `audit` reads them through a function, wherever they are.

It goes from what is signed down to what is said, and names the first place that is wrong:

    checkpoint    signed by the board whose id is the hash of the key, and its origin names this board
    tile/…        the right edge of the tree leads to the root of the checkpoint, and each full tile to
                  its hash in the tile above
    record n      its hash is hash n of level 0, and it says itself that it is number n
    receipt       signed by the board, cosigned by the hub, and its root is that of the tree at its size

Entries may be missing where the log begins (in the end a board lets go of what its hub holds), and where a
record of kind "hole" says so; anywhere else a missing one is an error.  What a good audit proves: this is
what the board claimed, in this order, with nothing left out from ``first_entry`` on but the declared holes;
with a receipt, that the hub saw it no later than ``receipt_at_s``.  Not that the board measured honestly.

>>> from agent.wire.note import generate
>>> audit({}.get, generate().verifier)
Traceback (most recent call last):
agent.wire.errors.Corrupt: checkpoint: it is missing

Called by ``lichen-agent usage verify`` and ``lichen usage verify``.  It does no I/O and repairs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from agent.wire.cosignature import CosignatureVerifier, open_cosigned
from agent.wire.errors import Corrupt, LichenError
from agent.wire.note import Verifier, open_note, party_id, split_note
from agent.wire.tiles import (
    CHECKPOINT,
    ENTRIES,
    HEIGHT,
    WIDTH,
    Tile,
    full_root,
    split_hashes,
    tile_reader,
    unpack_entries,
)
from agent.wire.tlog import EMPTY_ROOT, HASH, Checkpoint, subtree_root
from agent.wire.usage import HEAD, EpochRecord, HoleRecord, read, split_origin

RECEIPT = "receipt"
"""Where the newest cosigned checkpoint is, beside ``checkpoint``."""

Fetch = Callable[[str], bytes | None]
"""The bytes of a file of the log, None when there is none."""
Inspect = Callable[[int, bytes], None]
"""Called with the index and the bytes of each entry once it is proven; may raise."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found good.  ``receipt_size`` is None without a receipt by the key that was asked for."""

    board: str
    checkpoint: Checkpoint
    entries: int
    first_entry: int
    holes: tuple[HoleRecord, ...]
    began: EpochRecord | None
    receipt_size: int | None
    receipt_at_s: int | None


def audit(
    fetch: Fetch,
    log_key: Verifier,
    hub_key: CosignatureVerifier | None = None,
    inspect: Inspect | None = None,
) -> Audit:
    """Check everything.  Raises Corrupt, or Refused for what is not even of the right form, with the place.

    ``log_key``: the key of the board, whatever it is named; ``hub_key``: the key of its hub's receipts.
    """
    with _at(CHECKPOINT):
        note = fetch(CHECKPOINT)
        if note is None:
            raise Corrupt(
                "it is missing", hint="a log is checked from its folder, the one with `checkpoint` in it"
            )
        board, checkpoint = _open(note, log_key)
    sweep = _Sweep(fetch, checkpoint, inspect)
    sweep.edge()
    first, holes = sweep.run()
    with _at(RECEIPT):
        receipt_size, receipt_at_s = _receipt(sweep, note, log_key, hub_key)
    return Audit(board, checkpoint, sweep.proven, first, holes, sweep.began, receipt_size, receipt_at_s)


def _open(note: bytes, log_key: Verifier) -> tuple[str, Checkpoint]:
    """The board and the checkpoint that it signed.  Raises Corrupt, Refused."""
    # A checkpoint is signed under the name of its log, which it must name itself.
    origin = split_note(note)[0].partition("\n")[0]
    board, _ = split_origin(origin)
    if board != party_id(log_key.public_key):
        raise Corrupt(
            f"this is the log of board {board}, and the key is that of {party_id(log_key.public_key)}",
            hint="name the log key of the board that wrote it",
        )
    return board, Checkpoint.parse(open_note(note, Verifier(origin, log_key.public_key)))


def _receipt(
    sweep: _Sweep, note: bytes, log_key: Verifier, hub_key: CosignatureVerifier | None
) -> tuple[int | None, int | None]:
    """Size and time of the receipt, None without one, or a key to check it.  Raises Corrupt, Refused."""
    own, receipt = sweep.checkpoint, sweep.fetch(RECEIPT)
    receipted = None
    if receipt is not None:
        _, theirs = _open(receipt, log_key)
        if theirs.origin != own.origin:
            raise Corrupt(f"it is of the log {theirs.origin}, not of {own.origin}")
        if theirs.size > own.size:
            raise Corrupt(
                f"the board signed {theirs.size} entries, of which this log has {own.size}",
                hint="this is an old copy of the log: ask for the newest",
            )
        if sweep.root(theirs.size) != theirs.root:
            raise Corrupt(
                f"the board signed another history of {theirs.size} entries",
                hint="this receipt and the checkpoint together prove that the log was rewritten: keep both",
            )
        receipted = theirs.size
    if hub_key is None:
        return None, None
    # Whatever is beside the signature of the log has to be the cosignature, or a changed byte in the name
    # of its key would take it away unseen.
    if len(split_note(note)[1]) > 1:
        return own.size, open_cosigned(note, hub_key)[1]
    return receipted, None if receipt is None else open_cosigned(receipt, hub_key)[1]


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Say in any error where it was."""
    try:
        yield
    except LichenError as error:
        raise type(error)(f"{place}: {error}", code=error.code, hint=error.hint) from error


@dataclass(slots=True)
class _Sweep:
    """One way over all tiles and entries, from left to right."""

    fetch: Fetch
    checkpoint: Checkpoint
    inspect: Inspect | None
    proven: int = 0
    began: EpochRecord | None = None
    absent: list[range] = field(default_factory=list)
    holes: list[HoleRecord] = field(default_factory=list)

    def root(self, size: int) -> bytes:
        """The root of the first ``size`` entries, by the tiles."""
        return subtree_root(0, size, tile_reader(self.checkpoint.size, self._bytes))

    def edge(self) -> None:
        """Check the right edge of the tree against the checkpoint.  Raises Corrupt."""
        if self.checkpoint.size == 0:
            if self.checkpoint.root != EMPTY_ROOT:
                raise Corrupt(f"{CHECKPOINT}: an empty log has another root")
        elif self.root(self.checkpoint.size) != self.checkpoint.root:
            self._blame()

    def run(self) -> tuple[int, tuple[HoleRecord, ...]]:
        """Check all that is below the right edge.  Returns the first entry that is there, and the holes."""
        for tile in self._edges():
            self._below(tile, self._hashes(tile))
        first = 0
        for absent in self.absent:
            if absent.start == first:
                first = absent.stop
            elif undeclared := self._undeclared(absent):
                raise Corrupt(
                    f"record {undeclared[0]}: it is missing, and no record declares a hole there",
                    hint=f"so are all up to record {undeclared[-1]}: ask for the whole log",
                )
        return first, tuple(self.holes)

    def _edges(self) -> Iterator[Tile]:
        """The tiles at the right edge that are not full, the highest first: the root is made of them."""
        size = self.checkpoint.size
        for level in range((max(size, 1).bit_length() - 1) // HEIGHT, -1, -1):
            number, width = divmod(size >> HEIGHT * level, WIDTH)
            if width:
                yield Tile(level, number, width)

    def _below(self, tile: Tile, hashes: list[bytes]) -> None:
        """Check what stands under a tile that is proven.  Raises Corrupt."""
        if tile.level == 0:
            self._entries(tile, hashes)
            return
        for at, expected in enumerate(hashes, tile.index * WIDTH):
            child = Tile(tile.level - 1, at)
            own = self._hashes(child)
            if full_root(own) != expected:
                raise Corrupt(f"{child.path}: its hashes do not lead to hash {at % WIDTH} of {tile.path}")
            self._below(child, own)

    def _entries(self, tile: Tile, hashes: list[bytes]) -> None:
        """Check the entries whose hashes are proven: the one loop that goes over every record."""
        first = tile.index * WIDTH
        entries = self._bundle(tile)
        if entries is None:
            self._miss(range(first, first + tile.width))
            return
        sha256, match = hashlib.sha256, HEAD.match
        for index, (entry, expected) in enumerate(zip(entries, hashes, strict=True), first):
            if entry is None:
                self._miss(range(index, index + 1))
                continue
            if sha256(b"\x00" + entry).digest() != expected:
                raise Corrupt(f"record {index}: it is not what was logged, by its hash in {tile.path}")
            head = match(entry)
            if not head or int(head[2]) != index:
                said = f"number {int(head[2])}" if head else "no record of a usage log"
                raise Corrupt(f"record {index}: it says that it is {said}")
            if head[3] in (b"hole", b"epoch"):
                self._notice(entry)
            if self.inspect:
                with _at(f"record {index}"):
                    self.inspect(index, entry)
            self.proven += 1

    def _notice(self, entry: bytes) -> None:
        match read(entry):
            case HoleRecord() as hole:
                self.holes.append(hole)
            case EpochRecord(seq=0) as began:
                self.began = began

    def _miss(self, absent: range) -> None:
        if self.absent and self.absent[-1].stop == absent.start:
            absent = range(self.absent.pop().start, absent.stop)
        self.absent.append(absent)

    def _undeclared(self, absent: range) -> range:
        """What of ``absent`` no hole covers."""
        at = absent.start
        for hole in sorted(self.holes, key=lambda each: each.first):
            if hole.first <= at:
                at = max(at, hole.first + hole.count)
        return range(at, absent.stop)

    def _blame(self) -> None:
        """Say which tile of the right edge is not what is below it.  Raises Corrupt."""
        for tile in self._edges():
            below = self._beneath(tile)
            for at, (own, made) in enumerate(zip(self._hashes(tile), below, strict=False)):
                if made is not None and own != made:
                    place = f"record {tile.index * WIDTH + at}" if tile.level == 0 else f"hash {at}"
                    raise Corrupt(f"{tile.path}: {place} has another hash than what is below it")
        raise Corrupt(
            f"{CHECKPOINT}: its root is not that of the {self.checkpoint.size} entries of this log",
            hint="checkpoint and tiles come from two histories: one side rewrote its log",
        )

    def _beneath(self, tile: Tile) -> list[bytes | None]:
        if tile.level == 0:
            entries = self._bundle(tile) or []
            return [entry and hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
        first = tile.index * WIDTH
        return [full_root(self._hashes(Tile(tile.level - 1, first + at))) for at in range(tile.width)]

    def _bundle(self, tile: Tile) -> list[bytes | None] | None:
        """The entries under a tile of level 0, None when there is no bundle of them."""
        for width in {tile.width, WIDTH}:
            bundle = Tile(ENTRIES, tile.index, width)
            if (data := self.fetch(bundle.path)) is not None:
                with _at(bundle.path):
                    return unpack_entries(data, width)[: tile.width]
        return None

    def _hashes(self, tile: Tile) -> list[bytes]:
        return split_hashes(self._bytes(tile), tile.width)

    def _bytes(self, tile: Tile) -> bytes:
        size = tile.width * HASH
        data = self.fetch(tile.path)
        if data is None and tile.width < WIDTH:
            # SPEC tlog-tiles: clients MAY fetch the full tile as a fallback in case the partial tile is
            # not available anymore.
            full = self.fetch(replace(tile, width=WIDTH).path)
            data = None if full is None else full[:size]
        if data is None:
            raise Corrupt(f"{tile.path}: the tile is missing")
        if len(data) != size:
            raise Corrupt(f"{tile.path}: {len(data)} bytes where {tile.width} hashes take {size}")
        return data
