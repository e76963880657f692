"""Many simulated boards in one process: real batches, real acknowledgements, nothing else.

Each board is one connection and one small object (about 3 kB), on asyncio's transports and the
codec beside this file.  It announces itself, numbers readings in a stream, sends batches on
time whether or not the hub keeps up, and never sends again: what the hub does not acknowledge
counts as lost.

Run by `bench.hub` in a process of its own, so that its CPU is not taken for that of the hub:

    python tests/bench/load.py --unix broker.sock --boards 1000 --rate 1000 --seconds 30

It prints a line when it begins to send at rate ("steady"), a line when it has ended ("sent"), and
then a report as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import random
import resource
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from agent.wire import topics
from agent.wire.decode import decode_json, dumps
from agent.wire.envelope import JSON, pack
from agent.wire.messages import About, Ack, Held, Presence, Reading, Sensor, block_of, frame
from bench import packets

BOOT = "b" * 32
CONNECTING_AT_ONCE = 8
"""More overflow the queue of a Unix socket, which asyncio takes for a connection (and then loses)."""
TICK_S = 0.005
SENSORS = tuple(Sensor(f"sensor-{number}", "file", "Cel", "temperature", 10_000) for number in range(10))


def board_ids(count: int) -> list[str]:
    """The ids of the simulated boards: the same ones every time."""
    digests = (hashlib.sha256(b"simulated board %d" % number).digest() for number in range(count))
    return [base64.b32encode(digest)[:16].decode().lower() for digest in digests]


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the boards connect: a Unix socket, or a port of the loopback without TLS."""

    unix: Path | None = None
    port: int = 0


@dataclass(slots=True)
class Tally:
    """What all boards together have seen."""

    messages: int = 0
    readings: int = 0
    acked_readings: int = 0
    pubacks: int = 0
    refused: int = 0
    lost_connections: int = 0
    latest_by_s: float = 0.0
    """How far the tool itself fell behind its own schedule at worst."""
    delays_s: list[float] = field(default_factory=list)
    """From the publish of a batch to the hub's acknowledgement of it."""


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
        self.sent: list[tuple[int, float]] = []
        self.values = random.uniform(0, 40)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    async def connect(self, broker: Broker) -> None:
        """Connect and subscribe to the acknowledgements.  Raises ConnectionError."""
        loop = asyncio.get_running_loop()
        if broker.unix is not None:
            await loop.create_unix_connection(lambda: self, str(broker.unix))
        else:
            await loop.create_connection(lambda: self, "127.0.0.1", broker.port)
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
        self.sent.append((self.next - 1, time.monotonic()))
        self.tally.messages += 1
        self.tally.readings += count
        self.publish("readings", frame({self.stream: Held(self.acked + 1, self.next)}, (), [dumps(block)]))

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
        while self.sent and self.sent[0][0] <= upto:
            self.tally.delays_s.append(now - self.sent.pop(0)[1])


class Fleet:
    """All boards of one process, connected."""

    def __init__(self, boards: Sequence[Board], tally: Tally) -> None:
        self.boards = boards
        self.tally = tally

    @classmethod
    @asynccontextmanager
    async def connect(cls, broker: Broker, ids: Sequence[str]) -> AsyncIterator[Fleet]:
        """Connect and subscribe every board.  Raises ConnectionError when one is not let in."""
        tally = Tally()
        boards = [Board(id, tally) for id in ids]
        waiting = iter(boards)

        async def some() -> None:
            for board in waiting:
                await board.connect(broker)

        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(CONNECTING_AT_ONCE):
                    tasks.create_task(some(), name=f"connect {number}")
            yield cls(boards, tally)
        finally:
            for board in boards:
                if board.transport is not None:
                    board.transport.write(packets.disconnect())
                    board.transport.close()

    async def send(self, *, rate_per_s: float, seconds: float, readings: int) -> None:
        """Batches of ``readings``, from the boards in turn, at a steady rate for all together."""
        order = random.sample(self.boards, len(self.boards))
        total = round(rate_per_s * seconds)
        started = time.monotonic()
        done = 0
        while done < total:
            elapsed = time.monotonic() - started
            due = min(total, int(elapsed * rate_per_s) + 1)
            self.tally.latest_by_s = max(self.tally.latest_by_s, elapsed - done / rate_per_s)
            for number in range(done, due):
                order[number % len(order)].send_batch(readings)
            done = due
            await asyncio.sleep(TICK_S)

    async def settle(self, within_s: float) -> bool:
        """Wait until the hub has acknowledged everything; False when it does not."""
        deadline = time.monotonic() + within_s
        while self.tally.acked_readings < self.tally.readings:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True


@dataclass(frozen=True, slots=True)
class Report:
    """What a run of the tool found.  Delays in milliseconds, to the hub's acknowledgement."""

    boards: int
    messages: int
    readings: int
    acked_readings: int
    refused: int
    lost_connections: int
    late_ms: float
    delay_p50_ms: float
    delay_p99_ms: float
    delay_max_ms: float
    settled_s: float


async def run(
    broker: Broker, ids: Sequence[str], *, rate_per_s: float, seconds: float, readings: int
) -> Report:
    """Connect, announce, one batch of each board to warm up, then the load; tells its steps on stdout."""
    async with Fleet.connect(broker, ids) as fleet:
        for board in fleet.boards:
            board.announce()
        await fleet.send(rate_per_s=rate_per_s, seconds=len(ids) / rate_per_s, readings=readings)
        await fleet.settle(60)
        fleet.tally.delays_s.clear()
        print("steady", flush=True)
        await fleet.send(rate_per_s=rate_per_s, seconds=seconds, readings=readings)
        print("sent", flush=True)
        ended = time.monotonic()
        await fleet.settle(60)
        return report_of(fleet, settled_s=time.monotonic() - ended)


def report_of(fleet: Fleet, *, settled_s: float) -> Report:
    """Sum up."""
    tally = fleet.tally
    delays = sorted(tally.delays_s) or [float("nan")]
    p50, p99, longest = (
        delays[min(int(len(delays) * part), len(delays) - 1)] * 1000 for part in (0.5, 0.99, 1)
    )
    return Report(
        boards=len(fleet.boards),
        messages=tally.messages,
        readings=tally.readings,
        acked_readings=tally.acked_readings,
        refused=tally.refused,
        lost_connections=tally.lost_connections,
        late_ms=round(tally.latest_by_s * 1000, 1),
        delay_p50_ms=round(p50, 1),
        delay_p99_ms=round(p99, 1),
        delay_max_ms=round(longest, 1),
        settled_s=round(settled_s, 2),
    )


def main() -> None:
    """Options in, a report out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--unix", type=Path, help="the broker's Unix socket")
    parser.add_argument("--port", type=int, default=0, help="or its port on the loopback, without TLS")
    parser.add_argument("--boards", type=int, default=1000)
    parser.add_argument(
        "--rate", type=float, default=1000, help="messages per second, of all boards together"
    )
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--readings", type=int, default=10, help="in each message")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    report = asyncio.run(
        run(
            Broker(options.unix, options.port),
            board_ids(options.boards),
            rate_per_s=options.rate,
            seconds=options.seconds,
            readings=options.readings,
        )
    )
    print(json.dumps(asdict(report)), flush=True)


if __name__ == "__main__":
    main()
