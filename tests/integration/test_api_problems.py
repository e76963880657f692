"""Problems through the API, in the metrics, and from memory while the store takes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from agent.wire.errors import Refused
from agent.wire.messages import Problem
from hub.store import problems as store
from hub.web.api import ROUTES
from hub.web.openapi import describe
from support.api import Api
from support.webhub import ADMIN, WebHub

DISK = Problem("disk-low", "1 GB is left", "remove something", "warn", 500)
CLOCK = Problem("clock-unsynced", "The clock is wrong", severity="notice")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[WebHub]:
    async with WebHub.open(tmp_path) as hub:
        await hub.add_board("pump", problems=[DISK, CLOCK])
        await hub.add_board("roof", problems=[DISK])
        yield hub


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


@pytest.fixture
async def api(hub: WebHub, http: aiohttp.ClientSession) -> Api:
    token = await hub.access.new_api_token(ADMIN, "test")
    http.headers["Authorization"] = f"Bearer {token}"
    return Api(http, hub.url, describe(ROUTES, version="0.1.0"))


async def codes(api: Api, path: str) -> list[str]:
    return [each["code"] for each in (await api.call("GET", path))["problems"]]


async def test_problems_of_all_and_of_one_board(hub: WebHub, api: Api) -> None:
    async with hub.store.write() as tx:
        await store.settle(tx, None, "hub", [Problem("hub-disk-low", "x")], hub.now_ms)
        await store.settle(tx, hub.id("roof"), "board", [], hub.now_ms)
    assert await codes(api, "/problems") == ["hub-disk-low", "clock-unsynced", "disk-low"]
    assert await codes(api, "/problems?severity=warn") == ["hub-disk-low", "disk-low"]
    assert await codes(api, "/problems?board=pump&severity=notice") == ["clock-unsynced"]
    assert await codes(api, "/boards/pump/problems") == ["clock-unsynced", "disk-low"]
    assert await codes(api, "/boards/roof/problems") == []
    [past] = (await api.call("GET", "/problems?open=false"))["problems"]
    assert (past["board"], past["cleared_ms"] is None) == (hub.id("roof"), False)
    assert len(await codes(api, "/problems?open=all")) == 4
    first = (await api.call("GET", "/problems?limit=2"))["problems"][0]
    assert (first["board"], first["source"], first["severity"]) == (None, "hub", "warn")


async def test_pages_of_problems(hub: WebHub, api: Api) -> None:
    page = await api.call("GET", "/problems?limit=2")
    rest = await api.call("GET", f"/problems?limit=2&after={page['next']}")
    assert [len(page["problems"]), len(rest["problems"])] == [2, 1]
    assert "next" not in rest


async def test_wrong_questions_are_refused(api: Api) -> None:
    await api.refuses("GET", "/problems?board=nobody", 404, "not-found")
    assert "open" in await api.refuses("GET", "/problems?open=maybe", 422, "invalid")


async def test_what_the_store_cannot_take_is_told_from_memory(hub: WebHub, api: Api) -> None:
    hub.parts.alerts.failed(Refused("hub.db: no space left on the disk", code="disk-full"))
    answer = await api.call("GET", "/problems?limit=1")
    unsaved, saved = answer["problems"]
    assert (unsaved["id"], unsaved["code"], saved["code"]) == (0, "hub-disk-full", "disk-low")
    assert await codes(api, "/problems?open=false") == []
    assert "hub-disk-full" not in await codes(api, "/boards/pump/problems")
    assert "hub-disk-full" not in await codes(api, f"/problems?after={answer['next']}")


async def test_metrics_count_problems(hub: WebHub, api: Api, http: aiohttp.ClientSession) -> None:
    hub.parts.alerts.exceeded(hub.id("pump"))
    hub.parts.alerts.behind()
    async with http.get(f"{hub.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    assert 'lichen_problems{code="disk-low",of="board",severity="warn"} 2.0' in lines
    assert 'lichen_problems{code="limits-exceeded",of="board",severity="warn"} 1.0' in lines
    assert 'lichen_problems{code="hub-behind",of="hub",severity="warn"} 1.0' in lines
