"""The API against a real store: every answer is held against the API's own description."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.wire.messages import Problem, Reading
from hub.web.api import ROUTES
from hub.web.live import MOST_PER_LOGIN
from hub.web.openapi import describe
from support.api import Api
from support.applicant import Applicant
from support.webhub import ADMIN, PASSWORD, WebHub

MINUTE_MS = 60_000
ELSEWHERE = re.compile(r"/(apps|registries|rates|usage)(/|$)")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[WebHub]:
    async with WebHub.open(tmp_path) as hub:
        yield hub


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        yield http


@pytest.fixture
async def api(hub: WebHub, http: aiohttp.ClientSession) -> Api:
    """Logged in with an API token, as programs are."""
    token = await hub.access.new_api_token(ADMIN, "test")
    http.headers["Authorization"] = f"Bearer {token}"
    return Api(http, hub.url, describe(ROUTES, version="0.1.0"))


async def events_of(response: aiohttp.ClientResponse, count: int) -> list[tuple[str, Any]]:
    """The next ``count`` events of a live stream."""
    found: list[tuple[str, Any]] = []
    event = ""
    async with asyncio.timeout(5):
        async for line in response.content:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                event = value
            elif field == "data":
                found.append((event, json.loads(value)))
                if len(found) == count:
                    break
    return found


# --- the description ---------------------------------------------------------------------------


async def test_the_description_names_exactly_what_is_served(hub: WebHub, api: Api) -> None:
    document = await api.call("GET", "/openapi.json")
    described = {
        (method.upper(), document["servers"][0]["url"] + path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert hub.runner is not None
    served = {
        (route.method, route.resource.canonical)
        for route in hub.runner.app.router.routes()
        if route.resource and route.resource.canonical.startswith("/api/") and route.method != "HEAD"
    }
    assert described == served


async def test_every_operation_answers_as_described(hub: WebHub, api: Api) -> None:
    await hub.add_board("pump", labels={"site": "north"}, problems=[Problem("x", "Disk nearly full")])
    await hub.add_board("new", heard=False)
    await hub.report("pump", {"capacity.cpu": 41.5, "board.temperature": None})
    now = hub.now_ms

    assert (await api.call("GET", "/hub"))["boards"] == {"boards": 2, "attention": 1, "silent": 1, "fine": 0}
    assert [each["name"] for each in (await api.call("GET", "/boards"))["boards"]] == ["new", "pump"]
    board = await api.call("GET", "/boards/pump")
    assert (board["state"], board["sentence"]) == ("attention", "Disk nearly full")
    assert board["latest"]["capacity.cpu"][0] == 41.5
    assert board["about"]["model"].startswith("Raspberry")
    assert "about" not in await api.call("GET", "/boards/new")
    sensors = (await api.call("GET", "/boards/pump/sensors"))["sensors"]
    assert [each["value"] for each in sensors if each["name"] == "capacity.cpu"] == [41.5]
    series = await api.call("GET", f"/boards/pump/readings?sensor=capacity.cpu&to_ms={now + 1000}")
    assert [point[2] for point in series["series"][0]["points"]] == [41.5]
    raw = await api.call("GET", "/boards/pump/readings/raw")
    assert [(row["sensor"], row["value"]) for row in raw["readings"]] == [
        ("capacity.cpu", 41.5),
        ("board.temperature", None),
    ]
    assert (await api.call("GET", "/boards/pump/events"))["events"][0]["kind"] == "joined"
    assert len((await api.call("GET", "/events?limit=1"))["events"]) == 1
    assert [each["code"] for each in (await api.call("GET", "/problems"))["problems"]] == ["x"]
    assert len((await api.call("GET", "/boards/pump/problems"))["problems"]) == 1
    assert (await api.call("GET", "/me")) == {"admin": ADMIN, "kind": "token"}

    made = await api.call("POST", "/tokens", status=201, json={"name": "roof", "uses": 2})
    assert made["join_file"]["token"]
    listed = (await api.call("GET", "/tokens"))["tokens"]
    assert [(each["name"], each["state"]) for each in listed] == [("roof", "open")]
    await api.call("DELETE", f"/tokens/{made['id']}", status=204)
    assert (await api.call("GET", "/tokens"))["tokens"][0]["state"] == "revoked"

    other = await api.call("POST", "/api-tokens", status=201, json={"name": "script", "ttl_s": 3600})
    assert other["token"].startswith("lichen_")
    names = {each["name"]: each["id"] for each in (await api.call("GET", "/api-tokens"))["tokens"]}
    await api.call("DELETE", f"/api-tokens/{names['script']}", status=204)
    assert (await api.call("POST", "/login", json={"name": ADMIN, "password": PASSWORD}))["admin"] == ADMIN
    changed = await api.call(
        "PATCH", "/boards/pump", json={"name": "pump-2", "labels": {"site": None, "a": "b"}}
    )
    assert (changed["name"], changed["labels"]) == ("pump-2", {"a": "b"})
    replacement = await api.call("POST", "/tokens", status=201, json={"replaces": "pump-2"})
    assert (replacement["name"], replacement["replaces"]) == ("pump-2", board["id"])
    gone = await api.call("POST", "/boards/pump-2/revoke")
    assert (gone["id"], bool(gone["revoked_ms"])) == (board["id"], True)
    assert [each["name"] for each in (await api.call("GET", "/boards"))["boards"]] == ["new"]
    assert await api.call("GET", "/openapi.json")
    # What is left is the live stream, below, and what has tests of its own: apps, usage, what it costs.
    left = {(route.method, route.path) for route in ROUTES if not ELSEWHERE.search(route.path)} - api.covered
    assert left == {("GET", "/live")}


# --- boards ------------------------------------------------------------------------------------


async def test_boards_are_searched_filtered_and_paged(hub: WebHub, api: Api) -> None:
    for number in range(5):
        await hub.add_board(
            f"pump-{number}", labels={"site": "north" if number < 3 else "south", "floor": "1"}
        )
    page = await api.call("GET", "/boards?limit=2")
    assert [each["name"] for each in page["boards"]] == ["pump-0", "pump-1"]
    page = await api.call("GET", "/boards", params={"limit": "3", "after": page["next"]})
    assert [each["name"] for each in page["boards"]] == ["pump-2", "pump-3", "pump-4"]
    assert "next" not in page
    for params, count in (
        ({"search": "PUMP-3"}, 1),
        ({"search": "south"}, 2),
        ({"label": "site=north"}, 3),
        ({"label": "site=north,floor=1"}, 3),
        ({"label": "site=north,floor=2"}, 0),
        ({"search": "100%"}, 0),
    ):
        found = (await api.call("GET", "/boards", params=params))["boards"]
        assert len(found) == count, params


async def test_a_board_that_is_not_heard_is_silent_and_says_since_when(hub: WebHub, api: Api) -> None:
    await hub.add_board("pump", every_ms=MINUTE_MS)
    hub.skew_ms += 14 * MINUTE_MS
    board = await api.call("GET", "/boards/pump")
    assert board["state"] == "silent"
    assert board["sentence"].replace("\u00a0", " ") == "Last heard 14 min ago, expected every 1 min"


async def test_changes_are_noted_with_the_name_of_the_admin(hub: WebHub, api: Api) -> None:
    await hub.add_board("pump")
    await api.call("PATCH", "/boards/pump", json={"name": "roof", "labels": {"site": "north"}})
    events = (await api.call("GET", "/boards/roof/events"))["events"]
    assert [(each["actor"], each["text"]) for each in events][:2] == [
        (ADMIN, "labels are now site=north"),
        (ADMIN, "renamed from pump to roof"),
    ]


async def test_what_cannot_be_done_is_refused_with_reason_and_way_out(hub: WebHub, api: Api) -> None:
    await hub.add_board("pump")
    await hub.add_board("roof")
    assert "'pump'" in await api.refuses("GET", "/boards/pmp", 404, "not-found")
    assert "capacity.cpu" in await api.refuses(
        "GET", "/boards/pump/readings?sensor=capacity.cp", 404, "not-found"
    )
    assert "choose" in await api.refuses("PATCH", "/boards/pump", 409, "conflict", json={"name": "roof"})
    assert "'nmae'" not in await api.refuses("PATCH", "/boards/pump", 422, "invalid", json={"name": ""})
    refused = await api.refuses("PATCH", "/boards/pump", 422, "invalid", json={"nmae": "x"})
    assert "did you mean 'name'" in refused
    assert "labels.site" in await api.refuses(
        "PATCH", "/boards/pump", 422, "invalid", json={"labels": {"site": 5}}
    )
    assert "serach" in await api.refuses("GET", "/boards?serach=x", 422, "invalid")
    assert "limit" in await api.refuses("GET", "/boards?limit=many", 422, "invalid")
    assert "limit" in await api.refuses("GET", "/boards?limit=0", 422, "invalid")
    await api.refuses("GET", "/boards/pump/readings", 422, "invalid")
    await api.refuses("GET", "/boards/pump/readings?sensor=capacity.cpu&from_ms=5&to_ms=5", 422, "invalid")
    await api.refuses("POST", "/tokens", 422, "invalid", data=b"{")
    await api.refuses("POST", "/tokens", 422, "invalid")
    await api.refuses("POST", "/tokens", 413, "too-large", data=b" " * 70_000)
    await api.refuses("DELETE", "/tokens/999", 404, "not-found")
    await api.refuses("DELETE", "/tokens/x", 404, "not-found")


async def test_unknown_addresses_and_methods_are_problems_too(
    hub: WebHub, api: Api, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{hub.url}/api/v1/nothing") as response:
        problem = await response.json(content_type="application/problem+json")
        assert (response.status, problem["type"]) == (404, "urn:lichen:problem:not-found")
    async with http.put(f"{hub.url}/api/v1/boards") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET"


# --- readings ----------------------------------------------------------------------------------


async def test_raw_readings_come_as_csv_of_any_length(hub: WebHub, api: Api) -> None:
    await hub.add_board("pump")
    start = hub.now_ms - 3_600_000
    times = [start + at * 1000 for at in range(2500)]
    await hub.store_history(
        "pump", [[Reading("capacity.cpu", index / 8, index * 1000, at)] for index, at in enumerate(times)]
    )
    text = await api.call(
        "GET", f"/boards/pump/readings/raw?since_ms={start + 1000}", headers={"Accept": "text/csv"}
    )
    lines = text.split("\r\n")
    assert lines[0] == "time,sensor,value,unit,clock,quality,uncertain"
    assert len(lines) == 1 + 2499 + 1
    time, sensor, value, unit, *rest = lines[1].split(",")
    assert (sensor, value, unit) == ("capacity.cpu", str(1 / 8), "%")
    assert rest == ["synced", "good", "0"]
    assert time.endswith("Z")


async def test_a_clock_that_ran_away_does_not_cut_a_download_short(hub: WebHub, api: Api) -> None:
    await hub.add_board("pump")
    for at_ms in (hub.now_ms, 2**53 - 1):
        await hub.store_history("pump", [[Reading("capacity.cpu", 1.0, at_ms, at_ms)]])
    text = await api.call("GET", "/boards/pump/readings/raw", headers={"Accept": "text/csv"})
    assert [line[:5] for line in text.split("\r\n")[1:]][1:] == ["9999-", ""]


async def test_json_readings_say_when_there_are_more(hub: WebHub, api: Api) -> None:
    await hub.add_board("pump")
    for value in (1.0, 2.0, 3.0):
        await hub.report("pump", {"capacity.cpu": value})
    answer = await api.call("GET", "/boards/pump/readings/raw?limit=2")
    assert ([row["value"] for row in answer["readings"]], answer["more"]) == ([1.0, 2.0], True)


async def test_several_sensors_share_a_range_and_have_at_most_n_points(hub: WebHub, api: Api) -> None:
    await hub.add_board("pump")
    now = hub.now_ms
    times = [now - at * 10_000 for at in range(300, 0, -1)]
    await hub.store_history(
        "pump",
        [[Reading("capacity.cpu", 5.0, at, at), Reading("capacity.memory", 9.0, at, at)] for at in times],
    )
    answer = await api.call(
        "GET", "/boards/pump/readings?sensor=capacity.cpu&sensor=capacity.memory&points=40"
    )
    assert [series["sensor"] for series in answer["series"]] == ["capacity.cpu", "capacity.memory"]
    for series, value in zip(answer["series"], (5.0, 9.0), strict=True):
        assert 0 < len(series["points"]) <= 40
        assert {point[2] for point in series["points"]} == {value}
        assert sum(point[4] for point in series["points"]) == 300


async def test_how_far_a_reading_can_be_relied_on_is_said(hub: WebHub, api: Api) -> None:
    await hub.add_board("pump")
    now = hub.now_ms
    readings = [
        Reading("capacity.cpu", 1.0, 0, now),
        Reading("capacity.cpu", 2.0, 10, now + 10, stale=True),
        Reading("capacity.cpu", None, 20, now + 20),
    ]
    await hub.store_history("pump", [readings])
    await hub.store_history("pump", [[Reading("capacity.cpu", 4.0, 30, now + 30)]], clock="unsynced")
    raw = (await api.call("GET", "/boards/pump/readings/raw"))["readings"]
    assert [(row["quality"], row["uncertain"]) for row in raw] == [
        ("good", False),
        ("stale", False),
        ("failed", False),
        ("good", True),
    ]
    series = (await api.call("GET", f"/boards/pump/readings?sensor=capacity.cpu&to_ms={now + 100}"))["series"]
    assert [(point[2], point[5]) for point in series[0]["points"]] == [(1.0, 0), (2.0, 0), (4.0, 1)]
    text = await api.call("GET", "/boards/pump/readings/raw", headers={"Accept": "text/csv"})
    assert [line.split(",")[4:] for line in text.split("\r\n")[1:-1]] == [
        ["synced", "good", "0"],
        ["synced", "stale", "0"],
        ["synced", "failed", "0"],
        ["unsynced", "good", "1"],
    ]


# --- pages, tags and tables ------------------------------------------------------------------------


async def test_lists_come_in_pages_that_name_the_next(
    hub: WebHub, api: Api, http: aiohttp.ClientSession
) -> None:
    for name in ("a", "b", "c&d", "e"):
        await hub.add_board(name)
        await api.call("POST", "/tokens", status=201, json={"name": name})
    seen: dict[str, list[list[str]]] = {}
    for path, key, label in [
        ("/boards", "boards", "name"),
        ("/boards/a/sensors", "sensors", "name"),
        ("/events", "events", "id"),
        ("/tokens", "tokens", "name"),
    ]:
        url = f"/api/v1{path}?limit=3"
        while url:
            async with http.get(f"{hub.url}{url}") as response:
                page = await response.json()
                seen.setdefault(path, []).append([row[label] for row in page[key]])
                following = response.links.get("next")
                assert (following is None) == ("next" not in page)
                url = following["url"].path_qs if following else ""
        whole = (await api.call("GET", f"{path}?limit=1000"))[key]
        assert [each for some in seen[path] for each in some] == [row[label] for row in whole]
    assert seen["/boards"] == [["a", "b", "c&d"], ["e"]]
    assert seen["/tokens"] == [["e", "c&d", "b"], ["a"]]
    assert len(seen["/boards/a/sensors"]) > 1
    assert "after" in await api.refuses("GET", "/events?after=x", 422, "invalid")


async def test_what_has_not_changed_is_not_sent_again(
    hub: WebHub, api: Api, http: aiohttp.ClientSession
) -> None:
    await hub.add_board("pump")
    url = f"{hub.url}/api/v1/boards/pump/sensors"
    async with http.get(url) as response:
        etag = response.headers["ETag"]
        assert etag.startswith('W/"')
    for known in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        async with http.get(url, headers={"If-None-Match": known}) as response:
            assert (response.status, await response.read()) == (304, b"")
            assert response.headers["ETag"] == etag
    await api.call("GET", "/boards/pump/sensors", status=304, headers={"If-None-Match": etag})
    async with http.get(url, headers={"If-None-Match": etag, "Accept": "text/csv"}) as response:
        assert response.status == 200
    await hub.report("pump", {"capacity.cpu": 1.0})
    async with http.get(url, headers={"If-None-Match": etag}) as response:
        assert response.status == 200
        assert response.headers["ETag"] != etag


async def test_lists_and_series_come_as_csv_too(hub: WebHub, api: Api) -> None:
    await hub.add_board("=pump,1", labels={"site": "north"})
    await hub.add_board("roof")
    board = hub.id("=pump,1")
    await hub.report("=pump,1", {"capacity.cpu": 41.5, "board.temperature": None})

    async def rows(path: str) -> list[dict[str, str]]:
        text = await api.call("GET", path, headers={"Accept": "text/csv"})
        return list(csv.DictReader(io.StringIO(text)))

    boards = await rows("/boards")
    assert [(row["name"], row["labels"]) for row in boards] == [("'=pump,1", "site=north"), ("roof", "")]
    assert boards[0]["heard"].endswith("Z")
    assert len(await rows("/boards?limit=1")) == 1
    assert {row["kind"] for row in await rows("/events")} == {"joined"}
    sensors = {row["sensor"]: row["value"] for row in await rows(f"/boards/{board}/sensors")}
    assert (sensors["capacity.cpu"], sensors["board.temperature"]) == ("41.5", "")
    [point] = await rows(f"/boards/{board}/readings?sensor=capacity.cpu&to_ms={hub.now_ms + 1000}")
    assert (point["sensor"], point["unit"], point["mean"], point["uncertain"]) == (
        "capacity.cpu", "%", "41.5", "0",
    )  # fmt: skip
    assert await rows("/problems") == []


# --- who may -----------------------------------------------------------------------------------


async def test_everything_needs_a_login_but_what_is_public(hub: WebHub, http: aiohttp.ClientSession) -> None:
    assert hub.runner is not None
    public = set()
    for route in hub.runner.app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        for name in ("{board}", "{token}", "{version}", "{path}"):
            path = path.replace(name, "x")
        path = path.replace("{epoch}", "x" * 16)
        async with http.request(
            route.method, hub.url + path, headers={"Origin": hub.url}, allow_redirects=False
        ) as response:
            if response.status != 401:
                public.add(route.resource.canonical)
    assert public == {
        "/healthz", "/ca.pem", "/join", "/renew", "/login", "/login/link", "/favicon.ico",
        "/static/{version}/{path}", "/api/v1/login",
        "/ledger", "/ledger/{epoch}",  # forbidden to whoever shows no certificate of a board
    }  # fmt: skip


async def test_a_bad_token_is_refused_even_beside_a_good_cookie(hub: WebHub, api: Api) -> None:
    headers = {"Authorization": "Bearer lichen_nonsense"}
    await api.refuses("GET", "/me", 401, "unauthenticated", headers=headers)


async def test_failed_logins_say_the_same_for_everybody(hub: WebHub, http: aiohttp.ClientSession) -> None:
    said = set()
    for name in (ADMIN, "nobody"):
        async with http.post(f"{hub.url}/api/v1/login", json={"name": name, "password": "wrong"}) as response:
            assert response.status == 401
            said.add(await response.text())
    assert len(said) == 1


async def test_a_link_logs_a_program_in_once(hub: WebHub, http: aiohttp.ClientSession) -> None:
    code = (await hub.login_link()).partition("code=")[2]
    for status in (200, 410):
        async with http.post(f"{hub.url}/api/v1/login", json={"link": code}) as response:
            assert response.status == status


# --- joining -----------------------------------------------------------------------------------


async def test_a_board_joins_over_http(hub: WebHub, api: Api, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{hub.url}/ca.pem") as response:
        assert (await response.text()).startswith("-----BEGIN CERTIFICATE-----")
    await api.call("POST", "/tokens", status=201, json={"name": "pump"})
    async with hub.store.write() as tx:
        from hub.store import tokens

        _, secret = await tokens.new_token(
            tx, name="roof", labels={}, uses=1, expires_ms=hub.now_ms + 60_000, now_ms=hub.now_ms
        )
    applicant = Applicant()
    from agent.wire.plain import dumps

    body = dumps(applicant.request(hub.parts.joining.join_file(secret)))
    async with http.post(f"{hub.url}/join", data=body) as response:
        assert response.status == 200
        assert (await response.json())["board"] == applicant.board
    for size, status in ((40_000, 413), (100_000, 413)):
        async with http.post(f"{hub.url}/join", data=b" " * size) as response:
            assert response.status == status
    async with http.post(f"{hub.url}/join", data=b"{}") as response:
        assert (response.status, response.content_type) == (422, "application/problem+json")


# --- the live stream ---------------------------------------------------------------------------


async def test_a_stream_begins_with_the_full_state_and_goes_on_with_changes(
    hub: WebHub, api: Api, http: aiohttp.ClientSession
) -> None:
    await hub.add_board("pump")
    await hub.report("pump", {"capacity.cpu": 41.5})
    async with http.get(f"{hub.url}/api/v1/live?board=pump&counts=1") as response:
        assert response.content_type == "text/event-stream"
        hub_now, board = await events_of(response, 2)
        assert hub_now[0] == "hub"
        assert hub_now[1]["counts"]["boards"] == 1
        assert board[1]["values"]["capacity.cpu"][0] == 41.5
        await hub.report("pump", {"capacity.cpu": 42.0})
        assert (await events_of(response, 1))[0][1]["values"]["capacity.cpu"][0] == 42.0


async def test_a_stream_tells_only_what_was_asked_for(
    hub: WebHub, api: Api, http: aiohttp.ClientSession
) -> None:
    for name in ("pump", "roof", "gate"):
        await hub.add_board(name)
    query = "board=pump&board=roof&sensor=capacity.cpu"
    async with http.get(f"{hub.url}/api/v1/live?{query}") as response:
        first = await events_of(response, 3)
        assert {data["board"] for event, data in first if event == "board"} == {
            hub.id("pump"),
            hub.id("roof"),
        }
        await hub.report("gate", {"capacity.cpu": 1.0})
        await hub.report("pump", {"capacity.cpu": 2.0, "capacity.memory": 3.0})
        ((_, change),) = await events_of(response, 1)
        assert (change["board"], list(change["values"])) == (hub.id("pump"), ["capacity.cpu"])


async def test_streams_are_counted_per_login(hub: WebHub, api: Api, http: aiohttp.ClientSession) -> None:
    streams = [await http.get(f"{hub.url}/api/v1/live") for _ in range(MOST_PER_LOGIN)]
    await api.refuses("GET", "/live", 429, "too-many")
    for stream in streams:
        stream.close()


async def test_streams_end_at_once_when_the_hub_stops(
    hub: WebHub, api: Api, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{hub.url}/api/v1/live") as response:
        await events_of(response, 1)
        async with asyncio.timeout(0.5):
            await hub.stop()
        async with asyncio.timeout(0.5):
            await response.content.read()
            assert response.content.at_eof()


# --- metrics and health ------------------------------------------------------------------------


async def test_metrics_count_the_fleet(hub: WebHub, api: Api, http: aiohttp.ClientSession) -> None:
    await hub.add_board("pump")
    async with http.get(f"{hub.url}/metrics") as response:
        text = await response.text()
    assert 'lichen_boards{state="fine"} 1.0' in text
    assert "lichen_readings_total 0.0" in text
    assert "process_resident_memory_bytes" in text


async def test_health_and_security_headers(hub: WebHub, http: aiohttp.ClientSession) -> None:
    for path, status in (("/healthz", 200), ("/login", 200), ("/nothing", 401), ("/static/x/y.js", 404)):
        async with http.get(hub.url + path) as response:
            assert response.status == status
            assert response.headers["Content-Security-Policy"].startswith("default-src 'self';")
            assert "unsafe" not in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-store"


async def test_json_is_compressed(hub: WebHub, api: Api, http: aiohttp.ClientSession) -> None:
    async with (
        aiohttp.ClientSession(headers=http.headers, auto_decompress=False) as raw,
        raw.get(f"{hub.url}/api/v1/openapi.json", headers={"Accept-Encoding": "gzip"}) as response,
    ):
        body = await response.read()
    text = gzip.decompress(body)
    assert json.loads(text)["openapi"] == "3.1.0"
    assert len(body) * 5 < len(text)
