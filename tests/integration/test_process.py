"""The life of a process, seen from outside: real children, real signals, a real datagram socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PRELUDE = """
import asyncio, logging, os, signal, sys, threading
from agent.base import process
from agent.wire.errors import Busy, ConfigError, LinkDown

async def forever():
    print("up", flush=True)
    await asyncio.Event().wait()
"""


class Child:
    """A Python process that runs a script and says "up" when it has begun."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def until_up(self) -> None:
        assert self.process.stdout is not None
        assert await self.process.stdout.readline() == b"up\n"

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self) -> tuple[int, str, str]:
        """Its exit status, stdout and stderr."""
        async with asyncio.timeout(10):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def child(script: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PRELUDE + script,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=ROOT, env={**os.environ, **(env or {})},
    )  # fmt: skip
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def outcome(script: str) -> tuple[int, str, str]:
    async with child(script) as process:
        return await process.end()


# --- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_in_peace(number: signal.Signals) -> None:
    script = """
async def main():
    try:
        await forever()
    finally:
        await asyncio.sleep(0)
        print("closed", flush=True)
sys.exit(process.run(main))
"""
    async with child(script) as process:
        await process.until_up()
        began_at = time.monotonic()
        process.send(number)
        assert await process.end() == (0, "closed\n", "")
        assert time.monotonic() - began_at < 2


async def test_a_second_signal_ends_it_now() -> None:
    script = """
async def main():
    try:
        await forever()
    finally:
        print("closing", flush=True)
        await asyncio.sleep(60)
sys.exit(process.run(main))
"""
    async with child(script) as process:
        await process.until_up()
        process.send(signal.SIGTERM)
        assert process.process.stdout is not None
        assert await process.process.stdout.readline() == b"closing\n"
        process.send(signal.SIGTERM)
        code, _, _ = await process.end()
        assert code == 128 + signal.SIGTERM


async def test_a_task_that_fails_while_it_stops_is_told() -> None:
    script = """
async def main():
    try:
        await forever()
    finally:
        raise LinkDown("the last word was lost")
sys.exit(process.run(main))
"""
    async with child(script) as process:
        await process.until_up()
        process.send(signal.SIGTERM)
        assert await process.end() == (75, "", "-c: the last word was lost\n")


@pytest.mark.slow
async def test_a_thread_that_hangs_does_not_hold_it() -> None:
    script = """
async def main():
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        async def hang():
            await loop.run_in_executor(None, threading.Event().wait, 60)
        group.create_task(hang(), name="hang")
        await forever()
sys.exit(process.run(main))
"""
    async with child(script) as process:
        await process.until_up()
        began_at = time.monotonic()
        process.send(signal.SIGTERM)
        code, _, err = await process.end()
        assert time.monotonic() - began_at < 2
        assert code == 0
        assert "without waiting for threads" in err


async def test_a_server_that_does_not_answer_does_not_hold_it() -> None:
    script = """
import ssl
from agent.base.broker import Address, connect
async def main():
    tls = ssl.create_default_context()
    print("up", flush=True)
    async with connect(Address("x", host="127.0.0.1", port=int(os.environ["PORT"]), tls=tls)):
        pass
sys.exit(process.run(main))
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with child(script, {"PORT": str(silent.getsockname()[1])}) as process:
            await process.until_up()
            accepted, _ = await asyncio.to_thread(silent.accept)
            with accepted:
                began_at = time.monotonic()
                process.send(signal.SIGTERM)
                assert await process.end() == (0, "", "")
                assert time.monotonic() - began_at < 2


# --- how it ends -----------------------------------------------------------------------------------


async def test_it_ends_when_its_work_is_done() -> None:
    assert await outcome("""
async def main(): print("done")
sys.exit(process.run(main))
""") == (0, "done\n", "")


async def test_an_understood_error_is_one_line_and_a_hint() -> None:
    assert await outcome("""
async def main(): raise ConfigError("port 1 is taken", hint="choose another")
sys.exit(process.run(main))
""") == (78, "", "-c: port 1 is taken\n  hint: choose another\n")


async def test_it_is_found_inside_a_task_group() -> None:
    code, _, err = await outcome("""
async def fail(error): raise error
async def main():
    async with asyncio.TaskGroup() as outer:
        async with asyncio.TaskGroup() as inner:
            inner.create_task(fail(LinkDown("no hub")), name="a")
            inner.create_task(fail(ConfigError("no key")), name="b")
            outer.create_task(fail(LinkDown("no hub")), name="c")
sys.exit(process.run(main))
""")
    # A restart does not help against one of them, so that one decides; each is told once.
    assert code == 78
    assert sorted(err.splitlines()) == ["-c: no hub", "-c: no key"]


async def test_a_crash_is_a_traceback_and_1() -> None:
    code, _, err = await outcome("""
