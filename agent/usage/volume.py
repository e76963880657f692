"""One log on the disk, open for writing: what is appended, sealed, given back, cut and pruned.

What holds at every moment, and after a power cut:

1.  What `append` has returned from is on the disk, and sealed.  When it raises, nothing of it is in the log,
    and the indexes are given to the next entries.
2.  The order is: entries, wait for the disk, sign, the seal, wait for the disk.  So a signature that leaves
    the board covers nothing that a power cut can take.
3.  A checkpoint is signed only after `know_hub` in this process; before that seals are local.
4.  Entries under a checkpoint never change.  Those under local seals alone can be taken out, to lie aside
    until others that the hub has are in their place; they come back under new numbers, each once.
5.  Whole segments are removed, those alone of which the hub has said long enough ago that it holds them.
    Their hashes stay, so proofs go on to be made.
6.  A root, a proof or a signature is handed out only when it fits the root of what is in the log now.

Everything here blocks, and is called on one thread (`agent.usage.ledger`).  It sends nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from agent.usage.aside import Aside
from agent.usage.frames import LOST, SEAL, Disk, frame, pack, writing
from agent.usage.hashes import NAME as HASHES
from agent.usage.hashes import REMOVE, Hashes
from agent.usage.holdings import Holdings
from agent.usage.pen import Pen
from agent.usage.receipts import Receipts, received_at_ms
from agent.usage.recovery import Found, recover
from agent.usage.seals import Sealer
from agent.usage.segments import DAY_MS, MOVE, SEGMENT_BYTES, SEGMENT_DAYS, SEGMENT_ENTRIES, Segment
from agent.wire.cosignature import CosignatureVerifier
from agent.wire.errors import Corrupt, LichenError, Refused
from agent.wire.tlog import Frontier, leaf_hash

log = logging.getLogger(__name__)


class Volume:
    """The log of one epoch.  Made by `Volume.open` or `Volume.make`; `close` it.

    ``signed`` is the size of the largest checkpoint of ours that is on the disk.  ``is_adrift``: a change
    was broken off, so that only the disk knows what the log is now.
    """

    def __init__(self, directory: Path, found: Found, hashes: Hashes, sealer: Sealer, disk: Disk) -> None:
        self.directory = directory
        self.origin = sealer.origin
        self.disk = disk
        self.sealer = sealer
        self.holdings = Holdings(found, hashes)
        self.receipts = Receipts(directory, sealer, disk)
        self.aside = Aside(directory, sealer.origin, disk)
        self.hub_known = False
        self._at_hub: int | None = None  # what the hub said last that it holds
        self.is_adrift = False
        self.signed = found.checkpoint.size if found.checkpoint else 0
        self._pen = self._at_end()
        self._is_rolling = False  # a roll that was begun has to end before anything else is appended

    @classmethod
    def make(cls, directory: Path, sealer: Sealer, disk: Disk) -> Self:
        """A new log with nothing in it.  Raises Refused (code "disk-full"), ConfigError."""
        with writing(directory):
            disk.make(directory)
            Segment.make(disk, directory, sealer.origin, Frontier(), sealer.now_ms())
        return cls.open(directory, sealer, disk)[0]

    @classmethod
    def open(cls, directory: Path, sealer: Sealer, disk: Disk) -> tuple[Self, Found]:
        """The log that lies there.  Raises Corrupt, naming the place; Refused (code "disk-full")."""
        with writing(directory), contextlib.ExitStack() as undo:
            hashes = Hashes(directory / HASHES, disk)
            undo.callback(hashes.close)
            found = recover(sorted(directory.glob("*.seg")), sealer.origin, hashes.check)
            _check(directory, found, hashes, sealer)
            volume = cls(directory, found, hashes, sealer, disk)
            undo.callback(volume._pen.close)
            volume._begin(found)
            undo.pop_all()
        return volume, found

    def _begin(self, found: Found) -> None:
        receipt = self.receipts.newest
        if receipt is not None and receipt.size <= self.size:
            if receipt.root != self.holdings.root_at(receipt.size):
                path = self.directory
                raise Corrupt(
                    f"{path}: the hub's receipt of {receipt.size} entries has another root", hint=MOVE
                )
            self.signed = max(self.signed, receipt.size)
        if found.torn_bytes:
            told = {"origin": self.origin, "size": self.size, "bytes": found.torn_bytes}
            log.warning("usage log was torn", extra=told)
            self._pen.cut(self._pen.end)
        if self.size > (found.seal.size if found.seal else 0):
            self.seal()

    def close(self) -> None:
        """Give the files back."""
        self._pen.close()
        self.holdings.hashes.close()

    @property
    def size(self) -> int:
        """How many entries the log has."""
        return self.holdings.size

    # --- appending

    def append(self, entries: Sequence[bytes], lost: Sequence[bytes] = (), *, binding: bool = False) -> None:
        """Append ``lost``, leaf hashes, and entries that are numbered from there on; then seal.

        ``binding``: by a checkpoint, though the hub is not known, for this was signed before.
        Raises Refused (codes "disk-full", "disk-read-only"), and nothing of it is in the log.
        """
        frames = [*((1, frame(LOST, each)) for each in lost), *pack(entries)]
        if not frames:
            return
        data = b"".join([each for _, each in frames])
        self._roll(len(lost) + len(entries), len(data))
        start, segment, tree = self.size, self._newest, self.holdings.tree.copy()
        hashes = b"".join(tree.extend([*lost, *map(leaf_hash, entries)]))
        with self._pen.batch():
            self._pen.write(data)
            self.holdings.hashes.write(start, hashes)
            # Only now, for what is signed must be on the disk.
            self._pen.write(self._sealed(tree, binding))
        at = segment.length
        for count, each in frames:
            for _ in range(count):
                segment.noted(at, at + len(each))
            at += len(each)
        self.holdings.grow(tree)
        self._count_seal(binding)

    def seal(self) -> None:
        """Seal what is there.  Raises Refused."""
        with self._pen.batch():
            self._pen.write(self._sealed(self.holdings.tree))
        self._count_seal()

    def _sealed(self, tree: Frontier, binding: bool = False) -> bytes:
        sign = self.sealer.checkpoint if binding or self.hub_known else self.sealer.local
        return frame(SEAL, sign(tree.size, tree.root()).encode())

    def _count_seal(self, binding: bool = False) -> None:
        self._newest.length = self._pen.end
        if binding or self.hub_known:
            self.signed = self.size

    @property
    def _newest(self) -> Segment:
        return self.holdings.segments[-1]

    def _at_end(self) -> Pen:
        return Pen(self.disk, self._newest.path, self._newest.length)

    def _roll(self, entries: int, size: int) -> None:
        """Begin a new segment where the newest has no room, or is too old.  Raises Refused."""
        newest = self._newest
        is_full = newest.count + entries > SEGMENT_ENTRIES or newest.length + size > SEGMENT_BYTES
        is_old = self.sealer.now_ms() - newest.made_ms >= SEGMENT_DAYS * DAY_MS
        if not self._is_rolling and (not newest.count or not (is_full or is_old)):
            return
        self._is_rolling = True
        with writing(self.directory):
            self.holdings.hashes.sync()  # from now on it must have what the closed segment is of
            tree, now_ms = self.holdings.tree, self.sealer.now_ms()
            segment = Segment.make(self.disk, self.directory, self.origin, tree, now_ms)
            pen = Pen(self.disk, segment.path, segment.length)
        self._pen.close()
        self._pen, self._is_rolling = pen, False
        self.holdings.segments.append(segment)

    # --- what is signed

    def know_hub(self, size: int) -> None:
        """The hub holds ``size`` entries: seals are checkpoints from now on.  Raises Refused ("behind")."""
        newest = self.receipts.newest
        held = max(size, newest.size if newest else 0)
        if held > self.size:
            raise Refused(
                f"the hub holds {held} entries of {self.origin}, and this board {self.size}", code="behind"
            )
        self.hub_known, self._at_hub = True, size

    def checkpoint(self, size: int) -> str:
        """The note of the checkpoint of that size, which has been on the disk for as long as it is signed.

        Raises Refused (code "hub-unknown" before `know_hub` for more than was signed before), Corrupt.
        """
        if not self.hub_known and size > self.signed:
            raise Refused("what the hub holds is not known yet, so nothing is signed", code="hub-unknown")
        root = self.holdings.root_at(size)
        if size > self.signed:
            self.seal()
        return self.sealer.checkpoint(size, root)

    def keep_receipt(self, note: str, hub_key: CosignatureVerifier) -> bool:
        """Keep what the hub says that it holds; False when that is not news.

        Raises Corrupt when it is not signed by us and the hub, or has another root than the log; Refused
        (code "behind") when the hub holds more than there is here.
        """
        receipt = self.receipts.opened(note, hub_key)
        if self._at_hub is not None:
            self._at_hub = max(self._at_hub, receipt.size)
        if receipt.size > self.size:
            raise Refused(f"the receipt is of {receipt.size} entries; here are {self.size}", code="behind")
        if receipt.root != self.holdings.root_at(receipt.size):
            raise Corrupt(
                f"the receipt of {receipt.size} entries of {self.origin} has another root than the log"
            )
        newest = self.receipts.newest
        if newest is not None and newest.size >= receipt.size:
            return False
        with writing(self.directory):
            self.receipts.keep(receipt)
        self.signed = max(self.signed, receipt.size)
        self.cover()
        return True

    def cover(self, *, all_of_them: bool = False) -> None:
        """Keep a receipt beside each segment that is closed (or each) and that the hub has."""
        for segment in self.holdings.segments[: None if all_of_them else -1]:
            self.receipts.cover(segment)

    # --- what goes

    def check_unsigned(self, start: int) -> None:
        """Raise Corrupt when a checkpoint of ours covers an entry from ``start`` on."""
        if start < self.signed:
            raise Corrupt(f"{self.origin}: entry {start} cannot be another one, for {self.signed} are signed")

    def cut(self, start: int) -> list[bytes]:
        """Take out the entries from ``start`` on, all under local seals, and what seals them.

        Returns those before it that lie in one frame with them, and are taken out, too.  Raises Corrupt when
        a checkpoint of ours covers an entry from ``start`` on, OSError.
        """
        self.check_unsigned(start)
        segments = self.holdings.segments
        place, first = self._holding(start).place_of(start)
        tree, kept = self.holdings.tree_at(first), self.holdings.stretch(first, start - first)
        self.is_adrift = True
        while start < self._newest.first:  # the newest first: at each moment they follow each other
            self.disk.remove(self._newest.path)
            segments.pop()
        self._pen.close()
        self._pen = self._at_end()
        self._pen.cut(place)
        self._newest.shorten(first, place)
        self.holdings.grow(tree)
        self.is_adrift = False
        return kept

    def begins_frame(self, start: int) -> bool:
        """Whether the log can be cut there, and nothing before it has to be written again."""
        return self._holding(start).place_of(start)[1] == start

    def _holding(self, start: int) -> Segment:
        """The segment in which that entry is, or comes next."""
        return next(each for each in reversed(self.holdings.segments) if each.first <= start)

    def prune(self, before_ms: int) -> int:
        """Remove closed segments that the hub has had since before that time.  Returns how many.

        A hub that was restored from a backup may have lost them again: what it says that it lacks stays.
        Raises OSError.
        """
        gone = 0
        while len(self.holdings.segments) > 1:
            oldest = self.holdings.segments[0]
            at_ms = received_at_ms(oldest.path, oldest.end)
            if at_ms is None or at_ms > before_ms:
                break
            if self._at_hub is not None and oldest.end > self._at_hub:
                break
            self.disk.remove(oldest.path)
            del self.holdings.segments[0]
            gone += 1
        return gone


def _check(directory: Path, found: Found, hashes: Hashes, sealer: Sealer) -> None:
    """Raise Corrupt unless what was found is the log of this board, with its hashes."""
    if not found.segments:
        raise Corrupt(f"{directory} holds no segment of the log", hint=MOVE)
    if found.seal is not None:
        try:
            sealer.verify(found.seal)
        except LichenError as error:
            path = found.segments[-1].path
            raise Corrupt(f"{path}: the last seal is not by this board: {error}", hint=MOVE) from error
    # Of what was pruned the hashes alone are left, and cannot be made anew.
    if hashes.frontier(found.before.size).hashes != found.before.hashes:
        raise Corrupt(
            f"{hashes.path} is damaged: it is not of the entries before {found.before.size}", hint=REMOVE
        )
