"""The usage log of a board in memory: a list of entries, and what its board can sign of it.

For tests of whoever takes logs in.  It does what it is told, so it can lie: `fork` makes another history
with the same key, and nothing keeps a test from signing both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.wire import note
from agent.wire.note import Signer
from agent.wire.package import Package
from agent.wire.tlog import (
    Checkpoint,
    Frontier,
    consistency_proof,
    leaf_hash,
    stored_index,
    subtree_root,
)
from agent.wire.usage import (
    BoardRecord,
    ContainerRecord,
    Counters,
    EpochRecord,
    HoleRecord,
    Known,
    SensorRecord,
    draw_epoch,
    encode,
    numbered,
    origin_of,
)

BOOT = "b0" * 16
WALL_MS = 1_790_000_000_000
HOUR_MS = 3_600_000


def began(previous: str = "", reason: str = "first") -> EpochRecord:
    """The first record of a log."""
    return EpochRecord(
        boot=BOOT, mono0_ms=0, mono1_ms=0, wall0_ms=WALL_MS, wall1_ms=WALL_MS, clock="synced",
        reason=reason, previous=previous,
    )  # fmt: skip


def used(
    at: int, *, cpu_us: int = 1000, boot: str = BOOT, clock: str = "synced", app: str = "demo"
) -> ContainerRecord:
    """What a container used in the ``at``-th hour of a boot."""
    return ContainerRecord(
        boot=boot, mono0_ms=at * HOUR_MS, mono1_ms=(at + 1) * HOUR_MS,
        wall0_ms=WALL_MS + at * HOUR_MS, wall1_ms=WALL_MS + (at + 1) * HOUR_MS, clock=clock,  # type: ignore[arg-type]
        order=1, payer="h" * 16, workspace="default", app=app, service="web",
        image="docker.io/library/nginx@sha256:" + "a" * 64, container="c" * 12, run="r" * 16,
        cpu_us=cpu_us, mem_byte_ms=2**30, mem_sample_ms=30_000, mem_peak=2**20, io_r=None, io_w=None,
        net_rx=100, net_tx=200, oom_kills=0, exit_code=None, abs=Counters(cpu_us=cpu_us * (at + 1)),
    )  # fmt: skip


def offered(at: int) -> BoardRecord:
    """What a board offered in an hour."""
    return BoardRecord(
        boot=BOOT, mono0_ms=at * HOUR_MS, mono1_ms=(at + 1) * HOUR_MS,
        wall0_ms=WALL_MS + at * HOUR_MS, wall1_ms=WALL_MS + (at + 1) * HOUR_MS, clock="synced",
        cpus=4, memory_bytes=2**30, disk_bytes=2**34,
    )  # fmt: skip


def delivered(day: int, readings: int = 8640) -> SensorRecord:
    """The readings of a sensor on a day."""
    return SensorRecord(
        boot=BOOT, mono0_ms=0, mono1_ms=24 * HOUR_MS, wall0_ms=WALL_MS, wall1_ms=WALL_MS + 24 * HOUR_MS,
        clock="synced", sensor="room", unit="Cel", readings=readings, day=day,
    )  # fmt: skip


def hole(first: int, count: int, reason: str = "pruned") -> HoleRecord:
    """A declaration that records are gone."""
    return HoleRecord(
        boot=BOOT, mono0_ms=0, mono1_ms=0, wall0_ms=WALL_MS, wall1_ms=WALL_MS, clock="synced",
        first=first, count=count, reason=reason,
    )  # fmt: skip


class BoardLog:
    """One epoch of the log of the board that has ``key``."""

    def __init__(self, key: Signer | None = None, epoch: str = "") -> None:
        self.key = key or note.generate()
        self.epoch = epoch or draw_epoch()
        self.entries: list[bytes] = []
        self._tree = Frontier()
        self._hashes: list[bytes] = []

    @property
    def board(self) -> str:
        """The id of the board."""
        return self.key.name

    @property
    def origin(self) -> str:
        """The name of the log."""
        return origin_of(self.board, self.epoch)

    @property
    def size(self) -> int:
        """How many entries it has."""
        return len(self.entries)

    def append(self, *records: Known) -> None:
        """Write records."""
        for record in records:
            self.write(encode(numbered(record, self.size)))

    def write(self, entry: bytes) -> None:
        """Write any bytes."""
        self.entries.append(entry)
        self._hashes += self._tree.append(leaf_hash(entry))

    def grow(self, count: int, make: Callable[[int], Known] = used) -> None:
        """Write so many records more; the first of all says that the log began."""
        for _ in range(count):
            self.append(began() if not self.entries else make(self.size))

    def fork(self, size: int) -> BoardLog:
        """Another history that has the same first entries."""
        other = BoardLog(self.key, self.epoch)
        for entry in self.entries[:size]:
            other.write(entry)
        return other

    def read(self, level: int, index: int) -> bytes:
        """A hash of the tree."""
        return self._hashes[stored_index(level, index)]

    def checkpoint(self, size: int | None = None) -> str:
        """The signed checkpoint of a size."""
        size = self.size if size is None else size
        root = subtree_root(0, size, self.read)
        return note.sign(Checkpoint(self.origin, size, root).text(), Signer(self.origin, self.key.seed))

    def package(
        self, start: int, count: int, *, of: int | None = None, nonce: str = "n", lost: int = 0
    ) -> Package:
        """Entries ``start`` to ``start`` + ``count`` - 1 under the checkpoint of size ``of``, or their own.

        Of the first ``lost`` of them only the leaf hashes.
        """
        end = start + count
        of = end if of is None else of
        return Package(
            self.origin,
            nonce,
            start,
            tuple(self.entries[start + lost : end]),
            tuple(consistency_proof(end, of, self.read)),
            self.checkpoint(of),
            tuple(leaf_hash(entry) for entry in self.entries[start : start + lost]),
        )

    def question(self, checkpoint: str = "", proof: Sequence[bytes] = (), *, nonce: str = "q") -> Package:
        """What is held of it?"""
        return Package(self.origin, nonce, self.size, checkpoint=checkpoint, proof=tuple(proof))


def changed(package: Package, at: int, entry: bytes) -> Package:
    """The package with another entry."""
    entries = (*package.entries[:at], entry, *package.entries[at + 1 :])
    return replace(package, entries=entries)
