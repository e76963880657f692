"""`lichen` against a hub with more than fits on one page, and with readings to doubt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from agent.wire.messages import Reading
from hub.cli.client import PAGE
from hub.store import boards
from support.lab import script
from support.webhub import ADMIN, WebHub, board_id


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[WebHub]:
    async with WebHub.open(tmp_path) as opened:
        token = await opened.access.new_api_token(ADMIN, "shell")
        (tmp_path / "cli.toml").write_text(tomli_w.dumps({"url": opened.url, "token": token}))
        yield opened


async def lichen(tmp_path: Path, *args: str) -> str:
    """What the command prints."""
    child = await asyncio.create_subprocess_exec(
        script("lichen"),
        *args,
        env={"LICHEN_CONFIG": str(tmp_path / "cli.toml"), "HOME": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, _ = await child.communicate()
    assert child.returncode == 0
    return out.decode()


@pytest.mark.slow
async def test_every_page_of_a_list_is_shown(hub: WebHub, tmp_path: Path) -> None:
    names = [f"board-{number:04}" for number in range(PAGE + 2)]
    async with hub.store.write() as tx:
        for number, name in enumerate(names, 1):
            await boards.add_board(
                tx, id=board_id(number), name=name, log_key="", seal_key="", joined_ms=hub.now_ms
            )
    found: dict[str, Any] = json.loads(await lichen(tmp_path, "board", "ls", "--json"))
    assert [row["name"] for row in found["boards"]] == names


@pytest.mark.slow
async def test_what_is_to_be_doubted_is_said_beside_the_value(hub: WebHub, tmp_path: Path) -> None:
    await hub.add_board("pump")
    now = hub.now_ms
    good, stale = Reading("capacity.cpu", 1.0, 0, now - 30), Reading("capacity.cpu", 2.0, 10, now - 20, True)
    await hub.store_history("pump", [[good, stale, Reading("capacity.cpu", None, 20, now - 10)]])
    await hub.store_history("pump", [[Reading("capacity.cpu", 4.0, 30, now)]], clock="unsynced")
    out = await lichen(tmp_path, "readings", "pump")
    ends = [line.split("capacity.cpu")[1].split("%")[-1].strip(" –") for line in out.splitlines()[1:]]
    assert ends == ["", "stale", "failed", "time uncertain"]
