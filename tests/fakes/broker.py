"""A broker in memory: the fake of the MQTT edge, deterministic and without a clock of its own.

`FakeBroker.connect` is a `Connect`; it keeps sessions, retained messages, wills and an access
rule as a broker does.  Time is the event loop's, so wills and expiry follow a virtual clock.
Both it and mosquitto pass tests/contract/test_broker.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Literal

from agent.base.broker import Address, Message, Session
from agent.wire.errors import LinkDown, Refused

Allow = Callable[[str, Literal["publish", "read"], str], bool]
"""May this user do this with this topic?"""


def matches(filter: str, topic: str) -> bool:
    """Whether a topic is covered by a filter (MQTT 5.0, section 4.7).

    >>> matches("a/+/c", "a/b/c"), matches("a/#", "a"), matches("+", "a/b"), matches("#", "$SYS/x")
    (True, True, False, False)
    """
    wanted, found = filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("#", "+"):
        return False
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(found) or level not in ("+", found[position]):
            return False
    return len(wanted) == len(found)


def open_to_all(user: str, action: str, topic: str) -> bool:
    """The access rule of a broker without one."""
    return True


def lichen_rule(user: str, action: str, topic: str) -> bool:
    """The hub does everything, a board writes its up and reads its down, all do all below open/."""
    own = {"publish": f"lichen/v1/{user}/up/", "read": f"lichen/v1/{user}/down/"}
    return user == "hub" or topic.startswith(("open/", own[action]))


@dataclass
class _Kept:
    """What a broker keeps of a client between its connections."""

    user: str = ""
    filters: list[str] = field(default_factory=list)
    queue: deque[tuple[float, Message]] = field(default_factory=deque)
    expires_s: float = 0
    link: _Link | None = None
    forgetting: asyncio.TimerHandle | None = None
    willing: asyncio.TimerHandle | None = None
    will: Message | None = None


@dataclass
class FakeBroker:
    """A broker; ``log`` is every message that it accepted, in order."""

    allow: Allow = open_to_all
    retained: dict[str, Message] = field(default_factory=dict)
    log: list[Message] = field(default_factory=list)
    frozen: bool = False
    dead: bool = False
    _clients: dict[str, _Kept] = field(default_factory=dict)
    _thawed: asyncio.Event = field(default_factory=asyncio.Event)
    _noticing: list[asyncio.TimerHandle] = field(default_factory=list)

    # --- for tests -----------------------------------------------------------------------------

    def connect(self, address: Address) -> AbstractAsyncContextManager[Session]:
        """A connection, as `agent.base.broker.connect` makes one."""
        return _Link(self, address)

    @property
    def connected(self) -> set[str]:
        """The ids of the clients that are connected now."""
        return {name for name, kept in self._clients.items() if kept.link is not None}

    def cut(self, client_id: str) -> None:
        """Lose a client's connection: its will goes out, and it learns of it at once."""
        link = self._clients[client_id].link
        assert link is not None, f"{client_id} is not connected"
        self._lost(link, LinkDown("the connection was closed"))

    def kill(self) -> None:
        """End the broker as a crash does; what is not retained is lost, wills are not sent."""
        self.dead = True
        for kept in self._clients.values():
            if kept.link is not None:
                kept.link.end(LinkDown("the broker closed the connection"))
            for timer in (kept.forgetting, kept.willing):
                if timer is not None:
                    timer.cancel()
        self._clients.clear()
        self.thaw()

    def start(self) -> None:
        """Start it again after `kill`."""
        self.dead = False

    def freeze(self) -> None:
        """Answer nothing from now on, with all connections open; clients notice by their keepalive."""
        self.frozen = True
        self._thawed.clear()
        loop = asyncio.get_running_loop()
        for link in self._links():
            keepalive_s = link.address.keepalive_s
            why = LinkDown(f"the broker has not answered for {keepalive_s} s")
            self._noticing.append(loop.call_later(2 * keepalive_s, link.end, why))

    def thaw(self) -> None:
        """Go on; publishes that still wait are answered."""
        self.frozen = False
        self._thawed.set()
        while self._noticing:
            self._noticing.pop().cancel()
        for link in self._links():
            link.wake()

    def publish(self, message: Message) -> None:
        """Publish as nobody in particular."""
        self._accept(message)

    def _links(self) -> list[_Link]:
        return [kept.link for kept in self._clients.values() if kept.link is not None]

    # --- for its links -------------------------------------------------------------------------

    async def awake(self) -> None:
        if self.frozen:
            await self._thawed.wait()

    def attach(self, link: _Link) -> None:
        address = link.address
        if self.dead:
            raise LinkDown("nothing listens there")
        kept = self._clients.setdefault(address.client_id, _Kept())
        if kept.link is not None:
            # Taken over: its will goes out, unless that would have waited (MQTT 5.0, 3.1.3.2.2).
            self._lost(kept.link, LinkDown(f"another client took over {address.client_id!r}"))
            kept = self._clients.setdefault(address.client_id, _Kept())
        for timer in (kept.forgetting, kept.willing):
            if timer is not None:
                timer.cancel()
        if address.clean_start:
            kept.filters.clear()
            kept.queue.clear()
        kept.user, kept.will, kept.link = address.username or address.client_id, address.will, link
        now = asyncio.get_running_loop().time()
        while kept.queue:
            until, message = kept.queue.popleft()
            if until > now:
                link.deliver(message)

    def subscribe(self, link: _Link, filter: str) -> None:
        kept = self._clients[link.address.client_id]
        if filter not in kept.filters:
            kept.filters.append(filter)
        for topic, message in self.retained.items():
            # A denied filter is granted all the same and gets nothing, as with mosquitto.
            if matches(filter, topic) and self.allow(kept.user, "read", topic):
                link.deliver(replace(message, qos=min(message.qos, 1)))

    def take(self, link: _Link, message: Message) -> None:
        user = self._clients[link.address.client_id].user
        if not self.allow(user, "publish", message.topic):
            raise Refused(f"the broker refuses {message.topic}: Not authorized", code="forbidden")
        self._accept(message)

    def leave(self, link: _Link) -> None:
        kept = self._clients.get(link.address.client_id)
        if kept is not None and kept.link is link:
            kept.will = None
            self._lost(link, LinkDown("the connection was left"))

    def lose(self, link: _Link) -> None:
        kept = self._clients.get(link.address.client_id)
        if kept is not None and kept.link is link:
            self._lost(link, LinkDown("the connection was left"))

    def _lost(self, link: _Link, why: LinkDown) -> None:
        loop, name = asyncio.get_running_loop(), link.address.client_id
        kept = self._clients[name]
        kept.link = None
        link.end(why)
        if kept.will is not None:
            # A will is sent when its delay or the session ends, whichever comes first.
            delay = min(link.address.will_delay_s, link.address.session_expiry_s)
            will, kept.will = kept.will, None
            if delay:
                kept.willing = loop.call_later(delay, self._accept, will)
            else:
                self._accept(will)
        if link.address.session_expiry_s:
            kept.forgetting = loop.call_later(link.address.session_expiry_s, self._clients.pop, name, None)
        elif kept.willing is None:
            del self._clients[name]

    def _accept(self, message: Message) -> None:
        self.log.append(message)
        if message.retain and message.payload:
            self.retained[message.topic] = message
        elif message.retain:
            self.retained.pop(message.topic, None)
        until = asyncio.get_running_loop().time() + (message.expiry_s or float("inf"))
        for kept in list(self._clients.values()):
            covered = any(matches(filter, message.topic) for filter in kept.filters)
            if not covered or not self.allow(kept.user, "read", message.topic):
                continue
            live = replace(message, retain=False, qos=min(message.qos, 1))
            if kept.link is not None:
                kept.link.deliver(live)
            elif message.qos:
                kept.queue.append((until, live))


