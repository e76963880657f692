"""A broker `Session` over paho.

Called by `agent.base.broker.connect`.  paho does the protocol and nothing else: it is driven from
the event loop by its public hooks (`loop_read`, `loop_write`, `loop_misc`).  Its own loop takes a
thread, wakes every second, and uses select(), which fails silently from file number 1024 on.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import Any

from paho.mqtt import MQTTException
from paho.mqtt import client as mqtt
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.base import dial, packets
from agent.base.broker import Address, Message, Session
from agent.base.packets import Client
from agent.wire.errors import LichenError, LinkDown

WINDOW = 64
"""Publishes that may be on their way at once; more callers wait for their turn, in order."""
GOODBYE_S = 0.5
"""How long leaving waits for a socket to take the last bytes."""

MALFORMED = (ValueError, IndexError, KeyError, struct.error, MQTTException)
"""What paho's parser raises at bytes that are not MQTT."""


class Link:
    """A `Session` over paho; every method runs in the event loop's thread.

    `_why` is None until the link has ended, then the reason for ever; whoever waits for
    anything of the broker is woken by `_end` and raises it.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._paho: Client | None = None
        self._socket: dial.Socket | None = None
        self._why: LichenError | None = None
        self._settled = asyncio.Event()
        self._ended = asyncio.Event()
        self._dropped = False
        self._housekeeping: asyncio.TimerHandle | None = None
        self._window = asyncio.Semaphore(WINDOW)
        self._answers: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._inbox: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._paused = False

    # --- the scope ---------------------------------------------------------------------------

    async def __aenter__(self) -> Session:
        with contextlib.ExitStack() as undo:
            undo.callback(self._drop)
            # A daemon thread, not an executor: looking up a name can take half a minute, and
            # neither a cancelled caller nor the end of the process should wait for that.
            threading.Thread(target=self._dial, name="broker-dial", daemon=True).start()
            async with self._patience("did not answer"):
                await self._settled.wait()
            self._alive()
            undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._why is None and (kind is None or issubclass(kind, asyncio.CancelledError)):
                await self._say_goodbye()
        finally:
            self._drop()

    def _dial(self) -> None:
        to = self._address
        opened = None
        try:
            opened = dial.dial(unix=to.unix, host=to.host, port=to.port, tls=to.tls, timeout_s=to.timeout_s)
            outcome = partial(self._begin, opened)
        except (OSError, ValueError) as error:  # ValueError: a name that no resolver takes
            outcome = partial(self._end, dial.failure(str(to), error))
        try:
            self._loop.call_soon_threadsafe(outcome)
        except RuntimeError:  # the loop has been closed meanwhile: nobody is waiting
            if opened is not None:
                opened.close()

    def _begin(self, opened: dial.Socket) -> None:
        """Let paho speak on a socket that is connected."""
        if self._dropped:
            opened.close()
            return
        self._socket = opened
        self._paho = paho = Client(opened, self._address)
        paho.on_connect = self._on_connect
        paho.on_disconnect = self._on_disconnect
        paho.on_subscribe = self._on_subscribe
        paho.on_publish = self._on_publish
        paho.on_message = self._on_message
        paho.on_socket_close = self._on_socket_close
        paho.on_socket_register_write = self._on_socket_register_write
        paho.on_socket_unregister_write = self._on_socket_unregister_write
        self._loop.add_reader(opened.fileno(), self._read)
        paho.begin()
        self._keep_house()

    async def _say_goodbye(self) -> None:
        if self._paho is not None and self._paho.disconnect() == mqtt.MQTT_ERR_SUCCESS:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._ended.wait()

    def _drop(self) -> None:
        """Close the socket without a word, or leave it closed."""
        self._dropped = True
        self._end(LinkDown(f"the connection to {self._address} was left"))
        if self._socket is not None and self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        self._paho = None

    def _end(self, why: LichenError) -> None:
        """Remember why the link has ended, if it is news, and wake everybody."""
        if self._why is not None:
            return
        self._why = why
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result([])
        self._settled.set()
        self._ended.set()
        self._arrived.set()

    def _alive(self) -> Client:
        # A new exception each time: several tasks may raise it, each with its own traceback.
        if self._why is not None:
            raise type(self._why)(str(self._why), code=self._why.code, hint=self._why.hint)
        assert self._paho is not None
        return self._paho

    @contextlib.asynccontextmanager
    async def _patience(self, failing: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._address.timeout_s):
                yield
        except TimeoutError:
            raise LinkDown(f"{self._address} {failing} within {self._address.timeout_s:g} s") from None

    # --- the session -------------------------------------------------------------------------

    async def subscribe(self, *filters: str) -> None:
        async with self._patience("did not answer a subscription"):
            code, number = self._alive().subscribe([(each, SubscribeOptions(qos=1)) for each in filters])
            reasons = await self._answer(code, number)
        for each, reason in zip(filters, reasons, strict=True):
            if reason.is_failure:
                raise packets.denied(self._address, f"the subscription to {each}", reason)

    async def publish(self, message: Message) -> None:
        async with self._patience(f"did not acknowledge {message.topic}"), self._window:
            info = self._alive().publish(
                message.topic, message.payload, message.qos, message.retain, packets.properties_of(message)
            )
            if message.qos == 0 and info.rc == mqtt.MQTT_ERR_SUCCESS:
                return
            [reason] = await self._answer(info.rc, info.mid)
        if reason.is_failure:
            raise packets.denied(self._address, message.topic, reason)

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            while self._inbox:
                yield self._inbox.popleft()
                if self._paused and len(self._inbox) <= self._address.max_inbound // 2:
                    self._resume()
            self._alive()
            self._arrived.clear()
            await self._arrived.wait()

    async def _answer(self, code: int, number: int | None) -> list[ReasonCode]:
        if code != mqtt.MQTT_ERR_SUCCESS or number is None:
            raise LinkDown(f"{self._address} cannot be written to: {mqtt.error_string(MQTTErrorCode(code))}")
        answer: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        self._answers[number] = answer
        try:
            reasons = await answer
        finally:
            del self._answers[number]
        if not reasons:
            self._alive()
        return reasons

    # --- driving paho ------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while self._paho is not None and self._socket is not None and not self._paused:
                self._paho.loop_read()
                if self._why is not None or not self._socket.pending():
                    return
        except MALFORMED as error:
            self._end(LinkDown(f"{self._address} sent what is not MQTT: {error!r}"))

    def _write(self) -> None:
        if self._paho is not None:
            self._paho.loop_write()

    def _keep_house(self) -> None:
        """Send pings and notice their absence; woken only as often as that needs.

        A ping leaves at most a quarter of the keepalive late; brokers wait for half as much more
        (MQTT 5.0, section 3.1.2.10).
        """
        if self._paho is None or not self._address.keepalive_s:
            return
        self._paho.loop_misc()
        if self._why is None:
            self._housekeeping = self._loop.call_later(self._address.keepalive_s / 4, self._keep_house)

    def _pause(self) -> None:
        # The broker's queue fills instead of ours.  Its pings are not seen meanwhile, so a reader
        # who takes nothing for two keepalives loses the link.
        if self._socket is not None and self._socket.fileno() >= 0:
            self._paused = True
            self._loop.remove_reader(self._socket.fileno())

    def _resume(self) -> None:
        self._paused = False
        if self._socket is not None and self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._read)
            self._loop.call_soon(self._read)  # for what was read ahead, which no event announces

    # --- what paho tells ---------------------------------------------------------------------

    def _on_connect(
        self, paho: mqtt.Client, _: Any, flags: mqtt.ConnectFlags, reason: ReasonCode, told: Properties | None
    ) -> None:
        if reason.is_failure:
            self._end(packets.declined(self._address, reason))
            return
        self._window = asyncio.Semaphore(min(WINDOW, getattr(told, "ReceiveMaximum", WINDOW)))
        self._settled.set()

    def _on_disconnect(
        self,
        paho: mqtt.Client,
        _: Any,
        flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        told: Properties | None,
    ) -> None:
        error = self._socket.error if self._socket is not None else None
        if flags.is_disconnect_packet_from_server:
            self._end(packets.sent_away(self._address, reason))
        elif error is not None:
            self._end(dial.failure(str(self._address), error))
        elif reason.value == packets.KEEP_ALIVE_TIMEOUT:
            self._end(LinkDown(f"{self._address} has not answered for {self._address.keepalive_s} s"))
        else:
            self._end(LinkDown(f"{self._address} closed the connection"))

    def _on_subscribe(
        self, paho: mqtt.Client, _: Any, number: int, reasons: list[ReasonCode], told: Properties | None
    ) -> None:
        self._answered(number, reasons)

    def _on_publish(
        self, paho: mqtt.Client, _: Any, number: int, reason: ReasonCode, told: Properties
    ) -> None:
        self._answered(number, [reason])

    def _answered(self, number: int, reasons: list[ReasonCode]) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(reasons)

    def _on_message(self, paho: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        self._inbox.append(packets.received(message))
        self._arrived.set()
        if 0 < self._address.max_inbound <= len(self._inbox):
            self._pause()

    def _on_socket_close(self, paho: mqtt.Client, _: Any, closing: mqtt.SocketLike) -> None:
        if closing.fileno() >= 0:
            self._loop.remove_reader(closing.fileno())

    def _on_socket_register_write(self, paho: mqtt.Client, _: Any, writing: mqtt.SocketLike) -> None:
        self._loop.add_writer(writing.fileno(), self._write)

    def _on_socket_unregister_write(self, paho: mqtt.Client, _: Any, writing: mqtt.SocketLike) -> None:
        if writing.fileno() >= 0:
            self._loop.remove_writer(writing.fileno())
