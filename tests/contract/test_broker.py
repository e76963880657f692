"""What both sides rely on of a broker: run against mosquitto and against the fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest

from agent.base.broker import Address, Message, Session, connect
from agent.wire.errors import LinkDown, Refused
from fakes.broker import FakeBroker, lichen_rule
from support.broker import Mosquitto, mosquitto

ALICE, BOB = "a" * 16, "b" * 16
UP = f"lichen/v1/{ALICE}/up/readings"


class Broker(Protocol):
    """A broker that tests can treat badly."""

    def connect(self, client: str, **options: Any) -> AbstractAsyncContextManager[Session]: ...
    def kill(self) -> None: ...
    async def start(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


class Fake:
    def __init__(self) -> None:
        self.broker = FakeBroker(allow=lichen_rule)
        self.kill, self.freeze, self.thaw = self.broker.kill, self.broker.freeze, self.broker.thaw

    def connect(self, client: str, **options: Any) -> AbstractAsyncContextManager[Session]:
        return self.broker.connect(Address(client, host="fake", username=client, **options))

    async def start(self) -> None:
        self.broker.start()


class Real:
    def __init__(self, process: Mosquitto) -> None:
        self.process = process
        self.kill, self.freeze, self.thaw = process.kill, process.freeze, process.thaw
        self.start = process.start

    def connect(self, client: str, **options: Any) -> AbstractAsyncContextManager[Session]:
        address = Address(client, host="127.0.0.1", port=self.process.port, username=client, **options)
        return connect(address)


@pytest.fixture(params=["fake", "mosquitto"])
async def broker(request: pytest.FixtureRequest, short_path: Path) -> AsyncIterator[Broker]:
    if request.param == "fake":
        yield Fake()
    else:
        async with mosquitto(short_path) as process:
            yield Real(process)


async def take(session: Session, count: int = 1) -> list[Message]:
    """The next messages."""
    found: list[Message] = []
    async with asyncio.timeout(5):
        async for message in session.messages():
            found.append(message)
            if len(found) == count:
                return found
    raise AssertionError("messages() ended by itself")


async def until_down(session: Session) -> None:
    """Read until the link has ended."""
    with pytest.raises(LinkDown):
        async for _ in session.messages():
            pass


# --- messages ----------------------------------------------------------------------------------


async def test_a_message_reaches_who_asked_for_it(broker: Broker) -> None:
    async with broker.connect("hub") as hub, broker.connect(ALICE) as alice:
        await hub.subscribe("lichen/v1/+/up/#")
        await alice.publish(Message(UP, b"21.5", content_type="application/json"))
        assert await take(hub) == [Message(UP, b"21.5", content_type="application/json")]


async def test_many_publishes_at_once_keep_their_order(broker: Broker) -> None:
    async with broker.connect("hub") as hub, broker.connect(ALICE) as alice:
        await hub.subscribe(UP)
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(alice.publish(Message(UP, b"%d" % number)), name=f"publish {number}")
        assert [int(message.payload) for message in await take(hub, 200)] == list(range(200))


async def test_topics_said_again_are_the_same_topics(broker: Broker) -> None:
    # More of them than a broker gives numbers for (MQTT 5.0, section 3.3.2.3.4).
    topics = [f"{UP}/{number}" for number in range(12)]
    async with broker.connect("hub") as hub, broker.connect(ALICE) as alice:
        await hub.subscribe("lichen/v1/+/up/#")
        for number in range(3):
            for topic in topics:
                await alice.publish(Message(topic, b"%d" % number))
        came = await take(hub, 36)
    assert [(message.topic, message.payload) for message in came] == [
        (topic, b"%d" % number) for number in range(3) for topic in topics
    ]


async def test_a_late_subscriber_gets_what_is_retained(broker: Broker) -> None:
    async with broker.connect(ALICE) as alice:
        await alice.publish(Message(UP, b"old", retain=True))
        await alice.publish(Message(UP, b"new", retain=True))
    async with broker.connect("hub") as hub:
        await hub.subscribe(UP)
        [message] = await take(hub)
        assert (message.payload, message.retain) == (b"new", True)
        await hub.publish(Message(UP, b"live", retain=True))
        [message] = await take(hub)
        assert (message.payload, message.retain) == (b"live", False)


async def test_an_empty_payload_removes_what_is_retained(broker: Broker) -> None:
    async with broker.connect("hub") as hub:
        await hub.publish(Message("open/x", b"here", retain=True))
        await hub.publish(Message("open/x", b"", retain=True))
        await hub.subscribe("open/#")
        await hub.publish(Message("open/y", b"only this"))
        assert [message.topic for message in await take(hub)] == ["open/y"]


async def test_a_session_that_is_kept_misses_nothing_while_away(broker: Broker) -> None:
    async with broker.connect("hub", clean_start=False, session_expiry_s=60) as hub:
        await hub.subscribe("lichen/v1/+/up/#")
    async with broker.connect(ALICE) as alice:
        await alice.publish(Message(UP, b"while away"))
    async with broker.connect("hub", clean_start=False, session_expiry_s=60) as hub:
        assert [message.payload for message in await take(hub)] == [b"while away"]


async def test_a_clean_start_forgets(broker: Broker) -> None:
    async with broker.connect("hub", clean_start=False, session_expiry_s=60) as hub:
        await hub.subscribe("open/#")
    async with broker.connect("hub") as hub:
        await hub.publish(Message("open/x", b"not asked for any more"))
        await hub.subscribe("open/y")
        await hub.publish(Message("open/y", b"asked for"))
        assert [message.payload for message in await take(hub)] == [b"asked for"]


async def test_what_travels_is_counted_and_stays_known_after_the_end(broker: Broker) -> None:
    async with broker.connect("hub") as hub, broker.connect(ALICE) as alice:
        await hub.subscribe(UP)
        sent, received = alice.traffic()
        for _ in range(3):
            await alice.publish(Message(UP, b"x" * 5000))
        await take(hub, 3)
        assert 15_000 <= alice.traffic()[0] - sent < 18_000
        assert alice.traffic()[1] - received < 1500  # acknowledgements
        assert hub.traffic()[1] >= 15_000
        broker.kill()
        await until_down(alice)
    assert alice.traffic()[0] - sent >= 15_000


# --- access ------------------------------------------------------------------------------------


async def test_a_denied_publish_is_refused_and_the_session_goes_on(broker: Broker) -> None:
    async with broker.connect("hub") as hub, broker.connect(ALICE) as alice:
        await hub.subscribe("lichen/v1/+/up/#")
        with pytest.raises(Refused) as caught:
            await alice.publish(Message(f"lichen/v1/{BOB}/up/readings", b"forged"))
        assert caught.value.code == "forbidden"
        assert f"lichen/v1/{BOB}/up/readings" in str(caught.value)
        await alice.publish(Message(UP, b"own"))
        assert [message.payload for message in await take(hub)] == [b"own"]


async def test_a_denied_subscription_gets_nothing(broker: Broker) -> None:
    async with broker.connect("hub") as hub, broker.connect(ALICE) as alice:
        await alice.subscribe(f"lichen/v1/{BOB}/down/#", f"lichen/v1/{ALICE}/down/#")
        await hub.publish(Message(f"lichen/v1/{BOB}/down/ack", b"for bob"))
        await hub.publish(Message(f"lichen/v1/{ALICE}/down/ack", b"for alice"))
        assert [message.payload for message in await take(alice)] == [b"for alice"]


# --- leaving -----------------------------------------------------------------------------------

WILL = Message("open/will", b"lost", retain=True)


async def test_leaving_by_an_exception_publishes_the_will(broker: Broker) -> None:
    async with broker.connect("hub") as hub:
        await hub.subscribe("open/#")
        with pytest.raises(ZeroDivisionError):
            async with broker.connect(ALICE, will=WILL):
                raise ZeroDivisionError
        assert [message.payload for message in await take(hub)] == [b"lost"]


async def test_leaving_in_peace_does_not(broker: Broker) -> None:
    async with broker.connect("hub") as hub:
        await hub.subscribe("open/#")
        async with broker.connect(ALICE, will=WILL) as alice:
            await alice.subscribe("open/#")
            await alice.publish(Message("open/x", b"unread by alice"))
        async with asyncio.TaskGroup() as group:
            is_in = asyncio.Event()

            async def stay() -> None:
                async with broker.connect(BOB, will=WILL):
                    is_in.set()
                    await asyncio.Event().wait()

            staying = group.create_task(stay(), name="stay")
            await is_in.wait()
            staying.cancel()
        await hub.publish(Message("open/end", b""))
        assert [message.topic for message in await take(hub, 2)] == ["open/x", "open/end"]


async def test_a_will_that_waits_is_forgotten_when_the_client_comes_back(broker: Broker) -> None:
    options = {"will": WILL, "will_delay_s": 30, "session_expiry_s": 60, "clean_start": False}
    async with broker.connect("hub") as hub:
        await hub.subscribe("open/#")
        with pytest.raises(ZeroDivisionError):
            async with broker.connect(ALICE, **options):
                raise ZeroDivisionError
        async with broker.connect(ALICE, **options) as alice:
            await alice.publish(Message("open/back", b""))
        assert [message.topic for message in await take(hub)] == ["open/back"]


# --- losing the link -----------------------------------------------------------------------------


async def test_a_client_with_the_same_id_takes_over(broker: Broker) -> None:
    async with broker.connect(ALICE) as first, broker.connect(ALICE) as second:
        async with asyncio.timeout(5):
            await until_down(first)
        await second.publish(Message("open/x", b"still here"))


async def test_what_arrived_before_the_end_is_given_out_first(broker: Broker) -> None:
    async with broker.connect("hub") as hub:
        await hub.subscribe("open/#")
        await hub.publish(Message("open/x", b"1"))
        await hub.publish(Message("open/x", b"2"))
        await take(hub)  # so the other one has arrived, too
        broker.kill()
        assert [message.payload for message in await take(hub)] == [b"2"]
        await until_down(hub)


async def test_a_killed_broker_is_noticed_at_once(broker: Broker) -> None:
    async with asyncio.timeout(5), broker.connect(ALICE, timeout_s=30) as alice:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(until_down(alice), name="read")
            await alice.publish(Message("open/x", b""))
            broker.kill()
        assert reading.done()
        with pytest.raises(LinkDown):
            await alice.publish(Message("open/x", b""))
        with pytest.raises(LinkDown):
            await alice.subscribe("open/#")
    with pytest.raises(LinkDown):
        async with broker.connect(ALICE):
            pass
    await broker.start()
    async with broker.connect(ALICE) as alice:
        await alice.publish(Message("open/x", b""))


async def test_a_frozen_broker_is_noticed_by_a_publish(broker: Broker) -> None:
    async with broker.connect(ALICE, timeout_s=0.2) as alice:
        broker.freeze()
        with pytest.raises(LinkDown, match=r"within 0\.2 s"):
            await alice.publish(Message("open/x", b""))
        with pytest.raises(LinkDown):
            await alice.subscribe("open/x")
        with pytest.raises(LinkDown):
            async with broker.connect(BOB, timeout_s=0.2):
                pass
        broker.thaw()
    async with broker.connect(ALICE) as alice:
        await alice.publish(Message("open/x", b""))


@pytest.mark.slow
async def test_a_frozen_broker_is_noticed_by_a_reader(broker: Broker) -> None:
    async with asyncio.timeout(10), broker.connect(ALICE, keepalive_s=1) as alice:
        broker.freeze()
        await until_down(alice)
        broker.thaw()


async def test_publishes_that_wait_fail_as_soon_as_the_link_does(broker: Broker) -> None:
    failed = []

    async def publish(session: Session) -> None:
        try:
            await session.publish(Message("open/x", b"x"))
        except LinkDown as error:
            failed.append(error)

    async with asyncio.timeout(5), broker.connect(ALICE, timeout_s=30) as alice:
        broker.freeze()
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(publish(alice), name=f"publish {number}")
            await asyncio.sleep(0)
            broker.kill()
    assert len(failed) == 100


async def test_a_cancelled_publish_harms_no_other(broker: Broker) -> None:
    async with broker.connect(ALICE) as alice:
        broker.freeze()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(alice.publish(Message("open/x", b"1")), name="first")
            second = group.create_task(alice.publish(Message("open/x", b"2")), name="second")
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.sleep(0)
            broker.thaw()
        assert first.cancelled()
        assert second.done()