class _Link:
    """One connection to a `FakeBroker`."""

    def __init__(self, broker: FakeBroker, address: Address) -> None:
        self.address = address
        self._broker = broker
        self._why: LinkDown | None = None
        self._inbox: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._sent = self._received = 0

    async def __aenter__(self) -> Session:
        async with self._patience("did not answer"):
            await self._broker.awake()
        self._broker.attach(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None or issubclass(kind, asyncio.CancelledError):
            self._broker.leave(self)
        else:
            self._broker.lose(self)

    async def subscribe(self, *filters: str) -> None:
        async with self._patience("did not answer a subscription"):
            await self._turn()
        for filter in filters:
            self._broker.subscribe(self, filter)

    async def publish(self, message: Message) -> None:
        async with self._patience(f"did not acknowledge {message.topic}"):
            await self._turn()
        self._sent += len(message.payload)
        self._broker.take(self, message)

    def traffic(self) -> tuple[int, int]:
        return self._sent, self._received

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            while self._inbox and not self._broker.frozen:
                yield self._inbox.popleft()
            self._alive()
            self._arrived.clear()
            await self._arrived.wait()

    def wake(self) -> None:
        """Look again whether there is something to take."""
        self._arrived.set()

    def deliver(self, message: Message) -> None:
        self._received += len(message.payload)
        self._inbox.append(message)
        self._arrived.set()

    def end(self, why: LinkDown) -> None:
        self._why = self._why or why
        self._arrived.set()

    async def _turn(self) -> None:
        """What a round trip to a broker is: everybody else gets a turn, and it may never end."""
        self._alive()
        await asyncio.sleep(0)
        await self._broker.awake()
        self._alive()

    def _alive(self) -> None:
        if self._why is not None:
            raise LinkDown(str(self._why), code=self._why.code)

    @contextlib.asynccontextmanager
    async def _patience(self, failing: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.address.timeout_s):
                yield
        except TimeoutError:
            raise LinkDown(f"the broker {failing} within {self.address.timeout_s:g} s") from None
