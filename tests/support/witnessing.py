"""A witness for tests: one of a store, its task while a block runs, and what it tells of boards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from agent.wire.cosignature import open_cosigned
from agent.wire.errors import LichenError
from agent.wire.note import Verifier, open_note
from agent.wire.package import Package, Receipt
from agent.wire.tlog import Checkpoint
from hub.access.keys import Keyring
from hub.ledger.claims import cosigner_of
from hub.ledger.witness import Tells, Witness
from hub.store import boards
from hub.store.database import Store
from hub.store.problems import Severity
from support.boardlog import HOUR_MS, WALL_MS, BoardLog

BYTES_PER_DAY = 8 * 1024 * 1024
NOW_MS = WALL_MS + 1000 * HOUR_MS


def new_witness(store: Store, keys: Keyring, now_ms: Callable[[], int], alerts: Tells) -> Witness:
    """A witness whose boards may write what they may by default."""
    return Witness(store, keys, now_ms, alerts=alerts, bytes_per_day=BYTES_PER_DAY)


@asynccontextmanager
async def at_work(witness: Witness) -> AsyncIterator[Witness]:
    """Let it store and answer while the block runs."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(witness.run(), name="witness")
        try:
            yield witness
        finally:
            task.cancel()


class Told:
    """Whoever is told of problems, and remembers them."""

    def __init__(self) -> None:
        self.problems: dict[tuple[str | None, str], str] = {}
        self.refusals: list[str] = []
        self.failures: list[LichenError] = []

    def found(
        self,
        owner: str | None,
        code: str,
        sentence: str,
        hint: str,
        severity: Severity = "warn",
        *,
        times: int = 1,
    ) -> None:
        assert hint, "a problem without a hint helps nobody"
        self.problems[owner, code] = sentence

    def over(self, owner: str | None, code: str) -> None:
        self.problems.pop((owner, code), None)

    def refused(self, board: str, sentence: str) -> None:
        self.refusals.append(sentence)

    def failed(self, error: LichenError) -> None:
        self.failures.append(error)


class WitnessStand:
    """A store, a witness of it, and what that says.  ``now_ms`` is the hub's clock."""

    def __init__(self, store: Store, keys: Keyring) -> None:
        self.store = store
        self.keys = keys
        self.now_ms = NOW_MS
        self.told = Told()
        self.witness = self.another()

    def another(self, *, bytes_per_day: int = BYTES_PER_DAY) -> Witness:
        """One more of the same hub, as after a restart."""
        return Witness(
            self.store, self.keys, lambda: self.now_ms, alerts=self.told, bytes_per_day=bytes_per_day
        )

    async def join(self, log: BoardLog) -> None:
        """Let the board of a log be one of this hub."""
        async with self.store.write() as tx:
            if await boards.find_board(tx, log.board) is None:
                await boards.add_board(
                    tx, id=log.board, log_key=log.key.vkey, seal_key="", joined_ms=self.now_ms
                )

    async def take(self, log: BoardLog, package: Package) -> Receipt:
        """Send a package of the board of ``log``."""
        return await self.witness.take(log.board, package)

    async def send(self, log: BoardLog, start: int = 0, step: int = 256) -> Receipt:
        """Send a log from ``start`` on, in packages of ``step``; the last receipt."""
        receipt = await self.take(log, log.question())
        for at in range(start, log.size, step):
            receipt = await self.take(log, log.package(at, min(step, log.size - at)))
            assert receipt.state == "ok", receipt.reason
        return receipt

    def proven(self, receipt: Receipt, log: BoardLog) -> int:
        """The size that a receipt stands for, after all of it was verified."""
        key = Verifier(log.origin, log.key.public_key)
        text = open_note(receipt.note, key)
        cosigned, _ = open_cosigned(receipt.note, cosigner_of(self.keys.receipt).verifier)
        assert text == cosigned
        size = Checkpoint.parse(text).size
        assert text == open_note(log.checkpoint(size), key), "the hub has another history"
        return size
