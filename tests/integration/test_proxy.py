"""The proxy with the real haproxy: nobody who asks notices when containers change.

A container is a little HTTP server here, with an address of its own in 127.0.0.0/8.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.containers import ports
from agent.containers.haproxy import Crew, Haproxy
from agent.containers.proxy import Backend, Proxy, Route
from agent.containers.routes import SPARE, assign, parse, render
from agent.wire.errors import ConfigError, Refused
from support.hammer import Hammer
from support.lab import free_ports

LOOPBACK = "127.0.0.1"


class Containers:
    """Servers that answer with their name; ``hold`` is a path whose answer takes until `release`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.held = asyncio.Event()
        self.release = asyncio.Event()
        self._servers: dict[str, asyncio.Server] = {}

    async def start(self, name: str) -> Backend:
        """A new one, at an address that no other has had."""
        address = f"127.0.1.{len(self._servers) + 1}"

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /hold "):
                    self.held.set()
                    await self.release.wait()
                writer.write(f"HTTP/1.0 200 OK\r\n\r\n{name}\n".encode())
                await writer.drain()
            writer.close()

        self._servers[name] = await asyncio.start_server(answer, address, self.port)
        return Backend(address, self.port)

    async def stop(self, name: str) -> None:
        self._servers[name].close()

    def close(self) -> None:
        self.release.set()
        for server in self._servers.values():
            server.close()


@asynccontextmanager
async def proxy_in(folder: Path, **options: Callable[[], None]) -> AsyncIterator[Proxy]:
    """An agent's proxy; haproxy goes on when the block ends, as when an agent does."""
    proxy = Proxy(folder / "proxy", **options)
    try:
        yield proxy
    finally:
        proxy.close()


@pytest.fixture
async def folder(short_path: Path) -> AsyncIterator[Path]:
    """Where the proxy lives; whatever a test leaves behind is ended."""
    yield short_path
    await Proxy(short_path / "proxy").apply({})


@pytest.fixture
async def containers() -> AsyncIterator[Containers]:
    running = Containers(free_ports(1)[0])
    yield running
    running.close()


def route_on(port: int, app: str = "demo") -> Route:
    return Route(LOOPBACK, port, app, "web", 80)


async def crew_in(folder: Path) -> Crew:
    """The processes that serve, as a stranger sees them."""
    haproxy = Haproxy(folder / "proxy", died=lambda: None)
    try:
        crew = await haproxy.find()
    finally:
        haproxy.close()
    assert crew is not None
    return crew


async def served(folder: Path) -> dict[Route, dict[str, Backend]]:
    """Of each route the backends, as haproxy itself has them."""
    haproxy = Haproxy(folder / "proxy", died=lambda: None)
    try:
        crew = await haproxy.find()
        live = {} if crew is None else await haproxy.servers(crew.worker)
        return {
            route: {
                slot.name: replace(slot.backend, drain=row.state != "up")
                for slot, row in zip(slots, live[route.section], strict=False)
                if slot is not None and slot.backend.endpoint == row.endpoint
            }
            for route, slots in parse(haproxy.read()).items()
            if route.section in live
        }
    finally:
        haproxy.close()


def listens(port: int) -> bool:
    return ports.refusal(LOOPBACK, port) is not None


async def ask(port: int, path: str = "/") -> str:
    return await Hammer(LOOPBACK, port, path=path).ask()


async def is_cut_off(port: int) -> bool:
    try:
        await ask(port, "/hold")
    except (OSError, ValueError):
        return True
    return False


async def drained(proxy: Proxy, route: Route, name: str) -> None:
    async with asyncio.timeout(10):
        while await proxy.sessions(route, name):
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_nobody_notices_twenty_switches(folder: Path, containers: Containers) -> None:
    (port,) = free_ports(1)
    route = route_on(port)
    async with proxy_in(folder) as proxy:
        old, backend = "web.0", await containers.start("web.0")
        await proxy.apply({route: {old: backend}})
        before = await crew_in(folder)
        async with Hammer(LOOPBACK, port) as hammer:
            for number in range(1, 21):
                new, fresh = f"web.{number}", await containers.start(f"web.{number}")
                await hammer.rounds(2)
                drains = Backend(backend.address, backend.port, drain=True)
                await proxy.apply({route: {new: fresh, old: drains}})
                await drained(proxy, route, old)
                await containers.stop(old)
                await proxy.apply({route: {new: fresh}})
                old, backend = new, fresh
            await hammer.rounds(2)
        assert hammer.failures == []
        assert len(hammer.answers) == 21
        assert await crew_in(folder) == before  # without a single reload


