"""A simulated board: one connection, real batches, real acknowledgements, about 3 kB (without TLS).

It announces itself, numbers readings in a stream, sends batches when it is told to, and sends again
what is not acknowledged for 30 s, as a real board does.  `bench.load` makes many of them in one
process; the codec is the one beside this file.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

from agent.wire import topics
from agent.wire.decode import decode_json, dumps
from agent.wire.envelope import JSON, pack
from agent.wire.messages import About, Ack, Held, Presence, Reading, Sensor, block_of, frame
from bench import packets

BOOT = "b" * 32
RESEND_S = 30.0
SENSORS = tuple(Sensor(f"sensor-{number}", "file", "Cel", "temperature", 10_000) for number in range(10))


def board_ids(count: int) -> list[str]:
    """The ids of the simulated boards: the same ones every time."""
    digests = (hashlib.sha256(b"simulated board %d" % number).digest() for number in range(count))
    return [base64.b32encode(digest)[:16].decode().lower() for digest in digests]


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the boards connect: a Unix socket, or a port of the loopback.

    With ``certificates``, a folder that holds ``ca.pem`` and for each board ``<id>.pem`` with its key and
    its certificate, over mutual TLS.
    """

    unix: Path | None = None
    port: int = 0
    certificates: Path | None = None

    def tls(self, board: str) -> ssl.SSLContext | None:
        """What a board has: a context that trusts one authority and shows one certificate."""
        if self.certificates is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.certificates / "ca.pem")
        context.load_cert_chain(self.certificates / f"{board}.pem")
        return context


@dataclass(slots=True)
class Tally:
    """What all boards together have seen."""

    messages: int = 0
    resent: int = 0
    readings: int = 0
    acked_readings: int = 0
    pubacks: int = 0
    refused: int = 0
    lost_connections: int = 0
    latest_by_s: float = 0.0
    """How far the tool itself fell behind its own schedule at worst."""
    delays_s: list[float] = field(default_factory=list)
    """From the publish of a batch to the hub's acknowledgement of it."""


@dataclass(slots=True)
class Sent:
    """A batch that is not acknowledged; times by the monotonic clock."""

    last_seq: int
    payload: bytes
    first_s: float
    again_s: float


class Board(asyncio.Protocol):
    """One simulated board."""

    __slots__ = (
        "acked", "id", "next", "number", "ready", "rest", "sent", "stream", "tally", "transport", "values",
    )  # fmt: skip

    def __init__(self, id: str, tally: Tally) -> None:
        self.id = id
        self.tally = tally
        self.stream = base64.b32encode(random.randbytes(10)).decode().lower()
        self.next = 1
        self.acked = 0
        self.number = 0
        self.rest = b""
        self.sent: list[Sent] = []
        self.values = random.uniform(0, 40)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    async def connect(self, broker: Broker) -> None:
        """Connect and subscribe to the acknowledgements.  Raises ConnectionError."""
        loop = asyncio.get_running_loop()
        if broker.unix is not None:
            await loop.create_unix_connection(lambda: self, str(broker.unix))
        else:
            await loop.create_connection(lambda: self, "127.0.0.1", broker.port, ssl=broker.tls(self.id))
        await self.ready

    # --- out

    def announce(self) -> None:
        """Presence and about, as a real board does at each connect."""
        now_ms = time.time_ns() // 1_000_000
        presence = Presence("online", self.stream, BOOT, now_ms, "bench")
        about = About(self.id, "bench", "", "", BOOT, now_ms, hostname=f"sim-{self.id}", sensors=SENSORS)
        self.publish("presence", dumps(presence), retain=True)
        self.publish("about", dumps(about), retain=True)

    def send_batch(self, count: int) -> None:
        """Publish ``count`` new readings, one of each sensor in turn."""
        now_ms, mono_ms = time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000
        self.values += random.uniform(-0.1, 0.1)
        rounds = (count - 1) // len(SENSORS)
        readings = [
            Reading(
                SENSORS[index % len(SENSORS)].name,
                round(self.values + index, 2),
                mono_ms - 10_000 * (rounds - index // len(SENSORS)),
                now_ms - 10_000 * (rounds - index // len(SENSORS)),
            )
            for index in range(count)
        ]
        block = block_of(readings, boot=BOOT, stream=self.stream, seq0=self.next, clock="synced")
        self.next = block.next
        payload = frame({self.stream: Held(self.acked + 1, self.next)}, (), [dumps(block)])
        now = time.monotonic()
        self.sent.append(Sent(self.next - 1, payload, now, now + RESEND_S))
        self.tally.messages += 1
        self.tally.readings += count
        self.publish("readings", payload)

    def send_again(self, now: float) -> None:
        """Publish everything again that is not acknowledged, when the first of it waits for too long."""
        if not self.sent or self.sent[0].again_s > now:
            return
        for batch in self.sent:
            batch.again_s = now + RESEND_S
            self.tally.resent += 1
            self.publish("readings", batch.payload)

    def publish(self, leaf: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1, compressed as a board would."""
        if self.transport is None:
            return
        self.number = self.number % 65_535 + 1
        data, content_type = (payload, JSON) if retain else pack(payload)
        self.transport.write(
            packets.publish(self.number, topics.up(self.id, leaf), data, content_type, retain=retain)
        )

    # --- in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(packets.connect(self.id))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.tally.lost_connections += 1
        self.transport = None
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(f"{self.id}: the broker closed the connection"))

    def data_received(self, data: bytes) -> None:
        came, self.rest = packets.split(self.rest + data if self.rest else data)
        for packet in came:
            self._take(packet)

    def _take(self, packet: packets.Packet) -> None:
        assert self.transport is not None
        if packet.kind == packets.PUBLISH:
            self._take_ack(packets.delivery(packet))
        elif packets.reason(packet) != 0:
            self.tally.refused += 1
            if not self.ready.done():
                self.ready.set_exception(ConnectionError(f"{self.id}: reason {packets.reason(packet):#x}"))
        elif packet.kind == packets.PUBACK:
            self.tally.pubacks += 1
        elif packet.kind == packets.CONNACK:
            self.transport.write(packets.subscribe(1, topics.down(self.id, "ack")))
        elif packet.kind == packets.SUBACK:
            self.ready.set_result(None)

    def _take_ack(self, delivered: packets.Delivery) -> None:
        upto = decode_json(Ack, delivered.payload, max_bytes=65_536).streams.get(self.stream, 0)
        if upto <= self.acked:
            return
        self.tally.acked_readings += upto - self.acked
        self.acked = upto
        now = time.monotonic()
        while self.sent and self.sent[0].last_seq <= upto:
            self.tally.delays_s.append(now - self.sent.pop(0).first_s)
