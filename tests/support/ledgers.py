"""Usage logs for tests: records, a board and its hub's receipts, and disks on which the power fails."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from agent.clock import Clock
from agent.usage.frames import Disk, writing
from agent.usage.ledger import Ledger
from agent.wire.cosignature import Cosigner, add_signature, cosign
from agent.wire.messages import ClockState
from agent.wire.note import Signer, Verifier, open_note
from agent.wire.tlog import Checkpoint, Frontier, leaf_hash
from agent.wire.usage import BoardRecord, ContainerRecord, Counters, read

DAY_MS = 86_400_000
START_MS = 1_764_000_000_000


@dataclass
class Bench:
    """A board with a folder, a clock that stands until it is moved, and the receipt key of its hub."""

    folder: Path
    log_key: Signer = field(default_factory=lambda: Signer("kzdvvj2umnduyauf", bytes(range(32))))
    cosigner: Cosigner = field(default_factory=lambda: Cosigner("hub/receipt", bytes(range(1, 33))))
    boot: str = "b" * 32
    mono_ms: int = 1_000
    wall_ms: int = START_MS
    clock_state: ClockState = "synced"
    made: int = 0

    @property
    def clock(self) -> Clock:
        return Clock(self.boot, lambda: self.mono_ms, lambda: self.wall_ms, lambda: self.clock_state)

    def open(self, disk: Disk | None = None) -> AbstractAsyncContextManager[Ledger]:
        return Ledger.open(self.folder, log_key=self.log_key, clock=self.clock, disk=disk)

    def wait(self, ms: int) -> None:
        self.mono_ms += ms
        self.wall_ms += ms

    def record(self, run: str = "demo-1", *, ended: bool = False) -> ContainerRecord:
        """A record that is told from every other by its ``cpu_us``; its salt follows from that, too."""
        self.made += 1
        return ContainerRecord(
            salt=f"{self.made:032x}",
            boot=self.boot,
            mono0_ms=self.mono_ms,
            mono1_ms=self.mono_ms + 600,
            wall0_ms=self.wall_ms,
            wall1_ms=self.wall_ms + 600,
            clock=self.clock_state,
            order=3,
            payer="abcdefghijklmnop",
            workspace="default",
            app="demo",
            service="web",
            image="registry.example.org/demo-app@sha256:" + "0123456789abcdef" * 4,
            container="demo-web-1",
            run=run,
            cpu_us=self.made,
            mem_byte_ms=12_345_678_901_234,
            mem_sample_ms=30_000,
            mem_peak=123_456_789,
            io_r=None,
            io_w=None,
            net_rx=1_234_567,
            net_tx=7_654_321,
            oom_kills=0,
            ended=ended,
            exit_code=0 if ended else None,
            abs=Counters(cpu_us=1_000_000 + self.made, net_rx=123_456_789, net_tx=987_654_321),
        )

    def records(self, count: int) -> list[ContainerRecord]:
        return [self.record() for _ in range(count)]

    def board_record(self) -> BoardRecord:
        return BoardRecord(
            boot=self.boot,
            mono0_ms=self.mono_ms,
            mono1_ms=self.mono_ms,
            wall0_ms=self.wall_ms,
            wall1_ms=self.wall_ms,
            clock=self.clock_state,
            cpus=4,
            memory_bytes=2**30,
            disk_bytes=2**34,
        )

    def cosigned(self, note: str, at_ms: int | None = None) -> str:
        """The note with the hub's cosignature."""
        return add_signature(note, cosign(note, self.cosigner, (at_ms or self.wall_ms) // 1000))

    async def receive(self, ledger: Ledger) -> str:
        """Let the hub have everything; its receipt is kept."""
        note = self.cosigned(await ledger.checkpoint())
        await ledger.keep_receipt(note, self.cosigner.verifier)
        return note

    def opened(self, note: str, origin: str) -> Checkpoint:
        """The checkpoint in a note of this board."""
        return Checkpoint.parse(open_note(note, Verifier(origin, self.log_key.public_key)))


async def whole(ledger: Ledger) -> list[bytes]:
    """Every entry from the first on that is held."""
    found: list[bytes] = []
    while ledger.held_from + len(found) < ledger.size:
        found += await ledger.entries(ledger.held_from + len(found), 256)
    return found


def numbers(entries: list[bytes]) -> list[int]:
    """Which records those are that `Bench.record` made."""
    records = map(read, entries)
    return [record.cpu_us or 0 for record in records if isinstance(record, ContainerRecord)]


def root_of(entries: list[bytes]) -> bytes:
    tree = Frontier()
    tree.extend(map(leaf_hash, entries))
    return tree.root()


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.seg"))


# --- disks -------------------------------------------------------------------------------------


class Steps(Disk):
    """A disk on which `step` comes before each change, and in the middle of each write."""

    def step(self, partly: Callable[[], None] = lambda: None) -> None:
        """``partly`` does half of what is about to be done."""

    def write(self, file: int, data: bytes, at: int) -> None:
        self.step(lambda: super(Steps, self).write(file, data[: len(data) // 2], at))
        super().write(file, data, at)

    def sync(self, file: int) -> None:
        self.step()
        super().sync(file)

    def cut(self, file: int, size: int) -> None:
        self.step()
        super().cut(file, size)

    def put(self, path: Path, data: bytes) -> None:
        with writing(path):
            self.step()
        super().put(path, data)

    def make(self, path: Path) -> None:
        self.step()
        super().make(path)

    def rename(self, path: Path, new: Path) -> None:
        self.step()
        super().rename(path, new)

    def remove(self, path: Path) -> None:
        self.step()
        super().remove(path)

    def clear(self, path: Path) -> None:
        self.step()
        super().clear(path)


class Killing(Steps):
    """Kills its own process at the step with that number, counted from 1; counts only with 0."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps = 0

    def step(self, partly: Callable[[], None] = lambda: None) -> None:
        self.steps += 1
        if self.steps == self.at:
            partly()
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()


class Cut(BaseException):
    """The power has failed: nobody can do anything about it."""


class PowerCut(Steps):
    """A disk whose power fails at a step, and that then has of what was not synced what it likes.

    A file is what it was when it was synced last, or what was written since, or the begin of that, or that
    with stretches that were never written.  What was to be there after a call that syncs by itself is there.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.left: int | None = None  # steps until the power fails
        self._paths: dict[int, Path] = {}
        self._synced: dict[Path, bytes] = {}

    def step(self, partly: Callable[[], None] = lambda: None) -> None:
        if self.left is None:
            return
        if self.left == 0:
            partly()
            self.left = -1
        if self.left < 0:
            raise Cut
        self.left -= 1

    def open(self, path: Path) -> int:
        file = super().open(path)
        self._paths[file] = path
        self._synced.setdefault(path, path.read_bytes())
        return file

    def sync(self, file: int) -> None:
        super().sync(file)
        self._synced[self._paths[file]] = self._paths[file].read_bytes()

    def put(self, path: Path, data: bytes) -> None:
        super().put(path, data)
        self._synced[path] = data

    def rename(self, path: Path, new: Path) -> None:
        super().rename(path, new)
        for old in [each for each in self._synced if path in each.parents]:
            self._synced[new / old.name] = self._synced.pop(old)

    def remove(self, path: Path) -> None:
        super().remove(path)
        self._synced.pop(path, None)

    def clear(self, path: Path) -> None:
        super().clear(path)
        for old in [each for each in self._synced if path in each.parents]:
            del self._synced[old]

    def fail(self) -> None:
        """Leave behind what a disk leaves behind; the power is back."""
        for path, synced in self._synced.items():
            if path.exists() and (now := path.read_bytes()) != synced:
                path.write_bytes(self._left_of(synced, now))
        self.left = None
        self.replaced()

    def replaced(self) -> None:
        """What is there now has been there for long."""
        self._paths.clear()
        self._synced.clear()

    def _left_of(self, synced: bytes, now: bytes) -> bytes:
        dice = random.Random(self._dice.getrandbits(64))  # so that the next file does not depend on this one
        same = next((at for at, (a, b) in enumerate(zip(synced, now, strict=False)) if a != b), len(synced))
        same = min(same, len(now))
        match dice.randrange(5):
            case 0:
                return synced
            case 1:
                return now
            case 2:
                return now[: dice.randint(same, len(now))]
            case 3:
                return now[:same] + bytes(len(now) - same)
            case _:
                torn = bytearray(now)
                for at in range(same, len(now)):
                    if dice.random() < 0.3:
                        torn[at] = dice.randrange(256)
                return bytes(torn)


class Full(Steps):
    """A disk that has room for so many more changes, and then is full until ``room`` is None again."""

    def __init__(self) -> None:
        self.room: int | None = None

    def step(self, partly: Callable[[], None] = lambda: None) -> None:
        if self.room is None:
            return
        if self.room == 0:
            partly()
            raise OSError(28, "No space left on device")
        self.room -= 1
