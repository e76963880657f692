"""Where the web application listens: the page on loopback, and HTTPS for boards and everybody else.

Owns the two sockets; `hub.app` enters `serve` once.  One application answers on both.
"""

from __future__ import annotations

import errno
import resource
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from agent.wire.errors import ConfigError
from hub.config import Config

# Streams end by themselves when the application shuts down; this is for requests under way.
SHUTDOWN_S = 1.0


@asynccontextmanager
async def serve(application: web.Application, config: Config, tls: ssl.SSLContext) -> AsyncIterator[None]:
    """Answer requests until the block ends.

    Raises ConfigError naming the key whose address or port cannot be had.
    """
    _raise_file_limit()
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await _listen(runner, config.listen, config.board_port, ("listen", "board_port"), tls)
        # The page last: once it answers /healthz, everything listens.
        await _listen(runner, config.page_host, config.page_port, ("page_host", "page_port"))
        yield
    finally:
        await runner.cleanup()


def _raise_file_limit() -> None:
    # One descriptor per connection: with the usual 1,024, one stranger who opens as many and says
    # nothing would shut everybody out, and the journal would fill with what could not be accepted.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _listen(
    runner: web.AppRunner, host: str, port: int, keys: tuple[str, str], tls: ssl.SSLContext | None = None
) -> None:
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
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
