"""What the fake broker does over time; what it has in common with mosquitto is a contract test."""

from __future__ import annotations

import asyncio

import pytest

from agent.base.broker import Address, Message, Session
from agent.wire.errors import LinkDown
from fakes.broker import FakeBroker
from support.virtual import virtual

WILL = Message("open/will", b"lost")


def at() -> float:
    return asyncio.get_running_loop().time()


async def when(session: Session) -> float:
    """When the next message arrives."""
    await anext(session.messages())
    return at()


@virtual
async def test_a_will_goes_out_after_its_delay() -> None:
    broker = FakeBroker()
    board = Address("board", will=WILL, will_delay_s=30, session_expiry_s=60)
    async with broker.connect(Address("hub")) as hub:
        await hub.subscribe("open/#")
        async with broker.connect(board):
            broker.cut("board")
            assert broker.connected == {"hub"}
            assert await when(hub) == 30


@virtual
async def test_a_will_does_not_outlast_its_session() -> None:
    broker = FakeBroker()
    async with broker.connect(Address("hub")) as hub:
        await hub.subscribe("open/#")
        async with broker.connect(Address("board", will=WILL, will_delay_s=30)):
            broker.cut("board")
            assert await when(hub) == 0


@virtual
async def test_a_message_for_somebody_who_is_away_expires() -> None:
    broker = FakeBroker()
    kept = Address("hub", clean_start=False, session_expiry_s=3600)
    async with broker.connect(kept) as hub:
        await hub.subscribe("open/#")
    broker.publish(Message("open/x", b"short", expiry_s=10))
    broker.publish(Message("open/x", b"long", expiry_s=60))
    await asyncio.sleep(30)
    async with broker.connect(kept) as hub:
        assert (await anext(hub.messages())).payload == b"long"


@virtual
async def test_a_session_ends_with_its_expiry() -> None:
    broker = FakeBroker()
    kept = Address("hub", clean_start=False, session_expiry_s=60)
    async with broker.connect(kept) as hub:
        await hub.subscribe("open/#")
    await asyncio.sleep(61)
    async with broker.connect(kept) as hub:
        broker.publish(Message("open/x", b"nobody asked"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await when(hub)


@virtual
async def test_a_frozen_broker_is_noticed_after_two_keepalives() -> None:
    broker = FakeBroker()
    async with broker.connect(Address("board", keepalive_s=90)) as board:
        broker.freeze()
        with pytest.raises(LinkDown, match="within 10 s"):
            await board.publish(Message("open/x", b""))
        assert at() == 10
        with pytest.raises(LinkDown, match="has not answered for 90 s"):
            await when(board)
        assert at() == 180


@virtual
async def test_one_that_thaws_in_time_goes_on() -> None:
    broker = FakeBroker()
    async with broker.connect(Address("board", keepalive_s=90)) as board:
        await board.subscribe("open/#")
        broker.freeze()
        asyncio.get_running_loop().call_later(5, broker.thaw)
        await board.publish(Message("open/x", b""))
        assert await when(board) == 5
