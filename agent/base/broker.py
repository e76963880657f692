"""The MQTT edge: a connection is a scope, and everything that can go wrong with it is named.

Called by both sides, the board's link and the hub's ingest.  This is the contract; the real thing
is in `agent.base.mqtt`, the fake in the tests, and both pass the same contract tests.  It never
reconnects and keeps nothing: whoever calls decides when to try again (`backoff_s`), and sends
again what was not acknowledged end to end.

    async with connect(address) as session:      # LinkDown, Refused
        await session.subscribe("lichen/v1/+/up/#")
        await session.publish(Message(topic, payload))   # returns when the broker has it
        async for message in session.messages():         # ends with LinkDown, never by itself
            ...

Leaving the scope by itself or by cancellation is a stop: the broker is told, and the will is
not published.  Leaving it by an exception is a failure: the socket is closed without a word, so
the broker publishes the will and the other side learns of it.

A QoS 1 publish that the broker's access list denies shows only in the PUBACK (reason 135,
MQTT 5.0 section 3.4.2.1); a denied *subscription* does not show at all with mosquitto, which
answers "granted" and sends nothing.
"""

from __future__ import annotations

import random
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """What travels.  ``retain`` on a received one: it was there before we subscribed."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    content_type: str = ""
    expiry_s: int | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is and who we are to it; either ``unix`` or ``host`` and ``port``.

    ``will`` is published ``will_delay_s`` after the connection is lost.  ``session_expiry_s``
    is how long the broker keeps our subscriptions and queue after that.
    ``timeout_s`` bounds connecting, and each publish and subscription.
    """

    client_id: str
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None
    unix: Path | None = None
    username: str = ""
    keepalive_s: int = 90
    clean_start: bool = True
    session_expiry_s: int = 0
    will: Message | None = None
    will_delay_s: int = 0
    timeout_s: float = 10

    def __str__(self) -> str:
        return str(self.unix) if self.unix else f"{self.host}:{self.port}"


class Session(Protocol):
    """An open connection to a broker."""

    async def subscribe(self, *filters: str) -> None:
        """Ask for what matches the filters, at QoS 1.  Raises Refused, LinkDown."""

    async def publish(self, message: Message) -> None:
        """Send a message; at QoS 1 it returns when the broker has acknowledged it.

        Any number of callers may publish at once; the order of the calls is kept.  Raises
        Refused (code "forbidden") when the broker denies it, and LinkDown.
        """

    def traffic(self) -> tuple[int, int]:
        """Bytes of IP packets that this connection has sent and received, headers and all that was
        sent twice included.  What was last known, once it has ended."""

    def messages(self) -> AsyncIterator[Message]:
        """What arrives, for one reader at a time.  Raises LinkDown when the link has ended
        and all that had arrived before was taken."""


Connect = Callable[[Address], AbstractAsyncContextManager[Session]]


def connect(address: Address) -> AbstractAsyncContextManager[Session]:
    """A connection to a real broker; see the module.

    Entering raises LinkDown (code "tls" when its certificate does not verify) when the broker
    cannot be reached, and Refused when it says no (code "certificate" when it does not accept
    ours, else "forbidden").
    """
    with _left_out("urllib.request"):  # paho: for proxies, if PySocks is there; 1.8 MB of a board
        from agent.base.mqtt import open_session

    return open_session(address)


@contextmanager
def _left_out(name: str) -> Iterator[None]:
    """Keep a module that is never used from being loaded by an import within."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]


def backoff_s(
    attempt: int, *, low_s: float = 1.0, high_s: float = 300.0, draw: Callable[[], float] = random.random
) -> float:
    """Seconds to wait before attempt ``attempt`` (from 0): anything up to a bound that doubles.

    Full jitter spreads a fleet that lost its broker evenly over the bound.

    >>> [backoff_s(attempt, draw=lambda: 1.0) for attempt in (0, 1, 2, 8, 9, 10_000)]
    [1.0, 2.0, 4.0, 256.0, 300.0, 300.0]
    """
    return draw() * min(high_s, low_s * 2.0 ** min(attempt, 64))
