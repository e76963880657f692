"""A board's apps in virtual time: the reconciler over an engine and a proxy in memory.

@virtual
async def test_it(tmp_path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web()))
        await house.until(lambda: house.state("demo").state == "running")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.base.sqlite import Database
from agent.cgroups import Counters
from agent.clock import Clock
from agent.containers.apps import FILE
from agent.containers.deaths import Deaths
from agent.containers.memory import SCHEMA, VERSION, Memory
from agent.containers.meters import Meters
from agent.containers.orders import Orders
from agent.containers.reconcile import Reconciler
from agent.containers.routes import Backend, Route
from agent.runs import Run
from agent.wire import note, seal
from agent.wire.apps import Apps, AppState
from agent.wire.errors import LinkDown, Refused
from agent.wire.messages import ClockState, compose
from agent.wire.order import App, Order
from fakes.podman import FakePodman
from support.virtual import virtual_clock

BOARD = "b" * 16
KEY = note.generate("hub/order")
SEAL = seal.generate()


@dataclass
class Traffic:
    """A proxy in memory; ``log`` is what it was told, each time that this was something else."""

    served: dict[Route, dict[str, Backend]] = field(default_factory=dict)
    log: list[dict[Route, dict[str, Backend]]] = field(default_factory=list)
    connections: dict[str, int] = field(default_factory=dict)
    refusal: Refused | LinkDown | None = None

    @property
    def served_names(self) -> set[str]:
        """The containers to which anything leads."""
        return {name for backends in self.served.values() for name in backends}

    async def apply(self, routes: Mapping[Route, Mapping[str, Backend]]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.served = {route: dict(backends) for route, backends in routes.items()}
        if not self.log or self.log[-1] != self.served:
            self.log.append(self.served)

    def close(self) -> None:
        """It serves on."""

    async def sessions(self, route: Route, name: str) -> int:
        return self.connections.get(name, 0)


def no_counters(pid: int, *, net: bool = False) -> Counters:
    """Processes of an engine in memory count nothing."""
    raise Refused(f"there is no process {pid}", code="not-found")


class Heard(Deaths):
    """Deaths of processes that are an engine's in memory."""

    def __init__(self, died: Callable[[str], None], podman: FakePodman) -> None:
        super().__init__(died)
        self._tell, self._podman = died, podman
        self._pids: dict[str, int] = {}

    def watch(self, name: str, pid: int) -> None:
        self._pids[name] = pid
        if not self._podman.lives(pid):
            asyncio.get_running_loop().call_soon(self.tell, pid)

    def release(self, name: str) -> None:
        self._pids.pop(name, None)

    def tell(self, pid: int) -> None:
        for name in [name for name, each in self._pids.items() if each == pid]:
            self.release(name)
            self._tell(name)


class House:
    """One board: what outlives its agent, and the agent that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.podman = FakePodman()
        self.traffic = Traffic()
        self.policy = folder / "policy.toml"
        self.generation = 0
        self.boot = "b" * 32
        self.clock_state: ClockState = "synced"
        self.has_proxy = True
        self.told = asyncio.Event()
        self.ordered = asyncio.Event()
        self.reconciler: Reconciler | None = None
        self.orders: Orders | None = None
        self.memory: Memory | None = None
        self.apps: dict[str, App] = {}
        self.accounts: list[Sequence[Run]] = []
        """Which containers there were, as who counts what they use was told, each time."""

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[House]:
        """A board with its agent running."""
        house = cls(folder)
        async with house.running():
            yield house

    def account(self, runs: Sequence[Run]) -> None:
        self.accounts.append(runs)

    @property
    def clock(self) -> Clock:
        clock = virtual_clock(state=lambda: self.clock_state)
        clock.boot = self.boot
        return clock

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Reconciler]:
        """An agent, from its start to its end; only what is on the disk goes from one to the next."""
        clock = self.clock
        async with Database.open(self.folder / FILE, SCHEMA, version=VERSION) as database:
            self.memory = await Memory.load(database, clock.boot)
            self.orders = await Orders.load(database, BOARD)
            self.reconciler = reconciler = Reconciler(
                self.podman,
                self.orders,
                self.memory,
                clock,
                unseal=SEAL.unseal,
                policy_file=self.policy,
                make_proxy=(lambda: self.traffic) if self.has_proxy else None,
                leftover_proxy=bool(self.traffic.served),
                tell=self.told.set,
                board=BOARD,
                account=self.account,
                make_meters=self._make_meters,
                begun=self.podman.begun,
            )
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self._keep(reconciler), name="reconciler")
                yield reconciler
                task.cancel()

    def _make_meters(self, mono_ms: Callable[[], int], died: Callable[[], None]) -> Meters:
        def hear(died: Callable[[str], None]) -> Deaths:
            heard = Heard(died, self.podman)
            self.podman.on_death = heard.tell
            return heard

        return Meters(mono_ms, died, no_counters, hear)

    async def _keep(self, reconciler: Reconciler) -> None:
        """As the desk does: when the last app has gone it ends, and begins again with the next order."""
        while True:
            self.ordered.clear()
            await reconciler.run()
            await self.ordered.wait()

    async def order(self, *apps: App) -> None:
        """Order these apps and no others."""
        self.generation += 1
        order = Order(BOARD, self.generation, 0, apps)
        assert self.orders is not None
        assert self.reconciler is not None
        await self.orders.take(note.sign(compose("order", order), KEY), KEY.verifier, "h" * 16)
        self.ordered.set()
        self.reconciler.bell.set()

    @property
    def report(self) -> Apps:
        assert self.reconciler is not None
        return self.reconciler.report()

    def state(self, app: str = "demo") -> AppState:
        """What is reported of an app."""
        return next(each for each in self.report.apps if each.name == app)

    def is_known(self, app: str = "demo") -> bool:
        """Whether anything is reported of an app."""
        return any(each.name == app for each in self.report.apps)

    @property
    def running_names(self) -> list[str]:
        return sorted(name for name, each in self.podman.by_name.items() if each.phase == "running")

    async def until(self, condition: Callable[[], object], within_s: float = 600) -> float:
        """Let time pass until the condition holds; how long that took."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while not condition():
            if loop.time() - began_s > within_s:
                raise AssertionError(f"not within {within_s} s: {self.report}\n{self.podman.calls[-20:]}")
            await asyncio.sleep(0.05)
        return loop.time() - began_s

    async def until_running(self, revision: int, app: str = "demo") -> float:
        """Until a revision has come up."""
        return await self.until(
            lambda: (
                self.is_known(app)
                and (self.state(app).running, self.state(app).state) == (revision, "running")
                and not self.state(app).step
            )
        )
