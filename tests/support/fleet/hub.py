"""The hub of the fleet: everything of `hub.app` that speaks to boards, put together in the same way.

Left out are what listens (pages, joining), retention, and the broker's own process.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hub.access.keys import SignedDocument
from hub.access.vault import Vault
from hub.apps.desk import new_desk
from hub.config import Limits
from hub.fleet import link
from hub.fleet.alerts import Alerts
from hub.fleet.announcement import Announcement
from hub.fleet.commands import Commands
from hub.fleet.ingest import Ingest
from hub.fleet.latest import Latest
from hub.fleet.limits import Allowances
from hub.fleet.mosquitto import Mosquitto
from hub.fleet.revocation import Revocation
from hub.fleet.throttle import Throttle
from hub.store import boards
from hub.store.database import Store
from support.blank import new_store
from support.fleet.files import FULL, ROOMY, Folders, quiet
from support.fleet.machine import true_ms
from support.fleet.network import Network
from support.homehub import HomeHub
from support.witnessing import new_witness

ROOM = (64 * 2**30, 128 * 2**30)


class Hub:
    """One hub; ``file`` is its database."""

    def __init__(self, root: Path, home: HomeHub, network: Network) -> None:
        self.full = False
        self.busy = False
        self._home = home
        self._network = network
        self._folders = Folders(root, "hub.db")
        self._life: asyncio.Task[None] | None = None
        self._store: Store | None = None
        self._commands: Commands | None = None

    @property
    def file(self) -> Path:
        return self._folders.file

    async def admit(self, ids: list[str]) -> None:
        """Let boards have joined."""
        async with new_store(self.file) as store, store.write() as tx:
            for id in ids:
                await boards.add_board(tx, id=id, log_key="", seal_key="", joined_ms=true_ms())

    # --- what can happen to it -------------------------------------------------------------------

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start it."""
        assert self._life is None
        self._life = group.create_task(self._live(), name="hub")

    async def stop(self) -> None:
        """Stop it in peace."""
        if self._life is not None:
            life, self._life = self._life, None
            life.cancel()
            await asyncio.wait([life])

    async def kill(self) -> None:
        """End it as SIGKILL does."""
        await quiet()
        self._network.break_line(link.CLIENT)
        left = self._folders.leave()
        await self.stop()
        self._folders.forget(left)

    async def fill_disk(self) -> None:
        """Leave no room for another page of the database."""
        self.full = True
        await self._pragma(FULL)

    async def free_disk(self) -> None:
        """Make room again."""
        self.full = False
        await self._pragma(ROOMY)

    async def watch(self, board: str, seconds: float) -> None:
        """Look at the page of a board for a while."""
        commands = self._commands
        if commands is not None:
            with commands.watching(board):
                await asyncio.sleep(seconds)

    async def _pragma(self, sql: str) -> None:
        if self._store is not None:
            async with self._store.write() as tx:
                await tx.exec_driver_sql(sql)

    # --- its life --------------------------------------------------------------------------------

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            store = self._store = await stack.enter_async_context(Store.open(self.file))
            stack.callback(self._forget_store)
            if self.full:
                await self._pragma(FULL)
            latest = Latest()
            await latest.load(store)
            alerts = Alerts(store, latest, true_ms, disk=lambda: ROOM)
            await alerts.load()
            commands = self._commands = Commands(store, self._home.keys, true_ms)
            allowances = Allowances(Limits(), loop.time)
            announcement = Announcement(store, SignedDocument(1, self._home.document()))
            desk = new_desk(
                store, self._home.keys, Vault(bytes(32)), true_ms, announced=announcement.announced
            )
            witness = new_witness(store, self._home.keys, true_ms, alerts)
            ingest = Ingest(
                store,
                latest,
                true_ms,
                alerts=alerts,
                commands=commands,
                apps=desk.reports,
                usage=witness,
                allowances=allowances,
                # Less often than in the field, and so with more in between: each costs what ten readings do.
                commit_every_ms=3000,
                fold_every_s=600,
            )
            await ingest.recover()
            revocation = Revocation(store, self._home.authority, latest, true_ms, deny=_nobody)
            throttle = Throttle(allowances, alerts, deny=_nobody)
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    link.keep(
                        self._network.connect_hub,
                        cast("Mosquitto", _Broker()),
                        ingest,
                        commands,
                        announcement,
                        revocation,
                        throttle,
                        alerts,
                        orders=desk.orders.run,
                        receipts=witness.speak,
                    ),
                    name="hub: link",
                )
                group.create_task(alerts.run(), name="hub: alerts")
                group.create_task(witness.run(), name="hub: witness")
                group.create_task(ingest.corrections.run(), name="hub: corrections")

    def _forget_store(self) -> None:
        self._store = self._commands = None


class _Broker:
    """What the link of the hub wants to know of the process that is its broker."""

    settings = SimpleNamespace(socket=Path("broker.sock"))

    async def wait_ready(self) -> None: ...


def _nobody(denied: Any) -> None:
    assert not list(denied), f"no board of this fleet is to be denied anything: {denied}"
