"""Tiles: a log as files that never change (https://c2sp.org/tlog-tiles).

The tree is cut into tiles of up to 256 hashes side by side, eight levels apart: level 0 holds the leaf
hashes, and each hash of level n + 1 is the root of a full tile of level n.  The entries themselves are in
bundles as wide as the tiles of level 0.  A tile is named by level and number, and by its width while it is
not full:

>>> Tile(0, 1234067).path, Tile(1, 0, 17).path, Tile(ENTRIES, 273, 112).path
('tile/0/x001/x234/067', 'tile/1/000.p/17', 'tile/entries/273.p/112')
>>> Tile.parse("tile/0/x001/x234/067")
Tile(level=0, index=1234067, width=256)

A log of 70,000 entries has 273 full tiles of level 0 and one of 112, one full of level 1 and one of 17, and
one of level 2 with a single hash:

>>> [str(tile.path) for tile in tiles_of(70_000) if tile.width < 256]
['tile/0/273.p/112', 'tile/1/001.p/17', 'tile/2/000.p/1']

In a bundle each entry stands after its length in two bytes.  An entry that is no longer held has length 0,
for a record is never empty; whole bundles of such are left out.

>>> pack_entries([b"one", None, b"three"])
b'\\x00\\x03one\\x00\\x00\\x00\\x05three'
>>> unpack_entries(b"\\x00\\x03one\\x00\\x00\\x00\\x05three", 3)
[b'one', None, b'three']

Any hash of the tree is in a tile, or made from part of one, so proofs can be made from tiles (`tile_reader`).

Called by the export of a board, the hub that serves its logs, and the audit.  It reads and writes no files.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agent.wire.errors import Corrupt, Refused
from agent.wire.tlog import HASH, Read, node_hash

WIDTH = 256
"""Hashes of a full tile, entries of a full bundle."""
HEIGHT = 8
"""Levels of the tree from one level of tiles to the next."""
ENTRIES = -1
"""The level of an entry bundle."""
MAX_LEVEL = 7
"""The highest level of tiles of a log of up to 2**63 - 1 entries."""
MAX_BUNDLE = WIDTH * (2 + 65_535)
"""Most bytes of a bundle."""
CHECKPOINT = "checkpoint"
"""Where the signed checkpoint of the log is, beside its tiles."""

_PATH = re.compile(
    r"tile/(entries|[0-7])/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?",
    re.ASCII,
)
_LENGTH = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile: number ``index`` of its level.  Level `ENTRIES` is the bundle of entries beside level 0."""

    level: int
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Where it is below the prefix of its log."""
        # SPEC tlog-tiles: zero-padded 3-digit path elements. All but the last MUST begin with an x.
        number = f"{self.index % 1000:03}"
        above = self.index // 1000
        while above:
            number = f"x{above % 1000:03}/{number}"
            above //= 1000
        level = "entries" if self.level == ENTRIES else self.level
        return f"tile/{level}/{number}" + (f".p/{self.width}" if self.width < WIDTH else "")

    @classmethod
    def parse(cls, path: str) -> Tile:
        """The tile at ``path``.  Raises Refused for a path that is written in another way than `path`."""
        match = _PATH.fullmatch(path)
        if match:
            level = ENTRIES if match[1] == "entries" else int(match[1])
            tile = cls(level, int(re.sub("[x/]", "", match[2])), int(match[3] or WIDTH))
            if tile.path == path:
                return tile
        raise Refused(f"{path[:128]!r} is not the path of a tile")

    @property
    def leaves(self) -> range:
        """The indexes of the entries that it spans."""
        each = WIDTH ** max(self.level, 0)
        first = self.index * WIDTH * each
        return range(first, first + self.width * each)


def tiles_of(size: int, before: int = 0) -> Iterator[Tile]:
    """The tiles of a log of ``size`` entries that one of ``before`` did not have, level by level."""
    for level in range(MAX_LEVEL + 1):
        hashes = size >> HEIGHT * level
        for index in range((before >> HEIGHT * level) // WIDTH, -(-hashes // WIDTH)):
            tile = Tile(level, index, min(WIDTH, hashes - index * WIDTH))
            if tile.leaves.stop > before:
                yield tile


def bundles_of(size: int, first: int = 0) -> Iterator[Tile]:
    """The entry bundles that hold the entries ``first`` to ``size`` - 1."""
    for index in range(first // WIDTH, -(-size // WIDTH)):
        yield Tile(ENTRIES, index, min(WIDTH, size - index * WIDTH))


def tile_bytes(tile: Tile, read: Read) -> bytes:
    """What is in a tile of hashes."""
    first = tile.index * WIDTH
    return b"".join(read(HEIGHT * tile.level, first + each) for each in range(tile.width))


def split_hashes(data: bytes, width: int) -> list[bytes]:
    """The hashes of a tile.  Raises Corrupt unless there are ``width``."""
    if len(data) != width * HASH:
        raise Corrupt(f"{len(data)} bytes where {width} hashes take {width * HASH}")
    return [data[at : at + HASH] for at in range(0, len(data), HASH)]


def full_root(hashes: Sequence[bytes]) -> bytes:
    """The root over 2**n hashes that stand for equal subtrees."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=True)]
    return row[0]


def tile_reader(size: int, fetch: Callable[[Tile], bytes]) -> Read:
    """Reads any hash of a log of ``size`` entries from its tiles.

    ``fetch`` gives the bytes of a tile of that size's tree.  Raises what it raises, Corrupt for a tile of
    another width, and Refused for a hash that is not within the log.
    """

    def read(level: int, index: int) -> bytes:
        if (index + 1) << level > size:
            raise Refused(f"the subtree {index} of level {level} is not within a log of {size} entries")
        row, span = level // HEIGHT, 1 << level % HEIGHT
        number, at = divmod(index * span, WIDTH)
        width = min(WIDTH, (size >> HEIGHT * row) - number * WIDTH)
        hashes = split_hashes(fetch(Tile(row, number, width)), width)
        return full_root(hashes[at : at + span])

    return read


def pack_entries(entries: Sequence[bytes | None]) -> bytes:
    """An entry bundle.  Raises Refused for an entry that is too long or empty."""
    parts: list[bytes] = []
    for entry in entries:
        if entry is not None and not 0 < len(entry) <= 0xFFFF:
            raise Refused(f"an entry of {len(entry)} bytes is not within 1 to 65535", code="too-large")
        parts += (_LENGTH.pack(len(entry or b"")), entry or b"")
    return b"".join(parts)


def unpack_entries(bundle: bytes, width: int) -> list[bytes | None]:
    """The ``width`` entries of a bundle, None for one that is no longer held.  Raises Corrupt."""
    entries: list[bytes | None] = []
    at, end = 0, len(bundle)
    while at < end:
        start = at + 2
        at = start + int.from_bytes(bundle[at:start], "big")
        entries.append(bundle[start:at] or None)
    if at != end or len(entries) != width:
        raise Corrupt(f"{end} bytes that are not {width} entries, each after its length")
    return entries
