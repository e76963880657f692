"""A board's usage log and its hub, with a wire between them that does what it is told.

`Desk` is the board: a folder that is its card, a ledger and a `Sync` while it is on.  `Wire` stands for
broker and HTTPS alike: packages reach the witness and its receipts come back, unless it is cut, loses some
or changes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

from agent.base.broker import Message
from agent.identity import Identity
from agent.usage.bulk import Bulk
from agent.usage.ledger import Ledger
from agent.usage.sync import Sync
from agent.wire.envelope import unpack
from agent.wire.errors import Corrupt, LinkDown, Refused
from agent.wire.package import Package, Receipt, encode_package, read_package
from agent.wire.plain import dumps
from agent.wire.series import encode_series, read_series
from hub.ledger.copies import copy_of
from hub.store import boards, usage
from support.ledgers import Bench
from support.witnessing import WitnessStand


class Wire:
    """Between boards and one hub.  ``packages`` counts those that came through, ``bulk`` those over HTTPS."""

    def __init__(self, stand: WitnessStand) -> None:
        self.stand = stand
        self.packages = 0
        self.bulk = 0
        self.fetched = 0
        self.cut_after = 2**60  # how many more packages a session carries
        self.has_https = True
        self.change: Callable[[Package], Package | None] = lambda package: package
        self.seen: list[Package] = []

    async def carry(self, board: str, package: Package) -> Receipt | None:
        """Bring a package to the hub; its answer, or None when something got lost."""
        if self.cut_after <= 0:
            raise LinkDown("the link broke")
        self.cut_after -= 1
        changed = self.change(read_package(encode_package(package)))
        if changed is None:
            return None
        self.packages += 1
        self.seen.append(changed)
        try:
            return await self.stand.witness.take(board, changed)
        except (Refused, Corrupt):
            return None  # as over the broker: it is dropped, and the board named in a problem


class OverWire(Bulk):
    """HTTPS, as `Wire` has it."""

    def __init__(self, wire: Wire, board: str) -> None:
        self._wire = wire
        self._board = board

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: Any) -> None: ...

    def send(self, packages: Sequence[Package]) -> asyncio.Future[Receipt]:
        return asyncio.ensure_future(self._send(read_series(encode_series(packages))))

    async def _send(self, packages: Sequence[Package]) -> Receipt:
        if not self._wire.has_https:
            raise LinkDown("the hub does not answer")
        receipt = None
        for package in packages:
            self._wire.bulk += 1
            receipt = await self._wire.carry(self._board, package)
        if receipt is None:
            raise LinkDown("the answer got lost")
        return receipt

    async def fetch(self, epoch: str, start: int) -> Package:
        if not self._wire.has_https:
            raise LinkDown("the hub does not answer")
        self._wire.fetched += 1
        async with self._wire.stand.store.read() as tx:
            log = await usage.get_log(tx, f"{self._board}/usage/{epoch}")
            return read_package(encode_package(await copy_of(tx, log, start)))


class Desk(Bench):
    """A board with a card; see the module."""

    def plug(self, wire: Wire) -> Self:
        """Use this wire from now on."""
        self.wire = wire
        return self

    @property
    def identity(self) -> Identity:
        """As much of an identity as the sync needs."""
        keys = SimpleNamespace(receipt=self.wire.stand.keys.receipt.vkey)
        board, log_key = self.log_key.name, self.log_key
        document = SimpleNamespace(keys=keys)
        return cast("Identity", SimpleNamespace(board=board, log_key=log_key, document=lambda: document))

    def sync(self, ledger: Ledger, **options: Any) -> Sync:
        """The sync of a ledger of this board."""
        options.setdefault("resend_s", 0.02)
        options.setdefault("high_s", 0.2)
        return Sync(
            ledger,
            self.identity,
            self.clock,
            open_bulk=lambda identity, clock: OverWire(self.wire, self.log_key.name),
            **options,
        )

    @asynccontextmanager
    async def on(self, **options: Any) -> AsyncIterator[tuple[Ledger, Sync]]:
        """The board is on, and has a session for as long as the block lasts, or until the wire is cut."""
        async with self.open() as ledger:
            sync = self.sync(ledger, **options)
            async with self.session(sync):
                yield ledger, sync

    @asynccontextmanager
    async def session(self, sync: Sync) -> AsyncIterator[None]:
        """A session of the link."""
        board = self.log_key.name

        async def publish(message: Message) -> bool:
            package = read_package(unpack(message.payload, message.content_type))
            receipt = await self.wire.carry(board, package)
            if receipt is not None:
                sync.heard(dumps(receipt))
            return True

        async def keep() -> None:
            with contextlib.suppress(LinkDown):
                await sync.keep(publish)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(keep(), name="sync")
            try:
                yield
            finally:
                task.cancel()

    def back_up(self, name: str) -> Path:
        """A copy of the card."""
        copy = self.folder.with_name(name)
        shutil.copytree(self.folder, copy)
        return copy

    def restore(self, copy: Path) -> None:
        """Set the card back to a copy."""
        shutil.rmtree(self.folder)
        shutil.copytree(copy, self.folder)

    async def join(self) -> None:
        """Be a board of the hub."""
        stand = self.wire.stand
        async with stand.store.write() as tx:
            if await boards.find_board(tx, self.log_key.name) is None:
                await boards.add_board(
                    tx, id=self.log_key.name, log_key=self.log_key.vkey, seal_key="", joined_ms=stand.now_ms
                )


async def agreed(ledger: Ledger, sync: Sync, within_s: float = 10) -> None:
    """Wait until the hub has cosigned all that there is, by its word in this session."""
    async with asyncio.timeout(within_s):
        while sync.held != ledger.size or not ledger.cosigned or ledger.cosigned[0] < ledger.size:
            await asyncio.sleep(0.002)


async def entries_of(ledger: Ledger, start: int = 0) -> list[bytes]:
    """What the board holds from ``start`` on."""
    found: list[bytes] = []
    while start + len(found) < ledger.size:
        found += await ledger.entries(start + len(found), 256)
    return found


async def held_by(stand: WitnessStand, origin: str) -> Sequence[bytes | None]:
    """What the hub holds of a log."""
    async with stand.store.read() as tx:
        log = await usage.get_log(tx, origin)
        return await usage.entries(tx, log.id, 0, log.size)
