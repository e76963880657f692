"""A board that goes on beyond its limits, at the hub's real broker: out at once, and back in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.base.broker import Address, Message, connect
from agent.wire import topics
from agent.wire.errors import LinkDown, Refused
from hub.config import Limits
from hub.fleet.latest import Latest
from hub.fleet.limits import Allowances
from hub.fleet.mosquitto import HUB_USER, Mosquitto
from hub.fleet.throttle import Throttle
from hub.store.database import Store
from support.boards import ALICE, BOB, Certified, broker_settings, certify, new_authority
from support.broker import free_port
from support.ingest import new_alerts

pytestmark = pytest.mark.slow


class House:
    """A broker, and the hub's ear on it that lets 20 messages at once and 2 a second pass."""

    def __init__(self, broker: Mosquitto, latest: Latest, throttle: Throttle, allowances: Allowances) -> None:
        self.broker, self.latest, self.throttle, self.allowances = broker, latest, throttle, allowances
        self.passed: dict[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[tuple[House, Certified, Certified]]:
        authority = new_authority(folder / "ca")
        broker = Mosquitto(broker_settings(authority, folder / "broker", free_port()))
        alice, bob = (certify(authority, who, folder) for who in (ALICE, BOB))
        async with Store.open(folder / "hub.db") as store, asyncio.TaskGroup() as tasks:
            latest = Latest()
            for who in (ALICE, BOB):
                latest.heard(who, 1)
            alerts = new_alerts(store, latest, lambda: time.time_ns() // 1_000_000)
            allowances = Allowances(Limits(messages_per_s=2), time.monotonic, patience_s=2)
            throttle = Throttle(allowances, alerts, deny=broker.throttle, out_s=3)
            house = cls(broker, latest, throttle, allowances)
            running = [tasks.create_task(broker.run(), name="broker")]
            await broker.wait_ready()
            running.append(tasks.create_task(house._listen(), name="hub"))
            yield house, alice, bob
            for task in running:
                task.cancel()

    async def _listen(self) -> None:
        address = Address("hub-ingest", unix=self.broker.settings.socket, username=HUB_USER)
        async with connect(address) as session, asyncio.TaskGroup() as tasks:
            await session.subscribe(topics.up_all())
            tasks.create_task(self.throttle.run(connect, address), name="throttle")
            async for message in session.messages():
                board = topics.parse(message.topic).board
                if self.allowances.admit(board, len(message.payload)):
                    self.passed[board] = self.passed.get(board, 0) + 1

    def address(self, who: Certified, id: str) -> Address:
        settings = self.broker.settings
        return Address(id, host="127.0.0.1", port=settings.port, tls=who.context(settings.ca), timeout_s=5)


def reading(board: str) -> Message:
    return Message(topics.up(board, "readings"), b"{}")


async def test_out_at_once_and_back_when_it_is_over(short_path: Path) -> None:
    async with House.open(short_path) as (house, alice, bob), connect(house.address(bob, BOB)) as other:
        with pytest.raises((LinkDown, Refused)):
            await flood(house, alice)
        assert await refusal(house, alice) == "forbidden", "it comes in, and may do nothing"
        await other.publish(reading(BOB))
        assert [each.code for each in house.latest.boards[ALICE].seen] == ["limits-exceeded"]
        assert house.latest.boards[BOB].seen == ()
        before = house.passed[ALICE]
        async with asyncio.timeout(15):
            while await refusal(house, alice) == "forbidden":
                await asyncio.sleep(0.1)
            while house.passed[ALICE] == before:
                await asyncio.sleep(0.05)
        assert house.passed[BOB] == 1


async def flood(house: House, who: Certified) -> None:
    """Send, as Alice's board, until somebody ends it."""
    async with connect(house.address(who, ALICE)) as session, asyncio.timeout(15):
        while True:
            await session.publish(reading(ALICE))


async def refusal(house: House, who: Certified) -> str:
    """Why a reading of Alice's board is not taken; empty when it is."""
    try:
        async with connect(house.address(who, ALICE)) as session:
            await session.publish(reading(ALICE))
    except (LinkDown, Refused) as error:
        return error.code
    return ""
