"""How long a stranger is waited for on the HTTPS port, and how many connections one may hold."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from hub.config import Config
from hub.fleet.authority import Authority
from hub.web.sites import Patience, serve
from support.lab import free_ports

SHORT = Patience(handshake_s=0.3, idle_s=0.3, per_address=3)


@dataclass
class Site:
    port: int
    tls: ssl.SSLContext
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def knock(self, *, tls: bool = True) -> asyncio.StreamReader:
        """Connect and say nothing."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls if tls else None)
        self.writers.append(writer)
        return reader

    def say(self, data: bytes) -> None:
        """Go on with the last connection."""
        self.writers[-1].write(data)

    async def answers(self, address: str) -> bool:
        connector = aiohttp.TCPConnector(ssl=self.tls, local_addr=(address, 0))
        try:
            async with (
                aiohttp.ClientSession(connector=connector) as http,
                http.get(f"https://127.0.0.1:{self.port}/") as response,
            ):
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    authority = Authority.create(tmp_path, "k" * 16, "127.0.0.1", time.time_ns() // 1_000_000)
    page, port = free_ports(2)
    application = web.Application()
    application.router.add_get("/", hello)
    config = Config(name="north", listen="127.0.0.1", page_port=page, board_port=port)
    async with serve(application, config, authority.server_context(), SHORT):
        site = Site(port, ssl.create_default_context(cafile=authority.certificate))
        yield site
        for writer in site.writers:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


async def ended(reader: asyncio.StreamReader, within_s: float = 3) -> bool:
    """Whether the other side closes the connection, without a word worth reading."""
    async with asyncio.timeout(within_s):
        try:
            return b"200" not in await reader.read()
        except ConnectionError:
            return True


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00"], ids=["nothing", "half a hello"])
async def test_a_handshake_that_does_not_end_is_ended(site: Site, first: bytes) -> None:
    reader = await site.knock(tls=False)
    site.say(first)
    assert await ended(reader)


@pytest.mark.parametrize("first", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX: "])
async def test_a_request_that_does_not_come_is_not_waited_for(site: Site, first: bytes) -> None:
    reader = await site.knock()
    site.say(first)
    assert await ended(reader)


async def test_headers_that_drip_are_not_waited_for(site: Site) -> None:
    reader = await site.knock()
    site.say(b"GET / HTTP/1.1\r\nHost: a\r\n")
    async with asyncio.timeout(3):
        while not reader.at_eof():
            site.say(b"X: y\r\n")
            try:
                async with asyncio.timeout(0.05):
                    await reader.read(1)
            except TimeoutError:
                pass
            except ConnectionError:
                break


async def test_one_address_holds_so_many_and_others_still_get_in(site: Site) -> None:
    held = [await site.knock(tls=False) for _ in range(SHORT.per_address)]
    assert not await site.answers("127.0.0.1")
    assert await site.answers("127.0.0.2")
    for reader in held:
        assert await ended(reader)  # their handshakes took too long
    async with asyncio.timeout(3):
        while not await site.answers("127.0.0.1"):
            pass


async def test_connections_that_ended_are_not_counted(site: Site) -> None:
    for _ in range(5 * SHORT.per_address):
        assert await site.answers("127.0.0.1")
