"""Apps for real: the reconciler over Podman 4.3.1, haproxy and a registry, under a client that hammers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.wire.order import (
    App,
    Attachment,
    Mount,
    Service,
    Update,
)
from support.appbench import Bench
from support.hammer import Hammer
from support.podman import Stand, stand

pytestmark = pytest.mark.slow

UPDATES = 20 if os.environ.get("LICHEN_SOAK") else 3


@pytest.fixture(scope="module")
def podman() -> Iterator[Stand]:
    with stand() as made:
        made.folder.joinpath("policy.toml").write_text(f'plain_http = ["{made.registry.address}"]')
        yield made


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


@pytest.mark.soak
async def test_start_first_updates_cost_no_request(bench: Bench) -> None:
    update, last = Update(order="start-first"), UPDATES + 1
    async with bench.running():
        await bench.order(bench.app(1, "1", update=update))
        await bench.until_running(1)
        async with Hammer("127.0.0.1", bench.port) as hammer:
            for revision in range(2, last + 1):
                await bench.order(bench.app(revision, str(revision), update=update))
                await bench.until_running(revision)
        assert hammer.failures == []
        assert await bench.get() == str(last)
    async with bench.running():  # another agent adopts all of it
        await bench.until_running(last)
        assert await bench.get() == str(last)
        await bench.order(bench.app(last + 1, "5", update=update, replicas=2))
        await bench.until_running(last + 1)
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
