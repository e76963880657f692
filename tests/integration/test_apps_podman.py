"""Apps for real: the reconciler over Podman 4.3.1, haproxy and a registry, under a client that hammers."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.base.sqlite import Database
from agent.clock import Clock
from agent.containers.memory import FILE, SCHEMA, VERSION, Memory
from agent.containers.orders import Orders
from agent.containers.proxy import Proxy
from agent.containers.reconcile import Reconciler
from agent.wire import note
from agent.wire.apps import AppState
from agent.wire.messages import compose
from agent.wire.order import (
    App,
    Attachment,
    Config,
    Given,
    Health,
    Mount,
    Network,
    Order,
    Port,
    Secret,
    Service,
    Update,
    Volume,
)
from agent.wire.seal import seal
from support.apphouse import BOARD, KEY, SEAL
from support.hammer import Hammer
from support.lab import free_ports
from support.podman import Stand, stand

pytestmark = pytest.mark.slow

SERVE = "trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait"


@pytest.fixture(scope="module")
def podman() -> Iterator[Stand]:
    with stand() as made:
        made.folder.joinpath("policy.toml").write_text(f'plain_http = ["{made.registry.address}"]')
        yield made


class Bench:
    """A board whose apps are real."""

    def __init__(self, podman: Stand, folder: Path) -> None:
        self.podman, self.folder = podman, folder
        self.name = podman.app("demo").replace("-", "_")
        (self.port,) = free_ports(1)
        self.generation = 0
        self.reconciler: Reconciler | None = None
        self.orders: Orders | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        machine = Clock.system()
        # Volumes go only by a clock that is right, which a machine for tests need not have.
        clock = Clock(machine.boot, machine.mono_ms, machine.wall_ms, lambda: "synced")
        async with (
            Database.open(self.folder / FILE, SCHEMA, version=VERSION) as database,
            self.podman.engine() as engine,
            asyncio.TaskGroup() as group,
        ):
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

    def app(self, revision: int, text: str = "one", *, command: str = SERVE, **more: object) -> App:
        """An app with everything: a healthcheck, a secret, a config, a volume, a published port."""
        image = self.podman.registry.push(
            "demo", command=["sh", "-c", command], files={"www/index.html": text.encode()}
        )
        service = Service(
            "web",
            image,
            health=Health(("CMD-SHELL", "wget -q -O /dev/null http://127.0.0.1/")),
            networks=(Attachment(f"{self.name}_net"),),
            secrets=(Given("key", "/www/key"),),
            configs=(Given("conf", "/etc/demo.conf", mode=0o400),),
            stop_grace_ms=3000,
            **{"ports": (Port(80, self.port, host_ip="127.0.0.1"),), **more},
        )
        return App(
            self.name,
            revision,
            services=(service,),
            networks=(Network(f"{self.name}_net"),),
            volumes=(Volume(f"{self.name}_data"),),
            secrets=(Secret("key", "v1", seal(SEAL.public, b"swordfish")),),
            configs=(Config("conf", "c1", "plain"),),
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

    async def get(self, path: str = "/") -> str:
        def ask() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(ask)

    def list_all(self) -> dict[str, str]:
        """Everything of Podman's that an app can leave behind."""
        kinds = ("container", "network", "volume", "secret")
        found = {kind: self.podman.podman(kind, "ls", "--quiet") for kind in kinds[1:]}
        return {**found, "container": self.podman.podman("ps", "--all", "--quiet")}


@pytest.fixture
def bench(podman: Stand, tmp_path: Path) -> Bench:
    return Bench(podman, tmp_path)


async def test_an_app_comes_up_fails_goes_back_and_goes_without_a_trace(bench: Bench) -> None:
    before = bench.list_all()
    volume = (Mount("volume", "/data", f"{bench.name}_data"),)
    async with bench.running():
        await bench.order(bench.app(1, mounts=volume))
        state = await bench.until_running(1)
        assert state.containers[0].health == "healthy"
        assert (await bench.get(), await bench.get("/key")) == ("one", "swordfish")
        await bench.order(bench.app(2, "two", command="echo no such table; exit 3", mounts=volume))
        async with asyncio.timeout(60):
            while (failed := bench.state) is None or failed.failure is None:
                await asyncio.sleep(0.02)
        failure = failed.failure
        assert (failure.code, failure.exit_code, failure.rolled_back_to) == ("exited", 3, 1)
        assert "no such table" in failure.log
        await bench.until_running(1)
        assert await bench.get() == "one"
        await bench.order(App(bench.name, 3, purge=True))
        async with asyncio.timeout(30):
            while bench.state is not None:
                await asyncio.sleep(0.02)
    assert bench.list_all() == before


async def test_start_first_updates_cost_no_request(bench: Bench) -> None:
    update = Update(order="start-first")
    async with bench.running():
        await bench.order(bench.app(1, "1", update=update))
        await bench.until_running(1)
        async with Hammer("127.0.0.1", bench.port) as hammer:
            for revision in (2, 3, 4):
                await bench.order(bench.app(revision, str(revision), update=update))
                await bench.until_running(revision)
        assert hammer.failures == []
        assert await bench.get() == "4"
    async with bench.running():  # another agent adopts all of it
        await bench.until_running(4)
        assert await bench.get() == "4"
        await bench.order(bench.app(5, "5", update=update, replicas=2))
        await bench.until_running(5)
        await bench.order()
        async with asyncio.timeout(30):
            while bench.state is not None:
                await asyncio.sleep(0.02)


ASK = """
while :; do
  said=$(timeout 10 wget -q -O /dev/null http://web/ 2>&1) && echo well && continue
  case "$said" in *"bad address"*) echo unknown;; *) echo "failed: $said";; esac
done
"""


async def test_start_first_updates_cost_no_request_between_services(bench: Bench) -> None:
    """Another service of the app asks by name all the while, each time by a new look-up and connection.

    Whoever is found answers.  That nobody is found for a moment is aardvark-dns: 1.4 closes its sockets
    whenever a network changes, and the next name server of the machine knows no containers.
    """
    more: dict[str, object] = {"update": Update(order="start-first"), "ports": ()}
    image = bench.podman.registry.push("ask", command=["sh", "-c", f"trap 'exit 0' TERM; ({ASK}) & wait"])
    network = (Attachment(f"{bench.name}_net"),)
    ask = Service("ask", image, networks=network, update=Update(monitor_ms=500), stop_grace_ms=3000)

    def app(revision: int) -> App:
        made = bench.app(revision, str(revision), **more)
        return replace(made, services=(*made.services, ask))

    async with bench.running():
        await bench.order(app(1))
        await bench.until_running(1)
        bench.podman.pin_bridge(f"{bench.name}_net")
        state = bench.state
        assert state is not None
        name = next(each.name for each in state.containers if each.service == "ask")

        def said() -> list[str]:
            return bench.podman.podman("logs", name).splitlines()

        async with asyncio.timeout(20):
            first = len(said())
            while said()[first:].count("well") < 10:
                await asyncio.sleep(0.1)
        first = len(said())
        for revision in (2, 3, 4):
            await bench.order(app(revision))
            await bench.until_running(revision)
        answers = said()[first:]
        await bench.order()
        async with asyncio.timeout(30):
            while bench.state is not None:
                await asyncio.sleep(0.02)
    assert [each for each in answers if each.startswith("failed")] == []
    assert answers.count("well") > 100
