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
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import aiomqtt
from paho.mqtt import MQTTException
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
MALFORMED = (ValueError, IndexError, KeyError, struct.error, MQTTException)
"""What paho's parser raises at bytes that are not MQTT."""


@asynccontextmanager
async def open_session(address: Address) -> AsyncIterator[Session]:
    """A connection to a broker; errors as `agent.base.broker.connect` says."""
    with contextlib.closing(_Client(address)) as client:
        await client.open()
        try:
            yield _Session(client)
        except Exception:
            # A failure, not a stop: without a goodbye the broker publishes our will.
            client.close()
            raise
        finally:
            await client.say_goodbye()


class _Ear(logging.Logger):
    """Hears what aiomqtt and paho would log, and writes nothing: what matters they raise as well.

    But for the error of a socket that breaks: paho tells that to its logger alone, and it may be
    a sentence about our certificate.
    """

    def __init__(self) -> None:
        super().__init__("aiomqtt", logging.CRITICAL)
        self.heard: OSError | None = None

    def log(self, level: int, msg: object, *args: object, **_: Any) -> None:
        if level < logging.WARNING:
            return  # paho tells of each packet
        for arg in args:
            if isinstance(arg, OSError):
                self.heard = arg


class _Tls:
    """A TLS context as paho uses one.

    It shakes hands itself and closes what fails; paho would lose that socket, open.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.check_hostname = context.check_hostname
        self._context = context

    def wrap_socket(self, connected: socket.socket, *, server_hostname: str = "", **_: Any) -> ssl.SSLSocket:
        return self._context.wrap_socket(connected, server_hostname=server_hostname)


def _host(name: str) -> str:
    """A host as paho takes it; plain ASCII as bytes, for text is looked up by way of IDNA: 0.4 MB."""
    return cast("str", name.encode()) if name.isascii() else name


class _Client(aiomqtt.Client):
    """aiomqtt, except that

    1. the reason in a PUBACK reaches whoever published (aiomqtt drops it, and with it a denial);
    2. a lost link fails all that wait for it at once (aiomqtt: each at its own timeout);
    3. it wakes as often as the keepalive needs (aiomqtt: every second, half an idle agent's CPU);
    4. no more travels at once than the broker wants (paho sends on, and is thrown out for it);
    5. a broker that hangs up before it has answered is noticed (aiomqtt: at the timeout);
    6. it connects in a thread that nobody waits for: looking up a name can take half a minute,
       and whoever leaves meanwhile is left with no connection;
    7. a file number is watched only while it is ours (aiomqtt: a turn later, open or not);
    8. what has arrived is read at once (aiomqtt: a packet each turn of the loop);
    9. a link that is written to is not pinged as well (paho: once in every keepalive).
    """

    def __init__(self, address: Address) -> None:
        self._ear = _Ear()
        super().__init__(
            str(address.unix) if address.unix else _host(address.host),
            address.port or 1,  # paho wants one for a unix socket too
            identifier=address.client_id,
            username=address.username or None,
            protocol=aiomqtt.ProtocolVersion.V5,
            transport="unix" if address.unix else "tcp",
            tls_context=cast("ssl.SSLContext", _Tls(address.tls)) if address.tls else None,
            will=packets.will(address),
            keepalive=address.keepalive_s,
            clean_start=address.clean_start,
            properties=packets.connect_properties(address),
            timeout=address.timeout_s,
            logger=self._ear,
        )
        self.address = address
        self.answers: dict[int, asyncio.Future[ReasonCode]] = {}
        self.window = asyncio.Semaphore(WINDOW)
        self._packets = 0
        # MQTT 5.0, section 3.3.2.3.4: a topic said once may be called by a number afterwards.
        self._aliases: dict[str, int] = {}
        self._most_aliases = 0
        self._traffic = (0, 0)
        self._left = False
        self._housekeeping: asyncio.TimerHandle | None = None
        self._disconnected.add_done_callback(self._fail_waiting)
        self._client.connect_timeout = address.timeout_s
        self._client.max_inflight_messages_set(0)  # the window is ours

    def send(self, message: Message) -> mqtt.MQTTMessageInfo:
        """Hand a message to paho; a QoS 1 one is answered in `answers`."""
        alias = self._aliases.get(message.topic)
        topic = message.topic if alias is None else ""
        if alias is None and len(self._aliases) < self._most_aliases:
            alias = self._aliases[message.topic] = len(self._aliases) + 1
        properties = packets.publish_properties(message, alias)
        if self.address.unix is None:
            packets.expect_two_answers(self._client.socket())
        info = self._client.publish(topic, message.payload, message.qos, message.retain, properties)
        if info.rc == mqtt.MQTT_ERR_SUCCESS:
            # For paho only its own pings keep a link alive: 6 MB a month beside a report each minute.
            self._client._last_msg_out = time.monotonic()
        return info

    async def open(self) -> None:
        """Connect; in place of ``__aenter__``, which takes a thread of the loop's executor.

        Raises LinkDown, Refused.
        """
        threading.Thread(target=self._dial, name="broker-dial", daemon=True).start()
        try:
            await self._wait_for(self._connected, None)
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            raise self.reason(error) from error

    def _dial(self) -> None:
        failure: Exception | None = None
        try:
            self._client_connect()
        except (OSError, ValueError) as error:  # ValueError: a name that no resolver takes
            failure = error
        self._soon(self._dialled, failure)

    def _dialled(self, failure: Exception | None) -> None:
        if self._left:
            self.close()
        elif failure is not None and not self._connected.done():
            self._connected.set_exception(failure)

    def _soon(self, callback: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody wants to know
            self._loop.call_soon_threadsafe(callback, *arguments)

    async def say_goodbye(self) -> None:
        """Tell the broker that we leave, unless the connection has ended."""
        if self._left or self.is_lost():
            return
        self.timeout = GOODBYE_S
        with contextlib.suppress(aiomqtt.MqttError):
            await self.__aexit__(None, None, None)

    def close(self) -> None:
        """Close the connection without a word; one that is still being made will be."""
        self._left = True
        if not self._disconnected.done():
            self._disconnected.set_result(None)
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        opened = self._client.socket()
        if opened is None or opened.fileno() < 0:
            return
        self._weigh(opened)
        # paho closes it once more when it is collected, and must not tell aiomqtt then.
        self._client.on_socket_close = None
        self._client.on_socket_unregister_write = None
        self._loop.remove_reader(opened.fileno())
        self._loop.remove_writer(opened.fileno())
        opened.close()

    def traffic(self) -> tuple[int, int]:
        """See `Session`."""
        opened = self._client.socket()
        if opened is not None and opened.fileno() >= 0:
            self._weigh(opened)
        return self._traffic

    def _weigh(self, opened: Any) -> None:
        if self.address.unix is None:
            self._traffic = packets.traffic(opened) or self._traffic

    def is_lost(self) -> bool:
        """Whether the connection has ended."""
        return self._disconnected.done()

    def reason(self, error: BaseException | None = None) -> LichenError:
        """Why it failed to connect (``error``), or has ended."""
        if self._disconnected.done() and not self._disconnected.cancelled():
            error = self._disconnected.exception() or error
        return reasons.of(self._ear.heard or error, self.address)

    def _fail_waiting(self, lost: asyncio.Future[None]) -> None:
        if not lost.cancelled():
            lost.exception()  # `reason` tells it; asyncio would complain that nobody asked
        waiting: list[asyncio.Future[Any]] = [*self.answers.values(), *self._pending_subscribes.values()]
        for answer in waiting:
            if not answer.done():
                answer.set_exception(self.reason())

    # --- overridden, and held by the contract tests against a new aiomqtt ----------------------

    def _on_socket_open(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        if self.address.unix is None:
            # Small messages, each waited for: Nagle's algorithm would hold them back.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._while_ours(sock, self._watch)

    def _on_socket_close(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self._weigh(sock)
        super()._on_socket_close(client, userdata, sock)

    def _on_socket_register_write(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self._while_ours(sock, self._watch_writes)

    def _while_ours(self, sock: Any, watch: Callable[[int], None]) -> None:
        def check() -> None:
            if not self._left and sock.fileno() >= 0:
                watch(sock.fileno())

        self._soon(check)

    def _watch(self, number: int) -> None:
        self._loop.add_reader(number, self._drive, self._read)
        self._keep_house()

    def _watch_writes(self, number: int) -> None:
        self._loop.add_writer(number, self._drive, self._client.loop_write)

    def _drive(self, step: Callable[[], object]) -> None:
        try:
            step()
        except MALFORMED as error:
            if not self._disconnected.done():
                self._disconnected.set_exception(error)
            self.close()  # paho would trip over the same bytes again

    def _read(self) -> None:
        # All that is there: aiomqtt takes one packet a turn of the loop, and a broker that is faster
        # than that drops messages.  It ends, because the broker waits for our PUBACKs.
        while True:
            packets_before = self._packets
            self._client.loop_read()
            # What TLS has decrypted already, no event announces.
            is_more = getattr(self._client.socket(), "pending", int)() > 0
            if self._packets == packets_before and not is_more:
                return

    def _keep_house(self) -> None:
        # A ping leaves at most a quarter of the keepalive late; brokers wait for half as much more
        # (MQTT 5.0, section 3.1.2.10).
        if self._keepalive and self._client.loop_misc() == mqtt.MQTT_ERR_SUCCESS:
            self._housekeeping = self._loop.call_later(self._keepalive / 4, self._keep_house)

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
        if self.address.unix is None:
            self._most_aliases = getattr(properties, "TopicAliasMaximum", 0)
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

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self._packets += 1
        super()._on_message(client, userdata, message)

    def _on_publish(
        self,
        client: mqtt.Client,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        self._packets += 1
        answer = self.answers.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reason_code)


class _Session:
    """`agent.base.broker.Session` of one connected client."""

    def __init__(self, client: _Client) -> None:
        self._client = client

    async def subscribe(self, *filters: str) -> None:
        """See `Session`."""
        if self._client.is_lost():
            raise self._client.reason()
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

    def traffic(self) -> tuple[int, int]:
        """See `Session`."""
        return self._client.traffic()

    async def messages(self) -> AsyncIterator[Message]:
        """See `Session`."""
        try:
            async for message in self._client.messages:
                yield packets.received(message)
        except aiomqtt.MqttError as error:
            raise self._client.reason() from error
