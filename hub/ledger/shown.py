"""Usage logs as others read them: the files of c2sp.org/tlog-tiles, and the proof of a record.

Owns what of a log is given out, and in which form; `hub.web.tlog` says to whom.  It reads inside of a
transaction of the caller, and changes nothing.  Only what is under a cosigned checkpoint is shown.
"""

from __future__ import annotations

from agent.wire.errors import Refused
from agent.wire.proofs import ProofFile
from agent.wire.tiles import ENTRIES, WIDTH, Tile, pack_entries
from hub.ledger.trees import Tree
from hub.store import usage
from hub.store.database import Tx
from hub.store.ledgers import CheckpointRow, LogRow


async def head_of(tx: Tx, log: LogRow) -> CheckpointRow:
    """The newest checkpoint that is cosigned.  Raises Refused (code "not-found")."""
    newest = await usage.checkpoint(tx, log.id)
    if newest is None:
        raise Refused(
            f"no checkpoint of {log.origin} is cosigned yet",
            code="not-found",
            hint="a board signs one once it has heard from this hub",
        )
    return newest


async def tile_of(tx: Tx, log: LogRow, tile: Tile) -> bytes:
    """A tile of hashes, or a bundle of entries.  Raises Refused (code "not-found")."""
    head = await head_of(tx, log)
    data = None
    if tile.leaves.stop <= head.size:
        if tile.level == ENTRIES:
            data = await _bundle(tx, log, tile)
        else:
            data = await usage.tile(tx, log.id, tile.level, tile.index, tile.width)
    if data is None:
        raise Refused(
            f"{log.origin} has no {tile.path}", code="not-found", hint="its checkpoint says its size"
        )
    return data


async def _bundle(tx: Tx, log: LogRow, tile: Tile) -> bytes | None:
    entries = await usage.entries(tx, log.id, tile.index * WIDTH, tile.width)
    return pack_entries(entries) if any(entries) else None


async def proof_of(tx: Tx, log: LogRow, index: int, size: int = 0) -> ProofFile:
    """The proof of a record under the newest checkpoint, or under that of ``size``.

    Raises Refused (code "not-found").
    """
    head = await usage.checkpoint_of(tx, log.id, size) if size else await usage.checkpoint(tx, log.id)
    if head is None or not 0 <= index < head.size:
        what = f"checkpoint of {size} entries" if size and head is None else f"record {index} with a receipt"
        raise Refused(f"{log.origin} has no {what}", code="not-found", hint="`lichen usage ls` shows sizes")
    [entry] = await usage.entries(tx, log.id, index, 1)
    if entry is None:
        raise Refused(f"record {index} of {log.origin} is lost: nobody holds it", code="not-found")
    hashes = await Tree(tx, log.id).inclusion(index, head.size)
    return ProofFile(index, tuple(hashes), head.note, entry)
