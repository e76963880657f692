"""The MQTT edge against a broker that answers with chosen bytes: what mosquitto never does on cue."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import selectors
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.base.broker import Address, Message, Session, backoff_s, connect
from agent.wire.errors import LinkDown, Refused
from support.boards import new_authority

CONNACK = bytes.fromhex("20 03 00 00 00")
PUBLISH, PUBACK, SUBSCRIBE, PINGREQ, PINGRESP = 0x30, 0x40, 0x80, 0xC0, 0xD0

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next packet: the type in its upper four bits, and its body (MQTT 5.0, section 2.1)."""
    [kind] = await reader.readexactly(1)
    length, shift = 0, 0
    while True:
        [byte] = await reader.readexactly(1)
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return kind & 0xF0, await reader.readexactly(length)


@contextlib.asynccontextmanager
async def broker(script: Script, **options: Any) -> AsyncIterator[Address]:
    """The address of a broker that follows a script with each client, until all have left."""
    serving = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal serving
        serving += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await script(reader, writer)
        writer.close()
        serving -= 1

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Address("alice", host="127.0.0.1", port=port, **{"timeout_s": 5, **options})
    async with asyncio.timeout(5):
        while serving:
            await asyncio.sleep(0.001)


def answering(*answers: str) -> Script:
    """Read CONNECT, then send these bytes (in hexadecimal), then wait for the client to leave."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await packet(reader)
        for answer in answers:
            writer.write(bytes.fromhex(answer))
        await reader.read()

    return script


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await packet(reader)


# --- connecting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connack", "kind", "code", "words"),
    [
        ("20 03 00 87 00", Refused, "forbidden", "does not let 'alice' in: Not authorized"),
        ("20 03 00 85 00", Refused, "forbidden", "Client identifier not valid"),
        ("20 03 00 88 00", LinkDown, "link-down", "Server unavailable"),
        ("20 03 00 89 00", LinkDown, "link-down", "Server busy"),
    ],
)
async def test_a_broker_says_no(connack: str, kind: type[Exception], code: str, words: str) -> None:
    async with broker(answering(connack)) as address:
        with pytest.raises(kind, match=words) as caught:
            async with connect(address):
                pass
    assert caught.value.code == code  # type: ignore[attr-defined]


async def test_a_broker_that_hangs_up_before_it_answers_is_noticed_at_once() -> None:
    async with asyncio.timeout(2), broker(hang_up, timeout_s=60) as address:
        with pytest.raises(LinkDown, match="closed the connection"):
            async with connect(address):
                pass


async def test_a_broker_that_never_answers_is_given_up() -> None:
    async with broker(answering(), timeout_s=0.1) as address:
        with pytest.raises(LinkDown, match="does not answer"):
            async with connect(address):
                pass


async def test_a_server_without_tls_is_told() -> None:
    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await reader.read()

    async with broker(chat, tls=ssl.create_default_context()) as address:
        with pytest.raises(LinkDown, match="no TLS with") as caught:
            async with connect(address):
                pass
    assert (caught.value.code, caught.value.hint) == ("tls", "does that port speak TLS?")


async def test_a_name_that_nobody_can_look_up_is_told() -> None:
    with pytest.raises(LinkDown, match=r"failed|cannot be found"):
        async with connect(Address("alice", host="a" * 64 + ".invalid", port=1)):
            pass


async def test_whoever_is_cancelled_while_connecting_is_left_with_no_connection(tmp_path: Path) -> None:
    authority = new_authority(tmp_path / "ca")
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(1000):
                heard += chunk
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        received.set_result(heard)

    async def enter(address: Address) -> None:
        async with connect(address):
            raise AssertionError("nobody answered")

    listening = socket.create_server(("127.0.0.1", 0))
    server = await asyncio.start_server(
        listen, sock=listening, ssl=authority.server_context(), start_serving=False
    )
    async with asyncio.timeout(5), server:
        port = listening.getsockname()[1]
        tls = ssl.create_default_context(cafile=authority.folder / "ca.pem")
        async with asyncio.TaskGroup() as group:
            entering = group.create_task(
                enter(Address("alice", host="127.0.0.1", port=port, tls=tls)), name="enter"
            )
            await asyncio.sleep(0)
            entering.cancel()
        # Only now does the server shake hands.  Nothing is said any more: a CONNECT would throw out
        # the session that may have been opened meanwhile.
        await server.start_serving()
        assert await received == b""


# --- while connected -------------------------------------------------------------------------------


async def ended(address: Address) -> LinkDown:
    async with connect(address) as session:
        with pytest.raises(LinkDown) as caught:
            await anext(session.messages())
    return caught.value


async def test_being_thrown_out_is_told_with_the_reason() -> None:
    async with asyncio.timeout(5), broker(answering("20 03 00 00 00 e0 01 8e")) as address:
        error = await ended(address)
    assert error.code == "taken-over"
    assert "copied card" in error.hint
    async with asyncio.timeout(5), broker(answering("20 03 00 00 00 e0 01 8b")) as address:
        assert "Server shutting down" in str(await ended(address))


@pytest.mark.parametrize(
    "garbage",
    [
        "ff ff ff ff ff ff",  # a length that never ends
        "f0 00",  # a packet type that brokers do not send
        "30 02 00 ff",  # a topic longer than its packet
        "30 05 00 01 ff 00 00",  # a topic that is not UTF-8
        "90 02 00 01",  # a SUBACK cut short
    ],
)
async def test_bytes_that_are_not_mqtt_end_the_link(garbage: str) -> None:
    async with asyncio.timeout(5), broker(answering("20 03 00 00 00", garbage), timeout_s=1) as address:
        with pytest.raises(LinkDown):
            async with connect(address) as session:
                await anext(session.messages())


async def test_no_more_travels_at_once_than_the_broker_wants() -> None:
    travelling, most = 0, 0

    async def reluctant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal travelling, most
        await packet(reader)
        writer.write(bytes.fromhex("20 06 00 00 03 21 00 02"))  # Receive Maximum: 2
        waiting: list[bytes] = []
        while True:
            try:
                async with asyncio.timeout(0.05):
                    kind, body = await packet(reader)
            except TimeoutError:
                for number in waiting:
                    writer.write(b"\x40\x02" + number)
                travelling -= len(waiting)
                waiting.clear()
                continue
            if kind == PUBLISH:
                length = int.from_bytes(body[:2], "big")
                waiting.append(body[2 + length : 4 + length])
                travelling += 1
                most = max(most, travelling)

    async with broker(reluctant) as address, connect(address) as session, asyncio.TaskGroup() as group:
        for number in range(7):
            group.create_task(session.publish(Message("x", b"")), name=f"publish {number}")
    assert most == 2


async def test_a_subscription_fails_as_soon_as_the_link_does() -> None:
    async def end_at_subscribe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await packet(reader)
        writer.write(CONNACK)
        kind, _ = await packet(reader)
        assert kind == SUBSCRIBE

    async with (
        asyncio.timeout(2),
        broker(end_at_subscribe, timeout_s=60) as address,
        connect(address) as session,
    ):
        with pytest.raises(LinkDown, match="closed the connection"):
            await session.subscribe("x/#")


async def test_a_denied_subscription_is_refused_where_the_broker_says_so() -> None:
    async def deny(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await packet(reader)
        writer.write(CONNACK)
        _, body = await packet(reader)
        writer.write(b"\x90\x04" + body[:2] + b"\x00\x87")
        await reader.read()

    async with broker(deny) as address, connect(address) as session:
        with pytest.raises(Refused, match="the subscription to x/#: Not authorized") as caught:
            await session.subscribe("x/#")
    assert caught.value.code == "forbidden"


async def test_many_publishes_under_way_are_no_reason_to_complain(caplog: pytest.LogCaptureFixture) -> None:
    async with broker(answering("20 03 00 00 00"), timeout_s=0.1) as address, connect(address) as session:
        with pytest.RaisesGroup(*[LinkDown] * 50, flatten_subgroups=True):
            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(impatient(session), name=f"publish {number}")
    assert caplog.records == []


async def impatient(session: Session) -> None:
    try:
        await session.publish(Message("x", b""))
    except asyncio.CancelledError:
        # A sibling gave up first; for this test all have.
        raise LinkDown("cancelled") from None


# --- what it costs -----------------------------------------------------------------------------------


async def test_nothing_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with broker(answering("20 03 00 00 00")) as address, connect(address) as session:
        await session.publish(Message("x", b"", qos=0))
    async with asyncio.timeout(2):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0)
    gc.collect()  # a socket or a future that nobody closed would complain now


class Noting(selectors.DefaultSelector):  # type: ignore[valid-type,misc]
    """Notes the longest that the loop was about to sleep: until its next timer."""

    longest_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.longest_s = max(self.longest_s, math.inf if timeout is None else timeout)
        return list(super().select(timeout))


def test_an_idle_connection_sleeps() -> None:
    """aiomqtt wakes each second; half of an idle agent's processor time was that."""
    selector = Noting()

    async def main() -> None:
        async with broker(answering("20 03 00 00 00")) as address, connect(address):
            await asyncio.sleep(0.2)
            # Woken from outside, so that no timer of ours is the next one.
            woken = asyncio.Event()
            selector.longest_s = 0
            waker = threading.Timer(0.1, asyncio.get_running_loop().call_soon_threadsafe, [woken.set])
            waker.start()
            await woken.wait()
            waker.join()
            assert selector.longest_s > 20  # a quarter of the keepalive

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(main())


