"""Somebody opens a board's page: it reports every two seconds, through a hub and a broker that run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from support.lab import Lab

pytestmark = pytest.mark.slow


async def test_a_board_that_is_watched_reports_every_two_seconds(tmp_path: Path) -> None:
    sensor = {
        "name": "load",
        "kind": "file",
        "path": "/proc/loadavg",
        "pattern": r"^(\S+)",
        "interval_s": 3600,
    }
    async with Lab(tmp_path) as lab:
        await lab.start_hub()
        board = await lab.add_board("pump", sensors=[sensor])
        await board.start()
        await lab.until(lambda: board.joined and board.stored() > 0, "the first reading is stored")
        before = board.stored()  # the next one is due in an hour
        headers = {"Authorization": f"Bearer {lab.api_token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.get(f"{lab.url}/api/v1/live", params={"board": board.id}) as stream,
        ):
            assert stream.status == 200
            loop = asyncio.get_running_loop()
            await lab.until(lambda: board.stored() > before, "somebody watches")
            began_s, first = loop.time(), board.stored()
            await lab.until(lambda: board.stored() >= first + 3, "and still does")
            assert 3 <= loop.time() - began_s <= 10
