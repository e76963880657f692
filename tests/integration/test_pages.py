"""The pages as HTML, without a browser: logins, forgery, forms without JavaScript, caching."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from agent.wire import words
from agent.wire.messages import OutboxState, Problem, Sensor, Traffic
from hub.fleet.retention import Storage
from hub.web.pages.fleet import PAGE_SIZE
from support.visitor import HTML, Visitor, texts
from support.webhub import ADMIN, PASSWORD, WebHub


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[WebHub]:
    async with WebHub.open(tmp_path) as hub:
        yield hub


@pytest.fixture
async def stranger(hub: WebHub) -> AsyncIterator[Visitor]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        yield Visitor(hub, http)


@pytest.fixture
async def admin(stranger: Visitor) -> Visitor:
    await stranger.log_in()
    return stranger


# --- logging in --------------------------------------------------------------------------------


async def test_a_stranger_is_sent_to_the_login_and_back(hub: WebHub, stranger: Visitor) -> None:
    await hub.add_board("pump")
    html = await stranger.get("/boards/pump?range=6h")
    assert 'name="next" value="/boards/pump?range=6h"' in html
    html = await stranger.post(
        "/login", {"name": ADMIN, "password": PASSWORD, "next": "/boards/pump?range=6h"}
    )
    assert "<h1>pump</h1>" in html


async def test_a_login_never_leads_to_another_site(hub: WebHub, stranger: Visitor) -> None:
    async with stranger.http.post(
        f"{hub.url}/login",
        data={"name": ADMIN, "password": PASSWORD, "next": "//evil.example/"},
        headers={"Origin": hub.url},
        allow_redirects=False,
    ) as response:
        assert response.headers["Location"] == "/"
        cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Path=/" in cookie


async def test_a_session_that_is_used_outlives_its_first_thirty_days(hub: WebHub, admin: Visitor) -> None:
    [cookie] = [cookie for cookie in admin.http.cookie_jar if cookie.key == "lichen_session"]
    assert int(cookie["max-age"]) >= 365 * 86_400  # or the browser would forget it, used or not
    for _ in range(3):
        hub.skew_ms += 20 * 86_400_000
        assert "No boards yet" in await admin.get("/")
    hub.skew_ms += 31 * 86_400_000
    assert "<h1>Log in</h1>" in await admin.get("/")


async def test_a_failed_login_says_why_and_keeps_the_name(stranger: Visitor) -> None:
    html = await stranger.post("/login", {"name": ADMIN, "password": "wrong"}, status=401)
    assert "Name and password do not belong together." in texts(html)
    assert f'value="{ADMIN}"' in html
    assert "wrong" not in html


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b"name=\xff"),
        ("application/x-www-form-urlencoded; charset=nonsense", b"name=a"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=x", b"--y"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n"),
    ],
)
async def test_a_form_that_cannot_be_read_is_refused(
    hub: WebHub, stranger: Visitor, content_type: str, body: bytes
) -> None:
    headers = {**HTML, "Origin": hub.url, "Content-Type": content_type}
    async with stranger.http.post(hub.url + "/login", data=body, headers=headers) as response:
        assert response.status == 400
        assert "form cannot be read" in await response.text()


async def test_a_link_shows_a_button_and_is_used_up_by_it(hub: WebHub, stranger: Visitor) -> None:
    path = (await hub.login_link()).removeprefix(hub.url)
    for _ in range(2):  # looking, as programs that show previews do, uses nothing up
        assert "This link works once" in await stranger.get(path)
    code = path.partition("code=")[2]
    assert "No boards yet" in await stranger.post("/login/link", {"code": code})
    assert "This link no longer works" in await stranger.post("/login/link", {"code": code}, status=410)
    assert "This link no longer works" in await stranger.get(path, status=410)


async def test_logging_out_ends_the_session(hub: WebHub, admin: Visitor) -> None:
    kept = {cookie.key: cookie.value for cookie in admin.http.cookie_jar}
    assert "<h1>Log in</h1>" in await admin.post("/logout")
    async with admin.http.get(f"{hub.url}/api/v1/me", cookies=kept) as response:
        assert response.status == 401


# --- forgery -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {},
    ],
)
async def test_another_site_cannot_act_with_the_cookie(
    hub: WebHub, admin: Visitor, headers: dict[str, str]
) -> None:
    for path in ("/tokens", "/logout", "/login", "/login/link", "/api/v1/tokens"):
        async with admin.http.post(hub.url + path, data={}, headers=headers) as response:
            assert response.status == 403, path
    async with admin.http.delete(f"{hub.url}/api/v1/tokens/1", headers=headers) as response:
        assert response.status == 403


@pytest.mark.parametrize("path", ["/join", "/api/v1/login"])
async def test_another_site_cannot_make_attempts_to_log_in_or_join(
    hub: WebHub, stranger: Visitor, path: str
) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        async with stranger.http.post(hub.url + path, data=b"{}", headers=headers) as response:
            assert response.status == 403


async def test_a_name_that_was_made_to_point_here_is_not_ours(hub: WebHub, stranger: Visitor) -> None:
    port = hub.url.rpartition(":")[2]
    for host, status in (
        ("evil.example", 421),
        (f"evil.example:{port}", 421),
        ("127.0.0.1.evil.example", 421),
        (f"localhost:{port}", 200),
        ("[::1]:8420", 200),
        ("127.0.0.1", 200),
    ):
        async with stranger.http.get(f"{hub.url}/login", headers={"Host": host}) as response:
            assert response.status == status, host


async def test_our_own_pages_can(hub: WebHub, admin: Visitor) -> None:
    headers = {"Sec-Fetch-Site": "same-origin"}
    async with admin.http.post(f"{hub.url}/api/v1/tokens", json={}, headers=headers) as response:
        assert response.status == 201


# --- pages -------------------------------------------------------------------------------------


async def test_an_empty_fleet_teaches_the_next_step(admin: Visitor) -> None:
    html = await admin.get("/")
    assert "lichen token new" in html
    made = await admin.post("/tokens", {"uses": "1"})
    assert "hub_key = &#34;" in made
    assert "token = &#34;" in made


async def test_the_fleet_reads_without_javascript(hub: WebHub, admin: Visitor) -> None:
    await hub.add_board(
        "pump", labels={"site": "north"}, problems=[Problem("x", "Disk nearly full", "Tidy up")]
    )
    await hub.add_board("roof")
    await hub.report("roof", {"capacity.cpu": 41.2, "capacity.memory": 50.0, "board.temperature": 48.04})
    hub.skew_ms += 14 * 60_000
    await hub.report("pump", {"capacity.cpu": 3.0})
    words = texts(await admin.get("/"))
    assert "2 boards 1 needs you 1 silent 0 fine" in words
    assert "Disk nearly full Tidy up." in words
    assert "Last heard 14 min ago, expected every 1 min" in words
    assert "41 %" in words
    assert "48.0 °C" in words


async def test_what_boards_and_people_typed_is_only_text(hub: WebHub, admin: Visitor) -> None:
    nasty = "<script>alert(1)<script>\"'"
    await hub.add_board(nasty, labels={"a": nasty}, problems=[Problem("x", nasty, nasty)], model=nasty)
    board = hub.id(nasty)
    for path in (
        "/",
        f"/boards/{board}",
        "/?search=<script>\"'",
        "/?label=<script>%3D\"'",
        "/nothing<script>",
    ):
        async with admin.http.get(hub.url + path, headers=HTML) as response:
            html = await response.text()
        assert "<script>alert" not in html
        assert not re.search(r"<script(?! src=)", html)
        assert not re.search(r"<[^>]+\s(style|on\w+)=", html)


async def test_filters_are_in_the_address(hub: WebHub, admin: Visitor) -> None:
    for number in range(4):
        await hub.add_board(f"pump-{number}", labels={"site": "north" if number % 2 else "south"})
    await hub.add_board("late", joined_ms=hub.now_ms - 3_600_000, heard=False)

    async def names(query: str) -> list[str]:
        return re.findall(
            r'rowheader" scope="row"><a class="name" href="[^"]*">([^<]+)', await admin.get(query)
        )

    assert await names("/") == ["late", "pump-0", "pump-1", "pump-2", "pump-3"]
    assert await names("/?search=pump-1") == ["pump-1"]
    assert await names("/?label=site%3Dnorth") == ["pump-1", "pump-3"]
    assert await names("/?search=site%3Dsouth+pump-2") == ["pump-2"]
    assert await names("/?state=silent") == ["late"]
    assert await names("/?state=fine&search=3") == ["pump-3"]
    assert "No board matches." in await admin.get("/?search=nobody")
    assert "there is no state" in (await admin.get("/?state=sad", status=422)).lower()
    chips = await admin.get("/?search=pump&label=site%3Dnorth&state=fine")
    assert 'href="/?search=pump&amp;state=fine"' in chips


async def test_a_large_fleet_comes_in_pages(hub: WebHub, admin: Visitor) -> None:
    for number in range(PAGE_SIZE + 3):
        await hub.add_board(f"b-{number:04d}", heard=False)
    first = await admin.get("/")
    assert first.count('<tr role="row" data-board') == PAGE_SIZE
    following = re.search(r'href="([^"]+)" rel="next"', first)
    assert following
    second = await admin.get(following[1].replace("&amp;", "&"))
    assert second.count('<tr role="row" data-board') == 3
    assert 'rel="next"' not in second


async def test_what_is_wrong_with_the_hub_itself_is_at_the_top(hub: WebHub, admin: Visitor) -> None:
    await hub.add_board("pump")
    hub.latest.alert(
        None, (Problem("hub-disk-full", "The disk of the hub is full.", "Free some space", "fail", 1),)
    )
    seen = texts(await admin.get("/"))
    assert "The disk of the hub is full. Free some space. Broken since 1970-01-01 00:00 UTC" in seen
    hub.latest.alert(None, ())
    assert "disk is full" not in texts(await admin.get("/"))


async def test_the_fleet_says_that_more_is_wrong_than_it_shows(hub: WebHub, admin: Visitor) -> None:
    wrong = [Problem(code, f"It is {code}.", severity="warn") for code in ("hot", "full", "old")]
    await hub.add_board("pump", problems=[*wrong, Problem("new", "It is new.", severity="notice")])
    assert "It is hot. and 2 more" in texts(await admin.get("/"))


async def test_what_a_board_says_of_itself_is_told_in_words(hub: WebHub, admin: Visitor) -> None:
    sensors = (
        Sensor("room", "w1", "Cel", "temperature", 10_000, quality="stale", tags={"wall": "north"}),
        Sensor("tank", "file", "m", "", 10_000, error="/run/tank: No such file", quality="failed"),
    )
    await hub.add_board("pump", sensors=sensors)
    day = hub.now_ms // 86_400_000
    about = replace(
        hub.about("pump"),
        clock="hub",
        traffic=Traffic(day, 420_000, 80_000, 1_200_000),
        certificate_until_ms=hub.now_ms,
        outbox=OutboxState(0, 0, 67_108_864, dropped=7),
    )
    await hub.describe("pump", about)
    await hub.report("pump", {"room": 21.0})
    seen = texts(await admin.get("/boards/pump"))
    assert "room · wall=north" in seen
    assert "The sensor repeats an old value." in seen
    assert "/run/tank: No such file." in seen
    assert "Clock set by this hub" in seen
    assert (
        f"at least 500 kB on {words.utc(day * 86_400_000)[:10]} (420 kB sent); 1.20 MB the day before" in seen
    )
    assert "Outbox not known before its next report; room for 67.1 MB; 7 readings dropped" in seen
    assert "Certificate until 20" in seen
    hub.latest.holds(hub.id("pump"), 1)
    assert "Outbox 1 reading waits; room for" in texts(await admin.get("/boards/pump"))


async def test_a_board_is_renamed_and_labelled_by_plain_forms(hub: WebHub, admin: Visitor) -> None:
    await hub.add_board("pump", labels={"old": "1"})
    await hub.add_board("roof")
    board = hub.id("pump")
    assert "<h1>cellar 1</h1>" in await admin.post(f"/boards/{board}/rename", {"name": " cellar 1 "})
    refused = await admin.post(f"/boards/{board}/rename", {"name": "roof"}, status=409)
    assert "Another board is called &#39;roof&#39;." in refused
    assert "<h1>cellar 1</h1>" in refused
    labelled = await admin.post(f"/boards/{board}/labels", {"labels": "site=north, floor=2 spare"})
    assert re.findall(r'class="label" href="[^"]+">([^<]+)', labelled) == [
        "floor=2", "site=north", "spare",
    ]  # fmt: skip
    refused = await admin.post(f"/boards/{board}/labels", {"labels": "Bad Key=1"}, status=422)
    assert 'value="Bad Key=1"' in refused
    assert "by admin" in texts(labelled)


async def test_a_board_is_revoked_by_a_form_that_says_what_will_happen(hub: WebHub, admin: Visitor) -> None:
    await hub.add_board("pump")
    await hub.report("pump", {"capacity.cpu": 5.0})
    seen = texts(await admin.get("/boards/pump"))
    assert "It is cut off within seconds, for good; what it has measured stays." in seen
    assert "Revoke pump" in seen
    seen = texts(await admin.post(f"/boards/{hub.id('pump')}/revoke"))
    assert "Revoked 20" in seen
    assert "Revoked pump. by admin" in seen
    assert "Revoke pump" not in seen
    assert "it is not let in any more" in seen
    assert "No boards yet" in texts(await admin.get("/"))


async def test_htmx_gets_the_form_back_or_is_sent_on(hub: WebHub, admin: Visitor) -> None:
    await hub.add_board("pump")
    headers = {"Origin": hub.url, "HX-Request": "true"}
    url = f"{hub.url}/boards/{hub.id('pump')}/rename"
    async with admin.http.post(url, data={"name": ""}, headers=headers) as response:
        assert response.status == 422
        assert 'id="heading"' in await response.text()
    async with admin.http.post(url, data={"name": "roof"}, headers=headers) as response:
        assert response.headers["HX-Redirect"] == "/boards/roof"


async def test_a_session_that_ended_sends_htmx_to_the_login(hub: WebHub, stranger: Visitor) -> None:
    async with stranger.http.get(hub.url + "/", headers={**HTML, "HX-Request": "true"}) as response:
        assert response.headers["HX-Redirect"] == "/login"


async def test_tokens_are_made_and_revoked(admin: Visitor) -> None:
    made = await admin.post(
        "/tokens", {"name": "pump-07", "labels": "site=north", "uses": "2", "ttl_s": "86400"}
    )
    assert "lets 2 boards in" in texts(made)
    assert "open 0 of 2" in texts(made)
    assert "revoked 0 of 2" in texts(await admin.post("/tokens/1/revoke"))
    refused = await admin.post("/tokens", {"name": "pump-07", "uses": "many"}, status=422)
    assert "is not a number from 1 to 10000" in texts(refused)
    assert 'value="pump-07"' in refused


async def test_what_readings_take_and_what_had_to_go_is_told(hub: WebHub, admin: Visitor) -> None:
    hub.stored = Storage(1_500_000, 2_000_000, 40, 86_400_000)
    seen = texts(await admin.get("/settings"))
    assert "Single readings 1.50 MB of 2.00 MB; those received until 1970-01-02" in seen
    assert "had to go (40 readings)" in seen


async def test_a_join_file_is_a_qr_code_too(admin: Visitor) -> None:
    html = await admin.post("/tokens", {"name": "pump"})
    [code] = re.findall(r"<svg[^>]*>\s*<title>The join file as a QR code.*?</svg>", html, re.DOTALL)
    assert 'style="' not in code  # which the page's own rules would forbid


async def test_a_token_may_let_a_board_take_the_place_of_another(hub: WebHub, admin: Visitor) -> None:
    await hub.add_board("pump")
    html = await admin.post("/tokens", {"replaces": "pump"})
    assert f'in place of <a href="/boards/{hub.id("pump")}">' in html
    seen = texts(await admin.post("/tokens", {"replaces": "pomp"}, status=404))
    assert "There is no board" in seen


async def test_api_tokens_are_made_and_revoked(hub: WebHub, admin: Visitor) -> None:
    made = await admin.post("/settings/api-tokens", {"name": "nightly", "ttl_s": "0"})
    secret = re.search(r"lichen_[a-z2-7]+", made)
    assert secret
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {secret[0]}"}) as program:
        async with program.get(f"{hub.url}/api/v1/me") as response:
            assert response.status == 200
        (credential,) = await hub.access.list_api_tokens(ADMIN)
        assert "nightly" not in await admin.post(f"/settings/api-tokens/{credential.id}/revoke")
        async with program.get(f"{hub.url}/api/v1/me") as response:
            assert response.status == 401


async def test_an_unknown_board_is_a_page_in_words(hub: WebHub, admin: Visitor) -> None:
    await hub.add_board("pump-07")
    words = texts(await admin.get("/boards/pump-7", status=404))
    assert "There is no board &#39;pump-7&#39;. Did you mean &#39;pump-07&#39;?" in words


# --- static files ------------------------------------------------------------------------------


async def test_static_files_are_kept_for_a_year_and_compressed(hub: WebHub, stranger: Visitor) -> None:
    address = re.search(r'href="(/static/[0-9a-f]{12}/lichen\.css)"', await stranger.get("/login"))
    assert address
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        async with http.get(hub.url + address[1], headers={"Accept-Encoding": "gzip"}) as response:
            assert "immutable" in response.headers["Cache-Control"]
            assert response.content_type == "text/css"
            packed = await response.read()
        async with http.get(hub.url + address[1], headers={"Accept-Encoding": "identity"}) as response:
            assert await response.read() == gzip.decompress(packed)
        old = re.sub(r"[0-9a-f]{12}", "0" * 12, address[1])
        async with http.get(hub.url + old) as response:
            assert response.headers["Cache-Control"] == "no-store"
        async with http.get(f"{hub.url}/static/x/../../server.py") as response:
            assert response.status in (401, 404)
