"""Where the web application listens: the page on loopback, and HTTPS for boards and everybody else.

Owns the two sockets and what a stranger may make us wait for; `hub.app` enters `serve` once.  One
application answers on both.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiohttp import web

from agent.wire.errors import ConfigError
from hub.config import Config
from hub.web.door import Door

# Streams end by themselves when the application shuts down; this is for requests under way.
SHUTDOWN_S = 1.0
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Patience:
    """How long, and for how many at once, a stranger is waited for.

    ``idle_s``: for the first byte of a request to the last of its headers, and between two;
    ``per_address``: connections to the HTTPS port.
    """

    handshake_s: float = 10.0
    idle_s: float = 30.0
    per_address: int = 128


@asynccontextmanager
async def serve(
    application: web.Application, config: Config, tls: ssl.SSLContext, patience: Patience | None = None
) -> AsyncIterator[None]:
    """Answer requests until the block ends.

    Raises ConfigError naming the key whose address or port cannot be had.
    """
    _raise_file_limit()
    patience = patience or Patience()
    runner = web.AppRunner(
        application, access_log=None, shutdown_timeout=SHUTDOWN_S, keepalive_timeout=patience.idle_s
    )
    await runner.setup()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        with _explained(config.listen, config.board_port, ("listen", "board_port")):
            for door in await _doors(config.listen, config.board_port, patience.per_address):
                assert runner.server is not None, "it was set up"
                server = await asyncio.get_running_loop().create_server(
                    runner.server,
                    sock=door,
                    ssl=tls,
                    backlog=BACKLOG,
                    ssl_handshake_timeout=patience.handshake_s,
                )
                stack.callback(server.close)
        # The page last: once it answers /healthz, everything listens.
        with _explained(config.page_host, config.page_port, ("page_host", "page_port")):
            await web.TCPSite(runner, config.page_host, config.page_port).start()
        yield


async def _doors(host: str, port: int, per_address: int) -> list[Door]:
    """A bound socket for each address that ``host`` stands for.  Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    doors: list[Door] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            door = Door(family, most=per_address)
            doors.append(door)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            door.bind(address)
    except OSError:
        for door in doors:
            door.close()
        raise
    return doors


@contextmanager
def _explained(host: str, port: int, keys: tuple[str, str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"{keys[1]}: port {port} is taken by another program",
                hint=f"stop it (ss -ltnp 'sport = :{port}' names it), or set {keys[1]} in hub.toml",
            ) from error
        if error.errno == errno.EACCES:
            raise ConfigError(
                f"{keys[1]}: this user may not listen on port {port}",
                hint=f"choose one above 1023 as {keys[1]} in hub.toml",
            ) from error
        raise ConfigError(f"{keys[0]}: cannot listen on {host}: {error.strerror or error}") from error


def _raise_file_limit() -> None:
    # One descriptor per connection: with the usual 1,024, one stranger who opens as many and says
    # nothing would shut everybody out, and the journal would fill with what could not be accepted.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