@pytest.mark.slow
async def test_a_link_is_pinged_when_it_is_quiet_and_not_beside_what_is_sent() -> None:
    came: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await packet(reader)
        writer.write(CONNACK)
        while True:
            kind, body = await packet(reader)
            came.append(kind)
            if kind == PUBLISH:
                topic_bytes = int.from_bytes(body[:2], "big")
                writer.write(bytes((PUBACK, 2)) + body[2 + topic_bytes : 4 + topic_bytes])
            elif kind == PINGREQ:
                writer.write(bytes((PINGRESP, 0)))

    async with broker(script, keepalive_s=1) as address, connect(address) as session:
        for _ in range(5):
            await session.publish(Message("up/readings", b"x"))
            await asyncio.sleep(0.5)
        assert came == [PUBLISH] * 5
        async with asyncio.timeout(5):
            while PINGREQ not in came:
                await asyncio.sleep(0.05)


async def test_small_messages_are_not_held_back() -> None:
    async with broker(answering("20 03 00 00 00")) as address, connect(address) as session:
        opened = session._client._client.socket()  # type: ignore[attr-defined]
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# --- trying again ------------------------------------------------------------------------------------


def test_the_back_off_doubles_up_to_its_bound_and_is_spread() -> None:
    bounds = [backoff_s(attempt, low_s=1, high_s=10, draw=lambda: 1.0) for attempt in range(6)]
    assert bounds == [1, 2, 4, 8, 10, 10]
    drawn = [backoff_s(20) for _ in range(500)]
    assert 0 <= min(drawn) < 60
    assert 240 < max(drawn) <= 300