@pytest.mark.slow
async def test_nobody_notices_scaling_nor_another_port(folder: Path, containers: Containers) -> None:
    port, other = free_ports(2)
    route = route_on(port)
    names = [f"web.{number}" for number in range(3)]
    backends = {name: await containers.start(name) for name in names}
    one = {names[0]: backends[names[0]]}
    async with proxy_in(folder) as proxy:
        await proxy.apply({route: one})
        async with Hammer(LOOPBACK, port) as hammer:
            await hammer.rounds(2)
            assert set(hammer.answers) == {"web.0"}
            await proxy.apply({route: backends})
            await hammer.rounds(5)
            assert set(hammer.answers) == set(names)
            await proxy.apply({route: backends, route_on(other, "wiki"): one})
            await hammer.rounds(2)
            drains = {
                name: Backend(b.address, b.port, drain=name != names[0]) for name, b in backends.items()
            }
            await proxy.apply({route: drains})
            for name in names[1:]:
                await drained(proxy, route, name)
            await proxy.apply({route: one})
            assert await served(folder) == {route: one}
            hammer.answers.clear()
            await hammer.rounds(3)
            assert set(hammer.answers) == {"web.0"}
        assert hammer.failures == []
        assert not listens(other)


async def test_more_containers_than_slots_make_it_reload(folder: Path, containers: Containers) -> None:
    (port,) = free_ports(1)
    route = route_on(port)
    backend = await containers.start("web")
    crowd = {f"web.{number}": Backend(backend.address, backend.port + number) for number in range(SPARE)}
    async with proxy_in(folder) as proxy:
        await proxy.apply({route: crowd})
        before = await crew_in(folder)
        await proxy.apply({route: {**crowd, "one-more": backend}})
        after = await crew_in(folder)
        assert after.master == before.master
        assert after.worker != before.worker
        assert len((await served(folder))[route]) == SPARE + 1


async def test_what_drains_keeps_its_connections_even_over_a_reload(
    folder: Path, containers: Containers
) -> None:
    port, other = free_ports(2)
    route = route_on(port)
    old, new = await containers.start("old"), await containers.start("new")
    async with proxy_in(folder) as proxy, asyncio.TaskGroup() as group:
        await proxy.apply({route: {"old": old}})
        slow = group.create_task(ask(port, "/hold"), name="a client that waits")
        await containers.held.wait()
        wanted = {route: {"new": new, "old": Backend(old.address, old.port, drain=True)}}
        await proxy.apply(wanted)
        assert await ask(port) == "new"
        assert await proxy.sessions(route, "old") == 1
        await proxy.apply({**wanted, route_on(other, "wiki"): {"new": new}})
        assert len((await crew_in(folder)).old) == 1
        assert await proxy.sessions(route, "old") == 1
        containers.release.set()
        assert await slow == "old"
        await drained(proxy, route, "old")


async def test_what_is_named_no_more_is_cut_off(folder: Path, containers: Containers) -> None:
    (port,) = free_ports(1)
    route = route_on(port)
    old, new = await containers.start("old"), await containers.start("new")
    async with proxy_in(folder) as proxy, asyncio.TaskGroup() as group:
        await proxy.apply({route: {"old": old}})
        slow = group.create_task(is_cut_off(port), name="a client that waits")
        await containers.held.wait()
        await proxy.apply({route: {"new": new}})
        async with asyncio.timeout(5):
            assert await slow
        assert await ask(port) == "new"


