"""A look at a board's usage log from another process, while the agent writes it or while none does.

Nothing is locked and nothing is changed: what is looked at is the log as it stood on the disk at one moment,
without a torn end.  It is given out as files of c2sp.org/tlog-tiles (`Peek.fetch`), which `agent.wire.audit`
checks and `export` writes into a folder, for whoever wants to check or carry it.

    peek(directory).fetch("tile/entries/000.p/12")

Of an entry that was pruned the hash is left, and the bundle has its place.  Files that nobody signed are not
given out: what is under local seals alone is in `Peek.entries`, and not in any bundle.

Called by the command line (``lichen-agent usage``) and by tests.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.base.files import exists
from agent.usage.epochs import NEW, read_name
from agent.usage.frames import Disk, reading
from agent.usage.hashes import NAME as HASHES
from agent.usage.hashes import Hashes
from agent.usage.holdings import Holdings
from agent.usage.receipts import NAME as RECEIPT_FILE
from agent.usage.recovery import Found, recover
from agent.usage.segments import Segment
from agent.wire.audit import RECEIPT
from agent.wire.errors import ConfigError, Corrupt, Refused
from agent.wire.note import split_note
from agent.wire.tiles import CHECKPOINT, ENTRIES, Tile, bundles_of, pack_entries, tile_bytes, tiles_of
from agent.wire.tlog import HASH, Checkpoint, stored_count

TRIES = 3
"""How often a log is read anew that was changed while it was looked at."""


@dataclass(frozen=True, slots=True)
class Peek:
    """A log of ``size`` entries, the first ``signed`` of them under ``checkpoint``, which may be empty.

    ``receipt``: the newest checkpoint with the hub's cosignature, or empty.
    """

    origin: str
    checkpoint: str
    signed: int
    receipt: str
    holdings: Holdings

    @property
    def size(self) -> int:
        """How many entries there are, under whatever seal."""
        return self.holdings.size

    @property
    def held_from(self) -> int:
        """The first entry that has not been pruned."""
        return self.holdings.held_from

    def close(self) -> None:
        """Give the file back."""
        self.holdings.hashes.close()

    def entries(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Index and bytes of the entries from ``start`` up to ``stop`` - 1 that are held.

        Raises Corrupt, naming the place.
        """
        return ((index, entry) for index, entry in self.holdings.entries(start, stop) if entry)

    def fetch(self, path: str) -> bytes | None:
        """A file of the log, None when there is none: a `agent.wire.audit.Fetch`."""
        if path in (CHECKPOINT, RECEIPT):
            return (self.checkpoint if path == CHECKPOINT else self.receipt).encode() or None
        tile = Tile.parse(path)
        if tile.leaves.stop > self.signed:
            return None
        if tile.level == ENTRIES:
            return self._bundle(tile)
        return tile_bytes(tile, self.holdings.hashes.read)

    def _bundle(self, tile: Tile) -> bytes | None:
        held = dict(self.entries(tile.leaves.start, tile.leaves.stop))
        return pack_entries([held.get(index) for index in tile.leaves]) if held else None

    def files(self) -> Iterator[str]:
        """The paths of all files, the checkpoint last.  Raises Refused when nothing is signed."""
        if not self.checkpoint:
            raise Refused(
                f"of {self.origin} nothing is signed yet",
                hint="a board signs its log once it has heard from its hub how far that one's copy goes",
            )
        yield from (tile.path for tile in tiles_of(self.signed))
        yield from (tile.path for tile in bundles_of(self.signed, self.held_from))
        yield from (RECEIPT, CHECKPOINT) if self.receipt else (CHECKPOINT,)


def peek(directory: Path, epoch: str = "") -> Peek:
    """The log below ``directory`` as it is now; of the current epoch, or of the one that is named.

    Raises ConfigError when there is none, Corrupt naming the place.
    """
    name = epoch or (read_name(directory) if exists(directory) else "")
    folder = directory / name
    if not name or not folder.is_dir():
        raise ConfigError(
            f"there is no usage log {epoch or ''} below {directory}".replace("  ", " "),
            hint="the agent begins one at its start; `epoch` names it",
        )
    for left in range(TRIES - 1, -1, -1):
        try:
            return _look(folder)
        except Corrupt:
            if not left:
                raise
    raise AssertionError


def epochs(directory: Path) -> list[str]:
    """The epochs of which there is anything below ``directory``."""
    return sorted(
        path.name for path in directory.iterdir() if path.is_dir() and not path.name.startswith(NEW)
    )


def export(log: Peek, folder: Path) -> int:
    """Write the files of a log into ``folder``.  Returns how many.  Raises Refused, ConfigError, OSError."""
    count = 0
    for path in log.files():
        data = log.fetch(path)
        if data is None:
            continue
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        count += 1
    return count


def _look(folder: Path) -> Peek:
    paths = sorted(folder.glob("*.seg"))
    if not paths:
        raise ConfigError(f"all of the log in {folder} was pruned", hint="the hub holds it")
    hashes = _Seen(folder / HASHES)
    found = recover(paths, Segment.origin_of(paths[0]), hashes.check)
    checkpoint, signed = _newest(found, receipt := _read(folder / RECEIPT_FILE))
    return Peek(Segment.origin_of(paths[0]), checkpoint, signed, receipt, Holdings(found, hashes))


def _newest(found: Found, receipt: str) -> tuple[str, int]:
    """The largest checkpoint of what is there, and its size."""
    own = ("", 0) if found.checkpoint is None else (found.checkpoint.note, found.checkpoint.size)
    with contextlib.suppress(Refused):  # one that is damaged is given out as it is, for whoever checks it
        size = Checkpoint.parse(split_note(receipt)[0]).size
        if own[1] < size <= found.tree.size:
            return receipt, size
    return own


def _read(path: Path) -> str:
    with reading(path):
        return path.read_text("utf-8", "replace") if path.exists() else ""


class _Looking(Disk):
    """A disk that nothing is changed on."""

    def open(self, path: Path) -> int:
        return os.open(path if path.exists() else os.devnull, os.O_RDONLY | os.O_CLOEXEC)


class _Seen(Hashes):
    """The file of hashes, and in memory those that may be missing in it: of the newest segment."""

    def __init__(self, path: Path) -> None:
        with reading(path):
            super().__init__(path, _Looking())
        self._from = -1
        self._more = bytearray()

    def check(self, size: int, hashes: bytes, is_durable: bool) -> None:
        at = stored_count(size)
        if self._from < 0:
            if is_durable and len(self._held(at, len(hashes) // HASH)) == len(hashes):
                return  # as they lie there, for whoever checks them
            self._from = at
        self._more += hashes

    def stretch(self, at: int, count: int) -> bytes:
        if self._from < 0 or at + count <= self._from:
            return super().stretch(at, count)
        before = super().stretch(at, self._from - at) if at < self._from else b""
        first = (max(at, self._from) - self._from) * HASH
        return before + bytes(self._more[first : first + count * HASH - len(before)])
