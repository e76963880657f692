"""Apps in the API: every answer is held against the API's own description; a real registry is asked."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.base.broker import Address
from agent.wire import note, topics
from agent.wire.apps import Apps, AppState, LogLine, LogLines, LogsWanted
from agent.wire.errors import Refused
from agent.wire.messages import Command, read_text
from fakes.broker import FakeBroker
from hub.apps.view import picture_of
from hub.store import boards
from hub.store.boards import PresenceChange
from hub.store.events import list_events
from hub.web import following
from hub.web.api import ROUTES
from hub.web.openapi import describe
from support.api import Api
from support.apps import failed, push_image, recipe, running, updating
from support.registry import PASSWORD, USER, Registry, registry
from support.webhub import ADMIN, WebHub


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as shop:
        yield shop


@pytest.fixture(scope="module")
def image(shop: Registry) -> str:
    return push_image(shop, "demo", "1", "arm64", "amd64")


@pytest.fixture
async def hub(tmp_path: Path, shop: Registry) -> AsyncIterator[WebHub]:
    async with WebHub.open(tmp_path, plain_http=[shop.address]) as hub:
        await hub.add_board("pump", labels={"site": "north"})
        await presence(hub, "online")
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


async def presence(hub: WebHub, state: Any, name: str = "pump") -> None:
    """A board comes or goes."""
    async with hub.store.write() as tx:
        await boards.save_presence(tx, [PresenceChange(hub.id(name), state, "n1", hub.now_ms)])
    hub.parts.desk.reports.tell([hub.id(name)])


async def report(hub: WebHub, generation: int, *states: AppState, name: str = "pump", **more: Any) -> None:
    """A board speaks of its apps, as ingest takes it."""
    said = {hub.id(name): Apps(generation, states, **more)}
    async with hub.store.write() as tx:
        heard_ms = dict.fromkeys(said, hub.now_ms)
        await hub.parts.desk.reports.take(tx, said, hub.now_ms, heard_ms=heard_ms)
    hub.parts.desk.reports.tell(list(said))


def new(image: str, **more: Any) -> dict[str, Any]:
    return {"name": "demo", "files": recipe(image), "boards": ["pump"], **more}


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """The events of a stream, until it ends."""
    event = ""
    async for line in response.content:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            event = value
        elif field == "data":
            yield event, json.loads(value)


async def test_every_operation_answers_as_described(hub: WebHub, api: Api, image: str) -> None:
    assert (await api.call("GET", "/apps"))["apps"] == []
    checked = await api.call("POST", "/apps/check", json=new(image) | {"boards": ["pump"]})
    assert (checked["problems"], checked["services"], checked["version"]) == ([], ["web"], "1.2")
    made = await api.call("POST", "/apps", status=201, json=new(image, message="hello"))
    assert (made["revision"], made["generated"], made["app"]["state"]) == (1, ["password"], "sent")
    await report(hub, 1, running("demo", 1))
    await api.call("POST", "/apps/demo/deploy", json={"set": {"GREETING": "hi"}})
    await report(hub, 2, running("demo", 2))
    await api.call("POST", "/apps/demo/rollback", json={})
    await report(hub, 3, running("demo", 3))
    await api.call("POST", "/apps/demo/scale", json={"services": {"web": 2}})
    await report(hub, 4, running("demo", 4))
    await api.call("POST", "/apps/demo/restart", json={"services": ["web"]})
    await report(hub, 5, running("demo", 5))
    await api.call("POST", "/apps/demo/stop", json={"message": "winter"})
    await report(hub, 6, running("demo", 6, state="stopped"))
    await api.call("POST", "/apps/demo/start", json={})
    cancelled = await api.call("POST", "/apps/demo/cancel", json={})
    assert cancelled["revision"] == 8
    await report(hub, 8, running("demo", 8, state="stopped"), running("mine", 1))
    shown = await api.call("GET", "/apps/demo")
    assert (shown["state"], shown["is_over"], shown["has_failed"]) == ("stopped", True, False)
    assert shown["boards"][0]["reported"]["revision"] == 8
    [listed] = (await api.call("GET", "/apps"))["apps"]
    assert (listed["name"], listed["boards"], listed["author"]) == ("demo", ["pump"], ADMIN)
    assert "demo,1.2,stopped" in await api.call("GET", "/apps", headers={"Accept": "text/csv"})
    on = await api.call("GET", "/boards/pump/apps")
    assert (on["generation"], on["reported"], on["unknown"]) == (8, 8, ["mine"])
    assert on["apps"][0]["at"]["name"] == "pump"
    history = await api.call("GET", "/apps/demo/history?limit=3")
    assert [each["action"] for each in history["revisions"]] == ["cancel", "start", "stop"]
    older = await api.call("GET", f"/apps/demo/history?after={history['next']}")
    assert [each["action"] for each in older["revisions"]] == [
        "restart", "scale", "rollback", "deploy", "deploy",
    ]  # fmt: skip
    assert older["revisions"][-2]["difference"] == ["- GREETING=hello", "+ GREETING=hi"]
    assert older["revisions"][-1]["results"][0]["outcome"] == "running"
    assert "cancel" in await api.call("GET", "/apps/demo/history", headers={"Accept": "text/csv"})
    assert (await api.call("GET", "/apps/demo/recipe?revision=2"))["env"]["GREETING"] == "hi"
    secret = {"name": "password", "version": "v1", "state": "generated"}
    [found] = (await api.call("GET", "/apps/demo/secrets"))["secrets"]
    assert secret.items() <= found.items()
    await api.call("PUT", "/apps/demo/secrets/password", json={"value": "of my choice"})
    await api.call("PUT", "/apps/demo/secrets/password", json={"version": "v2"})
    await api.call("DELETE", "/apps/demo/secrets/password?version=v2", status=204)
    await api.call("PUT", "/registries/registry.example", json={"user": USER, "password": PASSWORD})
    [at] = (await api.call("GET", "/registries"))["registries"]
    assert (at["registry"], at["user"]) == ("registry.example", USER)
    await api.call("DELETE", "/registries/registry.example", status=204)
    await api.call("DELETE", "/apps/demo?volumes=1&message=enough")
    await report(hub, 9)
    assert (await api.call("GET", "/apps"))["apps"] == []
    assert (await api.call("GET", "/apps?gone=1"))["apps"][0]["state"] == "gone"
    # What is left are streams, below.
    ours = {(each.method, each.path) for each in ROUTES if "app" in each.path or "registr" in each.path}
    assert ours - api.covered == {("GET", "/apps/{app}/live"), ("GET", "/apps/{app}/logs")}


async def test_what_is_refused_says_what_and_why(hub: WebHub, api: Api, image: str) -> None:
    assert "there is no app 'blog'" in await api.refuses("GET", "/apps/blog", 404, "not-found")
    for path in ("history", "recipe", "secrets", "live", "logs"):
        await api.refuses("GET", f"/apps/blog/{path}", 404, "not-found")
    for path in ("deploy", "rollback", "restart", "stop", "start", "cancel"):
        await api.refuses("POST", f"/apps/blog/{path}", 404, "not-found", json={})
    await api.refuses("DELETE", "/apps/blog", 404, "not-found")
    await api.refuses("POST", "/apps", 422, "invalid", json=new(image) | {"name": "UPPER"})
    await api.refuses("POST", "/apps", 404, "not-found", json=new(image, boards=["roof"]))
    broken = recipe(image) | {"compose.yml": "services: [1"}
    assert "compose.yml:1" in await api.refuses(
        "POST", "/apps", 422, "compose", json=new(image, files=broken)
    )
    wrong = new(image.replace(":1", ":77"))
    assert "manifest unknown" in await api.refuses("POST", "/apps", 422, "image", json=wrong)
    alone = push_image_for(image, "amd64")
    said = await api.refuses("POST", "/apps", 422, "architecture", json=new(alone))
    assert "has no build for pump (aarch64); there are: amd64" in said
    gone = new(image.replace(image.partition("/")[0], "127.0.0.1:1"))
    assert "cannot be asked" in await api.refuses("POST", "/apps", 503, "registry", json=gone)
    made = await api.call("POST", "/apps", status=201, json=new(image))
    assert made["revision"] == 1
    assert "already" in await api.refuses("POST", "/apps", 409, "conflict", json=new(image))
    said = await api.refuses("POST", "/apps/demo/restart", 409, "busy", json={})
    assert said.startswith("admin has been changing demo for")
    await report(hub, 1, running("demo", 1))
    await api.refuses("POST", "/apps/demo/scale", 422, "scale", json={"services": {"wob": 1}})
    await api.refuses("POST", "/apps/demo/scale", 422, "invalid", json={"services": {"web": 65}})
    await api.refuses("DELETE", "/apps/demo/secrets/password", 409, "conflict")
    await api.refuses("DELETE", "/apps/demo/secrets/password?version=v9", 404, "not-found")
    await api.refuses("PUT", "/apps/demo/secrets/password", 422, "invalid", json={"value": ""})
    await api.refuses("PUT", "/registries/UPPER", 422, "invalid", json={"user": "u", "password": "p"})
    await api.refuses("DELETE", "/registries/none", 404, "not-found")
    await api.refuses("GET", "/boards/roof/apps", 404, "not-found")


def push_image_for(image: str, architecture: str) -> str:
    """An image of another kind at the same registry."""
    address = image.partition("/")[0]
    shop = Registry(Path(), port=int(address.rpartition(":")[2]))
    return push_image(shop, "alone", "1", architecture)


async def test_a_large_recipe_is_taken_and_a_larger_one_is_not(api: Api, image: str) -> None:
    files = recipe(image) | {"notes.md": "x" * 400_000}
    await api.call("POST", "/apps/check", json=new(image, files=files))
    files |= {f"notes-{number}.md": "x" * 400_000 for number in range(12)}
    body = io.BytesIO(json.dumps(new(image, files=files)).encode())
    await api.refuses("POST", "/apps/check", 413, "too-large", data=body)
    await api.refuses("POST", "/apps/demo/scale", 413, "too-large", data=b" " * 70_000)


async def test_a_check_lists_all_that_is_in_the_way(hub: WebHub, api: Api, image: str) -> None:
    await hub.add_board("roof", heard=False)
    compose = recipe(image)["compose.yml"] + "x-lichen:\n  placement: {site: south}\n"
    sample = "SECRET_PASSWORD_VERSION=v1 # generate=false\n"
    files = recipe(image) | {"compose.yml": compose, ".env.sample": sample}
    found = await api.call("POST", "/apps/check", json=new(image, files=files, boards=["pump", "roof"]))
    assert found["problems"] == [
        "pump has site=north, and the recipe asks for site=south",
        "roof has not said yet what it is; wait until it was online once",
        "roof has no label site, and the recipe asks for site=south",
        "the secret password (v1) has to be set: lichen secret set demo password",
    ]
    assert [each["name"] for each in found["boards"] if each["lacks"]] == ["pump", "roof"]
    fine = await api.call("POST", "/apps/check", json=new(image))
    assert fine["images"][image]["pump"].startswith("sha256:")
    refused = recipe(image) | {"compose.yml": "services:\n  web:\n    image: x\n    build: .\n"}
    found = await api.call("POST", "/apps/check", json=new(image, files=refused))
    assert any("services.web.build" in each for each in found["problems"])
    assert any(each["verdict"] == "refused" for each in found["verdicts"])
    # Nobody has been asked to do anything.
    assert (await api.call("GET", "/apps?gone=1"))["apps"] == []


async def test_no_answer_and_no_event_tells_a_secret(
    hub: WebHub, api: Api, http: aiohttp.ClientSession, image: str
) -> None:
    await api.call("PUT", "/apps/demo/secrets/password", json={"value": "hush-hush"})
    await api.call("POST", "/apps", status=201, json=new(image))
    await report(hub, 1, running("demo", 1))
    for path in ("/apps/demo", "/apps/demo/history", "/apps/demo/secrets", "/apps/demo/recipe", "/events"):
        assert "hush-hush" not in json.dumps(await api.call("GET", path))
    async with hub.store.read() as tx:
        assert any(event.kind == "secret-set" for event in await list_events(tx))


async def test_a_board_that_is_away_is_told_of(hub: WebHub, api: Api, image: str) -> None:
    await presence(hub, "offline")
    hub.skew_ms += 2 * 3_600_000
    made = await api.call("POST", "/apps", status=201, json=new(image))
    [place] = made["app"]["boards"]
    assert (place["state"], place["presence"], place["is_pending"]) == ("waiting", "offline", True)
    assert "it takes revision 1 when it is back" in place["sentence"]
    assert hub.now_ms - place["since_ms"] >= 2 * 3_600_000


# --- streams -------------------------------------------------------------------------------------------


async def test_a_stream_tells_how_an_app_comes_up(
    hub: WebHub, api: Api, http: aiohttp.ClientSession, image: str
) -> None:
    await api.call("POST", "/apps", status=201, json=new(image))
    async with http.get(f"{hub.url}/api/v1/apps/demo/live") as response, asyncio.timeout(10):
        told = events_of(response)
        assert (await anext(told))[1]["state"] == "sent"
        await report(hub, 1, updating("demo", 1))
        event, picture = await anext(told)
        assert (event, picture["state"], picture["is_over"]) == ("app", "updating", False)
        assert picture["sentence"] == "pump: pulling the image of web"
        await report(hub, 1, failed("demo", 1))
        picture = (await anext(told))[1]
        assert (picture["is_over"], picture["has_failed"]) == (True, True)
        assert picture["boards"][0]["reported"]["failure"]["reason"] == "web never got healthy"
        await presence(hub, "offline")
        assert (await anext(told))[1]["boards"][0]["presence"] == "offline"
        await hub.stop()
        assert [each async for each in told] == []


async def test_logs_are_passed_on_as_they_come_until_the_login_ends(
    hub: WebHub, api: Api, http: aiohttp.ClientSession, image: str
) -> None:
    await api.call("POST", "/apps", status=201, json=new(image))
    await report(hub, 1, running("demo", 1))
    await api.refuses("GET", "/apps/demo/logs?board=roof", 404, "not-found")
    await api.refuses("GET", "/apps/demo/logs", 503, "link-down")
    broker, commands = FakeBroker(), hub.parts.commands
    board = Address(hub.id("pump"), host="x", port=1, username=hub.id("pump"))
    keys = hub.parts.desk.orders._keys
    async with (
        broker.connect(Address("hub", host="x", port=1, username="hub")) as session,
        broker.connect(board) as ear,
        asyncio.timeout(10),
        asyncio.TaskGroup() as tasks,
    ):
        await ear.subscribe(topics.down(hub.id("pump"), "command"))
        running_commands = tasks.create_task(commands.run(session), name="commands")
        await asyncio.sleep(0)
        async with http.get(f"{hub.url}/api/v1/apps/demo/logs?service=web&tail=5&follow_s=60") as response:
            async for message in ear.messages():
                text = note.open_note(message.payload, keys.command.verifier)
                command = read_text("command", Command, text)
                break
            assert command.args == {"app": "demo", "service": "web", "tail": 5, "follow_s": 60}
            told = events_of(response)
            line = LogLine("demo_web.0.aa", 5, "stderr", "it is warm")
            commands.streamed(hub.id("pump"), command.id, LogLines(1, (line,)))
            event, said = await anext(told)
            assert (event, said["lines"][0]["text"]) == ("lines", "it is warm")
            commands.streamed(hub.id("pump"), command.id, LogLines(2, end=True, dropped=7))
            assert (await anext(told))[1]["dropped"] == 7
            assert [event async for event, _ in told] == ["end"]
        ended = asyncio.Event()

        async def still_holds() -> None:
            if ended.is_set():
                raise Refused("the login has ended", code="unauthorized")

        async def logs(request: web.Request) -> web.StreamResponse:
            async with hub.parts.store.read() as tx:
                [place] = (await picture_of(tx, "demo", hub.now_ms)).boards
            wanted, closing = LogsWanted("demo", follow_s=600), asyncio.Event()
            return await following.follow_logs(
                request, hub.parts, place, wanted, closing, beat_s=0.05, still_holds=still_holds
            )

        app = web.Application()
        app.router.add_get("/", logs)
        async with TestServer(app) as server, http.get(server.make_url("/")) as response:
            assert await response.content.readline() == b": still here\n"
            ended.set()
            assert [event async for event, _ in events_of(response)] == []
        running_commands.cancel()
    await presence(hub, "offline")
    await api.refuses("GET", "/apps/demo/logs", 409, "offline")
