"""The page of what was used, and the log on the page of a board, without JavaScript."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from support.bills import metered
from support.boardlog import HOUR_MS, WALL_MS, BoardLog, began, used
from support.visitor import Visitor, texts
from support.webhub import WebHub


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[WebHub]:
    """A hub on the second day of the logs."""
    async with WebHub.open(tmp_path) as hub:
        hub.skew_ms = WALL_MS + 40 * HOUR_MS - hub.now_ms
        yield hub


@pytest.fixture
async def admin(hub: WebHub) -> AsyncIterator[Visitor]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        visitor = Visitor(hub, http)
        await visitor.log_in()
        yield visitor


async def logged(hub: WebHub, name: str = "pump") -> BoardLog:
    """A board on which one app used more than the other, for 40 hours."""
    uses = (
        used(at, app="blog" if at % 2 else "shop", cpu_us=90_000_000 if at % 2 else 1_000_000)
        for at in range(40)
    )
    return await metered(hub, name, began(), *uses)


async def test_a_page_without_logs_teaches(hub: WebHub, admin: Visitor) -> None:
    html = await admin.get("/usage")
    assert "No board has written down anything yet" in texts(html)
    assert "lichen app deploy" in html
    assert 'href="/usage/statements"' in html


async def test_uses_are_told_apart_and_the_largest_come_first(hub: WebHub, admin: Visitor) -> None:
    await logged(hub)
    html = await admin.get("/usage")
    seen = texts(html)
    assert seen.index("blog") < seen.index("shop")
    assert 'data-series="blog"' in html
    assert "– / –" in seen, "what a board does not count is a dash"
    assert "/usage?by=board&amp;app=blog&amp;range=1d" in html
    html = await admin.get("/usage?by=board&app=blog")
    assert "pump" in texts(html)
    assert "All again, not app blog alone" in html
    assert "/api/v1/usage/sums?by=board&amp;app=blog" in html
    html = await admin.get("/usage?by=workspace&board=pump&range=1w")
    assert "default" in texts(html)


async def test_the_range_is_in_the_address(hub: WebHub, admin: Visitor) -> None:
    await logged(hub)
    html = await admin.get(f"/usage?from_ms={WALL_MS}&to_ms={WALL_MS + 2 * HOUR_MS}")
    assert "shop" in texts(html)
    assert f"from_ms={WALL_MS}" in html
    html = await admin.get(f"/usage?from_ms=1000&to_ms={HOUR_MS}")
    assert "Nothing was used in this time" in texts(html)
    for wrong in ("range=2d", "by=payers", "from_ms=5&to_ms=3", "from_ms=x"):
        await admin.get(f"/usage?{wrong}", status=422)
    await admin.get("/usage?board=nobody", status=404)


async def test_names_are_no_markup(hub: WebHub, admin: Visitor) -> None:
    await metered(hub, "pump", began(), used(38, app="<script>x</script>"))
    assert "<script>x" not in await admin.get("/usage")


async def test_a_board_says_how_its_log_stands(hub: WebHub, admin: Visitor) -> None:
    await hub.add_board("new")
    assert "It has not sent any of it yet" in texts(await admin.get("/boards/new"))
    log = await logged(hub)
    seen = texts(await admin.get("/boards/pump"))
    assert "Records 41" in seen
    assert "Receipt for 41," in seen
    assert "Without a receipt none" in seen
    assert f"Epoch {log.epoch}" in seen
    assert "lichen usage verify pump" in seen
    assert "two histories" not in seen
    log.grow(10)
    await hub.parts.witness.take(log.board, log.package(41, 6, of=51, lost=4))
    liar = log.fork(40)
    liar.grow(20)
    for _ in range(2):
        await hub.parts.witness.take(log.board, liar.package(47, 13))
    seen = texts(await admin.get("/boards/pump"))
    assert "Records 47 4 of them lost" in seen
    assert "Without a receipt 19" in seen, "as many as the board claims"
    assert "The board signed two histories once; both are kept as evidence." in seen
