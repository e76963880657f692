"""The real edge against a Podman that hangs, or says more than a board has memory for.

What Podman really says is in tests/contract; this one is a few lines of HTTP on a socket, for what the real
one cannot be made to do in a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socketserver
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from agent.containers import answers
from agent.containers.podman import CHECK_THREADS, SLOW_THREADS, Podman

LIMIT_NS = 30 * 10**9
LINE = b"2026-11-28T21:22:28.000000000Z " + b"x" * 9_000 + b"\n"
LINES = 4_000


class Hanging(socketserver.ThreadingUnixStreamServer):
    """Its checks end when ``go`` is set."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Answer)
        self.go = threading.Event()
        self.asked = threading.Semaphore(0)


class Answer(BaseHTTPRequestHandler):
    server: Hanging

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("/logs"):
            self._write_log()
        elif path.endswith("/healthcheck"):
            self.server.asked.release()
            self.server.go.wait()
            self._say({"Status": "healthy"})
        else:
            config = {"Healthcheck": {"Test": ["CMD"], "Timeout": LIMIT_NS}}
            self._say({"Config": config, "State": {"Status": "running"}})

    def do_DELETE(self) -> None:
        self._say([])

    def _write_log(self) -> None:
        self.send_response(200)
        self.end_headers()
        frame = b"\1\0\0\0" + len(LINE).to_bytes(4, "big") + LINE
        with contextlib.suppress(OSError):
            for _ in range(LINES):
                self.wfile.write(frame)

    def _say(self, said: object) -> None:
        body = json.dumps(said).encode()
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def address_string(self) -> str:
        return "a test"  # a Unix socket has no address

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Hanging]:
    with Hanging(tmp_path / "podman.sock") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go.set()
        server.shutdown()
        thread.join()


async def test_checks_that_hang_keep_nothing_else_waiting(server: Hanging) -> None:
    with contextlib.closing(Podman(Path(str(server.server_address)))) as podman:
        many = CHECK_THREADS + SLOW_THREADS
        async with asyncio.TaskGroup() as group:
            checks = [group.create_task(podman.check(f"c{number}")) for number in range(many)]
            for _ in range(CHECK_THREADS):
                assert await asyncio.to_thread(server.asked.acquire, timeout=30)
            async with asyncio.timeout(20):
                await podman.remove("another")
                await podman.remove_volume("another")
            assert not any(check.done() for check in checks)
            server.go.set()
        assert all(check.result().healthy for check in checks)


async def test_a_log_that_is_larger_than_the_memory_is_read(server: Hanging) -> None:
    with contextlib.closing(Podman(Path(str(server.server_address)))) as podman:
        await podman.remove("warm")  # podman-py is imported
        tracemalloc.start()
        try:
            lines = await podman.logs("talker", tail=LINES)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert 100 < len(lines) < LINES
    assert peak < 5 * answers.MAX_LOG, "of 36 MB"
