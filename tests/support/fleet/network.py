"""The broker and the lines to it, which are slow, break, or swallow everything.

A line keeps the order of what is sent on it, as TCP does, and takes its time for every message and
for every answer; so whatever ends in between ends in the middle of something.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.base.broker import Address, Message, Session
from agent.wire.errors import LinkDown
from fakes.broker import FakeBroker, lichen_rule

SLOWEST_S = 0.3
GATHER_S = 2.0
"""The hub hears of what has come in the meantime, so that one transaction takes all of it."""


class Network:
    """``cut_off``: clients that find no way; ``swallowed``: those whose packets go nowhere, both ways."""

    def __init__(self, dice: random.Random) -> None:
        self.broker = FakeBroker(allow=lichen_rule)
        self.cut_off: set[str] = set()
        self._swallowed: set[str] = set()
        self._through = asyncio.Event()
        self._dice = dice

    def break_line(self, client: str) -> None:
        """Lose a client's connection, if it has one."""
        if client in self.broker.connected:
            self.broker.cut(client)

    def swallow(self, client: str) -> None:
        """Let nothing through for a client, until `release`; its connection stays open."""
        self._swallowed.add(client)

    def release(self, client: str) -> None:
        """Let everything through again."""
        self._swallowed.discard(client)
        self._through.set()
        self._through = asyncio.Event()

    async def passed(self, client: str) -> None:
        """Wait until something gets through."""
        while client in self._swallowed:
            await self._through.wait()

    @asynccontextmanager
    async def connect(self, address: Address) -> AsyncIterator[Session]:
        """A board's way to the broker, in place of `agent.base.broker.connect`."""
        client = address.client_id
        if client in self.cut_off:
            raise LinkDown("there is no way to the hub")
        await self._patiently(address, client)
        async with self.broker.connect(address) as session:
            yield _Line(self, address, session, self._dice.uniform(0.01, SLOWEST_S))

    @asynccontextmanager
    async def connect_hub(self, address: Address) -> AsyncIterator[Session]:
        """The hub's way to the broker."""
        async with self.broker.connect(address) as session:
            yield _HubLine(session)

    async def _patiently(self, address: Address, client: str) -> None:
        try:
            async with asyncio.timeout(address.timeout_s):
                await self.passed(client)
        except TimeoutError:
            raise LinkDown(f"no answer within {address.timeout_s:g} s") from None


class _Line:
    """One connection of a board."""

    def __init__(self, network: Network, address: Address, session: Session, latency_s: float) -> None:
        self._network = network
        self._address = address
        self._session = session
        self._latency_s = latency_s
        self._turn = asyncio.Lock()

    async def subscribe(self, *filters: str) -> None:
        await self._travel()
        await self._session.subscribe(*filters)

    async def publish(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._address.timeout_s):
                async with self._turn:
                    await self._travel()
                await self._session.publish(message)
                await self._travel()
        except TimeoutError:
            raise LinkDown(f"no answer within {self._address.timeout_s:g} s") from None

    def traffic(self) -> tuple[int, int]:
        return self._session.traffic()

    async def messages(self) -> AsyncIterator[Message]:
        async for message in self._session.messages():
            await self._travel()
            yield message

    async def _travel(self) -> None:
        await asyncio.sleep(self._latency_s)
        await self._network.passed(self._address.client_id)


class _HubLine:
    """The connection of the hub."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.subscribe = session.subscribe
        self.publish = session.publish
        self.traffic = session.traffic

    async def messages(self) -> AsyncIterator[Message]:
        loop = asyncio.get_running_loop()
        turn_s = 0.0
        async for message in self._session.messages():
            if loop.time() > turn_s:
                turn_s = (loop.time() // GATHER_S + 1) * GATHER_S
                await asyncio.sleep(turn_s - loop.time())
            yield message
