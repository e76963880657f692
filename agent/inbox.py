"""What the hub says: nothing of it is believed before its signature is verified.

`agent.link` makes one per session and feeds it from the broker, which may be anybody: TLS proves
whose machine it is, the signature whose word.  Acknowledgements alone are not signed; a false
one costs readings, which whoever holds the broker can withhold anyway.

- ``down/ack`` (not signed): the outbox deletes what is covered.
- ``down/hub``, signed by the root key from the join file: a higher number replaces the document;
  another address or authority ends the session, and the next one goes there.
- ``down/command``, signed by the command key that the document names: done once, and answered,
  in the session whose nonce it names and in no other.
- ``down/order``, signed by the order key of the document: what apps this board is to run.  The desk
  (`agent.containers.apps`) verifies it, keeps it and acts on it.  Retained messages come in any order:
  one that is signed by a key which the document lacks is kept for the document that may have it.
- ``down/receipt``: what the hub holds of the usage log, cosigned by the receipt key of the document; the
  books (`agent.usage.sync`) verify it.
- ``down/time``, signed by the time key of the document: sets `agent.clock`, where the kernel does
  not know better, and in the session whose nonce it names only.  What it says is never later than
  the truth, so of several in a session the one that sets the clock furthest ahead is right, and
  one that was held back on the way changes nothing; the first must come soon after it was asked
  for.

Other topics under ``down/`` belong to a newer hub, and are passed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from agent.base.broker import Message
from agent.clock import Clock
from agent.identity import Identity
from agent.reports import Publish, Reports
from agent.wire import note, topics
from agent.wire.decode import decode, decode_json
from agent.wire.envelope import MAX_INFLATED, unpack
from agent.wire.errors import Busy, ConfigError, Corrupt, LinkDown, Refused
from agent.wire.joining import HubDocument
from agent.wire.messages import Ack, Command, HubTime, Live, Reply, read_text
from agent.wire.plain import dumps

if TYPE_CHECKING:  # what only a board with apps needs
    from agent.wire.apps import Apps, LogsWanted

log = logging.getLogger(__name__)

REMEMBERED = 256
"""Ids of commands whose second arrival does nothing."""
TIME_WITHIN_MS = 60_000
"""How long after a board asked for it the first time that it is told can be relied on."""


class Desk(Protocol):
    """Where apps are dealt with; ``changed`` rings when `report` says something else."""

    changed: asyncio.Event

    async def take(self, text: str, key: note.Verifier, hub: str) -> None:
        """An order came.  Raises Refused, Corrupt."""

    def report(self) -> Apps | None:
        """What is to be told of apps; None while there is nothing."""

    async def logs(self, wanted: LogsWanted, id: str, publish: Callable[[Message], Awaitable[bool]]) -> Reply:
        """Send what containers wrote.  Raises LinkDown."""


class Books(Protocol):
    """Where the usage log is kept."""

    async def keep(self, publish: Publish) -> NoReturn:
        """Bring it to the hub while the session lasts.  Raises LinkDown."""

    def heard(self, payload: bytes) -> None:
        """A receipt came.  Raises Refused."""


class Inbox:
    """The listening half of a session whose birth had ``nonce``.

    ``tell`` is called after each ack; ``live`` when the hub wants live reports, and returns what
    it gets; ``desk`` has the apps, ``books`` the usage log.  Set ``asked_ms`` (of the monotonic clock)
    when the hub is told of the session again.
    """

    def __init__(
        self,
        identity: Identity,
        document: HubDocument,
        nonce: str,
        clock: Clock,
        *,
        reports: Reports,
        publish: Publish,
        tell: Callable[[], None],
        live: Callable[[Live], Live],
        desk: Desk | None = None,
        books: Books | None = None,
    ) -> None:
        self.asked_ms = clock.mono_ms()
        self._identity = identity
        self._document = document
        self._nonce = nonce
        self._clock = clock
        self._reports = reports
        self._publish = publish
        self._tell = tell
        self._live = live
        self._desk = desk
        self._books = books
        self._group: asyncio.TaskGroup | None = None
        self._offset_ms: int | None = None  # from the monotonic clock to the hub's, in this session
        self._unproven = ""  # an order by a key that is not known, or not yet
        self._done: deque[str] = deque(maxlen=REMEMBERED)
        self._complaint = ""

    async def read(self, messages: AsyncIterator[Message], group: asyncio.TaskGroup | None = None) -> None:
        """Take messages until the link ends; what takes long is done in ``group``.  Raises LinkDown."""
        self._group = group
        async for message in messages:
            try:
                await self._receive(message)
            # ConfigError: the card does not take a document, and the one that we have is still good.
            except (Refused, Corrupt, Busy, ConfigError) as error:
                if self._complaint != (complaint := f"{message.topic}: {error}"):
                    self._complaint = complaint
                    log.warning("message not taken", extra={"topic": message.topic, "error": str(error)})

    async def _receive(self, message: Message) -> None:
        topic = topics.parse(message.topic)
        if topic.board != self._identity.board or topic.direction != "down":
            raise Refused(f"{message.topic} is not for this board")
        if not message.payload:
            return  # a retained message was cleared
        payload = unpack(message.payload, message.content_type)
        match topic.leaf:
            case "ack":
                ack = decode_json(Ack, payload, max_bytes=MAX_INFLATED)
                await self._reports.acknowledge(ack, retained=message.retain)
                self._tell()
            case "hub":
                await self._take_document(payload.decode(errors="replace"))
            case "command":
                await self._obey(payload)
            case "time":
                self._learn_time(payload)
            case "receipt" if self._books is not None:
                self._books.heard(payload)
            case "order" if self._desk is not None:
                await self._take_order(self._desk, payload.decode(errors="replace"))

    async def _take_order(self, desk: Desk, text: str) -> None:
        """Hand an order to the desk; one whose signature is not known is kept for the next document."""
        self._unproven = ""
        key = note.Verifier.parse(self._document.keys.order)
        try:
            await desk.take(text, key, self._document.hub)
        except Corrupt:
            self._unproven = text
            raise

    def _learn_time(self, payload: bytes) -> None:
        key = note.Verifier.parse(self._document.keys.time)
        told = read_text("time", HubTime, note.open_note(payload, key))
        if told.board != self._identity.board:
            raise Refused(f"the time is for board {told.board[:64]!r}")
        if told.nonce != self._nonce:
            raise Refused("the time is for an earlier session of this board")
        now_ms = self._clock.mono_ms()
        offset_ms = told.at_ms - now_ms
        if self._offset_ms is None and now_ms - self.asked_ms > TIME_WITHIN_MS:
            raise Refused(f"the time came {(now_ms - self.asked_ms) // 1000} s after it was asked for")
        if self._offset_ms is None or offset_ms > self._offset_ms:
            self._offset_ms = offset_ms
            self._clock.learn(told.at_ms)

    async def _take_document(self, hub_note: str) -> None:
        """Keep a newer hub document.  Raises LinkDown when it says that the hub has moved."""
        document = await asyncio.to_thread(self._identity.replace_document, hub_note)
        if document is None:
            # Renewing may have brought it already; what this session goes by is another matter.
            document = self._identity.document()
            if document.number <= self._document.number:
                return
        before, self._document = self._document, document
        log.info("hub document replaced", extra={"number": document.number, "hub": document.hub})
        if _place(document) != _place(before):
            raise LinkDown(f"the hub has moved to {document.mqtt_host}:{document.mqtt_port}", code="moved")
        if self._unproven and self._desk is not None:
            await self._take_order(self._desk, self._unproven)

    async def _obey(self, payload: bytes) -> None:
        key = note.Verifier.parse(self._document.keys.command)
        command = read_text("command", Command, note.open_note(payload, key))
        if command.board != self._identity.board:
            raise Refused(f"the command {command.id} is for board {command.board[:64]!r}")
        if command.id in self._done:
            return
        self._done.append(command.id)
        if command.name == "logs" and command.nonce == self._nonce and self._group is not None:
            self._group.create_task(self._send_logs(command), name=f"logs {command.id}")
            return
        await self._reply(command, self._answer(command))

    async def _reply(self, command: Command, reply: Reply) -> None:
        log.info(
            "command answered", extra={"command": command.name, "id": command.id, "status": reply.status}
        )
        topic = topics.up(self._identity.board, "reply", command.id)
        await self._publish(Message(topic, dumps(reply), content_type="application/json"))

    async def _send_logs(self, command: Command) -> None:
        """Answer "logs", which may go on for minutes."""
        from agent.wire.apps import LogsWanted  # only when somebody asks

        if self._desk is None:
            await self._reply(command, Reply(command.id, "refused", error="this board runs no apps"))
            return
        try:
            wanted = decode(LogsWanted, command.args)
        except Refused as error:
            await self._reply(command, Reply(command.id, "refused", error=str(error)))
            return
        await self._reply(command, await self._desk.logs(wanted, command.id, self._publish))

    def _answer(self, command: Command) -> Reply:
        if command.nonce != self._nonce:
            # It waited in a queue: what was meant then may be wrong now.
            return Reply(command.id, "refused", error="the command was for an earlier session of this board")
        match command.name:
            case "ping":
                return Reply(command.id, "done", {"at_ms": self._clock.wall_ms(), "boot": self._clock.boot})
            case "live":
                try:
                    order = self._live(decode(Live, command.args))
                except Refused as error:
                    return Reply(command.id, "refused", error=str(error))
                return Reply(command.id, "done", {"every_s": order.every_s, "for_s": order.for_s})
            case _:
                return Reply(command.id, "refused", error=f"this board knows no command {command.name!r}")


def _place(document: HubDocument) -> tuple[Any, ...]:
    """Where a hub is and how it is known: what a connection was made by."""
    return document.mqtt_host, document.mqtt_port, document.ca_pem
