"""The pages of apps as HTML, without a browser; a real registry is asked, the test plays the boards."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.wire.apps import AppState, Failure, LogLine, Progress
from hub.store.app_counts import AppCount, count_apps
from hub.store.app_secrets import list_secrets
from hub.store.apps import RevisionRow, add_revision, get_app, save_recipe
from hub.web.pages.apps.listing import PAGE_SIZE
from support.apps import failed, push_image, recipe, running, updating
from support.registry import Registry, registry
from support.visitor import HTML, Visitor, texts
from support.webapps import WebApps, container
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


def form(
    files: Mapping[str, str], *boards: str, uploads: Mapping[str, bytes] | None = None, **fields: str
) -> aiohttp.FormData:
    """The deploy form as a browser sends it."""
    data = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
    for path, text in files.items():
        data.add_field("path", path)
        data.add_field("text", text.replace("\n", "\r\n"))
    for board in boards:
        data.add_field("board", board)
    for name, content in (uploads or {}).items():
        data.add_field("upload", content, filename=name, content_type="text/plain")
    for name, value in fields.items():
        data.add_field(name.replace("__", "."), value)
    return data


def seen_in(html: str) -> str:
    """What the button of a look sends back."""
    found = re.search(r'name="seen" value="([0-9a-f]+)"', html)
    assert found, texts(html)[-1500:]
    return found[1]


async def revision_of(apps: WebApps, app: str = "demo") -> RevisionRow:
    async with apps.hub.store.read() as tx:
        return await get_app(tx, app)


async def come_up(apps: WebApps, image: str, *boards: str) -> None:
    """The app demo, running."""
    await apps.deploy("demo", recipe(image), *boards)
    for board in boards:
        await apps.say(board, running("demo", 1))


# --- looking -------------------------------------------------------------------------------------


async def test_an_empty_page_teaches_the_next_command(admin: Visitor) -> None:
    html = await admin.get("/apps")
    assert "lichen app deploy FOLDER --board NAME --wait" in html
    assert 'href="/apps/new"' in html


async def test_the_list_sums_up_and_is_searched(apps: WebApps, admin: Visitor, image: str) -> None:
    await come_up(apps, image, "pump", "roof")
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
                f"old-{number:03d}", 1, 5, ADMIN, "undeploy", "", "", digest, {}, {}, {}, {}, False, (), ()
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
    await come_up(apps, image, "pump", "roof")
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
    await come_up(apps, image, "pump")
    await apps.presence("pump", "offline")
    apps.hub.skew_ms += 3 * HOUR_MS
    seen = texts(await admin.get("/apps/demo"))
    assert "The board is offline since 20" in seen
    assert "This is as it was last told; it goes on without the hub." in seen
    assert "it happens when the board is back" in texts(await admin.get("/apps/demo/restart"))
    await apps.hub.parts.desk.deploy.restart("demo", ADMIN)
    assert "Offline for 3 h; it takes revision 2 when it is back." in texts(await admin.get("/apps/demo"))


async def test_the_fleet_counts_the_apps_of_each_board(apps: WebApps, admin: Visitor, image: str) -> None:
    await come_up(apps, image, "pump", "roof")
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
    await come_up(apps, image, "pump")
    assert "has no secret" in await admin.get("/apps/demo/secrets/none", status=404)
    assert "is not on" in await admin.get("/apps/demo/logs?board=roof", status=404)
    assert "no earlier version" in await admin.get("/apps/demo/rollback", status=404)
    assert "is not a number" in await admin.get("/apps/demo/rollback?to=x", status=422)
    assert "There is nothing at" in await admin.get("/apps/demo/explode", status=404)


# --- deploying -----------------------------------------------------------------------------------


async def test_a_new_app_is_looked_at_and_then_deployed(apps: WebApps, admin: Visitor, image: str) -> None:
    assert "Nothing to look at yet." in texts(await admin.get("/apps/new"))
    files, pump = recipe(image), apps.hub.id("pump")
    looked = await admin.post("/apps/new", form(files))
    assert "Give the app a name. Choose at least one board." in re.sub(r"\s+", " ", texts(looked))
    assert 'data-verdict="emulated" data-file="compose.yml" data-line="15"' in looked
    looked = await admin.post("/apps/new", form(files, pump, name="demo", env__GREETING="hi"))
    assert "Deploy to pump" in looked
    assert "the secret password (v1)" in texts(looked)
    html = await admin.post(
        "/apps/new",
        form(files, pump, name="demo", env__GREETING="hi", seen=seen_in(looked), message="first"),
    )
    assert "sent on pump" in texts(html)
    row = await revision_of(apps)
    assert (row.env["GREETING"], row.message, row.boards) == ("hi", "first", (pump,))
    async with apps.hub.store.read() as tx:
        assert [each.name for each in await list_secrets(tx, "demo")] == ["password"]


async def test_only_what_was_on_the_screen_is_deployed(apps: WebApps, admin: Visitor, image: str) -> None:
    files, pump, roof = recipe(image), apps.hub.id("pump"), apps.hub.id("roof")
    seen = seen_in(await admin.post("/apps/new", form(files, pump, name="demo")))
    # Meanwhile another board has got the label.
    html = await admin.post("/apps/new", form(files, pump, roof, name="demo", seen=seen), status=409)
    assert "What was shown was not what would happen any more." in texts(html)
    assert "Deploy to 2 boards" in html
    assert "No apps yet" in await admin.get("/apps")
    await admin.post("/apps/new", form(files, pump, roof, name="demo", seen=seen_in(html)))
    assert (await revision_of(apps)).boards == tuple(sorted((pump, roof)))


async def test_boards_are_chosen_by_label_and_say_what_they_lack(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    compose = recipe(image)["compose.yml"] + "x-lichen:\n  placement: {site: north}\n"
    files = recipe(image) | {"compose.yml": compose}
    looked = await admin.post("/apps/new", form(files, name="demo", labels="site=south"))
    assert "chosen by its labels" in looked
    assert "roof has site=south, and the recipe asks for site=north." in texts(looked)
    assert 'name="seen"' not in looked
    looked = await admin.post("/apps/new", form(files, name="demo", labels="site=north"))
    assert "Deploy to pump" in looked
    assert "no board has the labels site=east" in await admin.post(
        "/apps/new", form(files, name="demo", labels="site=east")
    )
    found = await admin.post("/apps/new", form(files, name="demo", find="roo"))
    assert re.findall(r'name="board" id="board-(\w+)"', found) == [apps.hub.id("roof")]
    for _ in range(2):
        assert " checked" in await admin.get(f"/apps/new?board={apps.hub.id('pump')}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services: [1", "compose.yml:1: not YAML"),
        ("services:\n  web:\n    image: x\n    build: .\n", "boards do not build".capitalize()),
        ("services:\n  web:\n    imagee: x\n", "did you mean &#39;image&#39;?"),
        ("services:\n  web:\n    image: ${X:?say which}\n", "say which"),
    ],
)
async def test_a_recipe_that_cannot_be_says_where(
    apps: WebApps, admin: Visitor, text: str, said: str
) -> None:
    looked = await admin.post("/apps/new", form({"compose.yml": text}, apps.hub.id("pump"), name="demo"))
    assert said in looked
    assert 'data-verdict="refused"' in looked
    assert 'name="seen"' not in looked


async def test_files_are_uploaded_one_by_one_or_as_a_folder(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    sample = (
        "# How it greets.\nGREETING=hello\n#MOOD=good\nSECRET_PASSWORD_VERSION=v1 # length=20\nTYPE=blog\n"
    )
    folder = {
        f"blog/{path}": text.encode() for path, text in recipe(image, **{".env.sample": sample}).items()
    }
    folder |= {
        "blog/.git/config": b"x",
        "blog/logo.png": b"\x89\xff\x00",
        "blog/.env": b"GREETING=moin\nEXTRA=1\n",
    }
    html = await admin.post("/apps/new", form({"compose.yml": ""}, uploads=folder, images="1"))
    assert "Not taken: .git/config (hidden), logo.png (not text)." in texts(html)
    assert 'name="name" value="blog"' in html
    assert 'name="env.GREETING" id="env-GREETING" value="moin"' in html
    assert "How it greets." in html
    assert 'id="env-MOOD" value="" placeholder="good"' in html
    assert "EXTRA=&#39;1&#39;" in html
    assert "nothing to hide" in html
    assert 'name="path" value=".env.sample"' in html
    assert 'name="path" value=".env"' not in html
    files = recipe(image)
    html = await admin.post("/apps/new", form(files, drop="plain.txt", add="1"))
    assert 'name="path" value="plain.txt"' not in html
    assert "A new file" in html


async def test_a_secret_that_somebody_has_to_set_is_asked_for(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    files = recipe(image, **{".env.sample": "GREETING=x\nSECRET_PASSWORD_VERSION=v1 # generate=false\n"})
    pump = apps.hub.id("pump")
    looked = await admin.post("/apps/new", form(files, pump, name="demo"))
    assert "The secret password has no value yet." in texts(looked)
    typed: dict[str, Any] = {"name": "demo", "secret__password": "hush-hush"}
    looked = await admin.post("/apps/new", form(files, pump, **typed))
    assert "hush-hush" not in looked
    html = await admin.post("/apps/new", form(files, pump, **typed, seen=seen_in(looked)))
    assert "sent on pump" in texts(html)
    for path in ("", "/history", "/settings", "/secrets/password", "/deploy"):
        assert "hush-hush" not in await admin.get(f"/apps/demo{path}")


async def test_an_app_is_deployed_anew_with_the_difference(apps: WebApps, admin: Visitor, image: str) -> None:
    await come_up(apps, image, "pump", "roof")
    html = await admin.get("/apps/demo/deploy")
    assert "The same as what runs" in html
    assert html.count('name="board"') == html.count(" checked") == 2
    files = recipe(image) | {"plain.txt": "everything to hide\n"}
    pump = apps.hub.id("pump")
    looked = await admin.post("/apps/demo/deploy", form(files, pump, env__GREETING="hi", images="1"))
    seen = texts(looked)
    assert "Removed from roof; volumes stay there" in seen
    assert "- GREETING=hello" in seen
    assert "-nothing to hide" in seen
    assert f"Image {image}" in seen
    html = await admin.post("/apps/demo/deploy", form(files, pump, env__GREETING="hi", seen=seen_in(looked)))
    assert "revision 2, deployed by admin" in texts(html)
    assert (await revision_of(apps)).boards == (pump,)
    assert "has been changing demo for" in await admin.get("/apps/demo/deploy")


async def test_what_is_in_the_way_at_a_registry_is_said(apps: WebApps, admin: Visitor, image: str) -> None:
    files, pump = recipe(image.replace(":1", ":77")), apps.hub.id("pump")
    looked = await admin.post("/apps/new", form(files, pump, name="demo"))
    html = await admin.post("/apps/new", form(files, pump, name="demo", seen=seen_in(looked)), status=422)
    assert "manifest unknown" in html
    assert "No apps yet" in await admin.get("/apps")


# --- deeds ---------------------------------------------------------------------------------------


async def do(admin: Visitor, deed: str, status: int = 200, **fields: str) -> str:
    """Look at a deed, and do it with what its page has filled in."""
    html = await admin.get(f"/apps/demo/{deed}" + (f"?to={fields['to']}" if "to" in fields else ""))
    hidden = dict(re.findall(r'type="hidden" name="([\w.]+)" value="([^"]*)"', html))
    checked = dict(re.findall(r'type="checkbox" name="([\w.]+)" value="(1)" checked', html))
    sent = {**hidden, **checked, **{name.replace("__", "."): value for name, value in fields.items()}}
    return await admin.post(f"/apps/demo/{deed}", sent, status=status)


@pytest.mark.slow
async def test_each_deed_is_shown_and_then_done(apps: WebApps, admin: Visitor, image: str) -> None:
    await come_up(apps, image, "pump", "roof")

    async def settle(**state: Any) -> RevisionRow:
        row = await revision_of(apps)
        for board in ("pump", "roof"):
            await apps.say(board, running("demo", row.number, **state))
        return row

    assert "Restart demo on 2 boards" in await admin.get("/apps/demo/restart")
    await do(admin, "restart", message="stuck")
    row = await settle()
    assert (row.action, row.message, row.restarted) == ("restart", "stuck", {"web": 1})
    assert "1 now" in await admin.get("/apps/demo/scale")
    await do(admin, "scale", replicas__web="2")
    assert (await settle()).scale == {"web": 2}
    assert "That is how many there are already." in texts(
        await do(admin, "scale", status=422, replicas__web="2")
    )
    assert "is not a number from 0 to 64" in await do(admin, "scale", status=422, replicas__web="65")
    await do(admin, "stop")
    assert (await settle(state="stopped")).stopped
    assert 'href="/apps/demo/start"' in await admin.get("/apps/demo")
    await do(admin, "start")
    assert not (await settle()).stopped
    await apps.deploy("demo", recipe(image), set={"GREETING": "hi"})
    await settle()
    seen = texts(await admin.get("/apps/demo/rollback"))
    assert "Roll back 2 boards to revision" in seen
    assert "- GREETING=hi + GREETING=hello" in seen
    await do(admin, "rollback", to="1")
    row = await revision_of(apps)
    assert (row.action, row.env["GREETING"]) == ("rollback", "hello")
    seen = texts(await admin.get("/apps/demo/cancel"))
    assert "Cancel, and go back to revision" in seen
    assert "+ GREETING=hi" in seen
    await do(admin, "cancel")
    row = await settle()
    assert (row.action, row.env["GREETING"]) == ("cancel", "hi")
    await do(admin, "remove")
    assert (await revision_of(apps)).boards == ()
    for board in ("pump", "roof"):
        await apps.say(board)
    assert "on no board" in texts(await admin.get("/apps/demo"))
    assert "Delete the volumes of demo" in await admin.get("/apps/demo/remove")
    await do(admin, "remove")
    assert "sent on 2 of 2 boards" in texts(await admin.get("/apps/demo"))


async def test_removing_with_all_that_it_has_stored_is_a_button_of_its_own(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    await come_up(apps, image, "pump")
    html = await admin.get("/apps/demo/remove")
    assert "Remove demo from pump, keep its volumes" in html
    assert "Remove demo from pump with all that it has stored" in html
    await do(admin, "remove", volumes="1")
    async with apps.hub.store.read() as tx:
        row = await get_app(tx, "demo")
    assert (row.action, row.boards) == ("undeploy", ())


async def test_the_first_deployment_can_be_cancelled(apps: WebApps, admin: Visitor, image: str) -> None:
    await apps.deploy("demo", recipe(image), "pump")
    seen = texts(await admin.get("/apps/demo/cancel"))
    assert "Cancel the first deployment of demo" in seen
    assert "Cancel, and remove it" in seen
    await do(admin, "cancel")
    assert (await revision_of(apps)).boards == ()


async def test_a_deed_that_was_looked_at_before_another_change_is_shown_anew(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    await come_up(apps, image, "pump")
    await apps.hub.parts.desk.deploy.restart("demo", "grace")
    html = await admin.post("/apps/demo/stop", {"revision": "1", "message": "tired"}, status=409)
    assert "Grace has changed demo meanwhile. Below is what would happen now." in texts(html)
    assert 'value="tired"' in html
    html = await do(admin, "stop", status=409)
    assert "Grace has been changing demo for" in texts(html)
    assert "cancel the change" in texts(await admin.get("/apps/demo/stop"))
    assert (await revision_of(apps)).action == "restart"


async def test_some_services_are_restarted_and_none_is_refused(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    compose = f"services:\n  web:\n    image: {image}\n  db:\n    image: {image}\n"
    await apps.deploy("demo", {"compose.yml": compose}, "pump")
    await apps.say("pump", running("demo", 1))
    assert "No service is chosen." in texts(
        await admin.post("/apps/demo/restart", {"revision": "1"}, status=422)
    )
    await admin.post("/apps/demo/restart", {"revision": "1", "service.db": "1"})
    assert (await revision_of(apps)).restarted == {"db": 1}


# --- history, settings, logs ---------------------------------------------------------------------


@pytest.mark.slow
async def test_the_history_says_who_what_why_and_what_became_of_it(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    await come_up(apps, image, "pump", "roof")
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
            await apps.say(board, running("demo", (await revision_of(apps)).number))
    older = re.search(r'href="([^"]+)" rel="next"', await admin.get("/apps/demo/history"))
    assert older
    assert "“be kind”" in texts(await admin.get(older[1]))


async def test_a_secret_is_set_and_never_shown(apps: WebApps, admin: Visitor, image: str) -> None:
    await come_up(apps, image, "pump")
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
    await come_up(apps, image, "pump", "roof")
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
    await come_up(apps, image, "pump")
    for path in POSTS:
        async with admin.http.post(apps.hub.url + path, data={"revision": "1"}, headers=headers) as response:
            assert response.status == 403, path
    assert (await revision_of(apps)).number == 1


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
