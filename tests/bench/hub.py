"""What a hub bears: the real hub and its real mosquitto, with simulated boards in another process.

The boards connect to the Unix socket that the hub's own broker listens on for the hub: there, a user
name needs no certificate, and the same access list holds.  So TLS is left out, and the boards are
put into the store without joining; everything behind the broker is as it is in the field.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import meter
from bench.budget import Row
from bench.simulated import board_ids
from hub.store.boards import add_board
from hub.store.database import Store
from support.lab import Lab

RATE_PER_S = 1000
READINGS = 10
"""In each message: ten sensors, asked once."""
RSS_BUDGETS = {1_000: (130, 90), 10_000: (300, 180)}
LATE_S = 5.0
"""A hub that needs longer than this for what is left when the load ends does not keep up."""


@dataclass(frozen=True, slots=True)
class Use:
    """What two processes have used so far."""

    at_s: float
    hub_s: float
    waited_s: float
    broker_s: float


async def measure(folder: Path, boards: int, seconds: float) -> list[Row]:
    """The rows for so many boards at 1,000 messages a second together."""
    async with Lab(folder) as lab:
        await _add_boards(lab, boards)
        await lab.start_hub()
        broker = meter.child(lab.hub.pid, "mosquitto")
        async with _load(lab, boards, seconds) as tool:
            before = await _use_after(tool, b"steady", lab.hub.pid, broker)
            after = await _use_after(tool, b"sent", lab.hub.pid, broker)
            rss_mb, broker_mb = meter.rss_mb(lab.hub.pid), meter.rss_mb(broker)
            assert tool.stdout is not None
            report = json.loads(await tool.stdout.readline())
        await lab.hub.stop(within_s=60)  # and its broker with it, which saves its database
        stored = lab.ask(lab.hub_dir / "hub.db", "SELECT coalesce(sum(count - skip), 0) FROM batches")[0][0]
    return _rows(boards, report, stored, before, after, rss_mb, broker_mb)


async def _add_boards(lab: Lab, boards: int) -> None:
    async with Store.open(lab.hub_dir / "hub.db") as store, store.write() as tx:
        for number, id in enumerate(board_ids(boards)):
            await add_board(tx, id=id, name=f"board-{number}", log_key="", seal_key="", joined_ms=0)


@asynccontextmanager
async def _load(lab: Lab, boards: int, seconds: float) -> AsyncIterator[asyncio.subprocess.Process]:
    tool = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("load.py")),
        "--unix", str(lab.hub_dir / "broker" / "broker.sock"),
        "--boards", str(boards), "--rate", str(RATE_PER_S),
        "--seconds", str(seconds), "--readings", str(READINGS),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield tool
    finally:
        if tool.returncode is None:
            tool.kill()
        await tool.wait()


async def _use_after(tool: asyncio.subprocess.Process, line: bytes, hub: int, broker: int) -> Use:
    """Wait for a line of the load tool, then look at both processes."""
    assert tool.stdout is not None
    said = await tool.stdout.readline()
    if said.strip() != line:
        raise RuntimeError(f"the load tool said {said!r} where {line!r} was due")
    return Use(time.monotonic(), meter.cpu_s(hub), meter.waited_s(hub), meter.cpu_s(broker))


def _rows(
    boards: int,
    report: dict[str, Any],
    stored: int,
    before: Use,
    after: Use,
    rss_mb: float,
    broker_mb: float,
) -> list[Row]:
    took_s = after.at_s - before.at_s
    lost = report["readings"] - stored
    keeps_up = (
        lost == 0 and report["settled_s"] <= LATE_S and report["lost_connections"] + report["resent"] == 0
    )
    budget_mb, aim_mb = RSS_BUDGETS.get(boards, (None, None))
    who = f"hub, {boards:,} boards"
    rows = [
        Row(
            f"{who}: readings lost of {report['readings']:,}",
            lost,
            "",
            0,
            note=f"rows counted in the store; acknowledged {report['acked_readings']:,};"
            f" {report['messages']:,} messages of {READINGS} readings at {RATE_PER_S:,}/s, without TLS over"
            f" the broker's Unix socket; {report['resent']:,} sent again after 30 s; the tool was"
            f" {report['late_ms']:.0f} ms late at most; the fleet was settled {report['warm_s']:.0f} s after"
            " its first connection",
        ),
        Row(f"{who}: RSS", rss_mb, "MB", budget_mb, aim_mb, note=f"and mosquitto {broker_mb:.0f} MB"),
        Row(
            f"{who}: CPU",
            (after.hub_s - before.hub_s) / took_s * 100,
            "% of a core",
            note=f"and ready to run but without a core {(after.waited_s - before.waited_s) / took_s:.0%} of"
            " the time: where that is much, something else was busy, and delays say little",
        ),
        Row(f"{who}: CPU of mosquitto", (after.broker_s - before.broker_s) / took_s * 100, "% of a core"),
        Row(
            f"{who}: publish to acknowledgement, p99",
            report["delay_p99_ms"],
            "ms",
            note=f"median {report['delay_p50_ms']:.0f} ms, longest {report['delay_max_ms']:.0f} ms;"
            f" the last one came {report['settled_s']:.1f} s after the end",
        ),
    ]
    if boards == RATE_PER_S * 10:
        row = Row(
            "hub: boards at a 10 s interval, nothing lost",
            boards if keeps_up else 0,
            "",
            10_000,
            20_000,
            "more",
            note=f"held for {took_s:.0f} s beside the load tool on the same cores; not tried with more",
        )
        rows.insert(0, row)
    return rows
