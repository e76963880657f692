"""A usage log as files in memory, the same each time: for whoever checks or imports one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.wire.audit import RECEIPT
from agent.wire.cosignature import Cosigner, add_signature, cosign
from agent.wire.note import Signer, party_id, sign
from agent.wire.proofs import ProofFile
from agent.wire.tiles import CHECKPOINT, bundles_of, pack_entries, tile_bytes, tiles_of
from agent.wire.tlog import Checkpoint, Frontier, inclusion_proof, leaf_hash, stored_index, subtree_root
from agent.wire.usage import (
    BoardRecord,
    ContainerRecord,
    Counters,
    EpochRecord,
    Known,
    encode,
    origin_of,
)

BOARD = Signer("board", hashlib.sha256(b"log key of the board").digest())
HUB = Signer("hub", hashlib.sha256(b"root key of the hub").digest())
WITNESS = Cosigner(f"{party_id(HUB.public_key)}/receipt", hashlib.sha256(b"receipt key of the hub").digest())
ORIGIN = origin_of(party_id(BOARD.public_key), "abcdefghijklmnop")
LOG = Signer(ORIGIN, BOARD.seed)
AT_S = 1_700_000_000
PERIOD_MS = 600_000


def salt_of(seq: int) -> str:
    """What nobody could guess, were this not a test."""
    return hashlib.sha256(b"salt %d" % seq).hexdigest()[:32]


def record(seq: int) -> Known:
    """A record as it could be: of the epoch, then of a container, and now and then of the board."""
    head: dict[str, Any] = {
        "seq": seq,
        "salt": salt_of(seq),
        "boot": "0123456789abcdef" * 2,
        "mono0_ms": seq * PERIOD_MS,
        "mono1_ms": (seq + 1) * PERIOD_MS,
        "wall0_ms": AT_S * 1000 + seq * PERIOD_MS,
        "wall1_ms": AT_S * 1000 + (seq + 1) * PERIOD_MS,
        "clock": "synced",
    }
    if seq == 0:
        return EpochRecord(
            **head | {"mono1_ms": 0, "wall1_ms": AT_S * 1000}, reason="the first of this board"
        )
    if seq % 7 == 3:
        return BoardRecord(**head, cpus=4, memory_bytes=2**32, disk_bytes=2**35)
    return ContainerRecord(
        **head,
        order=12,
        payer=party_id(HUB.public_key),
        workspace="default",
        app="demo",
        service="web",
        image=f"registry.example/demo@sha256:{hashlib.sha256(b'demo').hexdigest()}",
        container="demo-web-1",
        run="k3yd5q7c2n4xw6ba",
        cpu_us=1_000_000 + seq,
        mem_byte_ms=PERIOD_MS * 20_000_000,
        mem_sample_ms=30_000,
        mem_peak=25_000_000,
        io_r=None,
        io_w=4096 * seq,
        net_rx=1500,
        net_tx=150_000,
        oom_kills=0,
        exit_code=None,
        abs=Counters(cpu_us=1_000_000 * seq, io_w=4096 * seq, net_rx=1500 * seq, net_tx=150_000 * seq),
    )


def entry(seq: int) -> bytes:
    """The entry of `record`."""
    return encode(record(seq))


def short_entry(seq: int) -> bytes:
    """A record of a kind that nobody knows yet, made quickly."""
    return b'{"v":1,"seq":%d,"salt":"%032x","type":"later"}' % (seq, seq)


@dataclass
class UsageLog:
    """A board's log while it is written.  ``files`` is what an export of it holds."""

    signer: Signer = LOG
    entries: list[bytes | None] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    frontier: Frontier = field(default_factory=Frontier)
    files: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, size: int, entry: Callable[[int], bytes] = entry, signer: Signer = LOG) -> UsageLog:
        """One of ``size`` entries, exported, without a receipt."""
        log = cls(signer)
        log.extend(map(entry, range(size)))
        log.export()
        return log

    @property
    def size(self) -> int:
        """How many entries it has."""
        return self.frontier.size

    def extend(self, entries: Iterable[bytes]) -> None:
        """Write entries."""
        for each in entries:
            self.entries.append(each)
            self.stored += self.frontier.append(leaf_hash(each))

    def read(self, level: int, index: int) -> bytes:
        """A hash of its tree."""
        return self.stored[stored_index(level, index)]

    def note(self, size: int | None = None) -> str:
        """The checkpoint note of a size, signed by the board."""
        size = self.size if size is None else size
        text = Checkpoint(self.signer.name, size, subtree_root(0, size, self.read)).text()
        return sign(text, self.signer)

    def cosigned(self, size: int | None = None, at_s: int = AT_S) -> str:
        """The same with the cosignature of the hub."""
        note = self.note(size)
        return add_signature(note, cosign(note, WITNESS, at_s))

    def proof(self, index: int, *, extra: bool = True) -> ProofFile:
        """The proof of one entry under the newest checkpoint, with its cosignature."""
        hashes = inclusion_proof(index, self.size, self.read)
        return ProofFile(index, tuple(hashes), self.cosigned(), self.entries[index] if extra else None)

    def export(self, receipt: int | None = None) -> dict[str, bytes]:
        """Put everything into ``files``, with the receipt of a size."""
        self.files = {CHECKPOINT: self.note().encode()}
        for tile in tiles_of(self.size):
            self.files[tile.path] = tile_bytes(tile, self.read)
        for tile in bundles_of(self.size):
            held: Sequence[bytes | None] = self.entries[tile.leaves.start : tile.leaves.stop]
            if any(held):
                self.files[tile.path] = pack_entries(held)
        if receipt is not None:
            self.files[RECEIPT] = self.cosigned(receipt).encode()
        return self.files
