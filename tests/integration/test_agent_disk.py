"""A disk that is full, or that the kernel has made read-only, under a running agent and at its start.

With file systems of their own, which takes root: a small tmpfs, and ext4 in a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from agent.base.broker import Address, connect
from agent.identity import open_identity
from agent.outbox import Outbox
from agent.status import read_status
from support.broker import free_port, mosquitto
from support.homehub import Ear, HomeHub
from support.lab import Process, script

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # the agent looks at its disk once a minute

SENSORS = [
    {"name": "uptime", "kind": "file", "path": "/proc/uptime", "pattern": r"^(\S+)", "interval_s": 0.1},
]


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"


@contextlib.contextmanager
def mounted(folder: Path, *how: str) -> Iterator[Path]:
    folder.mkdir()
    run("mount", *how, str(folder))
    try:
        yield folder
    finally:
        run("umount", "--lazy", str(folder))


@dataclass
class Board:
    """A board that has joined, its hub's ear, and the agent, not started."""

    disk: Path
    config: Path
    ear: Ear
    agent: Process
    runtime: Path

    def fill(self) -> None:
        """Take all room that there is."""
        with (self.disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for size in (65536, 4096, 512, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def make_room(self) -> None:
        (self.disk / "filler").unlink()

    async def status(self) -> dict[str, Any]:
        command = (script("lichen-agent"), "status", "--json", "--config", str(self.config))
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        out, _ = await process.communicate()
        said: dict[str, Any] = json.loads(out)
        return said

    async def has_problem(self, *codes: str) -> bool:
        """Whether `lichen-agent status` tells of one; it is not asked before the agent has told itself."""
        told = read_status(self.runtime)
        if told is None or not {problem.code for problem in told.problems} & {*codes}:
            return False
        return bool({problem["code"] for problem in (await self.status())["problems"]} & {*codes})

    async def until(self, condition: Callable[[], Any], what: str, within_s: float = 30) -> None:
        try:
            async with asyncio.timeout(within_s):
                while True:
                    found = condition()
                    if asyncio.iscoroutine(found):
                        found = await found
                    if found:
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s: {what}\n{self.agent.tail()}") from None

    def hears_more(self) -> Callable[[], bool]:
        heard = len(self.ear.values)
        return lambda: len(self.ear.values) > heard + 5


@contextlib.asynccontextmanager
async def joined(folder: Path, disk: Path, *, commit_every_s: float = 0.1) -> AsyncIterator[Board]:
    """Commits that come before their report are written; others the hub may take before they are."""
    port = free_port()
    hub = HomeHub(folder / "hub", port)
    identity = open_identity(disk / "state")
    hub.admit(identity)
    config = folder / "agent.toml"
    settings = {
        "state_dir": str(disk / "state"),
        "runtime_dir": str(folder / "run"),
        "report": {"every_s": 0.2, "commit_every_s": commit_every_s},
        "link": {"backoff_low_s": 0.05, "backoff_high_s": 0.2, "resend_s": 1},
        "sensors": SENSORS,
    }
    config.write_text(tomli_w.dumps(settings))
    secure = f"""listener {port} 127.0.0.1
cafile {folder}/hub/ca.pem
certfile {hub.authority.server_certificate}
keyfile {hub.authority.server_key}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
"""
    agent = Process("agent", [script("lichen-agent"), "run", "--config", str(config)], folder / "agent.log")
    ear = Ear(identity.board)
    async with mosquitto(folder, secure) as broker, asyncio.TaskGroup() as group:
        address = Address("hub", host="127.0.0.1", port=broker.port, username="hub")
        listening = group.create_task(ear.listen(connect, address), name="ear")
        board = Board(disk, config, ear, agent, folder / "run")
        await board.until(lambda: ear.session, "the ear listens")
        try:
            yield board
        finally:
            if agent.running:
                await agent.kill()
            listening.cancel()


async def test_a_disk_that_fills_up_ends_nobody_and_is_over_by_itself(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=3m", "tmpfs") as disk:
        async with joined(tmp_path, disk) as board:
            await board.agent.start()
            await board.until(board.hears_more(), "readings arrive")
            pid = board.agent.pid
            board.fill()
            await board.until(lambda: "cannot be committed" in board.agent.tail(), "the disk is full")
            await board.until(lambda: board.has_problem("disk-full", "readings-unsaved"), "it is told", 90)
            assert (await board.status())["link"]["state"] == "online"
            heard = len(board.ear.values)
            board.make_room()
            await board.until(lambda: len(board.ear.values) > heard + 20, "readings arrive again")
            assert board.agent.running
            assert board.agent.pid == pid
            # What could not be written waited in memory: no second of it is missing.
            times = [reading.mono_ms for reading in board.ear.readings]
            assert max(after - before for before, after in pairwise(times)) < 1000
            assert not board.ear.holes
            assert await board.agent.stop() == 0


async def test_what_the_hub_takes_at_once_needs_no_room(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=3m", "tmpfs") as disk:
        async with joined(tmp_path, disk, commit_every_s=0.2) as board:
            await board.agent.start()
            await board.until(board.hears_more(), "readings arrive")
            board.fill()
            await board.until(board.hears_more(), "readings arrive")
            await board.until(lambda: board.has_problem("disk-full"), "it is told", 90)
            await board.until(board.hears_more(), "readings arrive")
            assert "cannot be committed" not in board.agent.tail()
            assert await board.agent.stop() == 0


async def test_what_is_held_can_be_looked_at_on_a_card_that_turned_read_only(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=3m", "tmpfs") as disk:
        async with joined(tmp_path, disk) as board:
            for end in (board.agent.stop, board.agent.kill):  # a killed agent leaves a log beside the file
                await board.agent.start()
                await board.until(board.hears_more(), "readings arrive")
                await end()
                run("mount", "-o", "remount,ro", str(disk))
                said = await board.status()
                assert not said["running"]
                assert said["outbox"]["max_bytes"] > said["outbox"]["bytes"]
                run("mount", "-o", "remount,rw", str(disk))


async def test_an_agent_that_starts_on_a_full_disk_waits_for_room(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=3m", "tmpfs") as disk:
        async with joined(tmp_path, disk) as board:
            board.fill()
            await board.agent.start()
            await board.until(lambda: board.has_problem("disk-full"), "it is told")
            assert board.agent.running
            board.make_room()
            await board.until(board.hears_more(), "readings arrive")
            assert board.agent.tail().count("outbox cannot be opened") == 1
            assert await board.agent.stop() == 0


async def test_an_agent_whose_outbox_somebody_else_has_open_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    async with joined(tmp_path, tmp_path / "disk") as board:
        path = board.disk / "state" / "outbox.db"
        async with Outbox.open(path, boot="b" * 32, max_bytes=10**6):
            await board.agent.start()
            await board.until(lambda: board.has_problem("busy"), "it is told")
            assert board.agent.running
        await board.until(board.hears_more(), "readings arrive")
        assert board.agent.tail().count("outbox cannot be opened") == 1
        assert await board.agent.stop() == 0


async def test_a_card_that_the_kernel_makes_read_only_ends_nobody(tmp_path: Path) -> None:
    image = tmp_path / "card"
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    run("mkfs.ext4", "-q", str(image))
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as disk:
        async with joined(tmp_path, disk) as board:
            await board.agent.start()
            await board.until(board.hears_more(), "readings arrive")
            run("mount", "-o", "remount,abort", str(disk))  # as the kernel does when a card fails
            await board.until(lambda: "read-only" in board.agent.tail(), "it is noticed")
            await board.until(
                lambda: board.has_problem("disk-read-only", "readings-unsaved"), "it is told", 90
            )
            assert board.agent.running
            assert (await board.status())["link"]["state"] == "online"
            assert await board.agent.stop() == 0
            # The next start waits, too: 78 would keep systemd from trying again.
            await board.agent.start()
            await board.until(lambda: board.has_problem("disk-read-only"), "it is told at the start")
            assert board.agent.running
