"""What a board gets back of its own log, after its card was set back to an old copy.

The web hands it out to the board that the log is of (`hub.web.ledgers`).  It reads inside of a transaction of
the caller, and changes nothing.
"""

from __future__ import annotations

from agent.wire.package import MAX_ENTRIES, Package, fitting
from hub.ledger.trees import Tree
from hub.store import usage
from hub.store.database import Tx
from hub.store.ledgers import LogRow


async def copy_of(tx: Tx, log: LogRow, start: int) -> Package:
    """As many entries from ``start`` on as go into a package, under the newest checkpoint that is cosigned.

    Leaf hashes stand for entries in a hole, if it begins with one; it ends where another begins.
    """
    newest = await usage.checkpoint(tx, log.id)
    if newest is None or start >= newest.size:
        return Package(log.origin, "", start, checkpoint=newest.note if newest else "")
    held = await usage.entries(tx, log.id, start, min(MAX_ENTRIES, newest.size - start))
    lost = next((at for at, entry in enumerate(held) if entry is not None), len(held))
    entries: list[bytes] = []
    for entry in held[lost:]:
        if entry is None:
            break
        entries.append(entry)
    entries = entries[: fitting(entries)]
    tree = Tree(tx, log.id)
    return Package(
        log.origin,
        "",
        start,
        tuple(entries),
        tuple(await tree.consistency(start + lost + len(entries), newest.size)),
        newest.note,
        tuple(await tree.leaves(start, lost)) if lost else (),
    )
