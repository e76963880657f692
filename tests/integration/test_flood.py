"""One board runs wild, with real processes: the others lose nothing, and notice nothing."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.wire import topics
from bench import packets
from bench.simulated import board_ids
from hub.store.boards import add_board
from hub.store.database import Store
from support.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

BOARDS = 999
RATE_PER_S = 250
"""Of all others together."""
FLOOD_PER_S = 5000
SECONDS = 20


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path) as lab:
        async with Store.open(lab.hub_dir / "hub.db") as store, store.write() as tx:
            joined_ms = time.time_ns() // 1_000_000
            for id in board_ids(BOARDS + 1):
                await add_board(tx, id=id, log_key="", seal_key="", joined_ms=joined_ms)
        await lab.start_hub()
        yield lab


class Wild:
    """A board in a loop: 5,000 messages a second, whatever it is told, and back when it is put out."""

    def __init__(self, id: str, socket: Path) -> None:
        self.id, self.socket = id, socket
        self.sent = 0
        self.put_out = 0

    async def run(self) -> None:
        """Send until cancelled."""
        topic = topics.up(self.id, "readings")
        each = packets.publish(1, topic, b'{"held":{},"gaps":[],"blocks":[]}', "application/json")
        while True:
            reader, writer = await asyncio.open_unix_connection(self.socket)
            try:
                writer.write(packets.connect(self.id))
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._drain(reader), name="drain")
                    while True:
                        writer.write(each * (FLOOD_PER_S // 50))
                        await writer.drain()
                        self.sent += FLOOD_PER_S // 50
                        await asyncio.sleep(1 / 50)
            except* (ConnectionError, EOFError):
                self.put_out += 1
            finally:
                writer.close()
            await asyncio.sleep(0.5)

    async def _drain(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(65_536):
            pass
        raise EOFError


@asynccontextmanager
async def others(lab: Lab) -> AsyncIterator[asyncio.subprocess.Process]:
    """999 boards that do what boards do, in a process of their own."""
    load = Path(__file__).parents[1] / "bench" / "load.py"
    tool = await asyncio.create_subprocess_exec(
        sys.executable, str(load), "--unix", str(lab.hub_dir / "broker" / "broker.sock"),
        "--boards", str(BOARDS), "--rate", str(RATE_PER_S), "--seconds", str(SECONDS),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield tool
    finally:
        tool.kill()
        await tool.wait()


async def says(tool: asyncio.subprocess.Process) -> str:
    assert tool.stdout is not None
    return (await tool.stdout.readline()).decode().strip()


async def test_a_board_at_5000_messages_a_second_costs_999_others_nothing(lab: Lab) -> None:
    wild = Wild(board_ids(BOARDS + 1)[-1], lab.hub_dir / "broker" / "broker.sock")
    async with others(lab) as tool, asyncio.TaskGroup() as tasks:
        assert [await says(tool), await says(tool)] == ["connected", "steady"]
        running = tasks.create_task(wild.run(), name="wild")
        await lab.until(lambda: problems(lab), "the wild board is named")
        assert await says(tool) == "sent"
        report = json.loads(await says(tool))
        sent, put_out = wild.sent, wild.put_out
        running.cancel()
    assert report["acked_readings"] == report["readings"] > 0
    assert (report["resent"], report["refused"], report["lost_connections"]) == (0, 0, 0)
    assert report["delay_p50_ms"] < 2000, report  # and none took 30 s, or it would have been sent again
    # The machine may be too busy for it to run as wild as it wants to; five times what it may is enough.
    assert sent > 5 * 200 * SECONDS, (sent, put_out)
    assert put_out > 0
    found = {(each["board"], each["code"]): each["sentence"] for each in await problems(lab)}
    assert found.keys() == {(wild.id, "limits-exceeded")}
    # It tries to come back all the time, so this may be said before it is put out again.
    assert found[wild.id, "limits-exceeded"] in (
        "The board went on sending more than it may, so it is kept out for 60 s",
        "The board sends more than it may, and what is beyond is dropped",
    )


async def problems(lab: Lab) -> list[dict[str, Any]]:
    """The problems that the hub's API tells."""
    found: list[dict[str, Any]] = (await lab.api("GET", "/problems"))["problems"]
    return found