async def test_the_next_agent_adopts_it(folder: Path, containers: Containers) -> None:
    (port,) = free_ports(1)
    route = route_on(port)
    wanted = {route: {"one": await containers.start("one"), "two": await containers.start("two")}}
    async with proxy_in(folder) as proxy:
        await proxy.apply(wanted)
    before = await crew_in(folder)
    async with Hammer(LOOPBACK, port) as hammer, proxy_in(folder) as proxy:
        await hammer.rounds(1)
        assert await served(folder) == wanted
        assert await proxy.sessions(route, "one") <= 4
        await proxy.apply(wanted)
        assert await crew_in(folder) == before
        await proxy.apply({route: {"two": wanted[route]["two"]}})
        hammer.answers.clear()
        await hammer.rounds(3)
        assert set(hammer.answers) == {"two"}


async def test_what_an_agent_did_not_write_down_is_put_right(folder: Path, containers: Containers) -> None:
    """It was killed after it told haproxy, and before it wrote the configuration."""
    (port,) = free_ports(1)
    route = route_on(port)
    one, two = await containers.start("one"), await containers.start("two")
    async with proxy_in(folder) as proxy:
        await proxy.apply({route: {"one": one}})
        before = (folder / "proxy/haproxy.cfg").read_text()
        await proxy.apply({route: {"two": two}})
    (folder / "proxy/haproxy.cfg").write_text(before)
    async with proxy_in(folder) as proxy:
        assert await served(folder) == {route: {"one": Backend(one.address, one.port, drain=True)}}
        await proxy.apply({route: {"one": one}})
        assert await served(folder) == {route: {"one": one}}
        assert await ask(port) == "one"


@pytest.mark.parametrize("whom", ["master", "worker"])
async def test_it_is_told_of_its_death_and_comes_back(
    folder: Path, containers: Containers, whom: str
) -> None:
    (port,) = free_ports(1)
    wanted = {route_on(port): {"one": await containers.start("one")}}
    died = asyncio.Event()
    async with proxy_in(folder, died=died.set) as proxy:
        await proxy.apply(wanted)
        before = await crew_in(folder)
        os.kill(getattr(before, whom), signal.SIGKILL)
        async with asyncio.timeout(5):
            await died.wait()
        await proxy.apply(wanted)
        assert await served(folder) == wanted
        assert await ask(port) == "one"
        assert (await crew_in(folder)).master != before.master


@pytest.mark.slow
async def test_one_that_hangs_is_replaced(folder: Path, containers: Containers) -> None:
    (port,) = free_ports(1)
    wanted = {route_on(port): {"one": await containers.start("one")}}
    async with proxy_in(folder) as proxy:
        await proxy.apply(wanted)
    (folder / "proxy/master.sock").unlink()  # nothing answers there any more
    async with proxy_in(folder) as proxy:
        await proxy.apply(wanted)
        assert await ask(port) == "one"


async def test_a_stale_pid_file_harms_nobody(folder: Path, containers: Containers) -> None:
    (port,) = free_ports(1)
    wanted = {route_on(port): {"one": await containers.start("one")}}
    async with proxy_in(folder) as proxy:
        await proxy.apply(wanted)
        await proxy.apply({})
        (folder / "proxy/haproxy.pid").write_text(f"{os.getpid()}\n")  # its number is somebody else's now
        await proxy.apply(wanted)
        assert await ask(port) == "one"


async def test_a_taken_port_is_named_and_the_rest_goes_on(folder: Path, containers: Containers) -> None:
    port, taken, free = free_ports(3)
    one, two = await containers.start("one"), await containers.start("two")
    other = await asyncio.start_server(lambda reader, writer: writer.close(), LOOPBACK, taken)
    async with other, proxy_in(folder) as proxy:
        await proxy.apply({route_on(port): {"one": one}})
        with pytest.raises(Refused) as refused:
            await proxy.apply(
                {
                    route_on(taken, "wiki"): {"one": one},
                    route_on(port): {"two": two},
                    route_on(free, "blog"): {"one": one},
                }
            )
        assert refused.value.code == "port-taken"
        assert f"port {taken} of {LOOPBACK}" in str(refused.value)
        assert f"(process {os.getpid()})" in str(refused.value)
        assert await ask(port) == "two"
        assert await ask(free) == "one"
        assert set(await served(folder)) == {route_on(port), route_on(free, "blog")}


