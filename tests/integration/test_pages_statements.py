"""The pages of statements, without JavaScript: who pays, each line with its proofs, and issuing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from hub.web.books import books_of
from hub.web.pages.statements import LINES, PROOFS
from support.bills import MINUTE, NOVEMBER, container, metered, sensor
from support.boardlog import BoardLog, hole
from support.visitor import Visitor, texts
from support.webhub import WebHub

START, END = NOVEMBER.start_ms, NOVEMBER.end_ms
HOUR_US = 3_600_000_000
PARTNER = "p" * 16
HOUSE = """
name = "house"
currency = "EUR"
valid_from = "2026-11-01"
[prices]
cpu_hour = "0.02"
reading = "0.00001"
"""


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[WebHub]:
    """On the second of December."""
    async with WebHub.open(tmp_path) as hub:
        hub.skew_ms = END + 24 * 60 * MINUTE - hub.now_ms
        yield hub


@pytest.fixture
async def admin(hub: WebHub) -> AsyncIterator[Visitor]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        visitor = Visitor(hub, http)
        await visitor.log_in()
        yield visitor


@pytest.fixture
async def log(hub: WebHub) -> BoardLog:
    await books_of(hub.parts).set_rate(HOUSE, "ada")
    return await metered(
        hub,
        "pump",
        container(0, START + 10 * MINUTE, cpu_us=HOUR_US, net_tx=2_500_000, payer=""),
        container(1, START + 10 * MINUTE, cpu_us=HOUR_US // 2, app="shop", payer=PARTNER),
        sensor(2, START + 20 * MINUTE, 1440),
        container(3, 10 * MINUTE, cpu_us=HOUR_US, app="late", payer="", clock="unsynced", boot="1" * 32),
    )


async def test_a_page_without_rate_cards_teaches_the_first(hub: WebHub, admin: Visitor) -> None:
    html = await admin.get("/usage/statements")
    assert "There is none, so everything is free." in texts(html)
    assert "lichen rate set house.toml" in html
    assert "It goes on, so nothing can be issued yet." in texts(html)
    assert 'rel="prev">2026-11<' in html
    assert 'rel="next"' not in html


async def test_who_pays_is_listed_with_what_is_to_issue(hub: WebHub, admin: Visitor, log: BoardLog) -> None:
    html = await admin.get("/usage/statements?period=2026-11")
    seen = texts(html)
    assert "north this hub 0.0544 EUR nothing to be issued" in seen
    assert f"{PARTNER} 0.01 EUR nothing to be issued" in seen
    assert "house@2026-11-01 EUR, for everybody" in seen
    assert "processor time, h 0.02 EUR" in seen
    await admin.get("/usage/statements?period=november", status=422)


async def test_each_line_has_its_charges_and_its_proofs(hub: WebHub, admin: Visitor, log: BoardLog) -> None:
    html = await admin.get("/usage/statements/2026-11")
    seen = texts(html)
    assert "2026-11, as of now" in seen
    assert "0.0544 EUR" in seen
    assert "blog/web on pump" in seen
    assert "processor time 1 h 0.02 EUR 0.02 sent over networks 0.0025 GB free" in seen
    assert "room on pump" in seen
    assert "readings delivered 1440 0.00001 EUR 0.0144" in seen
    assert "The board did not know the time" in seen
    board, _, epoch = log.origin.split("/")
    assert f'href="/tlog/{board}/{epoch}/proof/0.tlog-proof"' in html
    assert f'href="/boards/{board}"' in html
    assert "Checkpoint of 4 records" in seen
    assert "shop" not in seen
    theirs = texts(await admin.get(f"/usage/statements/2026-11?payer={PARTNER}"))
    assert "shop/web on pump" in theirs
    await admin.get("/usage/statements/2026-11?payer=nobody", status=404)
    await admin.get("/usage/statements/2026-11?number=1", status=404)


async def test_issuing_says_what_it_means_and_leads_to_what_was_issued(
    hub: WebHub, admin: Visitor, log: BoardLog
) -> None:
    html = await admin.get("/usage/statements/2026-11")
    assert "What is issued is never changed" in texts(html)
    assert "Issue statement 1 of 2026-11" in html
    html = await admin.post("/usage/statements/2026-11/issue", {"payer": hub.parts.id})
    assert "<h1>Statement 1 of 2026-11</h1>" in html
    assert re.search("SHA-256 [0-9a-f]{64}", texts(html))
    assert "Issue statement" not in await admin.get("/usage/statements/2026-11")
    html = await admin.post("/usage/statements/2026-11/issue", {"payer": hub.parts.id}, status=409)
    assert "Statement 1 of 2026-11 says it all." in texts(html)

    await metered(hub, "pump", container(4, START + 30 * MINUTE, cpu_us=HOUR_US, payer=""), log=log)
    seen = texts(await admin.get("/usage/statements?period=2026-11"))
    assert "north this hub 0.0744 EUR 1 has changed since" in seen, seen
    assert "Issue statement 2 of 2026-11" in await admin.get("/usage/statements/2026-11")
    html = await admin.post("/usage/statements/2026-11/issue", {"payer": hub.parts.id})
    seen = texts(html)
    assert "Statement 2 of 2026-11" in seen
    assert "Takes back line 0 of statement 1." in seen
    assert "Of the one before" in seen
    assert "0.02 EUR" in seen


async def test_a_month_that_goes_on_cannot_be_issued(hub: WebHub, admin: Visitor, log: BoardLog) -> None:
    html = await admin.get("/usage/statements/2026-12")
    assert "Nothing was used" in texts(html)
    assert "Issue statement" not in html
    html = await admin.post("/usage/statements/2026-12/issue", {}, status=409)
    assert "2026-12 has not ended yet" in texts(html)


async def test_a_hole_is_said(hub: WebHub, admin: Visitor, log: BoardLog) -> None:
    log.append(container(4, START + MINUTE, cpu_us=1), hole(4, 1, "pruned"))
    await hub.parts.witness.take(log.board, log.package(4, 2, lost=1))
    seen = texts(await admin.get("/usage/statements/2026-11"))
    assert "1 records are lost, from 4 on." in seen


async def test_what_a_board_writes_is_text(hub: WebHub, admin: Visitor) -> None:
    bad = "<script>alert(1)</script>"
    await metered(hub, "pump", container(0, START + MINUTE, cpu_us=1, app=bad, workspace=bad, payer=bad))
    html = await admin.get("/usage/statements?period=2026-11")
    assert bad not in html
    [address] = re.findall(r'href="(/usage/statements/2026-11\?payer=%3C[^"]+)"', html)
    html = await admin.get(address.replace("&amp;", "&"))
    assert bad not in html
    assert "&lt;script&gt;" in html


async def test_many_lines_come_in_pages_and_many_records_as_some(hub: WebHub, admin: Visitor) -> None:
    records = [
        container(seq, START + MINUTE, cpu_us=1, app=f"app{seq:03}", payer="") for seq in range(LINES + 2)
    ]
    records += [
        container(seq, START + MINUTE, cpu_us=1, app="zoo", payer="") for seq in range(LINES + 2, 500)
    ]
    await metered(hub, "pump", *records)
    html = await admin.get("/usage/statements/2026-11")
    assert html.count('<li id="line-') == LINES
    [following] = re.findall(r'href="([^"]+)" rel="next">More lines', html)
    html = await admin.get(following.replace("&amp;", "&"))
    assert html.count('<li id="line-') == 3
    assert f'id="line-{LINES + 2}"' in html
    assert f"and {500 - (LINES + 2) - PROOFS} more" in texts(html)


async def test_what_can_be_downloaded(hub: WebHub, admin: Visitor, log: BoardLog) -> None:
    html = await admin.get("/usage/statements/2026-11")
    for kind, what in (("json", '"period":"2026-11"'), ("csv", "x_LogOrigin")):
        [address] = re.findall(rf'href="([^"]+)" download="2026-11\.{kind}"', html)
        assert what in await admin.get(address.replace("&amp;", "&"))
