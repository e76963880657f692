"""Bad days of apps for real: registries, disks, ports, memory, power and Podman itself fail on the way.

Each ends as people are promised: the reason is told, and what ran before runs.  The same and more in
virtual time: tests/unit/containers/test_reconcile.py; what the edge makes of each fault:
tests/contract/test_podman.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from agent.containers.greeting import greet
from agent.containers.proxy import Proxy
from agent.wire.order import App, Attachment, Dependency, Health, Limits, Port, Restart, Service, Update
from support.appbench import ANSWERS, Bench
from support.broker import free_port
from support.podman import Stand, stand
from support.registry import Door, Fault

pytestmark = pytest.mark.slow

START_FIRST: dict[str, Any] = {"update": Update(order="start-first")}


@pytest.fixture(scope="module")
def podman() -> Iterator[Stand]:
    with stand() as made:
        yield made


@pytest.fixture
def door(podman: Stand) -> Iterator[Door]:
    """The registry by a way that can be disturbed."""
    with Door(podman.registry) as made:
        names = [podman.registry.address, made.address]
        podman.config.policy.write_text(f"plain_http = {names}")
        yield made


@pytest.fixture
async def bench(podman: Stand, door: Door, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(podman, tmp_path)
    yield made
    await Proxy(podman.folder / "proxy").apply({})
    podman.clear()


@asynccontextmanager
async def one_that_runs(bench: Bench, *, stall_s: float = 1, **more: Any) -> AsyncIterator[None]:
    """The first version runs, and after all that happens still does."""
    async with bench.running(stall_s=stall_s):
        await bench.order(bench.app(1, **more))
        await bench.until_running(1)
        yield
        assert await bench.get() == "one"
        state = await bench.until_running(1)
        assert [each.health for each in state.containers if each.state == "running"] == ["healthy"]


def noisy(bench: Bench) -> str:
    """An image of which nothing is in the store yet."""
    return bench.image("two", noise=os.urandom(300_000))


# --- registries ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ("hang", "timeout", "nothing came from the registry"),
        ("fail", "timeout", "503"),
        ("mangle", "image", "got sha256:"),
        ("deny", "denied", "403"),
    ],
)
async def test_a_registry_that_fails_is_the_reason_and_the_old_version_serves(
    bench: Bench, door: Door, fault: Fault, code: str, says: str
) -> None:
    async with one_that_runs(bench):
        door.fault = fault
        await bench.order(bench.app(2, image=door.through(noisy(bench)), timeout_ms=3000))
        failure = await bench.until_failed(2)
        assert (failure.code, failure.rolled_back_to) == (code, 1)
        assert says in failure.reason


async def test_a_registry_that_is_down_is_the_reason(bench: Bench, podman: Stand) -> None:
    async with one_that_runs(bench, stall_s=60):
        nobody = f"127.0.0.1:{free_port()}"
        image = noisy(bench).replace(podman.registry.address, nobody)
        podman.config.policy.write_text(f"plain_http = {[podman.registry.address, nobody]}")
        await bench.order(bench.app(2, image=image, timeout_ms=2000))
        failure = await bench.until_failed(2)
        assert failure.code == "timeout"
        assert "connection refused" in failure.reason


async def test_a_pull_that_is_cut_with_podman_itself_is_begun_again(
    bench: Bench, podman: Stand, door: Door
) -> None:
    async with bench.running():
        door.fault = "hang"
        await bench.order(bench.app(1, image=door.through(noisy(bench))))
        await asyncio.to_thread(door.reached.wait, 20)
        assert bench.engine is not None
        podman.kill_service(bench.engine)
        door.fault = ""
        await bench.until_running(1)
        assert await bench.get() == "two"


async def test_a_disk_that_fills_up_in_a_pull_is_the_reason(podman: Stand, tmp_path: Path) -> None:
    with disk(podman.folder / "small", megabytes=24) as folder:
        small = Stand(folder, podman.registry)
        small.config.policy.write_text(
            f'plain_http = ["{podman.registry.address}"]\nkeep_free_bytes = 1000000\n'
        )
        bench = Bench(small, tmp_path)
        try:
            async with one_that_runs(bench):
                image = bench.image("two", noise=os.urandom(30_000_000))
                await bench.order(bench.app(2, image=image))
                failure = await bench.until_failed(2)
                assert (failure.code, failure.rolled_back_to) == ("no-space", 1)
                assert "no space left" in failure.reason
        finally:
            small.close()


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A small one, in memory."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


# --- containers ------------------------------------------------------------------------------------


async def test_one_that_never_gets_healthy_says_what_its_check_said(bench: Bench) -> None:
    ill = Health(("CMD-SHELL", "echo no table; exit 1"), interval_ms=1000, retries=1)
    async with one_that_runs(bench, **START_FIRST):
        await bench.order(bench.app(2, "two", health=ill, **START_FIRST))
        failure = await bench.until_failed(2)
        assert (failure.code, failure.reason) == ("unhealthy", "web is not healthy: no table")


async def test_one_that_eats_its_memory_is_told_from_one_that_ends(bench: Bench) -> None:
    async with one_that_runs(bench):
        limits = Limits(memory_bytes=16 * 1024 * 1024)
        await bench.order(bench.app(2, command="tail /dev/zero", limits=limits))
        failure = await bench.until_failed(2)
        assert (failure.code, failure.exit_code) == ("out-of-memory", 137)
        assert failure.hint == "raise its memory limit"


async def test_the_report_says_that_one_was_ended_for_its_memory(bench: Bench) -> None:
    once: dict[str, Any] = {"health": None, "restart": Restart("none"), "update": Update(monitor_ms=200)}
    limits = Limits(memory_bytes=16 * 1024 * 1024)
    async with bench.running():
        await bench.order(bench.app(1, command="sleep 2; tail /dev/zero", limits=limits, **once))
        await bench.until_running(1)
        async with asyncio.timeout(20):
            while (state := bench.state) is None or state.containers[0].state != "ended":
                await asyncio.sleep(0.02)
        assert (state.containers[0].exit_code, state.containers[0].oom) == (137, True)


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
async def test_a_port_that_another_program_has_is_said_before_anything_stops(
    bench: Bench, order: Literal["stop-first", "start-first"]
) -> None:
    async with one_that_runs(bench):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            ports = (Port(80, port, host_ip="127.0.0.1"),)
            before = bench.started()
            await bench.order(bench.app(2, "two", ports=ports, update=Update(order=order)))
            failure = await bench.until_failed(2)
            assert failure.code == "port-taken"
            assert str(port) in failure.reason
            assert bench.started() == before


# --- orders ----------------------------------------------------------------------------------------


async def test_an_app_that_goes_while_it_is_updated_leaves_nothing(bench: Bench) -> None:
    before = bench.list_all()
    never = Health(("CMD-SHELL", "exit 1"), interval_ms=1000, retries=100)
    async with bench.running():
        await bench.order(bench.app(1, **START_FIRST))
        await bench.until_running(1)
        await bench.order(bench.app(2, "two", health=never, **START_FIRST))
        async with asyncio.timeout(20):
            while len(bench.started()) < 2:
                await asyncio.sleep(0.02)
        await bench.order(App(bench.name, 3, purge=True))
        await bench.until_gone()
    assert bench.list_all() == before


async def test_two_orders_within_a_second_end_in_the_second(bench: Bench) -> None:
    async with bench.running():
        await bench.order(bench.app(1))
        await bench.order(bench.app(2, "two"))
        await bench.until_running(2)
        assert await bench.get() == "two"
        assert len(bench.started()) == 1


# --- power and Podman ------------------------------------------------------------------------------


async def test_a_service_of_podman_that_is_killed_again_and_again_does_not_keep_an_update_from_its_end(
    bench: Bench, podman: Stand
) -> None:
    async with bench.running():
        await bench.order(bench.app(1))
        await bench.until_running(1)
        assert bench.engine is not None
        await bench.order(bench.app(2, "two"))
        for _ in range(3):
            await asyncio.sleep(0.2)  # somewhere in the update
            async with asyncio.timeout(20):
                while not bench.engine.service.pid:
                    await asyncio.sleep(0.01)
            podman.kill_service(bench.engine)
        await bench.until_running(2)
        assert await bench.get() == "two"
        assert len(bench.started()) == 1


async def test_after_a_reboot_without_a_hub_or_a_registry_all_starts_in_order(
    bench: Bench, podman: Stand
) -> None:
    db = Service("db", bench.image("db"), health=ANSWERS, networks=(Attachment(f"{bench.name}_net"),))
    app = bench.app(1, depends_on=(Dependency("db", "healthy"),))
    async with bench.running():
        await bench.order(replace(app, services=(*app.services, db)))
        await bench.until_running(1)
        first = bench.started()
    podman.podman("stop", "--all", "--time=0")
    podman.registry.stop()
    try:
        bench.boot = "b" * 32
        async with bench.running():
            await bench.until_running(1)
            assert await bench.get() == "one"
            second = bench.started()
    finally:
        podman.registry.start()
    assert second.keys() == first.keys()
    assert all(second[name] > first[name] for name in first)
    [db_ms], [web_ms] = ([at for name, at in second.items() if part in name] for part in ("_db.", "_web."))
    assert db_ms < web_ms


# --- the way to containers ---------------------------------------------------------------------------


def set_address(bridge: str, last: int) -> None:
    subprocess.run(["ip", "link", "set", bridge, "address", f"02:00:00:00:00:{last:02x}"], check=True)


async def test_whoever_lost_the_way_to_the_board_learns_it_from_a_word(bench: Bench) -> None:
    late = "nc -ll -p 80 -e sh -c 'sleep 0.5; echo late'"
    async with bench.running(), asyncio.timeout(30):
        await bench.order(bench.app(1, command=late, health=None, update=Update(monitor_ms=200)))
        await bench.until_running(1)
        assert bench.reconciler is not None
        [container] = bench.reconciler.containers()
        [address] = container.networks.values()
        route = subprocess.run(["ip", "route", "get", address], check=True, text=True, capture_output=True)
        bridge = route.stdout.split(" dev ")[1].split()[0]
        set_address(bridge, 1)
        reader, writer = await asyncio.open_connection(address, 80)
        set_address(bridge, 2)  # as Linux does when the port leaves whose address it had
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await reader.readline()
        greet([address])
        async with asyncio.timeout(4):
            assert await reader.readline() == b"late\n"
        writer.close()
        await writer.wait_closed()
