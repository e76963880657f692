"""The pages in a real browser: first visit, live values, charts, phone, keyboard, no JavaScript."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from agent.wire.messages import Problem, Reading
from agent.wire.words import SPACE
from hub.store.gaps import GapRow, add_gaps
from support.webhub import WebHub

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

VECTORS = Path(__file__).parents[1] / "vectors"
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
LONG = "a-very-long-name-of-a-board-in-the-north-west-corner-of-hall-12"
MINUTE_MS = 60_000
FIRST_PAINT_BYTES = 60_000


@pytest_asyncio.fixture(autouse=True, scope="module", loop_scope="module")
async def fleet(hub: WebHub) -> None:
    """Twenty boards: most fine, one with a problem, one silent, one with a long name."""
    for number in range(16):
        name = f"pump-{number:02d}"
        await hub.add_board(name, labels={"site": "north" if number % 2 else "south"})
        await hub.report(
            name, {"capacity.cpu": 10.0 + number, "capacity.memory": 40.0, "board.temperature": 48.0}
        )
    await hub.add_board(
        "cellar", problems=[Problem("disk", "Disk nearly full: 96 % used", "Remove old images")]
    )
    await hub.add_board(LONG, labels={f"label-{n}": "a long value of a label" for n in range(5)})
    await hub.add_board("new", heard=False)
    await hub.add_board("silent")
    hub.latest.boards[hub.id("silent")].heard_ms = hub.now_ms - 14 * MINUTE_MS
    await _history(hub, "pump-00")


async def _history(hub: WebHub, name: str) -> None:
    """Six hours, one reading a minute, with half an hour missing."""
    now = hub.now_ms
    minutes = [minute for minute in range(360, 0, -1) if not 100 < minute < 130]
    await hub.store_history(
        name,
        [
            [
                Reading("capacity.cpu", 40 + 20 * math.sin(minute / 20), at, at),
                Reading("capacity.memory", 44.0, at, at),
                Reading("board.temperature", 48 + 3 * math.cos(minute / 30), at, at),
            ]
            for minute in minutes
            for at in [now - minute * MINUTE_MS]
        ],
    )


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.05)


async def values(page: Page, selector: str) -> list[str]:
    return [text.replace(SPACE, " ") for text in await page.locator(selector).all_text_contents()]


# --- first visit -------------------------------------------------------------------------------


async def test_the_first_visit_with_the_login_link(hub: WebHub, visit: Any) -> None:
    page = await visit("/boards/cellar", login=False)
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    link = await hub.login_link()
    await page.goto(link)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("table", name="Boards by name")).to_be_visible()
    await page.goto(link)
    await expect(page.get_by_role("heading", name="This link no longer works")).to_be_visible()


async def test_somebody_logged_in_need_not_log_in_again_after_a_link_from_elsewhere(
    hub: WebHub, visit: Any
) -> None:
    """A link in a chat comes without the cookie (SameSite=Strict), and ends on the login page."""
    page = await visit("/")
    await page.goto(f"{hub.url}/login?next=/boards/cellar")
    await page.wait_for_url(f"{hub.url}/boards/cellar")


# --- live --------------------------------------------------------------------------------------


async def test_a_value_changes_in_place(hub: WebHub, visit: Any) -> None:
    page = await visit("/")
    order = await page.locator("tbody .name").all_text_contents()
    row = page.get_by_role("row", name="pump-03")
    figure = row.locator('[data-sensor="capacity.cpu"]')
    await expect(figure).to_have_text(f"13{SPACE}%")
    await page.evaluate("window.untouched = true")
    await hub.report("pump-03", {"capacity.cpu": 77.0})
    await expect(figure).to_have_text(f"77{SPACE}%")
    assert await row.locator("meter").first.evaluate("meter => meter.value") == 77
    assert await page.locator("tbody .name").all_text_contents() == order
    assert await page.evaluate("window.untouched")
    await hub.report("pump-03", {"capacity.cpu": 13.0})


async def test_a_board_goes_silent_on_a_page_that_stays_open(hub: WebHub, visit: Any) -> None:
    page = await visit("/boards/pump-05")
    state = page.locator(".standing")
    await expect(state).to_contain_text("fine")
    await page.clock.install()
    await page.clock.fast_forward(14 * MINUTE_MS)
    await expect(state).to_contain_text(f"Last heard 14{SPACE}min ago, expected every 1{SPACE}min")
    await expect(page.locator(".figure").first).to_have_class(re.compile("stale"))
    await expect(page.locator("[data-value-age]").first).to_have_text(f"14{SPACE}min ago")
    await hub.report("pump-05", {"capacity.cpu": 5.0})


async def test_a_hub_with_another_clock_than_the_reader(hub: WebHub, visit: Any) -> None:
    page = await visit("/")
    await page.clock.install(time="2019-01-01T00:00:00Z")
    await page.reload()
    row = page.get_by_role("row", name="pump-04")
    await expect(row.locator("[data-word]")).to_have_text("fine")
    assert re.fullmatch(r"\d+\ss|\d\smin", await row.locator("[data-board-age]").inner_text())


async def test_a_new_board_waits_behind_a_link(hub: WebHub, visit: Any) -> None:
    page = await visit("/")
    rows = await page.locator("tbody tr").count()
    await hub.add_board("zebra")
    fresh = page.get_by_role("link", name="1 new")
    await expect(fresh).to_be_visible()
    assert await page.locator("tbody tr").count() == rows
    await fresh.click()
    await expect(page.locator("tbody tr")).to_have_count(rows + 1)


async def test_a_cut_stream_is_said_and_mended(hub: WebHub, visit: Any) -> None:
    page = await visit("/boards/pump-06")
    big = page.locator('[data-sensor="capacity.cpu"]')
    await hub.report("pump-06", {"capacity.cpu": 21.0})
    await expect(big).to_have_text("21%")
    port = int(hub.url.rpartition(":")[2])
    await hub.stop()
    notice = page.locator("#notice")
    await expect(notice).to_contain_text("Not connected to the hub since")
    await hub.start(port)
    await hub.report("pump-06", {"capacity.cpu": 22.0})
    await expect(notice).to_be_hidden()
    await expect(big).to_have_text("22%")


async def test_a_page_that_is_open_has_its_board_report_live(hub: WebHub, visit: Any) -> None:
    page = await visit("/boards/pump-07")
    await expect(page.locator(".standing")).to_contain_text("fine")
    await eventually(lambda: hub.parts.commands.watched == {hub.id("pump-07")})
    await page.goto(hub.url + "/")
    await eventually(lambda: not hub.parts.commands.watched)


async def test_a_backlog_shows_while_it_comes_in(hub: WebHub, visit: Any) -> None:
    page = await visit("/boards/pump-08")
    waiting = page.locator("[data-waiting]")
    await expect(waiting).to_be_hidden()
    hub.latest.holds(hub.id("pump-08"), 3400)
    await hub.report("pump-08", {"capacity.cpu": 18.0})
    await expect(waiting).to_have_text("· 3400 older readings still to come")
    hub.latest.holds(hub.id("pump-08"), 0)
    await hub.report("pump-08", {"capacity.cpu": 18.0})
    await expect(waiting).to_be_hidden()


async def test_a_problem_that_is_over_is_history(hub: WebHub, visit: Any) -> None:
    hot = Problem("over-temperature", "The processor is at 86 °C.", "Give it air", "warn", hub.now_ms, 3)
    about = hub.about("pump-09")
    await hub.describe("pump-09", replace(about, problems=(hot,)))
    page = await visit("/boards/pump-09")
    problems = page.get_by_role("region", name="Problems")
    await expect(problems).to_contain_text("The processor is at 86 °C. Give it air. Needs you since")
    await expect(problems).to_contain_text(", 3 times")
    await hub.describe("pump-09", about)
    await page.reload()
    await expect(page.locator(".problem")).to_have_count(0)
    await page.get_by_text("1 earlier problem, over now").click()
    await expect(problems).to_contain_text("The processor is at 86 °C. For")


# --- finding and changing ----------------------------------------------------------------------


async def test_searching_is_in_the_address(hub: WebHub, visit: Any) -> None:
    page = await visit("/")
    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox")).to_be_focused()
    await page.keyboard.type("pump-1")
    await expect(page.locator("tbody tr")).to_have_count(6)
    await page.wait_for_url("**/?search=pump-1")
    await hub.report("pump-12", {"capacity.cpu": 88.0})
    cell = page.get_by_role("row", name="pump-12").locator('[data-sensor="capacity.cpu"]')
    await expect(cell).to_have_text(f"88{SPACE}%")  # the stream followed the new rows
    await page.get_by_role("link", name="site=south").first.click()
    await expect(page.locator("tbody tr")).to_have_count(8)
    await page.go_back()
    await expect(page.locator("tbody tr")).to_have_count(6)


async def test_renaming_says_what_is_wrong_and_then_does_it(hub: WebHub, visit: Any) -> None:
    page = await visit("/boards/pump-07")
    await page.get_by_text("Name and labels").click()
    await page.get_by_label("Name", exact=True).fill("pump-08")
    await page.get_by_role("button", name="Rename").click()
    await expect(page.get_by_role("alert")).to_contain_text("Another board is called 'pump-08'.")
    await page.get_by_label("Name", exact=True).fill("Keller & Söhne")
    await page.get_by_role("button", name="Rename").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Keller & Söhne")
    await page.get_by_text("Name and labels").click()
    await page.get_by_label("Labels").fill("site=west floor=2")
    await page.get_by_role("button", name="Save labels").click()
    await expect(page.get_by_role("link", name="floor=2")).to_be_visible()


async def test_a_token_is_made_and_its_file_copied(visit: Any) -> None:
    page = await visit("/tokens")
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.get_by_label("Name of the board").fill("barn")
    await page.get_by_role("button", name="Create the token").click()
    await page.get_by_role("button", name="Copy").first.click()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert {"hub_url", "hub_key", "ca_sha256", "token"} == set(re.findall(r"^(\w+) =", copied, re.MULTILINE))
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Save as lichen-join.toml").click()
    assert (await download.value).suggested_filename == "lichen-join.toml"


# --- charts ------------------------------------------------------------------------------------


async def test_charts_show_the_range_of_the_address(hub: WebHub, visit: Any) -> None:
    page = await visit("/boards/pump-00?range=6h&sensor=capacity.cpu&sensor=board.temperature")
    await expect(page.locator(".uplot")).to_have_count(2)
    assert await page.locator("[data-series]").count() == 2
    over = page.locator(".u-over").last
    box = await over.bounding_box()
    assert box
    await page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 20)
    await expect(page.locator("[data-at]")).to_contain_text("At ")
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 20, steps=4)
    await page.mouse.up()
    await page.wait_for_url(re.compile("from_ms=[0-9]+&to_ms=[0-9]+"))
    await page.reload()
    await expect(page.locator(".uplot")).to_have_count(2)
    await page.get_by_role("link", name="1 d").click()
    await page.wait_for_url(re.compile("range=1d&sensor=capacity.cpu&sensor=board.temperature"))


async def test_charts_are_as_narrow_as_the_window_becomes(visit: Any) -> None:
    page = await visit("/boards/pump-00")
    chart = page.locator(".uplot").first
    await expect(chart).to_be_visible()
    for width in (820, 390, 820):
        await page.set_viewport_size({"width": width, "height": 900})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, width
        wanted = await page.locator("[data-plots]").evaluate("each => each.clientWidth")
        await expect(chart).to_have_js_property("offsetWidth", wanted)
        assert width - 60 < wanted < width


async def test_the_table_below_the_charts_counts_what_arrives(hub: WebHub, visit: Any) -> None:
    page = await visit("/boards/pump-03?sensor=capacity.cpu")
    await expect(page.locator(".uplot")).to_have_count(1)
    await eventually(lambda: hub.parts.commands.watched == {hub.id("pump-03")})  # it listens
    await hub.report("pump-03", {"capacity.cpu": 91.0})
    await expect(page.locator("[data-high]")).to_have_text(f"91{SPACE}%")
    await hub.report("pump-03", {"capacity.cpu": 13.0})
    await expect(page.locator("[data-value-at]")).to_have_text(f"13{SPACE}%")
    await expect(page.locator("[data-high]")).to_have_text(f"91{SPACE}%")
    last, least, mean, most = await values(page, "[data-series] td")
    await page.reload()
    assert await values(page, "[data-series] td") == [last, least, mean, most]


async def test_where_nothing_was_heard_a_chart_is_hatched(visit: Any) -> None:
    page = await visit("/boards/pump-00?range=6h&sensor=capacity.cpu")
    await expect(page.locator(".uplot")).to_have_count(1)
    # Of a column of pixels in the gap some are hatch; beside the gap only grid and line are drawn.
    script = """([share, wide]) => {
      const canvas = document.querySelector(".uplot canvas"), over = document.querySelector(".u-over");
      const ratio = canvas.width / canvas.clientWidth;
      const left = (over.getBoundingClientRect().left - canvas.getBoundingClientRect().left) * ratio;
      const x = Math.round(left + over.clientWidth * ratio * share);
      const { data } = canvas.getContext("2d").getImageData(x, 4, wide, over.clientHeight * ratio - 8);
      let drawn = 0;
      for (let at = 3; at < data.length; at += 4) drawn += data[at] > 0;
      return drawn / (data.length / 4);
    }"""
    inside = await page.evaluate(script, [1 - 115 / 360, 4])
    assert inside > 0.08, inside


async def test_a_line_is_dotted_while_nobody_knows_the_time(hub: WebHub, visit: Any) -> None:
    now = hub.now_ms
    for minutes, clock in ((range(40, 20, -1), "unsynced"), (range(20, 0, -1), "synced")):
        times = [now - minute * MINUTE_MS for minute in minutes]
        reports = [[Reading("capacity.cpu", 30.0 + at % 7, at, at)] for at in times]
        await hub.store_history("pump-10", reports, clock=clock)  # type: ignore[arg-type]
    page = await visit("/boards/pump-10?sensor=capacity.cpu")
    said = page.get_by_text("Where a line is dotted the board's clock was not set")
    await expect(said).to_be_visible()
    await page.goto(hub.url + "/boards/pump-00?sensor=capacity.cpu")
    await expect(page.locator(".uplot")).to_have_count(1)
    await expect(said).to_be_hidden()


async def test_a_stretch_that_was_lost_says_so(hub: WebHub, visit: Any) -> None:
    now = hub.now_ms
    minutes = [minute for minute in range(50, 0, -1) if not 15 < minute < 40]
    times = [now - minute * MINUTE_MS for minute in minutes]
    await hub.store_history("pump-11", [[Reading("capacity.cpu", 30.0, at, at)] for at in times])
    gap = GapRow(
        hub.id("pump-11"), "t" * 16, 1, 24, now - 39 * MINUTE_MS, now - 16 * MINUTE_MS, "outbox-full", now
    )
    async with hub.store.write() as tx:
        await add_gaps(tx, [gap])
    page = await visit("/boards/pump-11?sensor=capacity.cpu")
    await page.add_init_script(
        "const fill = CanvasRenderingContext2D.prototype.fillText; window.told = [];"
        "CanvasRenderingContext2D.prototype.fillText = function (text, ...rest)"
        " { window.told.push(text); return fill.call(this, text, ...rest); };"
    )
    await page.reload()
    await expect(page.locator(".lost:visible")).to_contain_text("24 readings lost: the outbox of the board")
    await expect(page.locator(".uplot")).to_have_count(1)
    assert "24 lost: the board's outbox was full" in await page.evaluate("window.told")


# --- how it reads ------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize(
    "path", ["/", "/?state=silent", f"/boards/{LONG}", "/boards/pump-00", "/tokens", "/settings"]
)
async def test_nothing_sticks_out(visit: Any, path: str, width: int) -> None:
    page = await visit(path, width=width)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(
    "path", ["/", "/boards/cellar", "/boards/pump-00?range=6h", "/tokens", "/settings", "/login"]
)
async def test_axe_finds_nothing_serious(visit: Any, path: str, dark: bool) -> None:
    page = await visit(path, dark=dark, login=path != "/login")
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run()")
    serious = [
        (rule["id"], node["html"][:200], node["failureSummary"])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
    assert not serious, json.dumps(serious[:5], indent=1)


async def test_pages_read_without_javascript(hub: WebHub, visit: Any) -> None:
    page = await visit("/", javascript=False)
    assert await values(page, "tr:has-text('pump-02') .figure") == ["12 %", "40 %", "–", "48.0 °C"]
    # On a slow machine the board has gone silent by now, and is named above the table, too.
    await page.get_by_role("table").get_by_role("link", name="pump-02").click()
    await expect(page.locator(".big").first).to_contain_text("12")
    await page.get_by_role("link", name="6 h").click()
    await expect(page.locator("[data-series]").first).to_contain_text("12")


async def test_colours_can_be_chosen_and_stay(visit: Any) -> None:
    page = await visit("/")
    button = page.get_by_role("button", name="Colours")
    paper = "getComputedStyle(document.body).backgroundColor"
    as_system = await page.evaluate(paper)
    await button.click()
    await button.click()
    await expect(button).to_have_accessible_name("Colours: dark")
    dark = await page.evaluate(paper)
    assert dark != as_system
    await page.reload()
    assert await page.evaluate(paper) == dark


async def test_the_keyboard_reaches_the_content_first(visit: Any) -> None:
    page = await visit("/")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.closest('main') !== null")


async def test_the_browser_writes_figures_as_the_hub_does(visit: Any) -> None:
    page = await visit("/login", login=False)
    root = await page.evaluate(
        "document.querySelector('link[rel=stylesheet]').href.replace('lichen.css', '')"
    )
    figures = json.loads((VECTORS / "words.json").read_text())
    written = await page.evaluate(
        "async ([root, vectors]) => { const format = await import(root + 'words.js');"
        " return vectors.map(({ fn, args }) => format[fn](...args)); }",
        [root, figures],
    )
    assert [text.replace(SPACE, " ") for text in written] == [vector["text"] for vector in figures]
    states = json.loads((VECTORS / "state.json").read_text())
    judged = await page.evaluate(
        "async ([root, vectors]) => { const { judge } = await import(root + 'state.js');"
        " return vectors.map(({ seen, now_ms }) => judge(seen, now_ms)); }",
        [root, states["judge"]],
    )
    assert [(each["state"], each["sentence"].replace(SPACE, " ")) for each in judged] == [
        (vector["state"], vector["sentence"]) for vector in states["judge"]
    ]
    stale = await page.evaluate(
        "async ([root, vectors]) => { const { isStale } = await import(root + 'state.js');"
        " return vectors.map((each) => isStale(each.at_ms, each.interval_ms, each.now_ms)); }",
        [root, states["stale"]],
    )
    assert stale == [vector["stale"] for vector in states["stale"]]


@pytest.mark.parametrize("path", ["/", "/boards/pump-00"])
async def test_the_first_paint_is_light(hub: WebHub, visit: Any, path: str) -> None:
    page = await visit("/settings")
    session = await page.context.new_cdp_session(page)
    await session.send("Network.enable")
    await session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    await page.goto(hub.url + path)
    await page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    asked_before = await page.evaluate(
        "(() => { const paint = performance.getEntriesByName('first-contentful-paint')[0].startTime;"
        " return [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        " .filter(({ startTime }) => startTime < paint).map((each) => [each.name, each.transferSize]); })()"
    )
    sizes = dict(asked_before)
    assert any("htmx" in name for name in sizes), "what is counted is what was loaded"
    assert sum(sizes.values()) <= FIRST_PAINT_BYTES, sizes
