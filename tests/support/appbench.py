"""A board whose apps are real: the reconciler over Podman, haproxy and a registry.

    bench = Bench(podman, tmp_path)
    async with bench.running():
        await bench.order(bench.app(1))
        await bench.until_running(1)

What an agent has around it (sensors, the link, a hub) is left out; in virtual time and over an engine in
memory it is `support.apphouse`.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.base.sqlite import Database
from agent.clock import Clock
from agent.containers.apps import FILE
from agent.containers.memory import SCHEMA, VERSION, Memory
from agent.containers.orders import Orders
from agent.containers.podman import Podman
from agent.containers.proxy import Proxy
from agent.containers.reconcile import Reconciler
from agent.wire import note
from agent.wire.apps import AppState, Failure
from agent.wire.messages import compose
from agent.wire.order import (
    App,
    Attachment,
    Config,
    Given,
    Health,
    Network,
    Order,
    Port,
    Secret,
    Service,
    Volume,
)
from agent.wire.seal import seal
from support.apphouse import BOARD, KEY, SEAL
from support.lab import free_ports
from support.podman import Stand

SERVE = "trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait"
ANSWERS = Health(("CMD-SHELL", "wget -q -O /dev/null http://127.0.0.1/"))


class Bench:
    """A board whose apps are real."""

    def __init__(self, podman: Stand, folder: Path) -> None:
        self.podman, self.folder = podman, folder
        self.name = podman.app("demo").replace("-", "_")
        (self.port,) = free_ports(1)
        self.generation = 0
        self.boot = Clock.system().boot
        self.reconciler: Reconciler | None = None
        self.orders: Orders | None = None
        self.engine: Podman | None = None

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[None]:
        """An agent, from its start to its end; ``options`` are those of the engine."""
        machine = Clock.system()
        # Volumes go only by a clock that is right, which a machine for tests need not have.
        clock = Clock(self.boot, machine.mono_ms, machine.wall_ms, lambda: "synced")
        async with (
            Database.open(self.folder / FILE, SCHEMA, version=VERSION) as database,
            self.podman.engine(**options) as engine,
            asyncio.TaskGroup() as group,
        ):
            self.engine = engine
            self.orders = await Orders.load(database, BOARD)
            self.reconciler = Reconciler(
                engine,
                self.orders,
                await Memory.load(database, clock.boot),
                clock,
                unseal=SEAL.unseal,
                policy_file=self.podman.config.policy,
                make_proxy=lambda: Proxy(self.podman.folder / "proxy"),
            )
            task = group.create_task(self.reconciler.run(), name="reconciler")
            yield
            task.cancel()

    async def order(self, *apps: App) -> None:
        self.generation += 1
        order = compose("order", Order(BOARD, self.generation, 0, apps))
        assert self.orders is not None
        assert self.reconciler is not None
        await self.orders.take(note.sign(order, KEY), KEY.verifier, "h" * 16)
        self.reconciler.bell.set()

    def image(self, text: str, command: str = SERVE, **files: bytes) -> str:
        """An image in the registry whose web server says ``text``."""
        content = {"www/index.html": text.encode(), **files}
        return self.podman.registry.push("demo", command=["sh", "-c", command], files=content)

    def app(
        self,
        revision: int,
        text: str = "one",
        *,
        command: str = SERVE,
        image: str = "",
        timeout_ms: int = 300_000,
        **more: Any,
    ) -> App:
        """An app with everything: a healthcheck, a secret, a config, a volume, a published port.

        ``more`` are fields of its service.
        """
        service = Service(
            "web",
            image or self.image(text, command),
            networks=(Attachment(f"{self.name}_net"),),
            secrets=(Given("key", "/www/key"),),
            configs=(Given("conf", "/etc/demo.conf", mode=0o400),),
            stop_grace_ms=3000,
            **{"health": ANSWERS, "ports": (Port(80, self.port, host_ip="127.0.0.1"),), **more},
        )
        return App(
            self.name,
            revision,
            services=(service,),
            networks=(Network(f"{self.name}_net"),),
            volumes=(Volume(f"{self.name}_data"),),
            secrets=(Secret("key", "v1", seal(SEAL.public, b"swordfish")),),
            configs=(Config("conf", "c1", "plain"),),
            timeout_ms=timeout_ms,
        )

    @property
    def state(self) -> AppState | None:
        assert self.reconciler is not None
        return next((each for each in self.reconciler.report().apps if each.name == self.name), None)

    async def until_running(self, revision: int, within_s: float = 30) -> AppState:
        async with asyncio.timeout(within_s):
            while True:
                state = self.state
                if state and (state.running, state.state, state.step) == (revision, "running", ""):
                    return state
                await asyncio.sleep(0.02)

    async def until_failed(self, revision: int, within_s: float = 30) -> Failure:
        """Why a revision has failed, once what ran before runs again, or nothing does."""
        async with asyncio.timeout(within_s):
            while True:
                state = self.state
                if state and state.failure and (state.failure.revision, state.step) == (revision, ""):
                    assert state.running == state.failure.rolled_back_to
                    return state.failure
                await asyncio.sleep(0.02)

    async def until_gone(self, within_s: float = 30) -> None:
        """Until nothing is said of the app any more."""
        async with asyncio.timeout(within_s):
            while self.state is not None:
                await asyncio.sleep(0.02)

    async def get(self, path: str = "/") -> str:
        def ask() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(ask)

    def started(self) -> dict[str, int]:
        """When the containers that run were started, by name."""
        assert self.reconciler is not None
        found = [each for each in self.reconciler.containers() if each.pid]
        return {each.name: each.started_ms or 0 for each in found}

    def list_all(self) -> dict[str, str]:
        """Everything of Podman's that an app can leave behind."""
        kinds = ("container", "network", "volume", "secret")
        found = {kind: self.podman.podman(kind, "ls", "--quiet") for kind in kinds[1:]}
        return {**found, "container": self.podman.podman("ps", "--all", "--quiet")}
