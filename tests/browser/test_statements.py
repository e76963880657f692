"""The pages of statements in a real browser: for everybody, on any screen."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import expect

from hub.web.books import books_of
from support.bills import MINUTE, NOVEMBER, container, metered, sensor
from support.webhub import WebHub

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
PATHS = (
    "/usage/statements",
    "/usage/statements?period=2026-11",
    "/usage/statements/2026-11",
    "/usage/statements/2026-11?number=1",
)
LONG = "an-app-with-a-very-long-name-that-nobody"


@pytest_asyncio.fixture(autouse=True, scope="module", loop_scope="module")
async def november(hub: WebHub) -> None:
    """A month that has ended, of which a statement was issued, and then something came late."""
    hub.skew_ms = NOVEMBER.end_ms + 24 * 60 * MINUTE - hub.now_ms
    prices = 'name = "house"\ncurrency = "EUR"\nvalid_from = "2026-11-01"\n[prices]\ncpu_hour = "0.02"\n'
    await books_of(hub.parts).set_rate(prices, "ada")
    ends = [NOVEMBER.start_ms + (each + 1) * 10 * MINUTE for each in range(40)]
    records = [
        container(
            seq, to_ms, cpu_us=10**9 + seq, app=LONG if seq % 2 else "blog", payer="", mem_byte_ms=10**15
        )
        for seq, to_ms in enumerate(ends)
    ]
    log = await metered(hub, "pump", *records, sensor(40, ends[-1], 8640))
    await books_of(hub.parts).issue(NOVEMBER, hub.parts.id, "ada")
    doubted = container(41, 5, cpu_us=10**9, clock="unsynced", boot="1" * 32, payer="", length_ms=5)
    await metered(hub, "pump", doubted, log=log)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dark", [False, True])
async def test_axe_finds_nothing_serious(visit: Any, path: str, dark: bool) -> None:
    page = await visit(path, dark=dark)
    for summary in await page.locator("main summary").all():
        await summary.click()
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run()")
    serious = [
        (rule["id"], node["html"][:200], node["failureSummary"])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
    assert not serious, json.dumps(serious[:5], indent=1)


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_wider_than_a_phone(visit: Any, path: str) -> None:
    page = await visit(path, width=390)
    for summary in await page.locator("main summary").all():
        await summary.click()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390


async def test_a_correction_is_issued_and_looked_at(visit: Any) -> None:
    page = await visit("/usage/statements?period=2026-11")
    await page.get_by_role("link", name="north").click()
    await page.get_by_role("button", name="Issue statement 2 of 2026-11").click()
    await expect(page.get_by_role("heading", name="Statement 2 of 2026-11")).to_be_visible()
    await expect(page.get_by_text("The board did not know the time")).to_be_visible()
    await page.get_by_role("link", name="as of now").click()
    await expect(page.get_by_role("button", name="Issue statement")).to_have_count(0)
