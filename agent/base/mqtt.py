"""A broker `Session` over aiomqtt.

Called by `agent.base.broker.connect`.  aiomqtt connects, drives paho from the event loop and
queues what arrives; `_Client` changes the habits of it that would cost readings or power.  It
never reconnects, and raises nothing but the errors that `agent.base.broker` names.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
from paho.mqtt import client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.base import packets, reasons
from agent.base.broker import Address, Message, Session
from agent.wire.errors import LichenError, LinkDown

WINDOW = 64
"""Most publishes on their way at once; the others wait for their turn, in order."""
GOODBYE_S = 0.5
"""How long leaving waits for the broker to take the last bytes."""


@asynccontextmanager
async def open_session(address: Address) -> AsyncIterator[Session]:
    """A connection to a broker; errors as `agent.base.broker.connect` says."""
    client = _Client(address)
    await _enter(client)
    try:
        yield _Session(client)
    except Exception:
        # A failure, not a stop: without a goodbye the broker publishes our will.
        client.hang_up()
        raise
    finally:
        await _leave(client)


async def _enter(client: _Client) -> None:
    try:
        await client.__aenter__()
    except aiomqtt.MqttError as error:
        client.hang_up()
        raise client.reason(error) from error
    except BaseException:
        # Cancelled: the thread that connects goes on, and must not leave us a connection.
        client.hang_up()
        raise


async def _leave(client: _Client) -> None:
    client.timeout = GOODBYE_S
    with contextlib.suppress(aiomqtt.MqttError):
        await client.__aexit__(None, None, None)
    client.hang_up()


def _quiet() -> logging.Logger:
    """aiomqtt and paho log what they raise as well, and each publish beyond ten under way."""
    logger = logging.getLogger("aiomqtt")
    logger.setLevel(logging.CRITICAL)
    return logger


class _Client(aiomqtt.Client):
    """aiomqtt, except that

    1. the reason in a PUBACK reaches whoever published (aiomqtt drops it, and with it a denial);
    2. a lost link fails every publish at once (aiomqtt: each at its own timeout);
    3. it wakes as often as the keepalive needs (aiomqtt: every second, half an idle agent's CPU);
    4. no more travels at once than the broker wants (paho sends on, and is thrown out for it);
    5. a broker that hangs up before it has answered is noticed (aiomqtt: at the timeout);
    6. nobody who left while it connected is left with a connection.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(
            str(address.unix) if address.unix else address.host,
            address.port or 1,  # paho wants one for a unix socket too
            identifier=address.client_id,
            username=address.username or None,
            protocol=aiomqtt.ProtocolVersion.V5,
            transport="unix" if address.unix else "tcp",
            tls_context=address.tls,
            will=packets.will(address),
            keepalive=address.keepalive_s,
            clean_start=address.clean_start,
            properties=packets.connect_properties(address),
            timeout=address.timeout_s,
            # Small messages, each waited for: Nagle's algorithm would hold them back.
            logger=_quiet(),
            socket_options=() if address.unix else ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),
        )
        self.address = address
        self.answers: dict[int, asyncio.Future[ReasonCode]] = {}
        self.window = asyncio.Semaphore(WINDOW)
        self._hung_up = False
        self._client.connect_timeout = address.timeout_s
        self._client.max_inflight_messages_set(0)  # the window is ours

    def send(self, message: Message) -> mqtt.MQTTMessageInfo:
        """Hand a message to paho; a QoS 1 one is answered in `answers`."""
        return self._client.publish(
            message.topic, message.payload, message.qos, message.retain, packets.publish_properties(message)
        )

    def hang_up(self) -> None:
        """End the connection without a word; paho closes the socket when it reads its end."""
        self._hung_up = True
        opened = self._client.socket()
        if isinstance(opened, socket.socket):
            with contextlib.suppress(OSError):  # the other side was faster
                opened.shutdown(socket.SHUT_RDWR)

    def is_lost(self) -> bool:
        """Whether the connection has ended."""
        return self._disconnected.done()

    def reason(self, error: BaseException | None = None) -> LichenError:
        """Why it failed to connect (``error``), or has ended."""
        if error is None and self.is_lost():
            error = self._disconnected.exception()
        return reasons.of(error, self.address)

    def watch(self) -> None:
        """Fail every publish under way when the connection ends."""
        self._disconnected.add_done_callback(self._fail_answers)

    def _fail_answers(self, lost: asyncio.Future[None]) -> None:
        lost.exception()  # it is told by `reason`; asyncio would complain that nobody asked
        for answer in self.answers.values():
            if not answer.done():
                answer.set_exception(self.reason())

    # --- overridden, and held by the contract tests against a new aiomqtt ----------------------

    def _client_connect(self) -> None:
        super()._client_connect()
        if self._hung_up:
            self.hang_up()

    def _on_connect(
        self,
        client: mqtt.Client,
        userdata: Any,
        flags: mqtt.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        # MQTT 5.0, section 3.2.2.3.3.
        self.window = asyncio.Semaphore(min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW)))
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: mqtt.Client,
        userdata: Any,
        flags: mqtt.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttCodeError(reason_code))
        if self._connected.cancelled():
            return
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_publish(
        self,
        client: mqtt.Client,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        answer = self.answers.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reason_code)

    async def _misc_loop(self) -> None:
        # A ping leaves at most a quarter of the keepalive late; brokers wait for half as much more
        # (MQTT 5.0, section 3.1.2.10).
        while self._client.loop_misc() == mqtt.MQTT_ERR_SUCCESS:  # noqa: ASYNC110
            await asyncio.sleep(self._keepalive / 4 or 60)


class _Session:
    """`agent.base.broker.Session` of one connected client."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        client.watch()

    async def subscribe(self, *filters: str) -> None:
        """See `Session`."""
        wanted = [(each, SubscribeOptions(qos=1)) for each in filters]
        try:
            granted = await self._client.subscribe(wanted)
        except aiomqtt.MqttError as error:
            raise self._client.reason(error) from error
        for each, reason in zip(filters, granted, strict=True):
            if isinstance(reason, ReasonCode) and reason.is_failure:
                raise reasons.denied(self._client.address, f"the subscription to {each}", reason)

    async def publish(self, message: Message) -> None:
        """See `Session`."""
        address = self._client.address
        try:
            async with asyncio.timeout(address.timeout_s), self._client.window:
                reason = await self._acknowledged(message)
        except TimeoutError:
            raise LinkDown(
                f"{address} did not acknowledge {message.topic} within {address.timeout_s:g} s"
            ) from None
        if reason is not None and reason.is_failure:
            raise reasons.denied(address, message.topic, reason)

    async def _acknowledged(self, message: Message) -> ReasonCode | None:
        if self._client.is_lost():
            raise self._client.reason()
        info = self._client.send(message)
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            raise LinkDown(f"{self._client.address} cannot be written to: {mqtt.error_string(info.rc)}")
        if message.qos == 0:
            return None
        answer: asyncio.Future[ReasonCode] = asyncio.get_running_loop().create_future()
        self._client.answers[info.mid] = answer
        try:
            return await answer
        finally:
            del self._client.answers[info.mid]

    async def messages(self) -> AsyncIterator[Message]:
        """See `Session`."""
        try:
            async for message in self._client.messages:
                yield packets.received(message)
        except aiomqtt.MqttError as error:
            raise self._client.reason() from error
