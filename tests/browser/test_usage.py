"""The page of what was used in a real browser: its charts, on any screen, for everybody."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import expect

from support.bills import metered
from support.boardlog import HOUR_MS, WALL_MS, began, used
from support.webhub import WebHub

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
LONG = "an-app-with-a-very-long-name-that-nobody-cuts"
PATHS = ("/usage", "/usage?by=board&range=1w", "/usage?app=nothing", f"/usage?app={LONG}", "/boards/pump")


@pytest_asyncio.fixture(autouse=True, scope="module", loop_scope="module")
async def logs(hub: WebHub) -> None:
    """Ten apps on two boards for 40 hours."""
    hub.skew_ms = WALL_MS + 40 * HOUR_MS - hub.now_ms
    names = [LONG, *(f"app-{number}" for number in range(9))]
    for board in ("pump", "a-board-with-a-name-as-long-as-any-name-of-a-board-may-be-today"):
        uses = (used(at // 4, app=names[at % 10], cpu_us=10**8 * (1 + at % 10)) for at in range(160))
        await metered(hub, board, began(), *uses)


async def test_each_measure_has_its_chart(visit: Any) -> None:
    page = await visit("/usage")
    await expect(page.locator(".uplot")).to_have_count(3)
    await expect(page.locator("[data-plots] h3").first).to_have_text("Processors in use")
    await expect(page.locator("[data-series]")).to_have_count(6)
    await expect(page.get_by_role("link", name="Usage", exact=True)).to_have_attribute("aria-current", "page")


async def test_a_row_leads_to_what_is_behind_it_and_back(visit: Any) -> None:
    page = await visit("/usage")
    await page.get_by_role("link", name="app-3").click()
    await expect(page.get_by_role("rowheader")).to_have_count(2)
    assert "app=app-3" in page.url
    await page.get_by_role("link", name="All again, not app app-3 alone").click()
    assert "app=" not in page.url


async def test_a_stretch_is_chosen_with_the_pointer(visit: Any) -> None:
    page = await visit("/usage?range=1w")
    over = page.locator(".u-over").first
    box = await over.bounding_box()
    await page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 50)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 50, steps=5)
    await page.mouse.up()
    await page.wait_for_url("**from_ms=**")
    await expect(page.locator(".uplot")).to_have_count(3)


async def test_the_keyboard_reaches_every_choice(visit: Any) -> None:
    page = await visit("/usage")
    reached = set()
    for _ in range(40):
        await page.keyboard.press("Tab")
        reached.add(await page.evaluate("document.activeElement.textContent.trim()"))
    assert {"Statements", "Boards", "1 w", "app-3", "Copy"} <= reached


async def test_charts_that_do_not_come_are_said(visit: Any) -> None:
    page = await visit("/usage")
    await page.route("**/api/v1/usage/sums*", lambda route: route.abort())
    await page.reload()
    await expect(page.locator("[data-plots]")).to_contain_text("could not be loaded")


@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("path", PATHS)
async def test_nothing_sticks_out(visit: Any, path: str, width: int) -> None:
    page = await visit(path, width=width)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("path", PATHS)
async def test_axe_finds_nothing_serious(visit: Any, path: str, dark: bool) -> None:
    page = await visit(path, dark=dark)
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run()")
    serious = [
        (rule["id"], node["html"][:200], node["failureSummary"])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
    assert not serious, json.dumps(serious[:5], indent=1)
