"""What a running hub answers to strangers: joining over HTTPS, its authority, logins, its broker.

One hub serves all tests of this file; the rules of joining are tested one by one in test_joining.
"""

from __future__ import annotations

import hashlib
import ssl
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio

from agent.base import broker
from agent.base.files import make_directory
from agent.wire import note, topics
from agent.wire.errors import LinkDown, Refused
from agent.wire.joining import HubDocument
from agent.wire.messages import read_text
from hub.fleet.authority import Authority
from hub.store import tokens
from hub.store.database import Store
from support.applicant import Applicant, address, csr_pem, join, join_file
from support.lab import ADMIN, PASSWORD, Lab

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def lab() -> AsyncIterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="lichen-") as name:
        async with Lab(Path(name)) as lab:
            await lab.start_hub()
            yield lab


# --- logging in ------------------------------------------------------------------------------------------


async def test_the_login_link_works_while_the_hub_runs(lab: Lab) -> None:
    link = (await lab.command("lichen-hub", "login-link", "--dir", str(lab.hub_dir))).split()[-1]
    assert link.startswith(f"{lab.url}/login/link?code=")
    async with aiohttp.ClientSession() as http:
        claim = {"link": link.partition("code=")[2]}
        async with http.post(f"{lab.url}/api/v1/login", json=claim) as response:
            assert response.status == 200
            token = (await response.json())["token"]
        async with http.post(f"{lab.url}/api/v1/login", json=claim) as response:
            assert response.status == 410
        headers = {"Authorization": f"Bearer {token}"}
        async with http.get(f"{lab.url}/api/v1/me", headers=headers) as response:
            assert (await response.json())["admin"] == ADMIN
        async with http.post(
            f"{lab.url}/api/v1/login", json={"name": ADMIN, "password": PASSWORD}
        ) as response:
            assert response.status == 200


async def test_the_hub_has_room_for_as_many_connections_as_the_system_allows(lab: Lab) -> None:
    soft, hard = psutil.Process(lab.hub.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard


# --- joining over HTTPS ------------------------------------------------------------------------------------


async def test_joining_over_https(lab: Lab) -> None:
    file = await join_file(lab, name="pump")
    board = Applicant()
    # Lies first: none of them may use the token up.
    status, said = await join(lab, board.request(file, token="a" * 26))
    assert (status, said["type"]) == (403, "urn:lichen:problem:forbidden")
    assert said["hint"]
    claimed = note.Verifier(Applicant().board, board.log_key.public_key).vkey
    status, said = await join(lab, board.request(file, log_key=claimed))
    assert (status, said["type"]) == (403, "urn:lichen:problem:forbidden")
    for garbage in (b"", b"{", b"[]", b'{"token": 5}', b"\xff" * 100, b"[" * 60_000):
        status, said = await join(lab, garbage)
        assert 400 <= status < 500, (garbage[:20], said)
        assert said["type"].startswith("urn:lichen:problem:")
    status, _ = await join(lab, b'"' + b"a" * 100_000 + b'"')
    assert status == 413
    # The truth, and the same again, as after a lost answer.
    for _ in range(2):
        status, answer = await join(lab, board.request(file))
        assert (status, answer["board"], answer["name"]) == (200, board.board, "pump")
    hub = read_text("hub", HubDocument, note.open_note(answer["hub_note"], note.Verifier.parse(file.hub_key)))
    assert (hub.mqtt_port, hub.ca_pem) == (lab.mqtt_port, (lab.hub_dir / "ca" / "ca.pem").read_text())
    # The same token in other hands.
    status, said = await join(lab, Applicant().request(file))
    assert (status, said["type"]) == (403, "urn:lichen:problem:forbidden")
    assert [row["name"] for row in (await lab.api("GET", "/boards"))["boards"]] == ["pump"]


async def test_an_expired_token_over_https(lab: Lab) -> None:
    file = await join_file(lab)
    async with Store.open(lab.hub_dir / "hub.db") as store, store.write() as tx:
        _, secret = await tokens.new_token(tx, name="", labels={}, uses=1, expires_ms=1, now_ms=0)
    status, said = await join(lab, Applicant().request(replace(file, token=secret)))
    assert (status, said["type"]) == (410, "urn:lichen:problem:expired")
    assert "lichen token new" in said["hint"]


async def test_the_authority_is_public_and_is_the_one_of_the_join_file(lab: Lab) -> None:
    file = await join_file(lab)
    url = f"https://127.0.0.1:{lab.board_port}/ca.pem"
    async with aiohttp.ClientSession() as http, http.get(url, ssl=False) as response:
        pem = await response.text()
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest() == file.ca_sha256
    assert file.hub_url == f"https://127.0.0.1:{lab.board_port}"


async def test_a_joined_board_is_let_in_by_the_broker_and_nobody_else_is(lab: Lab) -> None:
    board, stranger = Applicant(), Applicant()
    _, answer = await join(lab, board.request(await join_file(lab)))
    authority = Authority.create(
        make_directory(lab.dir / "other"), "anotherhubanothe", "127.0.0.1", 1_780_000_000_000
    )
    forged = authority.issue(board.board, csr_pem(stranger.tls_key), 1_780_000_000_000).pem
    async with broker.connect(address(lab, board, answer["certificate_pem"])) as session:
        await session.publish(broker.Message(topics.up(board.board, "presence"), b"{}"))
    with pytest.raises((LinkDown, Refused)):
        async with broker.connect(address(lab, stranger, forged)) as session:
            await session.publish(broker.Message(topics.up(board.board, "presence"), b"{}"))


async def test_who_guesses_tokens_is_slowed_down(lab: Lab) -> None:
    file = await join_file(lab)
    for _ in range(12):
        status, said = await join(lab, Applicant().request(file, token="a" * 26))
        if status == 429:
            break
    assert (status, said["type"]) == (429, "urn:lichen:problem:too-many")
