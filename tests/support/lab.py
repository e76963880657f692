"""A hub and its boards as real processes in one directory, for tests and benchmarks.

    async with Lab(tmp_path) as lab:
        await lab.start_hub()
        board = await lab.add_board("pump", sensors=[...])
        await board.start()
        await lab.until(lambda: board.stored() > 0, "a reading is stored")

Everything goes the way it goes in the field: a hub made by what `lichen-hub init` calls (or by the command,
which is a second of processor time), a token through the API, `lichen-agent run` joining over HTTPS.
Counting is done beside the processes, in the SQLite files themselves.  All processes are stopped by their
own pid when the block ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
import tomli_w

from agent.status import read_status
from hub.config import Config, Directory
from hub.founding import Admin, found

ADMIN = "admin"
PASSWORD = "correct horse battery"


def free_ports(count: int) -> list[int]:
    """``count`` consecutive free ports of the loopback address.

    They are bound seconds later, so each worker of a parallel run looks in a range of its own,
    below those that the kernel hands out to clients.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        base = 10_000 + worker % 4 * 5_000 + random.randrange(5_000 - count)
        try:
            with contextlib.ExitStack() as stack:
                for port in range(base, base + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return list(range(base, base + count))
        except OSError:
            continue


class Process:
    """One child process, its output kept in a file, told to stop by its own pid."""

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.argv, self.log = name, list(argv), log
        self.env = {**os.environ, **(env or {})}
        self.child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self.child is not None, f"{self.name} was not started"
        return self.child.pid

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.returncode is None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.child = await asyncio.create_subprocess_exec(
                *self.argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self.env
            )

    async def stop(self, sign: signal.Signals = signal.SIGTERM, within_s: float = 10) -> int:
        """Send ``sign``, wait, and return the exit status."""
        assert self.child is not None
        if self.child.returncode is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.send_signal(sign)
        async with asyncio.timeout(within_s):
            return await self.child.wait()

    async def kill(self) -> None:
        await self.stop(signal.SIGKILL)

    def tail(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def script(name: str) -> str:
    """The path of one of our own commands in the environment that runs the tests."""
    return str(Path(sys.executable).parent / name)


class Board(Process):
    """An agent of its own, with its state in a directory of its own."""

    def __init__(self, lab: Lab, name: str, config: dict[str, Any]) -> None:
        self.lab, self.dir = lab, lab.dir / name
        self.dir.mkdir()
        self.config_file = self.dir / "agent.toml"
        self.config_file.write_text(tomli_w.dumps({"state_dir": str(self.dir / "state"), **config}))
        super().__init__(
            name,
            [script("lichen-agent"), "run", "--config", str(self.config_file)],
            self.dir / "agent.log",
        )

    @property
    def state(self) -> Path:
        return self.dir / "state"

    @property
    def id(self) -> str:
        return str(tomllib.loads((self.state / "board.toml").read_text())["board"])

    @property
    def runtime(self) -> Path:
        return Path(self.env.get("RUNTIME_DIRECTORY", self.state / "run"))

    @property
    def joined(self) -> bool:
        return (self.state / "board.toml").exists()

    def held(self) -> int:
        """Readings in the outbox: committed and not yet acknowledged.

        A running agent tells, as soon as it has opened the file.
        """
        status = read_status(self.runtime) if self.running else None
        if status is not None and status.pid == self.pid and status.outbox.max_bytes:
            return status.outbox.readings
        return sum(count for (count,) in self.ask_outbox("SELECT count FROM blocks"))

    def ask_outbox(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask what the outbox's file would hold after a power cut; an agent that runs keeps it to itself.

        The log is copied first: what is folded back afterwards is in both copies, and not in none.
        """
        with tempfile.TemporaryDirectory(prefix="lichen-outbox-") as folder:
            for name in ("outbox.db-wal", "outbox.db"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(self.state / name, folder)
            return self.lab.ask(Path(folder) / "outbox.db", sql)

    def stored(self) -> int:
        """Readings of this board in the hub's store."""
        rows = self.lab.ask(
            self.lab.hub_dir / "hub.db",
            "SELECT coalesce(sum(count - skip), 0) FROM batches WHERE board = ?",
            self.id,
        )
        return int(rows[0][0])


class Lab:
    """One hub and any number of boards under ``dir``; boards reach it at the address ``host``."""

    def __init__(self, directory: Path, host: str = "127.0.0.1", *, typed: bool = False) -> None:
        """``typed``: make it by the command."""
        self.dir, self.host, self._typed = directory, host, typed
        self.hub_dir = directory / "hub"
        self.page_port, self.board_port, self.mqtt_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.page_port}"
        self.hub = Process(
            "hub", [script("lichen-hub"), "run", "--dir", str(self.hub_dir)], directory / "hub.log"
        )
        self.boards: list[Board] = []
        self.api_token = ""

    async def __aenter__(self) -> Self:
        await (self._type_init() if self._typed else self._make())
        return self

    async def _make(self) -> None:
        config = Config(
            name="lab", host=self.host, listen=self.host,
            page_port=self.page_port, board_port=self.board_port, mqtt_port=self.mqtt_port,
        )  # fmt: skip
        await found(Directory(self.hub_dir), config, Admin(ADMIN, PASSWORD))

    async def _type_init(self) -> None:
        password = self.dir / "password"
        password.write_text(PASSWORD)
        await self.command(
            "lichen-hub", "init", str(self.hub_dir), "--host", self.host, "--listen", self.host,
            "--port", str(self.page_port), "--admin", ADMIN, "--password-file", str(password),
        )  # fmt: skip

    async def __aexit__(self, *_: object) -> None:
        for process in [*self.boards, self.hub]:
            if process.running:
                await process.kill()

    async def command(self, name: str, *args: str, status: int = 0) -> str:
        """Run one of our commands to its end and return what it printed."""
        child = await asyncio.create_subprocess_exec(
            script(name), *args, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await child.communicate()
        assert child.returncode == status, (
            f"{name} {args} -> {child.returncode}\n{out.decode()}{err.decode()}"
        )
        return out.decode()

    async def start_hub(self) -> None:
        await self.hub.start()
        await self.until(self.healthy, "the hub answers /healthz")
        if not self.api_token:
            answer = await self.api("POST", "/login", json={"name": ADMIN, "password": PASSWORD})
            self.api_token = answer["token"]

    async def healthy(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as http, http.get(f"{self.url}/healthz") as response:
                return response.status == 200
        return False

    async def api(self, method: str, path: str, **options: Any) -> Any:
        """Call the hub's API and return its JSON."""
        headers = {"Authorization": f"Bearer {self.api_token}"} if self.api_token else {}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, f"{self.url}/api/v1{path}", **options) as response,
        ):
            assert response.status < 400, f"{method} {path} -> {response.status}: {await response.text()}"
            return await response.json()

    async def new_token(self, **options: Any) -> dict[str, Any]:
        """Make a join token; the answer holds the fields of a join file."""
        answer: dict[str, Any] = await self.api("POST", "/tokens", json=options)
        return answer

    async def add_board(self, name: str, **config: Any) -> Board:
        """A board with a join file in place, not started.  ``config`` is its agent.toml."""
        board = Board(self, name, config)
        answer = await self.new_token(name=name)
        board.state.mkdir(mode=0o700)
        join = {key: answer["join_file"][key] for key in ("hub_url", "hub_key", "ca_sha256", "token")}
        (board.state / "join.toml").write_text(tomli_w.dumps(join))
        self.boards.append(board)
        return board

    def ask(self, database: Path, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Ask a SQLite file beside the process that owns it; nothing when it is not there yet."""
        if not database.exists():
            return []
        with read_only(database) as connection:
            made = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            return connection.execute(sql, args).fetchall() if made else []

    async def until(
        self, condition: Callable[[], Any], what: str, within_s: float = 20, every_s: float = 0.05
    ) -> None:
        """Look until ``condition`` holds.  Fails with the tails of all logs."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    found = condition()
                    if asyncio.iscoroutine(found):
                        found = await found
                    if found:
                        return
                    await asyncio.sleep(every_s)
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s: {what}\n{self.logs()}") from None

    def logs(self) -> str:
        return "\n".join(f"--- {process.name}\n{process.tail()}" for process in [self.hub, *self.boards])


@contextlib.contextmanager
def read_only(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, closed at the end."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
    try:
        yield connection
    finally:
        connection.close()
