"""The load tool: many simulated boards in one process, at a steady rate for all together.

The boards (`bench.simulated`) send on time whether or not the hub keeps up.  What is not acknowledged
in the end counts as lost.

Run by `bench.hub` in a process of its own, so that its CPU is not taken for that of the hub:

    python tests/bench/load.py --unix broker.sock --boards 1000 --rate 1000 --seconds 30

It prints a line when all boards are connected ("connected"), when it begins to send at rate
("steady") and when it has ended ("sent"), and then a report as JSON.  The boards stay connected until
its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import packets
from bench.simulated import Board, Broker, Tally, board_ids

WARM_S = 180
SETTLE_S = 90
CONNECTING_AT_ONCE = 8
"""More overflow the queue of a Unix socket, which asyncio takes for a connection (and then loses)."""
TICK_S = 0.005
ANNOUNCE_PER_S = 500
"""Boards that come back together do so within some time: each waits for one of its own."""


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

    async def announce(self) -> None:
        """Let every board say that it is there, one after the other."""
        await self._pace(len(self.boards), ANNOUNCE_PER_S, lambda number: self.boards[number].announce())

    async def send(self, *, rate_per_s: float, seconds: float, readings: int) -> None:
        """Batches of ``readings``, from the boards in turn, at a steady rate for all together."""
        order = random.sample(self.boards, len(self.boards))
        late_s = await self._pace(
            round(rate_per_s * seconds),
            rate_per_s,
            lambda number: order[number % len(order)].send_batch(readings),
        )
        self.tally.latest_by_s = max(self.tally.latest_by_s, late_s)

    async def _pace(self, total: int, rate_per_s: float, work: Callable[[int], None]) -> float:
        """Do ``work`` so many times at a steady rate; returns how late it was at worst."""
        started = swept = time.monotonic()
        done, late_s = 0, 0.0
        while done < total:
            now = time.monotonic()
            due = min(total, int((now - started) * rate_per_s) + 1)
            late_s = max(late_s, now - started - done / rate_per_s)
            for number in range(done, due):
                work(number)
            done = due
            if now - swept > 1:
                self._send_again(swept := now)
            await asyncio.sleep(TICK_S)
        return late_s

    async def settle(self, within_s: float) -> bool:
        """Wait until the hub has acknowledged everything; False when it does not."""
        deadline = time.monotonic() + within_s
        while self.tally.acked_readings < self.tally.readings:
            if (now := time.monotonic()) > deadline:
                return False
            self._send_again(now)
            await asyncio.sleep(0.1)
        return True

    def _send_again(self, now: float) -> None:
        for board in self.boards:
            board.send_again(now)


@dataclass(frozen=True, slots=True)
class Report:
    """What a run of the tool found.  Delays in milliseconds, to the hub's acknowledgement."""

    boards: int
    messages: int
    resent: int
    readings: int
    acked_readings: int
    refused: int
    lost_connections: int
    connect_s: float
    warm_s: float
    late_ms: float
    delay_p50_ms: float
    delay_p99_ms: float
    delay_max_ms: float
    settled_s: float


async def run(
    broker: Broker, ids: Sequence[str], *, rate_per_s: float, seconds: float, readings: int
) -> None:
    """Connect, announce, one batch of each board to warm up, then the load; tells its steps on stdout."""
    began = time.monotonic()
    async with Fleet.connect(broker, ids) as fleet:
        connect_s = time.monotonic() - began
        print("connected", flush=True)
        await fleet.announce()
        await fleet.send(rate_per_s=rate_per_s, seconds=len(ids) / rate_per_s, readings=readings)
        await fleet.settle(WARM_S)
        warm_s = time.monotonic() - began
        fleet.tally.delays_s.clear()
        fleet.tally.resent, fleet.tally.latest_by_s = 0, 0.0
        print("steady", flush=True)
        await fleet.send(rate_per_s=rate_per_s, seconds=seconds, readings=readings)
        print("sent", flush=True)
        ended = time.monotonic()
        await fleet.settle(SETTLE_S)
        settled_s = time.monotonic() - ended
        report = report_of(fleet, connect_s=connect_s, warm_s=warm_s, settled_s=settled_s)
        print(json.dumps(asdict(report)), flush=True)
        await asyncio.to_thread(sys.stdin.read)


def report_of(fleet: Fleet, *, connect_s: float = 0.0, warm_s: float = 0.0, settled_s: float = 0.0) -> Report:
    """Sum up."""
    tally = fleet.tally
    delays = sorted(tally.delays_s) or [float("nan")]
    p50, p99, longest = (
        delays[min(int(len(delays) * part), len(delays) - 1)] * 1000 for part in (0.5, 0.99, 1)
    )
    return Report(
        boards=len(fleet.boards),
        messages=tally.messages,
        resent=tally.resent,
        readings=tally.readings,
        acked_readings=tally.acked_readings,
        refused=tally.refused,
        lost_connections=tally.lost_connections,
        connect_s=round(connect_s, 2),
        warm_s=round(warm_s, 1),
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
    parser.add_argument("--port", type=int, default=0, help="or its port on the loopback")
    parser.add_argument("--certificates", type=Path, help="over mutual TLS, with those in this folder")
    parser.add_argument("--boards", type=int, default=1000)
    parser.add_argument(
        "--rate", type=float, default=1000, help="messages per second, of all boards together"
    )
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--readings", type=int, default=10, help="in each message")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(
        run(
            Broker(options.unix, options.port, options.certificates),
            board_ids(options.boards),
            rate_per_s=options.rate,
            seconds=options.seconds,
            readings=options.readings,
        )
    )


if __name__ == "__main__":
    main()
