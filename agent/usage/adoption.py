"""Entries that the hub has and this board has not any more: a card that was set back to an old copy.

They are the board's own, signed by it and fetched back from the hub, and they take the place of whatever
was written since without knowing better; that is put aside first and follows them later
(`agent.usage.aside`).  At each moment the log on the disk is a begin of what was signed, so the power may
fail at any.

Called by `agent.usage.ledger`, on its thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from agent.usage.aside import renumbered, salt_of
from agent.usage.frames import writing
from agent.usage.volume import Volume
from agent.wire.errors import Corrupt, Refused
from agent.wire.tlog import leaf_hash
from agent.wire.usage import head

BATCH = 256
"""How many entries that lay aside come back in one batch."""


def adopt(volume: Volume, start: int, entries: Sequence[bytes], note: str, lost: Sequence[bytes]) -> None:
    """Let ``lost``, leaf hashes, then ``entries`` stand from ``start`` on; others from there on lie aside.

    ``note`` is a checkpoint of ours that covers them: the caller has verified that they are of its tree.
    Raises Corrupt when it is not ours, or a checkpoint covers what stands there now; Refused.
    """
    end = start + len(lost) + len(entries)
    checkpoint = volume.sealer.open_checkpoint(note)
    if checkpoint.size < end or not 0 <= start <= volume.size:
        raise Refused(
            f"entries {start} to {end - 1} do not go on from the {volume.size} of {volume.origin}, or are"
            f" beyond the {checkpoint.size} of the checkpoint"
        )
    for seq, entry in enumerate(entries, start + len(lost)):
        if head(entry).seq != seq:
            raise Corrupt(f"entry {seq} of {volume.origin}, as the hub has it, is numbered {head(entry).seq}")
    _check_root(volume, start, [*lost, *map(leaf_hash, entries)], checkpoint.size, checkpoint.root)
    with writing(volume.directory):
        if start < volume.size:
            # What stays of a frame that is cut is a begin of what was signed, as all of this is.
            volume.append(_put_aside(volume, start), binding=True)
        volume.append(entries, lost, binding=True)


def _check_root(volume: Volume, start: int, leaves: list[bytes], size: int, root: bytes) -> None:
    """Raise Corrupt when the leaves are the last of a tree with another root."""
    tree = volume.holdings.tree_at(start)
    tree.extend(leaves)
    if tree.size == size and tree.root() != root:
        raise Corrupt(
            f"the {size} entries of {volume.origin}, as the hub has them, have another root than we signed"
        )


def _put_aside(volume: Volume, start: int) -> list[bytes]:
    volume.check_unsigned(start)
    volume.aside.add(entry for _, entry in volume.holdings.entries(start, volume.size) if entry)
    return volume.cut(start)


def settle(volume: Volume) -> int:
    """Append what lies aside, as far as it is not in the log.  Returns how many entries that were.

    Raises Refused (code "disk-full": the rest follows next time), Corrupt.
    """
    if not volume.aside.exists():
        return 0
    if volume.size > volume.signed and volume.begins_frame(volume.signed):
        with writing(volume.directory):
            _put_aside(volume, volume.signed)  # what was written since comes behind what lay there before
    count = 0
    for batch in _batches(_missing(volume)):
        volume.append([renumbered(entry, volume.size + at) for at, entry in enumerate(batch)])
        count += len(batch)
    with writing(volume.directory):
        volume.aside.remove()
    return count


def carried(volume: Volume, start: int | None) -> Iterator[bytes]:
    """What goes on in a new log: the entries from ``start`` on, and what lies aside and is not in the log."""
    holdings = volume.holdings
    if start is not None:
        held = holdings.entries(max(start, holdings.held_from), volume.size)
        yield from (entry for _, entry in held if entry)
    yield from _missing(volume)


def _missing(volume: Volume) -> Iterator[bytes]:
    """What lies aside and is not in the log, each once."""
    if not volume.aside.exists():
        return
    missing = {salt_of(entry) for entry in volume.aside.entries()}
    for _, entry in volume.holdings.entries(volume.holdings.held_from, volume.size):
        if entry:
            missing.discard(salt_of(entry))
    for entry in volume.aside.entries():
        if (salt := salt_of(entry)) in missing:
            missing.remove(salt)
            yield entry


def _batches(entries: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(itertools.islice(entries, BATCH)):
        yield batch
