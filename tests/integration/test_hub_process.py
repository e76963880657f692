"""The hub as a process: made, started, stopped, started twice, and joined over HTTPS."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import socket
import ssl
import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import tomli_w
from cryptography import x509

from agent.base import broker
from agent.base.files import make_directory
from agent.wire import note, topics
from agent.wire.decode import decode
from agent.wire.errors import LinkDown, Refused
from agent.wire.messages import HubDocument, JoinFile, read_text
from agent.wire.plain import plain
from hub.fleet.authority import Authority
from hub.store import tokens
from hub.store.database import Store
from support.applicant import Applicant, csr_pem
from support.lab import ADMIN, PASSWORD, Lab, Process, script

pytestmark = pytest.mark.slow


@pytest.fixture
async def lab(short_path: Path) -> AsyncIterator[Lab]:
    async with Lab(short_path) as lab:
        yield lab


async def join(lab: Lab, body: object, *, tls: bool = True) -> tuple[int, dict[str, Any]]:
    """Post to /join as a board does, with the hub's own authority; returns status and JSON."""
    context = ssl.create_default_context(cafile=lab.hub_dir / "ca" / "ca.pem") if tls else False
    url = f"https://127.0.0.1:{lab.board_port}/join"
    data = body if isinstance(body, bytes) else json.dumps(plain(body)).encode()
    headers = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, data=data, headers=headers, ssl=context) as response,
    ):
        return response.status, await response.json(content_type=None)


async def join_file(lab: Lab, **options: Any) -> JoinFile:
    return decode(JoinFile, (await lab.new_token(**options))["join_file"])


# --- made ------------------------------------------------------------------------------------------------


async def test_a_hub_is_made_once_and_readable_by_nobody_else(lab: Lab) -> None:
    modes = {path: path.stat().st_mode & 0o777 for path in lab.hub_dir.rglob("*")}
    assert [path for path, mode in modes.items() if mode & 0o077] == []
    assert lab.hub_dir.stat().st_mode & 0o777 == 0o700
    keys = (lab.hub_dir / "keys" / "root.key").read_text()
    await lab.command("lichen-hub", "init", str(lab.hub_dir), status=78)
    assert (lab.hub_dir / "keys" / "root.key").read_text() == keys


async def test_init_without_a_terminal_makes_a_password_and_says_what_is_next(lab: Lab) -> None:
    made = lab.dir / "second"
    said = await lab.command("lichen-hub", "init", str(made), "--name", "south")
    assert re.search(r"admin admin, password [a-z2-9]{5}(-[a-z2-9]{5}){3} ", said)
    assert f"lichen-hub run --dir {made}" in said
    assert tomllib.loads((made / "hub.toml").read_text())["name"] == "south"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "65534"], "mqtt_port: 65536"),
        (["--host", "a b"], "host: 'a b'"),
        (["--password-file", "/nowhere"], "/nowhere"),
    ],
)
async def test_an_init_that_cannot_be_leaves_nothing_behind(lab: Lab, options: list[str], words: str) -> None:
    made = lab.dir / "second"
    child = await asyncio.create_subprocess_exec(
        script("lichen-hub"), "init", str(made), *options,
        stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, error = await child.communicate()
    assert child.returncode == 78
    assert words in error.decode()
    assert not made.exists()


async def test_the_config_command_reads_what_init_wrote(lab: Lab) -> None:
    assert "is good" in await lab.command("lichen-hub", "config", "check", "--dir", str(lab.hub_dir))
    shown = tomllib.loads(await lab.command("lichen-hub", "config", "show", "--dir", str(lab.hub_dir)))
    assert (shown["page_port"], shown["log"]["level"]) == (lab.page_port, "info")
    (lab.hub_dir / "hub.toml").write_text('name = "n"\npage_prot = 1\n')
    await lab.command("lichen-hub", "config", "check", "--dir", str(lab.hub_dir), status=78)


# --- started and stopped -----------------------------------------------------------------------------------


async def test_it_starts_answers_and_ends_within_two_seconds_with_an_open_page(lab: Lab) -> None:
    await lab.start_hub()
    headers = {"Authorization": f"Bearer {lab.api_token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{lab.url}/api/v1/live", timeout=aiohttp.ClientTimeout(total=None)) as stream,
    ):
        assert stream.status == 200
        assert await lab.hub.stop(within_s=2) == 0
    assert "Traceback" not in lab.hub.tail(100)


async def test_systemd_hears_that_it_is_ready_and_lives(lab: Lab) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(lab.dir / "notify"))
        notified.setblocking(False)
        lab.hub.env |= {"NOTIFY_SOCKET": str(lab.dir / "notify"), "WATCHDOG_USEC": "200000"}
        await lab.hub.start()
        heard = ""
        async with asyncio.timeout(20):
            while heard.count("WATCHDOG=1") < 3 or "READY=1" not in heard:
                heard += (await asyncio.get_running_loop().sock_recv(notified, 4096)).decode() + "\n"
        assert f"STATUS=page at {lab.url}" in heard
        assert await lab.hub.stop() == 0


