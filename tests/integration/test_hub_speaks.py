"""What the hub tells a real board, and what an operator is told of problems: real processes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
import tomli_w

from agent.wire.messages import Problem
from hub.store.database import Store
from hub.store.problems import settle
from support.lab import Lab, Process, script

pytestmark = pytest.mark.slow

SLOW = {
    "report": {"every_s": 60, "commit_every_s": 60},
    "sensors": [
        {"name": "load", "kind": "file", "path": "/proc/loadavg", "pattern": r"^(\S+)", "interval_s": 60}
    ],
}


async def test_a_board_that_reports_every_minute_reports_live_while_somebody_looks(tmp_path: Path) -> None:
    async with Lab(tmp_path) as lab:
        await lab.start_hub()
        board = await lab.add_board("pump", **SLOW)
        await board.start()
        await lab.until(lambda: is_online(lab, "pump"), "the board is there")
        headers = {"Authorization": f"Bearer {lab.api_token}"}
        times: set[int] = set()
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.get(f"{lab.url}/api/v1/live?board={board.id}") as stream,
            asyncio.timeout(20),
        ):
            async for line in stream.content:
                if line.startswith(b"data:") and b'"values"' in line:
                    values = json.loads(line[5:])["values"]
                    times.update(at_ms for name, (_, at_ms) in values.items() if name == "load")
                if len(times) == 4:
                    break
        assert len(times) == 4, "four in less time than one interval"


async def is_online(lab: Lab, name: str) -> bool:
    boards = (await lab.api("GET", "/boards"))["boards"]
    return any(each["name"] == name and each["presence"] == "online" for each in boards)


async def test_an_operator_lists_problems(tmp_path: Path) -> None:
    async with Lab(tmp_path) as lab:
        await lab.start_hub()
        board = await lab.add_board("pump", **SLOW)
        await board.start()
        await lab.until(lambda: is_online(lab, "pump"), "the board is there")
        login = tmp_path / "cli.toml"
        login.write_text(tomli_w.dumps({"url": lab.url, "token": lab.api_token}))
        async with Store.open(lab.hub_dir / "hub.db") as store, store.write() as tx:
            await settle(tx, board.id, "hub", [Problem("limits-exceeded", "Too much", "look", "fail")], 5)
            await settle(tx, None, "hub", [Problem("hub-behind", "Behind", "look", "warn")], 6)
        told = await lichen(login, "problem", "ls")
        assert told[0].split() == ["board", "severity", "since", "problem", "hint"]
        assert [line.split()[:2] for line in told[1:]] == [["(hub)", "warn"], ["pump", "fail"]]
        assert len(await lichen(login, "problem", "ls", "pump")) == 2
        [found] = json.loads("\n".join(await lichen(login, "problem", "ls", "pump", "--json")))["problems"]
        assert (found["code"], found["board"]) == ("limits-exceeded", board.id)
        assert await lichen(login, "problem", "ls", "--past") == ["No problems have cleared lately."]


async def lichen(login: Path, *args: str) -> list[str]:
    """The lines that a command prints."""
    log = login.with_name(f"{'-'.join(args)}.log")
    typed = Process("lichen", [script("lichen"), *args], log, {"LICHEN_CONFIG": str(login)})
    await typed.start()
    assert typed.child is not None
    async with asyncio.timeout(20):
        assert await typed.child.wait() == 0, typed.tail()
    return log.read_text().splitlines()
