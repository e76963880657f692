"""A board that is put out, with a real agent and a real broker: at once, on every path, and for good."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.base.broker import Address, Message, connect
from agent.wire import topics
from agent.wire.errors import LinkDown, Refused
from agent.wire.joining import RenewRequest
from support.applicant import Applicant, address, ask, csr_pem, join, join_file
from support.lab import Board, Lab

pytestmark = pytest.mark.slow

FAST = {
    "sensors": [
        {"name": "load", "kind": "file", "path": "/proc/loadavg", "pattern": r"^(\S+)", "interval_s": 0.2}
    ],
    "report": {"every_s": 0.5, "commit_every_s": 0.5},
    "link": {"backoff_low_s": 0.05, "backoff_high_s": 0.2},
}


@pytest.fixture
async def lab(short_path: Path) -> AsyncIterator[Lab]:
    async with Lab(short_path) as lab:
        await lab.start_hub()
        yield lab


async def kept(lab: Lab, board: str) -> list[str]:
    """The topics of a board under which the hub's broker keeps a message."""
    socket = Address("looker", unix=lab.hub_dir / "broker" / "broker.sock", username="hub")
    async with connect(socket) as session, asyncio.timeout(5):
        await session.subscribe(f"lichen/v1/{board}/#")
        marker = Message(topics.down(board, "time"), b"the end")
        await session.publish(marker)
        found: list[str] = []
        async for message in session.messages():
            if message.topic == marker.topic:
                return sorted(found)
            found.append(message.topic)
    raise AssertionError("unreachable")


async def stays_out(lab: Lab, board: Applicant, certificate_pem: str) -> None:
    """Every way in is closed: broker, renewal by either means, any request, joining again."""
    at = address(lab, board, certificate_pem)
    with pytest.raises(Refused) as caught:
        async with connect(at):
            pass
    assert caught.value.code == "certificate"
    for method, path in (("GET", "/healthz"), ("GET", "/ca.pem"), ("POST", "/renew")):
        body = RenewRequest(csr_pem(board.tls_key)) if method == "POST" else None
        assert await refusal(lab, method, path, body, shows=at.tls) == (403, "revoked")
    _, drawn = await ask(lab, "GET", "/renew")
    hub = (await lab.api("GET", "/hub"))["id"]
    assert await refusal(lab, "POST", "/renew", board.renewal(hub, drawn["challenge"])) == (403, "revoked")
    again = board.request(await join_file(lab))
    assert await refusal(lab, "POST", "/join", again) == (403, "revoked")


async def refusal(
    lab: Lab, method: str, path: str, body: object = None, **options: object
) -> tuple[int, str]:
    status, problem = await ask(lab, method, path, body, **options)  # type: ignore[arg-type]
    return status, str(problem["type"]).rpartition(":")[2]


async def restart_broker(lab: Lab) -> None:
    """Kill mosquitto, the hub's child, and wait for the next."""
    met = lab.hub.tail(10_000).count("broker connected")
    os.kill(broker_pid(lab), signal.SIGKILL)
    await lab.until(lambda: lab.hub.tail(10_000).count("broker connected") > met, "another broker is there")


def broker_pid(lab: Lab) -> int:
    children = Path(f"/proc/{lab.hub.pid}/task/{lab.hub.pid}/children").read_text().split()
    return int(children[0]) if children else 0


async def test_an_agent_is_out_within_two_seconds_and_its_topics_are_empty(lab: Lab) -> None:
    pump: Board = await lab.add_board("pump", **FAST)
    await pump.start()
    await lab.until(lambda: pump.joined and pump.stored() > 0, "a reading is stored")
    assert {topic.rpartition("/")[2] for topic in await kept(lab, pump.id)} >= {"about", "ack", "presence"}

    began_s = time.monotonic()
    await lab.api("POST", "/boards/pump/revoke")
    await lab.until(lambda: "link is down" in pump.tail(400), "the session is cut", within_s=2)
    assert time.monotonic() - began_s < 2
    await lab.until(lambda: "certificate" in pump.tail(3), "it is refused")
    stored = pump.stored()
    await lab.until(lambda: emptied(lab, pump.id), "nothing is retained", within_s=2)
    await restart_broker(lab)
    assert await kept(lab, pump.id) == []
    assert pump.stored() == stored
    row = await lab.api("GET", "/boards/pump")
    assert row["revoked_ms"]
    events = (await lab.api("GET", "/boards/pump/events"))["events"]
    assert events[0]["kind"] == "revoked"
    assert pump.running  # it goes on measuring: whoever is in front of it may give it new keys


async def emptied(lab: Lab, board: str) -> bool:
    return await kept(lab, board) == []


async def test_it_stays_out_through_restarts_of_broker_and_hub(lab: Lab) -> None:
    board = Applicant()
    _, joined = await join(lab, board.request(await join_file(lab)))
    async with connect(address(lab, board, joined["certificate_pem"])) as session:
        await lab.api("POST", f"/boards/{board.board}/revoke")
        with pytest.raises(LinkDown):
            async with asyncio.timeout(2):
                await anext(session.messages())
    await stays_out(lab, board, joined["certificate_pem"])
    await restart_broker(lab)
    await stays_out(lab, board, joined["certificate_pem"])
    await lab.hub.kill()
    await lab.start_hub()
    await stays_out(lab, board, joined["certificate_pem"])
    await lab.api("POST", f"/boards/{board.board}/revoke")  # twice is once


async def test_a_revocation_that_a_crash_cut_short_is_whole_after_the_start(lab: Lab) -> None:
    board, other = Applicant(), Applicant()
    _, joined = await join(lab, board.request(await join_file(lab)))
    _, others = await join(lab, other.request(await join_file(lab)))
    async with connect(address(lab, board, joined["certificate_pem"])) as session:
        await session.publish(Message(topics.up(board.board, "presence"), b"{}", retain=True))
    assert await kept(lab, board.board) == [topics.up(board.board, "presence")]
    await lab.hub.stop()
    # As after a kill right behind the commit: nothing but the row says so.
    with closing(sqlite3.connect(lab.hub_dir / "hub.db")) as database, database:
        database.execute("UPDATE boards SET revoked_ms = 1 WHERE id = ?", (board.board,))
    await lab.start_hub()
    await lab.until(lambda: emptied(lab, board.board), "nothing is retained", within_s=5)
    await stays_out(lab, board, joined["certificate_pem"])
    async with connect(address(lab, other, others["certificate_pem"])):
        pass


async def test_the_old_board_is_out_when_the_new_one_joins(lab: Lab) -> None:
    old, new = Applicant(), Applicant()
    _, joined = await join(lab, old.request(await join_file(lab, name="pump", labels={"site": "north"})))
    file = await join_file(lab, replaces="pump")
    async with connect(address(lab, old, joined["certificate_pem"])) as session:
        _, answer = await join(lab, new.request(file))
        assert answer["name"] == "pump"
        with pytest.raises(LinkDown):
            async with asyncio.timeout(2):
                await anext(session.messages())
    await stays_out(lab, old, joined["certificate_pem"])
    [row] = (await lab.api("GET", "/boards"))["boards"]
    assert (row["id"], row["labels"]) == (new.board, {"site": "north"})
    [token] = [row for row in (await lab.api("GET", "/tokens"))["tokens"] if "replaces" in row]
    assert (token["replaces"], token["state"]) == (old.board, "used")