async def test_a_second_hub_in_the_same_directory_names_the_first(lab: Lab) -> None:
    await lab.start_hub()
    second = Process("second", lab.hub.argv, lab.dir / "second.log")
    await second.start()
    assert second.child is not None
    async with asyncio.timeout(10):
        assert await second.child.wait() == 75
    assert f"as process {lab.hub.pid}" in second.tail()
    assert await lab.healthy()


@pytest.mark.parametrize("key", ["page_port", "board_port", "mqtt_port"])
async def test_a_taken_port_is_named_with_its_key(lab: Lab, key: str) -> None:
    port = getattr(lab, key)
    with socket.create_server(("127.0.0.1", port)):
        await lab.hub.start()
        assert lab.hub.child is not None
        async with asyncio.timeout(20):
            assert await lab.hub.child.wait() == 78
    assert key in lab.hub.tail()
    assert str(port) in lab.hub.tail()
    assert "Traceback" not in lab.hub.tail(100)
    await lab.start_hub()


async def test_a_killed_hub_starts_again_at_once(lab: Lab) -> None:
    for _ in range(3):
        await lab.start_hub()
        await lab.hub.stop(signal.SIGKILL)
    await lab.start_hub()
    assert await lab.hub.stop(within_s=2) == 0


async def test_a_changed_host_is_in_the_certificate_and_reaches_boards_in_a_new_document(lab: Lab) -> None:
    await lab.start_hub()
    board = Applicant()
    _, answer = await join(lab, board.request(await join_file(lab)))
    await lab.hub.stop()
    before = document(lab)
    config = tomllib.loads((lab.hub_dir / "hub.toml").read_text())
    (lab.hub_dir / "hub.toml").write_text(tomli_w.dumps({**config, "host": "hub.example.org"}))
    await lab.start_hub()
    now = document(lab)
    assert (now.number, now.url) == (before.number + 1, f"https://hub.example.org:{lab.board_port}")
    server = x509.load_pem_x509_certificate((lab.hub_dir / "ca" / "server.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "hub.example.org" in names.get_values_for_type(x509.DNSName)
    async with broker.connect(address(lab, board, answer["certificate_pem"])) as session:
        await session.subscribe(topics.down_all(board.board))
        async with asyncio.timeout(10):
            message = await anext(aiter(session.messages()))
    assert message.topic == topics.down(board.board, "hub")
    assert message.payload == (lab.hub_dir / "keys" / "hub.note").read_bytes()
    # The same again is no new document.
    await lab.hub.stop()
    await lab.start_hub()
    assert document(lab) == now


def document(lab: Lab) -> HubDocument:
    """The hub document in the hub's directory."""
    root = note.Signer.parse((lab.hub_dir / "keys" / "root.key").read_text().strip())
    text = note.open_note((lab.hub_dir / "keys" / "hub.note").read_text(), root.verifier)
    return read_text("hub", HubDocument, text)


# --- logging in ------------------------------------------------------------------------------------------


async def test_the_login_link_works_while_the_hub_runs(lab: Lab) -> None:
    await lab.start_hub()
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


async def test_an_admin_that_nobody_is(lab: Lab) -> None:
    await lab.command("lichen-hub", "login-link", "--dir", str(lab.hub_dir), "--admin", "adnim", status=78)


# --- joining over HTTPS ------------------------------------------------------------------------------------


async def test_joining_over_https(lab: Lab) -> None:
    await lab.start_hub()
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
    await lab.start_hub()
    file = await join_file(lab)
    async with Store.open(lab.hub_dir / "hub.db") as store, store.write() as tx:
        _, secret = await tokens.new_token(tx, name="", labels={}, uses=1, expires_ms=1, now_ms=0)
    status, said = await join(lab, Applicant().request(replace(file, token=secret)))
    assert (status, said["type"]) == (410, "urn:lichen:problem:expired")
    assert "lichen token new" in said["hint"]


async def test_who_guesses_tokens_over_https_is_slowed_down(lab: Lab) -> None:
    await lab.start_hub()
    file = await join_file(lab)
    statuses = [(await join(lab, Applicant().request(file, token="a" * 26)))[0] for _ in range(12)]
    assert statuses == [403] * 11 + [429]


async def test_the_authority_is_public_and_is_the_one_of_the_join_file(lab: Lab) -> None:
    await lab.start_hub()
    file = await join_file(lab)
    url = f"https://127.0.0.1:{lab.board_port}/ca.pem"
    async with aiohttp.ClientSession() as http, http.get(url, ssl=False) as response:
        pem = await response.text()
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest() == file.ca_sha256
    assert file.hub_url == f"https://127.0.0.1:{lab.board_port}"


async def test_a_joined_board_is_let_in_by_the_broker_and_nobody_else_is(lab: Lab) -> None:
    await lab.start_hub()
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


def address(lab: Lab, applicant: Applicant, certificate_pem: str) -> broker.Address:
    """Where the hub's broker is, with a client certificate."""
    chain = lab.dir / f"{applicant.board}.pem"
    chain.write_bytes(certificate_pem.encode() + applicant.tls_key_pem)
    context = ssl.create_default_context(cafile=lab.hub_dir / "ca" / "ca.pem")
    context.load_cert_chain(chain)
    return broker.Address(
        client_id=applicant.board, host="127.0.0.1", port=lab.mqtt_port, tls=context, timeout_s=5
    )