async def test_two_apps_cannot_have_one_port(folder: Path, containers: Containers) -> None:
    (port,) = free_ports(1)
    one, two = await containers.start("one"), await containers.start("two")
    everywhere = Route("", port, "wiki", "web", 80)
    async with proxy_in(folder) as proxy:
        await proxy.apply({route_on(port): {"one": one}})
        with pytest.raises(Refused, match=f"port {port} is taken by 'web' of the app 'demo'"):
            await proxy.apply({everywhere: {"two": two}, route_on(port): {"one": one}})
        assert await ask(port) == "one"
        await proxy.apply({everywhere: {"two": two}})  # the same port by another name
        assert await ask(port) == "two"


async def test_a_port_goes_from_one_app_to_another(folder: Path, containers: Containers) -> None:
    (port,) = free_ports(1)
    one, two = await containers.start("one"), await containers.start("two")
    async with proxy_in(folder) as proxy:
        await proxy.apply({route_on(port): {"one": one}})
        before = await crew_in(folder)
        await proxy.apply({route_on(port, "wiki"): {"two": two}})
        assert await ask(port) == "two"
        assert await served(folder) == {route_on(port, "wiki"): {"two": two}}
        assert await crew_in(folder) == before


@pytest.mark.slow
async def test_a_reload_that_fails_leaves_what_was(folder: Path, containers: Containers) -> None:
    """Somebody took the port between our look and the reload."""
    port, taken = free_ports(2)
    one = await containers.start("one")
    async with proxy_in(folder) as proxy:
        await proxy.apply({route_on(port): {"one": one}})
    before = await crew_in(folder)
    haproxy = Haproxy(folder / "proxy", died=lambda: None)
    async with await asyncio.start_server(lambda reader, writer: writer.close(), LOOPBACK, taken):
        slots = assign((), {"one": one})
        haproxy.write(render({route_on(port): slots, route_on(taken): slots}))
        with pytest.raises(Refused, match="does not take its new configuration"):
            await haproxy.reload(before)
    haproxy.close()
    async with asyncio.timeout(5):
        while not listens(port):  # it let go of its ports, in case that the new one needs them
            await asyncio.sleep(0.01)
    assert await ask(port) == "one"
    assert (await crew_in(folder)).worker == before.worker


async def test_the_last_port_stops_it(folder: Path, containers: Containers) -> None:
    (port,) = free_ports(1)
    died = asyncio.Event()
    async with proxy_in(folder, died=died.set) as proxy:
        await proxy.apply({})  # nothing to do
        await proxy.apply({route_on(port): {"one": await containers.start("one")}})
        master = (await crew_in(folder)).master
        await proxy.apply({})
        assert not listens(port)
        assert not Path(f"/proc/{master}/cmdline").read_bytes()  # at most a zombie of init's
        assert await served(folder) == {}
        assert list((folder / "proxy").iterdir()) == []
        assert not died.is_set()


async def test_a_port_on_every_address(folder: Path, containers: Containers) -> None:
    port, sixth = free_ports(2)
    one = await containers.start("one")
    async with proxy_in(folder) as proxy:
        await proxy.apply(
            {
                Route("", port, "demo", "web", 80): {"one": one},
                Route("::1", sixth, "demo", "web", 80): {"one": one},
            }
        )
        assert await ask(port) == "one"
        assert await Hammer("::1", port).ask() == "one"
        assert await Hammer("::1", sixth).ask() == "one"


async def test_a_container_that_died_is_passed_over(folder: Path, containers: Containers) -> None:
    (port,) = free_ports(1)
    wanted = {route_on(port): {"one": await containers.start("one"), "two": await containers.start("two")}}
    async with proxy_in(folder) as proxy:
        await proxy.apply(wanted)
        await containers.stop("one")  # and nobody tells haproxy
        async with Hammer(LOOPBACK, port) as hammer:
            await hammer.rounds(5)
        assert hammer.failures == []


async def test_without_haproxy_it_says_how_to_have_it(short_path: Path) -> None:
    proxy = Proxy(short_path / "proxy", search=str(short_path))
    await proxy.apply({})
    with pytest.raises(Refused) as refused:
        await proxy.apply({route_on(free_ports(1)[0]): {"one": Backend(LOOPBACK, 80)}})
    assert refused.value.code == "haproxy-missing"
    assert "apt-get install" in refused.value.hint


def test_a_folder_with_a_long_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long for a unix socket"):
        Proxy(tmp_path / ("x" * 107))
