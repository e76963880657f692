"""Where the apps of this board are dealt with: orders in, the report out, logs when they are asked for.

`agent.app` makes one.  It costs nothing until there is something to do: the database is opened when the
first order comes, Podman and all that speaks to it are imported when there is an app, and the
reconciler ends with the last of them.  Whatever is wrong with apps never ends the agent: readings go on,
and a problem says what to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agent.base.broker import Message
from agent.base.files import exists
from agent.base.sqlite import Database
from agent.clock import Clock
from agent.config import Config
from agent.wire.errors import ConfigError, Corrupt, LichenError, LinkDown, Refused
from agent.wire.messages import Reply

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    # What only a board with apps needs is imported when it has some.
    from agent.config import Containers as ContainersConfig
    from agent.containers.engine import Engine
    from agent.containers.memory import Memory
    from agent.containers.orders import Orders
    from agent.containers.reconcile import Reconciler
    from agent.containers.worker import Proxy
    from agent.runs import Account
    from agent.wire import note
    from agent.wire.apps import Apps, LogsWanted

log = logging.getLogger(__name__)

FILE = "apps.db"
PROXY = "proxy"
AGAIN_S = 60.0
"""How often to look whether a disk that was full has room for the database."""

OpenEngine = Callable[["ContainersConfig", Path], "AbstractAsyncContextManager[Engine]"]
"""How an engine is opened: `agent.containers.podman.open_engine`."""
NoteOrder = Callable[[int, str, bool, str], None]
"""Told of an order that the hub has signed: its generation, its SHA-256, whether it was taken, why not."""
Trouble = tuple[str, str, str]
"""What is wrong: the code of a problem, which app (or ""), and a sentence."""


class Containers:
    """The apps of one board.

    ``changed`` rings when `report` says something else, ``troubled`` when `troubles` does, or an app is in
    another state.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        board: str,
        unseal: Callable[[str], bytes],
        open_engine: OpenEngine | None = None,
        account: Account = lambda runs: None,
        note_order: NoteOrder = lambda generation, sha256, accepted, reason: None,
    ) -> None:
        """``unseal`` opens a box that was sealed to this board; ``open_engine``: another than Podman;
        ``account`` is told which containers there are, for whoever counts what they use, and ``note_order``
        of each order."""
        self.changed = asyncio.Event()
        self.troubled = asyncio.Event()
        self._config, self._clock = config, clock
        self._board, self._unseal, self._open_engine = board, unseal, open_engine
        self._account, self._note_order = account, note_order
        self._path: Path = config.state_dir / FILE
        self._asked = asyncio.Event()  # somebody wants the database
        self._opened = asyncio.Event()  # it is there, or cannot be
        self._ordered = asyncio.Event()
        self._fault: LichenError | None = None
        self._orders: Orders | None = None
        self._memory: Memory | None = None
        self._engine: Engine | None = None
        self._reconciler: Reconciler | None = None
        self._told: tuple[object, ...] = ()

    async def run(self) -> None:
        """Deal with apps, if there are any, until cancelled."""
        if not exists(self._path):
            self._account(())
            await self._asked.wait()
        while True:
            try:
                await self._keep()
            except (Corrupt, ConfigError) as error:
                self._fail(error)
                await asyncio.Event().wait()  # nothing that a machine can mend
            except LichenError as error:  # such as a full disk, which may have room again
                self._fail(error)
                await asyncio.sleep(AGAIN_S)

    def _fail(self, error: LichenError) -> None:
        log.error("apps cannot be kept", extra={"error": str(error)})
        self._fault = error
        self._orders = self._memory = self._reconciler = None  # their database is closed
        self._opened.set()
        self._tell()

    async def _keep(self) -> None:
        """Open the database, and reconcile whenever there is something to."""
        from agent.containers.memory import SCHEMA, VERSION, Memory
        from agent.containers.orders import Orders

        async with Database.open(self._path, SCHEMA, version=VERSION) as database:
            self._memory = await Memory.load(database, self._clock.boot)
            self._orders = await Orders.load(database, self._board)
            self._note_taken(self._orders)
            self._fault = None
            self._opened.set()
            self._tell()
            while True:
                self._ordered.clear()
                order = self._orders.order
                if (order is not None and order.apps) or self._memory.apps:
                    await self._reconcile(self._orders, self._memory)
                else:
                    self._account(())
                if not self._ordered.is_set():
                    await self._ordered.wait()

    async def _reconcile(self, orders: Orders, memory: Memory) -> None:
        """Have an engine, and a reconciler until no app is left."""
        from agent.containers.reconcile import Reconciler

        open_engine = self._open_engine
        if open_engine is None:
            from agent.containers.podman import open_engine as open_podman

            open_engine = open_podman
        folder = self._config.state_dir / PROXY
        async with open_engine(self._config.containers, self._config.runtime_dir) as engine:
            self._engine = engine
            self._reconciler = reconciler = Reconciler(
                engine,
                orders,
                memory,
                self._clock,
                unseal=self._unseal,
                policy_file=self._config.containers.policy,
                make_proxy=lambda: self._make_proxy(folder),
                leftover_proxy=folder.exists(),
                tell=self._tell,
                board=self._board,
                account=self._account,
            )
            try:
                await reconciler.run()
            finally:
                self._engine = None

    def _make_proxy(self, folder: Path) -> Proxy:
        from agent.containers.proxy import Proxy

        def died() -> None:
            if self._reconciler is not None:
                self._reconciler.bell.set()

        return Proxy(folder, died=died)

    # --- orders ----------------------------------------------------------------------------------

    async def take(self, text: str, key: note.Verifier, hub: str) -> None:
        """Take the order in a note by ``key``, of ``hub``.  Raises Refused, Corrupt; `report` says it too."""
        self._asked.set()
        await self._opened.wait()
        if self._orders is None:
            raise Refused(f"apps cannot be kept on this board: {self._fault}", code="apps")
        try:
            if await self._orders.take(text, key, hub):
                order = self._orders.order
                assert order is not None
                log.info("order taken", extra={"generation": order.generation, "apps": len(order.apps)})
                self._note_taken(self._orders)
                self._ordered.set()
                if self._reconciler is not None:
                    self._reconciler.bell.set()
        except Refused:
            refusal = self._orders.refusal
            if refusal is not None and refusal.sha256:
                self._note_order(refusal.generation, refusal.sha256, False, refusal.reason)
            raise
        finally:
            self._tell()

    def _note_taken(self, orders: Orders) -> None:
        if orders.order is not None:
            self._note_order(orders.order.generation, orders.sha256, True, "")

    # --- what is said ----------------------------------------------------------------------------

    def report(self) -> Apps | None:
        """What the hub is told, as far as it takes that; None while there is nothing to tell."""
        apps = self._report()
        if apps is None:
            return None
        from agent.containers.fitting import fit

        return fit(apps)

    def _report(self) -> Apps | None:
        if self._orders is None and self._fault is None:
            return None  # no order has ever come: 1.2 MB that a board without apps does not pay
        from agent.containers import report

        if self._fault is not None:
            return report.broken(self._fault)
        looked = self._reconciler is not None and self._reconciler.has_looked
        if self._memory is not None and self._memory.apps and not looked:
            return None  # there are apps, and nobody knows yet how they are: not that they are gone
        if self._reconciler is not None:
            return self._reconciler.report()
        if self._orders is not None and (self._orders.order or self._orders.refusal):
            return report.idle(self._orders)
        return None

    def troubles(self) -> list[Trouble]:
        """What a person should know, for the board's problems."""
        if self._orders is None and self._fault is None:
            return []
        from agent.containers import report

        if self._reconciler is None:
            return report.troubles(self._report(), self._fault)
        fault = self._fault or self._reconciler.fault
        return report.troubles(self._report(), fault, self._reconciler.policy_fault)

    def _tell(self) -> None:
        self.changed.set()
        said = self.report()
        states = [(app.name, app.state) for app in said.apps] if said is not None else []
        told = self.troubles(), states
        if told != self._told:
            self._told = told
            self.troubled.set()

    async def logs(self, wanted: LogsWanted, id: str, publish: Callable[[Message], Awaitable[bool]]) -> Reply:
        """Send what the containers of an app wrote, and return what became of that.  Raises LinkDown when
        the broker goes."""
        if self._engine is None or self._reconciler is None:
            return Reply(id, "refused", error="no apps run on this board")
        from agent.containers.logs import Logs

        try:
            logs = Logs(self._board, self._engine, publish)
            return await logs.answer(wanted, id, self._reconciler.containers())
        except Refused as error:
            return Reply(id, "failed", error=str(error))
        except LinkDown as error:
            if not error.code.startswith("podman"):
                raise
            return Reply(id, "failed", error=str(error))
