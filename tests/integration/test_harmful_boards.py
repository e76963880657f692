"""Boards that have joined and do harm, with real processes: they are named, and others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import uuid
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.base.broker import Message, connect
from agent.clock import BOOT_ID
from agent.wire import topics
from agent.wire.envelope import MAX_PAYLOAD, ZLIB_JSON
from agent.wire.errors import Refused
from bench import packets
from support.applicant import Applicant, address, join, join_file
from support.lab import Board, Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FAST = {
    "report": {"every_s": 0.2, "commit_every_s": 0.1},
    "link": {"backoff_low_s": 0.05, "backoff_high_s": 0.5},
    "sensors": [
        {"name": "load", "kind": "file", "path": "/proc/loadavg", "pattern": r"^(\S+)", "interval_s": 0.1}
    ],
}


@pytest.fixture
async def lab(short_path: Path) -> AsyncIterator[Lab]:
    async with Lab(short_path) as lab:
        await lab.start_hub()
        yield lab


async def problems(lab: Lab) -> dict[tuple[str, str], dict[str, Any]]:
    """What is open at the hub, by board and code."""
    answer = await lab.api("GET", "/problems")
    return {(each["board"], each["code"]): each for each in answer["problems"]}


async def refused(lab: Lab) -> int:
    """How many messages the hub says it has refused."""
    headers = {"Authorization": f"Bearer {lab.api_token}"}
    async with aiohttp.ClientSession(headers=headers) as http, http.get(f"{lab.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("lichen_refused_total"))


async def honest(lab: Lab) -> Board:
    board = await lab.add_board("honest", **FAST)
    await board.start()
    await lab.until(lambda: board.joined and board.stored() > 0, "the first reading is stored")
    return board


def harmful(board: str, other: str) -> list[Message]:
    """What no agent sends: garbage, oversized, nested, a bomb, another's about, and no topic of ours."""
    topic = topics.up(board, "readings")
    about = json.dumps({"board": other, "version": "", "log_key": "", "seal_key": ""}).encode()
    return [
        Message(topic, b"\x00\xff garbage"),
        Message(topic, b" " * MAX_PAYLOAD),
        Message(topic, zlib.compress(b'{"held":' + b"[" * 500_000), content_type=ZLIB_JSON),
        Message(topic, zlib.compress(bytes(64 * 2**20), 9), content_type=ZLIB_JSON),
        Message(topics.up(board, "about"), about, retain=True),
        Message(f"{topic}/nonsense", b"{}"),
    ]


async def test_harmful_messages_name_their_board_and_cost_others_nothing(lab: Lab) -> None:
    board, wild = await honest(lab), Applicant()
    _, joined = await join(lab, wild.request(await join_file(lab, name="wild")))
    before = board.stored()
    async with connect(address(lab, wild, joined["certificate_pem"])) as session:
        sent = harmful(wild.board, board.id)
        for message in sent:
            await session.publish(message)
        with pytest.raises(Refused):  # the broker lets nobody write for another
            await session.publish(replace(sent[0], topic=topics.up(board.id, "readings")))
        await lab.until(lambda: counted(lab, len(sent)), "each is counted")
    await lab.until(lambda: board.stored() > before + 20, "others go on")
    found = await problems(lab)
    assert (wild.board, "messages-refused") in found
    assert {who for who, _ in found} == {wild.board}
    assert await refused(lab) == len(sent)


async def counted(lab: Lab, count: int) -> bool:
    return await refused(lab) >= count


WILD: dict[str, tuple[Callable[[str], bytes], str]] = {
    "too large": (lambda topic: packets.publish(1, topic, bytes(2 * MAX_PAYLOAD), ""), "over the limit of"),
    "no MQTT": (lambda topic: b"\xf7" * 100, "no MQTT"),
}


@pytest.mark.parametrize("what", WILD)
async def test_who_is_cut_off_by_the_broker_is_named_too(lab: Lab, what: str) -> None:
    """What the broker does not take never comes to ingest."""
    make, says = WILD[what]
    wild = Applicant()
    _, joined = await join(lab, wild.request(await join_file(lab, name="wild")))
    at = address(lab, wild, joined["certificate_pem"])
    reader, writer = await asyncio.open_connection(at.host, at.port, ssl=at.tls, server_hostname=at.host)
    writer.write(packets.connect(wild.board))
    await reader.readexactly(2)
    writer.write(make(topics.up(wild.board, "readings")))
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            while await reader.read(1000):
                pass
    writer.close()
    await lab.until(lambda: is_named(lab, wild.board, says), "the board is named")
    assert await refused(lab) == 1


async def is_named(lab: Lab, board: str, says: str) -> bool:
    found = (await problems(lab)).get((board, "messages-refused"))
    return found is not None and says in found["sentence"]


async def test_a_card_that_was_copied_is_noticed(lab: Lab) -> None:
    """Two machines with one identity throw each other out of the broker, and both deliver."""
    board = await honest(lab)
    await board.stop()
    twin = Board(lab, "twin", FAST)
    lab.boards.append(twin)
    shutil.copytree(board.state, twin.state)
    boot = lab.dir / "boot_id"
    boot.write_text(f"{uuid.uuid4()}\n")
    elsewhere = f'mount --bind {boot} {BOOT_ID} && exec "$@"'
    twin.argv = ["unshare", "--map-root-user", "--mount", "sh", "-c", elsewhere, "sh", *twin.argv]
    await board.start()
    await twin.start()
    await lab.until(lambda: is_twice(lab, board.id), "the hub notices", within_s=30)
    found = await problems(lab)
    assert found[board.id, "identity-twice"]["severity"] == "fail"
    assert "card was copied" in found[board.id, "identity-twice"]["hint"]


async def is_twice(lab: Lab, board: str) -> bool:
    return (board, "identity-twice") in await problems(lab)
