"""The hub as a process: made, started, stopped, killed, started twice, moved."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import tomli_w
from cryptography import x509

from agent.base import broker
from agent.wire import note, topics
from agent.wire.joining import HubDocument
from agent.wire.messages import read_text
from support.applicant import Applicant, address, join, join_file
from support.lab import Lab, Process, script

pytestmark = pytest.mark.slow


@pytest.fixture
async def lab(short_path: Path) -> AsyncIterator[Lab]:
    async with Lab(short_path, typed=True) as lab:
        yield lab


# --- made ------------------------------------------------------------------------------------------------


async def test_a_hub_is_made_once_and_readable_by_nobody_else(lab: Lab) -> None:
    modes = {path: path.stat().st_mode & 0o777 for path in lab.hub_dir.rglob("*")}
    assert [path for path, mode in modes.items() if mode & 0o077] == []
    assert lab.hub_dir.stat().st_mode & 0o777 == 0o700
    keys = (lab.hub_dir / "keys" / "root.key").read_text()
    await lab.command("lichen-hub", "init", str(lab.hub_dir), status=78)
    assert (lab.hub_dir / "keys" / "root.key").read_text() == keys


async def test_init_without_a_terminal_makes_a_password_and_says_what_is_next(short_path: Path) -> None:
    made = short_path / "second"
    said = await Lab(short_path).command("lichen-hub", "init", str(made), "--name", "south")
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
async def test_an_init_that_cannot_be_leaves_nothing_behind(
    short_path: Path, options: list[str], words: str
) -> None:
    made = short_path / "second"
    child = await asyncio.create_subprocess_exec(
        script("lichen-hub"), "init", str(made), *options,
        stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, error = await child.communicate()
    assert child.returncode == 78
    assert words in error.decode()
    assert not made.exists()


async def test_the_config_command_reads_what_init_wrote(lab: Lab) -> None:
    await lab.command("lichen-hub", "login-link", "--dir", str(lab.hub_dir), "--admin", "adnim", status=78)
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
