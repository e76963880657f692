"""New keys for a hub, with a real agent that has to change over; and another password for an admin."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.base.broker import Address, Message, connect
from agent.wire import note, topics
from agent.wire.decode import decode_json
from agent.wire.messages import Command, Reply, compose
from hub.access.keys import ROLES, Keyring, read_document
from hub.rotation import SIGNAL
from support.lab import PASSWORD, Board, Lab

pytestmark = pytest.mark.slow

FAST = {
    "sensors": [],
    "report": {"every_s": 0.5, "commit_every_s": 0.5},
    "link": {"backoff_low_s": 0.05, "backoff_high_s": 0.2},
}


@pytest.fixture
async def lab(short_path: Path) -> AsyncIterator[Lab]:
    async with Lab(short_path) as lab:
        await lab.start_hub()
        yield lab


def keys_of(lab: Lab) -> Keyring:
    return Keyring.load(lab.hub_dir / "keys")


def number(lab: Lab) -> int:
    document = read_document(lab.hub_dir / "keys", keys_of(lab))
    assert document is not None
    return document.number


async def rotate(lab: Lab, *words: str, status: int = 0) -> str:
    return await lab.command("lichen-hub", "keys", "rotate", "--dir", str(lab.hub_dir), *words, status=status)


class Voice:
    """Commands to a board on the hub's own socket, each with a signer of the test's choice."""

    def __init__(self, lab: Lab, board: Board) -> None:
        self.lab, self.board = lab, board
        self.ids = (f"c{count}" for count in itertools.count())

    async def ping(self, signer: note.Signer, then: note.Signer) -> list[tuple[str, str]]:
        """Send a ping signed by ``signer``, one signed by ``then``, and return who was answered how."""
        [(nonce,)] = self.lab.ask(
            self.lab.hub_dir / "hub.db", "SELECT nonce FROM boards WHERE id = ?", self.board.id
        )
        at = Address("voice", unix=self.lab.hub_dir / "broker" / "broker.sock", username="hub")
        names = {next(self.ids): "first", next(self.ids): "then"}
        async with connect(at) as session:
            await session.subscribe(topics.up(self.board.id, "reply", "x").removesuffix("x") + "+")
            for id, key in zip(names, (signer, then), strict=True):
                command = Command(id, self.board.id, nonce, "ping", time.time_ns() // 1_000_000)
                text = note.sign(compose("command", command), key)
                await session.publish(Message(topics.down(self.board.id, "command"), text.encode()))
            heard: list[tuple[str, str]] = []
            async for message in session.messages():
                reply = decode_json(Reply, message.payload, max_bytes=10_000)
                heard.append((names[reply.id], reply.status))
                if names[reply.id] == "then":
                    return heard
        raise AssertionError("unreachable")


async def test_a_board_takes_the_new_keys_at_once_and_no_longer_the_old(lab: Lab) -> None:
    pump = await lab.add_board("pump", **FAST)
    await pump.start()
    await lab.until(lambda: pump.joined and online(lab), "it is online")
    before, first = keys_of(lab), number(lab)
    voice = Voice(lab, pump)
    assert await voice.ping(before.command, before.command) == [("first", "done"), ("then", "done")]

    assert f"number {first + 1} now" in await rotate(lab)
    await lab.until(lambda: "hub document replaced" in pump.tail(100), "the board has heard")
    after = keys_of(lab)
    assert after.root == before.root
    assert all(getattr(after, role) != getattr(before, role) for role in ROLES)
    assert await voice.ping(before.command, after.command) == [("then", "done")]
    assert "message not taken" in pump.tail(100)
    # A board that comes later gets the same document.
    late = await lab.add_board("late", **FAST)
    await late.start()
    await lab.until(lambda: late.joined, "it has joined")
    assert (late.state / "hub.note").read_bytes() == (lab.hub_dir / "keys" / "hub.note").read_bytes()


def online(lab: Lab) -> bool:
    return lab.ask(lab.hub_dir / "hub.db", "SELECT 1 FROM boards WHERE presence = 'online'") != []


async def test_one_role_is_rotated_alone_and_the_root_never(lab: Lab) -> None:
    before, first = keys_of(lab), number(lab)
    await rotate(lab, "--role", "time")
    after = keys_of(lab)
    assert [role for role in ROLES if getattr(after, role) != getattr(before, role)] == ["time"]
    assert number(lab) == first + 1
    await rotate(lab, "--role", "root", status=78)
    assert keys_of(lab) == after


async def test_a_board_that_is_away_and_a_hub_that_is_not_running(lab: Lab) -> None:
    pump = await lab.add_board("pump", **FAST)
    await pump.start()
    await lab.until(lambda: pump.joined and online(lab), "it is online")
    await pump.stop()
    await lab.hub.stop()
    before, first = keys_of(lab), number(lab)
    assert "next start" in await rotate(lab)
    assert number(lab) == first
    await lab.start_hub()
    assert number(lab) == first + 1
    await pump.start()
    await lab.until(lambda: "hub document replaced" in pump.tail(100), "the board has heard")
    await lab.until(lambda: online(lab), "it is online")
    assert await Voice(lab, pump).ping(before.command, keys_of(lab).command) == [("then", "done")]


async def test_keys_that_cannot_be_read_leave_the_hub_as_it_is(lab: Lab) -> None:
    (lab.hub_dir / "keys" / "time.key").write_text("nonsense")
    assert lab.hub.child is not None
    lab.hub.child.send_signal(SIGNAL)
    await lab.until(lambda: "new keys not taken" in lab.hub.tail(), "it says so")
    assert await lab.healthy()
    assert lab.hub.child.returncode is None
    await lab.hub.stop(signal.SIGTERM)


async def test_an_admin_gets_another_password(lab: Lab) -> None:
    file = lab.dir / "new-password"
    file.write_text("a horse of another colour\n")
    hub = ("--dir", str(lab.hub_dir))
    said = await lab.command("lichen-hub", "passwd", *hub, "--password-file", str(file))
    assert "is changed" in said
    await lab.api("POST", "/login", json={"name": "admin", "password": "a horse of another colour"})
    with pytest.raises(AssertionError, match="do not belong together"):
        await lab.api("POST", "/login", json={"name": "admin", "password": PASSWORD})
    await lab.command("lichen-hub", "passwd", *hub, "--admin", "nobody", status=78)
