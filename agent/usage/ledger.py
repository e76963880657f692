"""The usage log of this board, as the rest of the agent has it: append, give back, sign, remember receipts.

Made in `agent.app`; the meter appends, the sync asks and tells, the status looks.  It never touches the
network, and a record means nothing to it but its number and its run.

One thread does everything that blocks, in the order of the calls: a call that is cancelled still happens.
After an error in the midst of a change the log is read from the disk again before anything else is done with
it.  Another process can look at the files meanwhile (`agent.usage.peek`), but not write them.

    async with Ledger.open(directory, log_key=identity.log_key, clock=clock) as ledger:
        first, size = await ledger.append([record, ...])     # on the disk, sealed
        await ledger.hub_size_known(receipt.size)            # from here on seals are checkpoints
        note = await ledger.checkpoint()
        await ledger.keep_receipt(receipt.note, hub_key)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.base.files import exists
from agent.base.lock import held
from agent.clock import Clock
from agent.usage import adoption
from agent.usage.epochs import Epochs
from agent.usage.frames import Disk, writing
from agent.usage.segments import DAY_MS
from agent.usage.volume import Volume
from agent.wire.cosignature import CosignatureVerifier
from agent.wire.errors import LichenError, Refused
from agent.wire.note import Signer
from agent.wire.usage import ContainerRecord, Known, Record, encode

T = TypeVar("T")
KEEP_DAYS = 35


@dataclass(frozen=True, slots=True)
class LedgerState:
    """How the log stood after the last change.

    ``signed``: the size of the largest checkpoint of ours.  ``cosigned``: size and time (ms) of the newest
    receipt.  ``hub_known``: whether checkpoints are signed.  ``aside``: whether entries lie aside.
    """

    origin: str = ""
    size: int = 0
    held_from: int = 0
    signed: int = 0
    cosigned: tuple[int, int] | None = None
    hub_known: bool = False
    aside: bool = False
    bytes: int = 0


class Ledger:
    """The current log of a board.  Made by `Ledger.open`.

    ``committed`` rings after every change, and once at the open.  ``last`` is the last record of each run
    whose counters may go on, ``latest`` the last of each other kind, as they were found at the open; what was
    appended since is not in them.
    """

    def __init__(self, epochs: Epochs, disk: Disk) -> None:
        self.committed = asyncio.Event()
        self.state = LedgerState()
        self.last: dict[str, ContainerRecord] = {}
        self.latest: dict[str, Record] = {}
        self._epochs = epochs
        self._disk = disk
        self._open: Volume | None = None  # of the thread
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    @classmethod
    @asynccontextmanager
    async def open(
        cls, directory: Path, *, log_key: Signer, clock: Clock, disk: Disk | None = None
    ) -> AsyncIterator[Ledger]:
        """Open the log below ``directory``, or begin the first.

        Raises Corrupt, naming the place, Busy while another process has it open, and Refused (codes
        "disk-full", "disk-read-only").
        """
        disk = disk or Disk()
        if not exists(directory):
            with writing(directory):
                disk.make(directory)
        with held(directory / "lock", "an agent with this usage log"):
            ledger = cls(Epochs(directory, log_key, clock, disk), disk)
            try:
                await ledger._do(lambda volume: None)
                ledger.committed.set()
                yield ledger
            finally:
                await ledger._close()

    # --- what the others see

    @property
    def origin(self) -> str:
        """The name of the log: ``<board>/usage/<epoch>``."""
        return self.state.origin

    @property
    def epoch(self) -> str:
        """The epoch of the log."""
        return self.state.origin.rpartition("/")[2]

    @property
    def size(self) -> int:
        """How many entries the log has."""
        return self.state.size

    @property
    def held_from(self) -> int:
        """The first entry that has not been pruned."""
        return self.state.held_from

    @property
    def signed(self) -> int:
        """The size of the largest checkpoint of ours on the disk; 0 before the first."""
        return self.state.signed

    @property
    def cosigned(self) -> tuple[int, int] | None:
        """Size and time (ms since 1970) of the newest receipt."""
        return self.state.cosigned

    # --- the meter's

    async def append(self, records: Sequence[Known]) -> tuple[int, int]:
        """Append records, numbered in that order, as one batch.  Index of the first, and the size then.

        They are on the disk and sealed when this returns.  Raises Refused (codes "disk-full",
        "disk-read-only", "too-large"), and nothing of them is in the log.
        """

        def append(volume: Volume) -> tuple[int, int]:
            first = volume.size
            volume.append([encode(record, seq) for seq, record in enumerate(records, first)])
            return first, volume.size

        return await self._change(append)

    # --- the sync's: what is there

    async def entries(self, start: int, count: int) -> list[bytes]:
        """Up to ``count`` entries from ``start`` on: up to the end, or to one that is lost.

        Raises Refused (code "not-held") when the first is pruned or lost, Corrupt naming the place.
        """
        return await self._do(lambda volume: volume.holdings.stretch(start, count))

    async def leaf_hashes(self, start: int, count: int) -> list[bytes]:
        """The leaf hashes of ``count`` entries, held or not.  Raises Corrupt, Refused."""

        def leaves(volume: Volume) -> list[bytes]:
            if not 0 <= start <= start + count <= volume.size:
                raise Refused(
                    f"there are no entries {start} to {start + count - 1} in a log of {volume.size}"
                )
            return volume.holdings.hashes.leaves(start, count)

        return await self._do(leaves)

    async def read_hash(self, level: int, index: int) -> bytes:
        """The hash of a full subtree.  Raises Corrupt, Refused."""

        def hash_of(volume: Volume) -> bytes:
            if not 0 <= index < volume.size >> level:
                raise Refused(f"subtree {index} of level {level} is not in a log of {volume.size}")
            return volume.holdings.hashes.read(level, index)

        return await self._do(hash_of)

    async def root(self, size: int | None = None) -> bytes:
        """The root of the first ``size`` entries, of all without a word.  Raises Corrupt, Refused."""
        return await self._do(lambda volume: volume.holdings.root_at(volume.size if size is None else size))

    async def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """That entry ``index`` is in the log of ``size``.  Raises Corrupt, Refused."""
        return await self._do(lambda volume: volume.holdings.inclusion(index, size))

    async def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """That the log of ``new`` entries begins with that of ``old``.  Raises Corrupt, Refused."""
        return await self._do(lambda volume: volume.holdings.consistency(old, new))

    # --- the sync's: what the hub says

    async def hub_size_known(self, size: int) -> None:
        """The hub has said in this start that it holds ``size`` entries: from now on seals are checkpoints.

        Raises Refused (code "behind") when that is more than there is here: `adopt` first.
        """
        await self._change(lambda volume: volume.know_hub(size))

    async def checkpoint(self, size: int | None = None) -> str:
        """The note of the checkpoint of that size, of all entries without a word.

        Raises Refused (code "hub-unknown") before `hub_size_known` for more than is `signed`, Corrupt.
        """
        return await self._change(lambda volume: volume.checkpoint(volume.size if size is None else size))

    async def receipt(self) -> str:
        """The newest receipt, a note; empty before the first."""
        return await self._do(lambda volume: volume.receipts.newest.note if volume.receipts.newest else "")

    async def keep_receipt(self, note: str, hub_key: CosignatureVerifier) -> bool:
        """Keep a checkpoint of ours that the hub cosigned; False when that is not news.

        Raises Corrupt when a signature is bad or it has another root than the log, Refused (code "behind").
        """
        return await self._change(lambda volume: volume.keep_receipt(note, hub_key))

    async def adopt(
        self, start: int, entries: Sequence[bytes], note: str, lost: Sequence[bytes] = ()
    ) -> None:
        """Let ``lost``, leaf hashes, and then ``entries`` stand from ``start`` on, as the hub has them.

        Our own from there on lie aside until `settle`.  ``note`` is a checkpoint of ours, of which the caller
        has verified that its tree begins with these.  Raises Corrupt when a checkpoint covers what would have
        to go, Refused.
        """
        await self._change(lambda volume: adoption.adopt(volume, start, entries, note, lost))

    async def settle(self) -> int:
        """Append what lies aside under new numbers, each once.  Returns how many entries that were."""
        return await self._change(adoption.settle)

    async def new_epoch(self, reason: str, previous: str = "", carry: int | None = None) -> None:
        """Begin a new log, whose first record says why, and names the last checkpoint note of this one.

        The entries from ``carry`` on, which nobody but this board has, go on in the new one.
        """

        def begin(volume: Volume) -> None:
            try:
                self._epochs.begin(reason, previous, adoption.carried(volume, carry))
                with contextlib.suppress(LichenError):  # what is not covered only stays longer
                    volume.cover(all_of_them=True)
            finally:
                self._shut()  # which log counts is read from the disk, whatever happened

        await self._change(begin)

    # --- the house-keeping

    async def prune(self, now_ms: int, keep_days: int = KEEP_DAYS) -> int:
        """Remove whole segments that the hub has had for ``keep_days``.  Returns how many.

        ``now_ms`` must be right: whoever is not sure does not call.
        """
        before_ms = now_ms - keep_days * DAY_MS

        def prune(volume: Volume) -> int:
            with writing(volume.directory):
                return volume.prune(before_ms) + self._epochs.prune(before_ms)

        return await self._change(prune)

    # --- the thread

    async def _change(self, work: Callable[[Volume], T]) -> T:
        try:
            return await self._do(work)
        finally:
            self.committed.set()

    async def _do(self, work: Callable[[Volume], T]) -> T:
        # The shield: a cancelled caller could not know whether it happened, so it does.
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, self._run, work))

    def _run(self, work: Callable[[Volume], T]) -> T:
        volume = self._open or self._opened()
        try:
            return work(volume)
        finally:
            if volume.is_adrift:
                self._shut()
            with contextlib.suppress(LichenError):  # who comes next hears of it
                self.state = _state_of(self._open or self._opened())

    def _opened(self) -> Volume:
        folder = self._epochs.current()
        volume, found = Volume.open(folder, self._epochs.sealer(folder.name), self._disk)
        if not self.state.origin:
            for entry in volume.aside.entries():
                found.note_aside(entry)
            self.last, self.latest = found.last(), found.others()
        self._open = volume
        return volume

    def _shut(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None

    async def _close(self) -> None:
        # The thread works in order: what was begun is ended before.
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._shut)
        self._thread.shutdown(wait=False)
        await asyncio.shield(closing)


def _state_of(volume: Volume) -> LedgerState:
    receipt = volume.receipts.newest
    return LedgerState(
        origin=volume.origin,
        size=volume.size,
        held_from=volume.holdings.held_from,
        signed=volume.signed,
        cosigned=None if receipt is None else (receipt.size, receipt.at_ms),
        hub_known=volume.hub_known,
        aside=volume.aside.exists(),
        bytes=volume.holdings.disk_bytes(),
    )