async def fail(): return 1 / 0
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(fail(), name="a")
        await forever()
sys.exit(process.run(main))
""")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "in fail" in err


async def test_a_crash_beside_an_understood_error_is_a_crash() -> None:
    code, _, err = await outcome("""
async def fail(error): raise error
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(fail(LinkDown("no hub")), name="a")
        group.create_task(fail(ZeroDivisionError()), name="b")
sys.exit(process.run(main))
""")
    assert code == 1
    assert "ZeroDivisionError" in err


async def test_a_cancellation_that_nobody_asked_for_is_a_crash() -> None:
    code, _, err = await outcome("""
async def main(): raise asyncio.CancelledError
sys.exit(process.run(main))
""")
    assert code == 1
    assert "CancelledError" in err


async def test_what_a_library_left_running_is_closed() -> None:
    assert await outcome("""
async def stray():
    try:
        await asyncio.Event().wait()
    finally:
        print("stray closed")
async def main():
    asyncio.get_running_loop().stray = asyncio.ensure_future(stray())
    await asyncio.sleep(0)
sys.exit(process.run(main))
""") == (0, "stray closed\n", "")


# --- systemd ---------------------------------------------------------------------------------------


@pytest.fixture
def notified(short_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(short_path / "notify"))
        server.setblocking(False)
        yield server


async def hear(notified: socket.socket, within_s: float = 5) -> str:
    async with asyncio.timeout(within_s):
        return (await asyncio.get_running_loop().sock_recv(notified, 4096)).decode()


async def test_systemd_is_told_what_happens(notified: socket.socket) -> None:
    script = """
async def main():
    process.ready("waiting for\\nthe hub")
    process.status("linked")
    await forever()
sys.exit(process.run(main))
"""
    async with child(script, {"NOTIFY_SOCKET": notified.getsockname()}) as process:
        assert await hear(notified) == "READY=1\nSTATUS=waiting for the hub"
        assert await hear(notified) == "STATUS=linked"
        await process.until_up()
        process.send(signal.SIGTERM)
        assert await hear(notified) == "STOPPING=1"
        assert (await process.end())[0] == 0


async def test_an_abstract_socket_is_fine_too() -> None:
    name = f"lichen-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"\0{name}")
        server.setblocking(False)
        script = "async def main(): process.ready('up')\nsys.exit(process.run(main))"
        async with child(script, {"NOTIFY_SOCKET": f"@{name}"}) as process:
            assert await hear(server) == "READY=1\nSTATUS=up"
            assert (await process.end())[0] == 0


async def test_a_manager_that_does_not_listen_is_no_problem(short_path: Path) -> None:
    script = "async def main(): process.ready('up')\nsys.exit(process.run(main))"
    async with child(script, {"NOTIFY_SOCKET": str(short_path / "nobody")}) as process:
        assert await process.end() == (0, "", "")


WATCHED = """
async def main():
    await forever()
async def watch():
    if os.path.exists(os.environ["HANG"]):
        await asyncio.Event().wait()
sys.exit(process.run(main, watch=watch))
"""


@pytest.mark.slow
async def test_the_watchdog_is_fed_until_the_probe_hangs(notified: socket.socket, short_path: Path) -> None:
    hang = short_path / "hang"
    env = {"NOTIFY_SOCKET": notified.getsockname(), "WATCHDOG_USEC": "400000", "HANG": str(hang)}
    async with child(WATCHED, env) as process:
        await process.until_up()
        for _ in range(3):
            assert await hear(notified, within_s=2) == "WATCHDOG=1"
        hang.touch()
        with contextlib.suppress(TimeoutError):
            await hear(notified, within_s=0.4)  # one may have been on its way
        with pytest.raises(TimeoutError):
            await hear(notified, within_s=1)


async def test_another_process_is_meant(notified: socket.socket, short_path: Path) -> None:
    env = {
        "NOTIFY_SOCKET": notified.getsockname(),
        "WATCHDOG_USEC": "1000",
        "WATCHDOG_PID": "1",
        "HANG": str(short_path / "no"),
    }
    async with child(WATCHED, env) as process:
        await process.until_up()
        process.send(signal.SIGTERM)
        assert await hear(notified) == "STOPPING=1"


async def test_a_probe_that_fails_is_a_crash(notified: socket.socket) -> None:
    script = """
async def watch(): raise Busy("locked by another process")
sys.exit(process.run(forever, watch=watch))
"""
    env = {"NOTIFY_SOCKET": notified.getsockname(), "WATCHDOG_USEC": "1000000"}
    async with child(script, env) as process:
        assert (await process.end())[0] == 75
