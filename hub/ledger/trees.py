"""The tree of a log as it is stored: how its tiles grow, and what can be proven from them.

`Growth` is pure: the witness adds leaves to it and stores the tiles that it gives back.  `Tree` reads tiles
of one log inside of a transaction, for roots and proofs of any size that the log ever had.  Nothing here
looks at what an entry says, or signs.

    tree = Tree(tx, log.id)
    root = await tree.root(512)
    hashes = await tree.inclusion(index=7, size=512)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from agent.wire import tlog
from agent.wire.errors import Corrupt
from agent.wire.tiles import HEIGHT, MAX_LEVEL, WIDTH, Tile, tile_reader
from agent.wire.tlog import EMPTY_ROOT, HASH, Frontier, Read
from hub.store import ledgers
from hub.store.database import Tx
from hub.store.ledgers import TileKey

T = TypeVar("T")


def open_tiles(size: int) -> list[TileKey]:
    """The tiles of a log of ``size`` entries that are begun and not full: those that will grow."""
    rows = ((level, size >> HEIGHT * level) for level in range(MAX_LEVEL + 1))
    return [(level, hashes // WIDTH) for level, hashes in rows if hashes % WIDTH]


class Growth:
    """A log that grows from ``frontier`` on; ``begun`` holds the tiles of `open_tiles` as they are stored."""

    def __init__(self, frontier: Frontier, begun: Mapping[TileKey, bytes]) -> None:
        if missing := [key for key in open_tiles(frontier.size) if key not in begun]:
            raise Corrupt(f"tile {missing[0]} of a log of {frontier.size} entries is not stored")
        self.frontier = frontier.copy()
        self._tiles = {key: bytearray(hashes) for key, hashes in begun.items()}
        self._grown: set[TileKey] = set()

    def copy(self) -> Growth:
        """One that grows on its own."""
        open = open_tiles(self.frontier.size)
        other = Growth(self.frontier, {key: bytes(self._tiles[key]) for key in open})
        # Full tiles never change again: they are only to be stored.
        other._tiles = {key: bytearray(self._tiles[key]) for key in self._grown} | other._tiles
        other._grown = set(self._grown)
        return other

    def add(self, leaves: Iterable[bytes]) -> None:
        """Append leaves."""
        for leaf in leaves:
            at = self.frontier.size
            for level, stored in enumerate(self.frontier.append(leaf)):
                row, rest = divmod(level, HEIGHT)
                if rest == 0:
                    key = row, (at >> level) // WIDTH
                    self._tiles.setdefault(key, bytearray()).extend(stored)
                    self._grown.add(key)

    def take_grown(self) -> dict[TileKey, bytes]:
        """The tiles that have more hashes than they had when this was asked last, or are new."""
        grown, self._grown = {key: bytes(self._tiles[key]) for key in sorted(self._grown)}, set()
        return grown


class Tree:
    """The stored tiles of one log."""

    def __init__(self, tx: Tx, log: int) -> None:
        self._tx = tx
        self._log = log

    async def root(self, size: int) -> bytes:
        """The root that the log had with ``size`` entries.  Raises Refused for more than it has."""
        if size == 0:
            return EMPTY_ROOT
        return await self._read(size, lambda read: tlog.subtree_root(0, size, read))

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """The proof that entry ``index`` is among the first ``size``.  Raises Refused."""
        return await self._read(size, lambda read: tlog.inclusion_proof(index, size, read))

    async def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that the first ``old`` entries begin the first ``new``.  Raises Refused."""
        return await self._read(new, lambda read: tlog.consistency_proof(old, new, read))

    async def leaves(self, start: int, count: int) -> list[bytes]:
        """The leaf hashes of ``count`` entries from ``start`` on."""
        first, last = start // WIDTH, (start + count - 1) // WIDTH
        found = await ledgers.find_tiles(self._tx, self._log, [(0, n) for n in range(first, last + 1)])
        row = b"".join(found.get((0, n), b"") for n in range(first, last + 1))
        at = (start - first * WIDTH) * HASH
        cut = row[at : at + count * HASH]
        if len(cut) != count * HASH:
            raise Corrupt(f"leaf hashes from {start} to {start + count} of log {self._log} are not stored")
        return [cut[each : each + HASH] for each in range(0, len(cut), HASH)]

    async def _read(self, size: int, ask: Callable[[Read], T]) -> T:
        """What ``ask`` makes of the hashes: asked twice, as the first time tells which tiles it needs."""
        wanted: dict[TileKey, None] = {}

        def note(tile: Tile) -> bytes:
            wanted[tile.level, tile.index] = None
            return bytes(tile.width * HASH)

        ask(tile_reader(size, note))
        found = await ledgers.find_tiles(self._tx, self._log, list(wanted))

        def fetch(tile: Tile) -> bytes:
            # The log may have grown since it had this size.
            return found.get((tile.level, tile.index), b"")[: tile.width * HASH]

        return ask(tile_reader(size, fetch))
