"""The pages of apps as HTML, without a browser; a real registry is asked, the test plays the boards."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from agent.wire.apps import AppState, Failure, LogLine, Progress
from hub.store.app_counts import AppCount, count_apps
from hub.store.app_secrets import list_secrets
from hub.store.apps import RevisionRow, add_revision, save_recipe
from hub.web.pages.apps.listing import PAGE_SIZE
from support.apps import failed, push_image, recipe, running, updating
from support.registry import Registry, registry
from support.visitor import HTML, Visitor, texts
from support.webapps import WebApps, container, form
from support.webhub import ADMIN

HOUR_MS = 3_600_000
NASTY = "<script>alert(1)</script>\"'"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as shop:
        yield shop


@pytest.fixture(scope="module")
def image(shop: Registry) -> str:
    return push_image(shop, "demo", "1", "arm64", "amd64")


@pytest.fixture
async def apps(tmp_path: Path, shop: Registry) -> AsyncIterator[WebApps]:
    async with WebApps.open(tmp_path, shop) as apps:
        await apps.add_board("pump", labels={"site": "north"})
        await apps.add_board("roof", labels={"site": "south"})
        yield apps


@pytest.fixture
async def stranger(apps: WebApps) -> AsyncIterator[Visitor]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        yield Visitor(apps.hub, http)


@pytest.fixture
async def admin(stranger: Visitor) -> Visitor:
    await stranger.log_in()
    return stranger


# --- looking -------------------------------------------------------------------------------------


async def test_an_empty_page_teaches_the_next_command(admin: Visitor) -> None:
    html = await admin.get("/apps")
    assert "lichen app deploy FOLDER --board NAME --wait" in html
    assert 'href="/apps/new"' in html


async def test_the_list_sums_up_and_is_searched(apps: WebApps, admin: Visitor, image: str) -> None:
    await apps.come_up(image, "pump", "roof")
    await apps.deploy("blog", recipe(image), "pump")
    seen = texts(await admin.get("/apps"))
    assert "demo running on 2 of 2 boards 1.2 deployed by admin, now" in seen
    assert "blog sent on pump" in seen
    await apps.say("pump", running("demo", 1), failed("blog", 1))
    seen = texts(await admin.get("/apps"))
    assert "blog failed on pump pump: web never got healthy; nothing of it runs." in seen
    assert "blog" not in texts(await admin.get("/apps?search=dem"))
    assert "No app matches." in await admin.get("/apps?search=none")
    await apps.presence("roof", "offline")
    assert "roof is offline: as last told." in texts(await admin.get("/apps"))


async def test_what_is_gone_is_shown_when_asked_for_and_many_come_in_pages(
    apps: WebApps, admin: Visitor
) -> None:
    async with apps.hub.store.write() as tx:
        digest = await save_recipe(tx, {"compose.yml": ""})
        for number in range(PAGE_SIZE + 3):
            row = RevisionRow(
                f"old-{number:03d}", 1, 5, ADMIN, "undeploy", "", "", digest, {}, {}, {}, {}, False, ()
            )
            await add_revision(tx, row)
    assert "No app is on a board any more." in await admin.get("/apps")
    first = await admin.get("/apps?gone=1")
    assert first.count('<tr role="row" id="app-old') == PAGE_SIZE
    following = re.search(r'href="([^"]+)" rel="next"', first)
    assert following
    second = await admin.get(following[1].replace("&amp;", "&"))
    assert second.count('<tr role="row" id="app-old') == 3
    assert 'rel="next"' not in second
    assert "It is on no board." in texts(await admin.get("/apps/old-001"))


async def test_an_app_tells_how_it_is_on_each_board(apps: WebApps, admin: Visitor, image: str) -> None:
    await apps.come_up(image, "pump", "roof")
    await apps.deploy("demo", recipe(image), "pump", "roof", set={"GREETING": "hi"}, message="say more")
    step = "pulling the image of web"
    await apps.say(
        "pump",
        replace(
            updating("demo", 2, 1),
            step=step,
            progress=Progress(43, 100, "layers"),
            notes=("stop-first, because it has a volume",),
        ),
    )
    why = Failure(
        2, apps.hub.now_ms, "await healthy", "web never got healthy", "look at its log",
        service="web", exit_code=3, log="cannot reach db", rolled_back_to=1,
    )  # fmt: skip
    here = (container(restarts=2), container("db", state="ended", exit_code=137, oom=True, health=""))
    await apps.say("roof", AppState("demo", 2, 1, "running", failure=why, containers=here))
    apps.hub.skew_ms += 12_000
    seen = texts(await admin.get("/apps/demo"))
    assert "updating on 1 of 2 boards, failed on 1 · pump: pulling the image of web." in seen
    assert re.search(r"Version 1.2, revision 2, deployed by admin 1\d s ago : “say more”", seen)
    assert "43 of 100 layers · 43 %" in seen
    assert "Stop-first, because it has a volume." in seen
    assert re.search(r"told 1\d s ago", seen)
    assert "Revision 2 failed: web never got healthy. Look at its log. Rolled back to revision 1" in seen
    assert "step: await healthy · service web · exit code 3 Last lines of its log cannot reach db" in seen
    assert "2 containers: 1 healthy, 1 ended: out of memory" in seen
    assert re.search(r"web healthy 2 2.5 % 41.0 MB", seen)
    # The same on the page of the board, and as a number in the fleet.
    seen = texts(await admin.get("/boards/roof"))
    assert re.search(r"demo failed told 1\d s ago", seen)
    assert "0 of 1" in texts(await admin.get("/"))


async def test_a_board_that_is_away_says_since_when_and_what_will_happen(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    await apps.come_up(image, "pump")
    await apps.presence("pump", "offline")
    apps.hub.skew_ms += 3 * HOUR_MS
    seen = texts(await admin.get("/apps/demo"))
    assert "The board is offline since 20" in seen
    assert "This is as it was last told; it goes on without the hub." in seen
    assert "it happens when the board is back" in texts(await admin.get("/apps/demo/restart"))
    await apps.hub.parts.desk.deploy.restart("demo", ADMIN)
    assert "Offline for 3 h; it takes revision 2 when it is back." in texts(await admin.get("/apps/demo"))


async def test_the_fleet_counts_the_apps_of_each_board(apps: WebApps, admin: Visitor, image: str) -> None:
    await apps.come_up(image, "pump", "roof")
    await apps.deploy("blog", recipe(image), "pump")
    hub = apps.hub
    await apps.say("pump", running("demo", 1), replace(running("blog", 1), state="degraded"))
    async with hub.store.read() as tx:
        counts = await count_apps(tx, [hub.id("pump"), hub.id("roof")])
    assert counts == {hub.id("pump"): AppCount(1, 1, 2), hub.id("roof"): AppCount(1, 0, 1)}
    html = await admin.get("/")
    assert re.search(r'#apps" class="amber">1 of 2</a>', html)
    assert re.search(r'#apps">1 of 1</a>', html)


async def test_a_board_says_what_it_refuses_and_what_nobody_asked_for(apps: WebApps, admin: Visitor) -> None:
    assert "Apps Deploy an app None yet." in texts(await admin.get("/boards/pump"))
    await apps.say("pump", running("mine", 3), reason="no device /dev/ttyUSB0", hint="plug it in")
    seen = texts(await admin.get("/boards/pump/apps"))
    assert "No device /dev/ttyUSB0. Plug it in." in seen
    assert "It also has mine, of which this hub knows nothing." in seen


async def test_what_there_is_not_is_said(apps: WebApps, admin: Visitor, image: str) -> None:
    for path in ("", "/deploy", "/history", "/logs", "/settings", "/restart", "/rollback", "/secrets/x"):
        assert "There is no app &#39;nope&#39;." in await admin.get(f"/apps/nope{path}", status=404)
    await apps.come_up(image, "pump")
    assert "has no secret" in await admin.get("/apps/demo/secrets/none", status=404)
    assert "is not on" in await admin.get("/apps/demo/logs?board=roof", status=404)
    assert "no earlier version" in await admin.get("/apps/demo/rollback", status=404)
    assert "is not a number" in await admin.get("/apps/demo/rollback?to=x", status=422)
    assert "There is nothing at" in await admin.get("/apps/demo/explode", status=404)


# --- history, settings, logs ---------------------------------------------------------------------


@pytest.mark.slow
async def test_the_history_says_who_what_why_and_what_became_of_it(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    await apps.come_up(image, "pump", "roof")
    await apps.deploy("demo", recipe(image), set={"GREETING": "hi"}, message="be kind")
    await apps.say("pump", running("demo", 2))
    await apps.say("roof", failed("demo", 2, back_to=1))
    html = await admin.get("/apps/demo/history")
    seen = texts(html)
    assert "Revision 2 · 1.2 deployed by admin" in seen
    assert "“be kind”" in seen
    assert "Running on 1 of 2 boards, failed on 1 of 2 boards." in seen
    assert "roof: web never got healthy. Look at its log. Revision 1 went on." in seen
    assert "What was new: 2 lines - GREETING=hello + GREETING=hi" in seen
    assert 'href="/apps/demo/rollback?to=1"' in html
    assert 'href="/apps/demo/rollback?to=2"' not in html
    for _ in range(20):
        await apps.hub.parts.desk.deploy.restart("demo", ADMIN)
        for board in ("pump", "roof"):
            await apps.say(board, running("demo", (await apps.newest()).number))
    older = re.search(r'href="([^"]+)" rel="next"', await admin.get("/apps/demo/history"))
    assert older
    assert "“be kind”" in texts(await admin.get(older[1]))


async def test_a_secret_is_set_and_never_shown(apps: WebApps, admin: Visitor, image: str) -> None:
    await apps.come_up(image, "pump")
    seen = texts(await admin.get("/apps/demo/settings"))
    assert "GREETING hello" in seen
    assert "password v1 Set a new value of password Made up by admin now ." in seen
    assert "which cannot be brought back" in texts(await admin.get("/apps/demo/secrets/password"))
    html = await admin.post("/apps/demo/secrets/password", {"version": "v1", "value": ""}, status=422)
    assert "There is no value. Type one, or have one made up." in texts(html)
    apps.hub.skew_ms += 5_000
    html = await admin.post("/apps/demo/secrets/password", {"version": "v1", "value": "hush-\r\nhush"})
    assert "Set by admin now . Boards still have the one before: restart the app to hand it out." in texts(
        html
    )
    assert "hush-" not in html
    async with apps.hub.store.read() as tx:
        [before] = await list_secrets(tx, "demo")
    await admin.post("/apps/demo/secrets/password", {"version": "v1", "generate": "1", "value": ""})
    async with apps.hub.store.read() as tx:
        [after] = await list_secrets(tx, "demo")
    assert (before.generated, after.generated) == (False, True)


async def test_logs_are_asked_for_at_the_board(apps: WebApps, admin: Visitor, image: str) -> None:
    await apps.come_up(image, "pump", "roof")
    await apps.say("pump", running("demo", 1, containers=(container(), container("db"))))
    lines = [
        LogLine("demo_web.0.aa", 5, "stdout", "it is warm"),
        LogLine("demo_db.0.bb", None, "stderr", NASTY),
    ]
    async with apps.telling("pump", lines) as asked:
        html = await admin.get("/apps/demo/logs?board=pump&service=web&tail=500")
        assert asked[0].args == {"app": "demo", "service": "web", "tail": 500, "follow_s": 0}
    assert "2 lines of pump, read at" in texts(html)
    assert "it is warm" in html
    assert NASTY not in html
    assert "follow_s=300" in html
    assert "is not a number from 1 to 10000" in await admin.get("/apps/demo/logs?tail=0", status=422)
    await apps.presence("pump", "offline")
    html = await admin.get("/apps/demo/logs?board=pump", status=409)
    assert "is offline" in html
    assert 'name="board"' in html


# --- trust ---------------------------------------------------------------------------------------


async def test_what_boards_and_recipes_say_is_only_text(apps: WebApps, admin: Visitor, image: str) -> None:
    compose = recipe(image)["compose.yml"].replace('version=1.2"', f'version={NASTY}"'.replace('"\'"', "'\""))
    files = recipe(image) | {"compose.yml": compose, "x.txt": NASTY}
    await apps.deploy("demo", files, "pump", set={"GREETING": NASTY}, message=NASTY)
    why = Failure(1, 5, NASTY, NASTY, NASTY, "x", NASTY, 1, NASTY, 0)
    box = replace(container(), name=NASTY)
    state = AppState("demo", 1, 0, "updating", step=NASTY, failure=why, notes=(NASTY,), containers=(box,))
    await apps.say("pump", state, running("mine", 1), reason=NASTY, hint=NASTY)
    await admin_reads_only_text(apps, admin)
    await apps.say("pump", replace(state, state="failed"))
    await admin_reads_only_text(apps, admin)
    looked = await admin.post(
        "/apps/new",
        form({NASTY: NASTY, "compose.yml": f"services: {NASTY}"}, name=NASTY, labels=NASTY, find=NASTY,
             env__X=NASTY, more=f"X='{NASTY[:-2]}'", message=NASTY, uploads={NASTY: b"\xff"}),
    )  # fmt: skip
    harmless(looked)


async def admin_reads_only_text(apps: WebApps, admin: Visitor) -> None:
    paths = ["", "/history", "/settings", "/logs", "/deploy", "/restart", "/scale", "/cancel", "/remove"]
    for path in [
        "/apps",
        "/apps?search=<script>\"'",
        "/boards/pump",
        "/boards/pump/apps",
        *(f"/apps/demo{each}" for each in paths),
    ]:
        async with admin.http.get(apps.hub.url + path, headers=HTML) as response:
            harmless(await response.text())


def harmless(html: str) -> None:
    assert "<script>alert" not in html
    assert not re.search(r"<script(?! src=)", html)
    assert not re.search(r"<[^>]+\s(style|on\w+)=", html)


POSTS = [
    "/apps/new",
    "/apps/demo/deploy",
    "/apps/demo/secrets/password",
    *(f"/apps/demo/{deed}" for deed in ("restart", "stop", "start", "scale", "rollback", "cancel", "remove")),
]


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}]
)
async def test_another_site_cannot_act_with_the_cookie(
    apps: WebApps, admin: Visitor, image: str, headers: dict[str, str]
) -> None:
    await apps.come_up(image, "pump")
    for path in POSTS:
        async with admin.http.post(apps.hub.url + path, data={"revision": "1"}, headers=headers) as response:
            assert response.status == 403, path
    assert (await apps.newest()).number == 1


async def test_a_stranger_is_sent_to_the_login(apps: WebApps, stranger: Visitor) -> None:
    for path in ("/apps", "/apps/new", "/apps/demo", "/apps/demo/logs", "/live"):
        assert "<h1>Log in</h1>" in await stranger.get(path)
    for path in POSTS:
        assert "<h1>Log in</h1>" in await stranger.post(path)


@pytest.mark.slow
async def test_the_bell_rings_for_a_board_and_for_all(apps: WebApps, admin: Visitor, image: str) -> None:
    url, pump = apps.hub.url, apps.hub.id("pump")
    async with (
        asyncio.timeout(10),
        admin.http.get(f"{url}/live?board={pump}") as one,
        admin.http.get(f"{url}/live") as every,
    ):
        for stream in (one, every):
            assert await ring(stream)
        await apps.say("roof")
        assert await ring(every)
        await apps.say("pump")
        assert await ring(one)
    async with admin.http.get(f"{url}/live?board=nope") as response:
        assert response.status == 404


async def ring(stream: aiohttp.ClientResponse) -> bool:
    """Wait for the bell."""
    async for line in stream.content:
        if line == b"event: changed\n":
            return True
    return False
