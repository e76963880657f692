"""Deploying by the pages, without a browser: the form and its look first, and each deed with its step."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hub.store.app_secrets import list_secrets
from hub.store.apps import RevisionRow, get_app
from support.apps import push_image, recipe, running
from support.registry import Registry, registry
from support.visitor import Visitor, texts
from support.webapps import WebApps, form, seen_in


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
    row = await apps.newest()
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
    assert (await apps.newest()).boards == tuple(sorted((pump, roof)))


async def test_a_name_that_is_taken_is_said_before_anything_is_done(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    await apps.come_up(image, "pump")
    looked = await admin.post("/apps/new", form(recipe(image), apps.hub.id("roof"), name="demo"))
    assert "There is an app demo already: deploy that one anew, or choose another name." in texts(looked)
    assert 'name="seen"' not in looked
    assert "no app can be called &#39;new&#39;" in await admin.post(
        "/apps/new", form(recipe(image), name="new")
    )


async def test_a_board_that_an_app_is_leaving_is_not_asked_again(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    await apps.come_up(image, "pump", "roof")
    await apps.presence("roof", "offline")
    await apps.deploy("demo", recipe(image), "pump")
    await apps.say("pump", running("demo", 2))
    seen = texts(await admin.get("/apps/demo"))
    assert "it removes it when it is back" in seen
    assert "Stop demo on pump" in await admin.get("/apps/demo/stop")
    html = await admin.get("/apps/demo/deploy")
    assert re.findall(r'id="board-(\w+)" value="\w+" checked', html) == [apps.hub.id("pump")]


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
    assert "No board has the labels site=east." in await admin.post(
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
    await apps.come_up(image, "pump", "roof")
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
    assert (await apps.newest()).boards == (pump,)
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
    await apps.come_up(image, "pump", "roof")

    async def settle(**state: Any) -> RevisionRow:
        row = await apps.newest()
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
    row = await apps.newest()
    assert (row.action, row.env["GREETING"]) == ("rollback", "hello")
    seen = texts(await admin.get("/apps/demo/cancel"))
    assert "Cancel, and go back to revision" in seen
    assert "+ GREETING=hi" in seen
    await do(admin, "cancel")
    row = await settle()
    assert (row.action, row.env["GREETING"]) == ("cancel", "hi")
    await do(admin, "remove")
    assert (await apps.newest()).boards == ()
    for board in ("pump", "roof"):
        await apps.say(board)
    assert "on no board" in texts(await admin.get("/apps/demo"))
    assert "Delete the volumes of demo" in await admin.get("/apps/demo/remove")
    await do(admin, "remove")
    assert "sent on 2 of 2 boards" in texts(await admin.get("/apps/demo"))


async def test_removing_with_all_that_it_has_stored_is_a_button_of_its_own(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    await apps.come_up(image, "pump")
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
    assert (await apps.newest()).boards == ()


async def test_a_deed_that_was_looked_at_before_another_change_is_shown_anew(
    apps: WebApps, admin: Visitor, image: str
) -> None:
    await apps.come_up(image, "pump")
    await apps.hub.parts.desk.deploy.restart("demo", "grace")
    html = await admin.post("/apps/demo/stop", {"revision": "1", "message": "tired"}, status=409)
    assert "Grace has changed demo meanwhile. Below is what would happen now." in texts(html)
    assert 'value="tired"' in html
    html = await do(admin, "stop", status=409)
    assert "Grace has been changing demo for" in texts(html)
    assert "cancel the change" in texts(await admin.get("/apps/demo/stop"))
    assert (await apps.newest()).action == "restart"


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
    assert (await apps.newest()).restarted == {"db": 1}
