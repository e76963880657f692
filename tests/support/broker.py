"""A real mosquitto for tests: on a free port of the loopback, killed by its own pid at the end.

`Mosquitto` here is a plain test broker; the hub's own supervised one is `hub.fleet.mosquitto`.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

ACL = """\
pattern readwrite open/#
pattern write lichen/v1/%u/up/#
pattern read lichen/v1/%u/down/#
user hub
topic readwrite #
"""


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def mosquitto_command() -> str:
    """The path of the mosquitto binary, which is in no ordinary user's PATH."""
    found = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    assert found, "mosquitto is missing: apt-get install mosquitto"
    return found


async def until_listening(port: int) -> None:
    """Wait until somebody accepts connections on a port of the loopback."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.01)


@dataclass
class Mosquitto:
    """A broker process that can be killed, frozen and started again on the same port.

    User names are free to choose; a user writes lichen/v1/<user>/up, reads .../down, and does
    what it likes below "open/"; the user "hub" does everything.
    """

    directory: Path
    port: int = field(default_factory=free_port)
    extra: str = ""
    process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until it listens."""
        acl = self.directory / "acl"
        acl.write_text(ACL)
        acl.chmod(0o600)
        configuration = self.directory / "mosquitto.conf"
        configuration.write_text(
            f"user root\nallow_anonymous true\nacl_file {acl}\nset_tcp_nodelay true\n"
            f"listener {self.port} 127.0.0.1\nlistener 0 {self.directory / 'broker.sock'}\n{self.extra}"
        )
        with (self.directory / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen(
                [mosquitto_command(), "-c", str(configuration)], stdout=log, stderr=log
            )
        await until_listening(self.port)

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Stop it from running, with its sockets open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def mosquitto(directory: Path, extra: str = "") -> AsyncIterator[Mosquitto]:
    """A running `Mosquitto` with its files in ``directory``."""
    broker = Mosquitto(directory, extra=extra)
    try:
        await broker.start()
        yield broker
    finally:
        broker.kill()
