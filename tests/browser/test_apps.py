"""The pages of apps in a real browser: the deploy form, progress that arrives, deeds, phones, axe."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from agent.wire.apps import AppState, Failure, LogLine, Progress
from agent.wire.words import SPACE
from hub.store.apps import get_app
from support.apps import push_image, recipe, running, updating
from support.registry import Registry, registry
from support.webapps import WebApps, container
from support.webhub import ADMIN, WebHub

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
LONG = "a-very-long-name-of-a-board-in-the-north-west-corner-of-hall-12"
LONG_APP = "a-name-of-an-app-that-is-as-long-as-it-m"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as shop:
        yield shop


@pytest.fixture(scope="module")
def image(shop: Registry) -> str:
    return push_image(shop, "demo", "1", "arm64", "amd64")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apps(
    tmp_path_factory: pytest.TempPathFactory, shop: Registry, image: str
) -> AsyncIterator[WebApps]:
    """Four boards, one of them away; apps that are well, one with a long name."""
    async with WebApps.open(tmp_path_factory.mktemp("hub"), shop) as apps:
        for name in ("pump", "roof", "cellar", LONG):
            await apps.add_board(name, labels={"site": "north" if name in ("pump", "roof") else "south"})
        well = (container(), container("db", health="", cpu_milli=310))
        await apps.deploy("demo", recipe(image), "pump", "roof", "cellar", message="first try")
        await apps.deploy("still", recipe(image), "pump")
        await apps.deploy(LONG_APP, recipe(image), LONG)
        await apps.say("pump", running("demo", 1, containers=well), running("still", 1, containers=well))
        await apps.say("roof", running("demo", 1, containers=well))
        await apps.say("cellar", running("demo", 1, containers=well))
        await apps.say(LONG, running(LONG_APP, 1, containers=well))
        await apps.presence("cellar", "offline")
        yield apps


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(apps: WebApps) -> WebHub:
    """What `visit` opens."""
    return apps.hub


async def say_running(apps: WebApps, app: str, *names: str) -> None:
    """These boards have come up with what was asked for last."""
    async with apps.hub.store.read() as tx:
        number = (await get_app(tx, app)).number
    others = {"pump": ["still", "demo"]}
    for name in names:
        states = [running(app, number, containers=(container(),))]
        states += [running(each, 1) for each in others.get(name, []) if each != app]
        await apps.say(name, *states)


# --- deploying -----------------------------------------------------------------------------------


async def test_verdicts_come_as_one_types(apps: WebApps, image: str, visit: Any) -> None:
    page = await visit("/apps/new")
    text = page.get_by_label("Text of compose.yml")
    await text.fill(f"services:\n  web:\n    image: {image}\n    build: .\n    mem_swappiness: 3\n")
    verdicts = page.locator("#verdicts")
    await expect(verdicts).to_contain_text("line 4 refused services.web.build")
    await expect(verdicts).to_contain_text("line 5 ignored services.web.mem_swappiness")
    await expect(page.locator(".gutter li")).to_have_count(6)
    await expect(page.locator(".gutter li").nth(3)).to_have_class("refused")
    await expect(page.get_by_role("button", name="Deploy to")).to_have_count(0)
    await verdicts.get_by_role("link", name="line 4").click()
    await expect(text).to_be_focused()
    assert await text.evaluate("t => t.value.slice(t.selectionStart, t.selectionEnd)") == "    build: ."
    await text.fill("services: [")
    await expect(verdicts).to_contain_text("compose.yml:1: not YAML")
    await expect(page.locator(".gutter li").first).to_have_class("refused")
    assert await text.input_value() == "services: ["


async def test_a_recipe_is_uploaded_filled_in_and_deployed(
    apps: WebApps, image: str, visit: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "blog"
    folder.mkdir()
    sample = "# How it greets.\nGREETING=hello\nSECRET_PASSWORD_VERSION=v1 # length=20\n"
    for path, text in recipe(image, **{".env.sample": sample}).items():
        (folder / path).write_text(text)
    page = await visit("/apps/new")
    await page.get_by_label("Name of the app").fill("blog")
    await page.get_by_label("Upload a folder").set_input_files(folder)
    await expect(page.get_by_label("Text of compose.yml")).to_have_value(re.compile("coop-cloud"))
    await expect(page.get_by_label("Name of the app")).to_have_value("blog")
    greeting = page.get_by_label("GREETING")
    await expect(greeting).to_have_accessible_description("How it greets.")
    await greeting.fill("moin")
    await page.get_by_label("All with these labels").fill("site=north")
    await expect(page.get_by_role("button", name="Deploy to 2 boards")).to_be_visible()
    await page.get_by_role("checkbox", name="cellar").check()
    await expect(page.locator("#choices")).to_contain_text("offline since")
    await page.get_by_label("Why").fill("for the summer")
    deploy = page.get_by_role("button", name="Deploy to 3 boards")
    await expect(deploy).to_be_visible()
    await expect(page.get_by_role("checkbox", name="cellar")).to_be_checked()
    await expect(greeting).to_have_value("moin")
    await deploy.click()
    await page.wait_for_url("**/apps/blog")
    await expect(page.locator("#heading")).to_contain_text("“for the summer”")
    await expect(page.locator(".place")).to_have_count(3)
    async with apps.hub.store.read() as tx:
        row = await get_app(tx, "blog")
    assert row.env["GREETING"] == "moin"
    await apps.hub.parts.desk.deploy.cancel("blog", ADMIN)


async def test_a_new_file_brings_new_variables(visit: Any) -> None:
    page = await visit("/apps/new")
    await page.get_by_label("Text of compose.yml").fill("services:\n  web:\n    image: x:${TAG:?which}\n")
    await expect(page.locator("#verdicts")).to_contain_text("which")
    await page.get_by_label("TAG required").fill("1.2")
    await expect(page.locator("#verdicts")).to_contain_text("keys supported")
    await page.get_by_role("button", name="Add a file").click()
    await page.get_by_label("Its path in the recipe").fill(".env.sample")
    await page.get_by_label("Text of the new file").fill("# What it says.\nWORD=hi\n")
    await expect(page.get_by_label("WORD")).to_have_value("hi")
    await expect(page.get_by_label("TAG required")).to_have_value("1.2")


async def test_a_secret_that_is_typed_outlives_the_next_look(apps: WebApps, image: str, visit: Any) -> None:
    page = await visit("/apps/new")
    await page.get_by_label("Name of the app").fill("vault")
    compose = (
        f"services:\n  web:\n    image: {image}\n    secrets: [key]\nsecrets:\n  key:\n    external: true\n"
    )
    await page.get_by_label("Text of compose.yml").fill(
        compose + "    name: vault_key_${SECRET_KEY_VERSION}\n"
    )
    await page.get_by_text("More variables").click()
    await page.get_by_label("As in a .env file").fill("SECRET_KEY_VERSION=v1")
    await page.get_by_role("button", name="Add a file").click()
    await page.get_by_label("Its path in the recipe").fill(".env.sample")
    await page.get_by_label("Text of the new file").fill("SECRET_KEY_VERSION=v1 # generate=false\n")
    secret = page.get_by_label("The secret key")
    await secret.fill("hush-hush")
    await page.get_by_role("checkbox", name="pump").check()
    await expect(page.get_by_role("button", name="Deploy to pump")).to_be_visible()
    await expect(secret).to_have_value("hush-hush")
    assert "hush-hush" not in await page.content()


async def test_a_tick_set_while_a_look_is_on_its_way_stays(visit: Any) -> None:
    page = await visit("/apps/new")
    await page.get_by_label("Text of compose.yml").fill("services: {web: {build: .}}")
    await expect(page.locator("#outcome")).to_contain_text("Choose at least one board")
    looked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(route: Route) -> None:
        response = await route.fetch()
        looked.set()
        await answer.wait()
        await route.fulfill(response=response)

    await page.route("**/apps/new", slowly, times=1)
    await page.get_by_label("Name of the app").fill("blog")
    await looked.wait()
    await page.get_by_role("checkbox", name="pump").check()
    answer.set()
    await expect(page.locator("#outcome")).not_to_contain_text("Choose at least one board")
    await expect(page.get_by_role("checkbox", name="pump")).to_be_checked()


async def test_the_difference_shows_before_an_app_is_deployed_anew(apps: WebApps, visit: Any) -> None:
    page = await visit("/apps/still/deploy")
    await expect(page.locator("#outcome")).to_contain_text("The same as what runs")
    await page.get_by_label("GREETING").fill("good evening")
    await expect(page.locator(".difference .plus")).to_have_text("+ GREETING=good evening\n")
    await page.get_by_role("button", name="Look up the images first").click()
    await expect(page.locator("#outcome")).to_contain_text("sha256:")
    await page.get_by_role("button", name="Deploy to pump").click()
    await page.wait_for_url("**/apps/still")
    await expect(page.locator("#heading")).to_contain_text("revision 2, deployed by admin")
    await say_running(apps, "still", "pump")
    await expect(page.locator("#heading")).to_contain_text("running on pump")


# --- live ----------------------------------------------------------------------------------------


async def test_progress_arrives_in_place(apps: WebApps, image: str, visit: Any) -> None:
    page = await visit("/apps/demo")
    place = page.locator(".place", has_text="roof")
    await expect(place).to_contain_text("running")
    summary = place.get_by_text("2 containers")
    await summary.click()  # fold it
    await page.evaluate("window.untouched = document.querySelector('.place h3')")
    await apps.deploy("demo", recipe(image), "pump", "roof", "cellar", set={"GREETING": "hi"})
    await expect(place).to_contain_text("sent")
    well = (container(), container("db"))
    state = replace(updating("demo", 2, 1), containers=well)
    for done in (20, 60):
        await apps.say("roof", replace(state, progress=Progress(done * 1_000_000, 100_000_000, "By")))
        await expect(place).to_contain_text(f"{done}.0{SPACE}MB of 100{SPACE}MB · {done} %")
    assert await place.locator("progress").evaluate("bar => bar.value") == 60
    assert await place.locator("details").evaluate("each => each.open") is False
    why = Failure(
        2, apps.hub.now_ms, "await healthy", "web never got healthy", "look at its log",
        service="web", exit_code=3, log="cannot reach db\n", rolled_back_to=1,
    )  # fmt: skip
    await apps.say("roof", AppState("demo", 2, 1, "running", failure=why, containers=well))
    await expect(place).to_contain_text("Rolled back to revision 1, which runs.")
    await place.get_by_text("Last lines of its log").click()
    await expect(place.locator("pre.log")).to_have_text("cannot reach db\n")
    assert await page.evaluate("window.untouched.isConnected")
    await expect(page.locator("#heading")).to_contain_text("failed on 1")
    await say_running(apps, "demo", "pump")
    await expect(page.locator(".place", has_text="pump")).to_contain_text("running")
    # What was unfolded stays so.
    await expect(place.locator("pre.log")).to_be_visible()


async def test_an_age_goes_on_and_the_list_and_the_board_follow(apps: WebApps, visit: Any) -> None:
    page = await visit("/boards/roof")
    await expect(page.get_by_role("region", name="Apps")).to_contain_text("failed")
    told = page.locator(".told time").first
    await page.clock.install()
    await page.clock.fast_forward(14 * 60_000)
    await expect(told).to_have_text(f"14{SPACE}min ago")
    listed = await visit("/apps")
    row = listed.get_by_role("row", name="demo")
    await expect(row).to_contain_text("failed on 1 of 3 boards")
    fleet = await visit("/")
    await expect(fleet.get_by_role("row", name="roof")).to_contain_text("0 of 1")


async def test_a_cut_stream_is_said_and_mended(apps: WebApps, visit: Any) -> None:
    page = await visit("/apps/still")
    await expect(page.locator(".place")).to_contain_text("running")
    port = int(apps.hub.url.rpartition(":")[2])
    await apps.hub.stop()
    await expect(page.locator("#notice")).to_contain_text("Not connected to the hub since")
    await apps.hub.start(port)
    await apps.presence("pump", "offline")
    await expect(page.locator("#notice")).to_be_hidden()
    await expect(page.locator(".place")).to_contain_text("The board is offline since")
    await apps.presence("pump", "online")
    await expect(page.locator(".place")).not_to_contain_text("offline")


# --- deeds ---------------------------------------------------------------------------------------


async def test_rolling_back_from_the_history(apps: WebApps, visit: Any) -> None:
    page = await visit("/apps/still/history")
    await page.get_by_role("link", name=re.compile("Roll back to this.*revision 1$")).click()
    await expect(page.get_by_role("heading", name="Roll still back to revision 1")).to_be_visible()
    await expect(page.locator(".affected")).to_contain_text("pump")
    await expect(page.locator(".difference .minus")).to_have_text("- GREETING=good evening\n")
    await page.get_by_label("Why").fill("too late for that")
    await page.get_by_role("button", name="Roll back pump to revision 1").click()
    await page.wait_for_url("**/apps/still")
    await expect(page.locator("#heading")).to_contain_text("revision 3, rolled back by admin")
    await say_running(apps, "still", "pump")
    await expect(page.locator("#heading")).to_contain_text("running on pump")


async def test_a_log_is_read_and_followed(apps: WebApps, visit: Any) -> None:
    lines = [LogLine("demo_web.0.aa", apps.hub.now_ms, "stdout", f"line {number}") for number in range(60)]
    async with apps.telling("pump", lines) as asked:
        page = await visit("/apps/still/logs")
        shown = page.locator(".lines li")
        await expect(shown).to_have_count(60)
        await page.get_by_role("button", name="Follow for 5 min").click()
        await expect(shown).to_have_count(120)
        assert asked[1].args["follow_s"] == 300
        await expect(page.get_by_role("status").last).to_contain_text("Followed until")
        await expect(page.get_by_role("button", name="Follow for 5 min")).to_be_visible()
    at_end = "list => list.scrollHeight - list.scrollTop - list.clientHeight < 5"
    assert await page.locator(".lines").evaluate(at_end)


async def test_apps_are_searched_from_the_keyboard(visit: Any) -> None:
    page = await visit("/apps")
    await page.keyboard.press("/")
    await page.keyboard.type("stil")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.wait_for_url("**/apps?search=stil")
    await page.keyboard.press("Tab")
    await page.get_by_role("link", name="still").focus()
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/apps/still")


# --- how it reads --------------------------------------------------------------------------------

PATHS = [
    "/apps", "/apps/new", "/apps/demo", f"/apps/{LONG_APP}", "/apps/demo/history", "/apps/demo/settings",
    "/apps/demo/deploy", "/apps/demo/logs", "/apps/still/scale", "/apps/still/rollback", "/apps/demo/remove",
    "/apps/demo/secrets/password", "/boards/roof", f"/boards/{LONG}", "/",
]  # fmt: skip


async def unfold(page: Page) -> None:
    """Show all there is."""
    await page.evaluate("document.querySelectorAll('main details').forEach((each) => (each.open = true))")


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_sticks_out_and_axe_finds_nothing_serious(visit: Any, path: str) -> None:
    page = await visit(path)
    await unfold(page)
    for width in (390, 820, 1440):
        await page.set_viewport_size({"width": width, "height": 900})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, width
    await page.evaluate(AXE)
    for colours in ("light", "dark"):
        await page.emulate_media(color_scheme=colours, reduced_motion="reduce")
        found = await page.evaluate("axe.run()")
        serious = [
            (colours, rule["id"], node["html"][:200], node["failureSummary"])
            for rule in found["violations"]
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]
        assert not serious, json.dumps(serious[:5], indent=1)


async def test_pages_read_and_deploy_without_javascript(apps: WebApps, image: str, visit: Any) -> None:
    page = await visit("/apps/demo", javascript=False)
    await expect(page.locator(".place", has_text="roof")).to_contain_text("Rolled back to revision 1")
    await page.get_by_role("link", name="History").click()
    await page.get_by_text("What was new").first.click()
    await expect(page.locator(".difference").first).to_contain_text("+ GREETING=hi")
    await page.goto(apps.hub.url + "/apps/new")
    await page.get_by_label("Name of the app").fill("plain")
    await page.get_by_label("Text of compose.yml").fill(f"services:\n  web:\n    image: {image}\n")
    await page.get_by_role("checkbox", name="roof").check()
    await page.get_by_role("button", name="Look again").click()
    await page.get_by_role("button", name="Deploy to roof").click()
    await page.wait_for_url("**/apps/plain")
    async with asyncio.timeout(5):
        await apps.hub.parts.desk.deploy.cancel("plain", ADMIN)
