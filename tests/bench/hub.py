"""What a hub bears: the real hub and its real mosquitto, with simulated boards in another process.

Fleets of up to `MOST_OVER_TLS` boards connect as boards do: over mutual TLS to the broker's own port,
each with a certificate by the hub's authority.  Larger ones connect to the Unix socket that the broker
listens on for the hub, where a user name needs no certificate and the same access list holds: their
TLS alone would keep the cores busy that the hub is measured on.  The boards are put into the store
without joining; everything behind the broker is as it is in the field.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bench import meter
from bench.budget import Row
from bench.certificates import issue
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
MOST_OVER_TLS = 2_000
PAGES = 40


@dataclass(frozen=True, slots=True)
class Use:
    """What two processes have used so far."""

    at_s: float
    hub_s: float
    waited_s: float
    broker_s: float


@dataclass(slots=True)
class Found:
    """What a run of the load has shown.  ``page_s``: how long the page took, each time."""

    report: dict[str, Any] = field(default_factory=dict)
    stored: int = 0
    connected: Use = Use(0, 0, 0, 0)
    before: Use = Use(0, 0, 0, 0)
    after: Use = Use(0, 0, 0, 0)
    page_s: list[float] = field(default_factory=list)
    rss_mb: float = 0.0
    broker_mb: float = 0.0


async def measure(folder: Path, boards: int, seconds: float) -> list[Row]:
    """The rows for so many boards at 1,000 messages a second together."""
    found = Found()
    async with Lab(folder) as lab:
        await _add_boards(lab, boards)
        await lab.start_hub()
        broker = meter.child(lab.hub.pid, "mosquitto")
        where = await asyncio.to_thread(_way_in, lab, boards)
        async with _load(where, boards, seconds) as tool:
            found.connected = await _use_after(tool, b"connected", lab.hub.pid, broker)
            found.before = await _use_after(tool, b"steady", lab.hub.pid, broker)
            found.after = await _use_after(tool, b"sent", lab.hub.pid, broker)
            assert tool.stdout is not None
            found.report = json.loads(await tool.stdout.readline())
            found.page_s = await _ask_for_page(lab)
            found.rss_mb, found.broker_mb = meter.rss_mb(lab.hub.pid), meter.rss_mb(broker)
        await lab.hub.stop(within_s=60)  # and its broker with it, which saves its database
        rows = lab.ask(lab.hub_dir / "hub.db", "SELECT coalesce(sum(count - skip), 0) FROM batches")
        found.stored = rows[0][0]
    return _rows(boards, found)


async def _add_boards(lab: Lab, boards: int) -> None:
    async with Store.open(lab.hub_dir / "hub.db") as store, store.write() as tx:
        for number, id in enumerate(board_ids(boards)):
            await add_board(tx, id=id, name=f"board-{number}", log_key="", seal_key="", joined_ms=0)


def _way_in(lab: Lab, boards: int) -> list[str]:
    """The options that tell the load tool where to connect."""
    if boards > MOST_OVER_TLS:
        return ["--unix", str(lab.hub_dir / "broker" / "broker.sock")]
    certificates = lab.dir / "certificates"
    issue(lab.hub_dir / "ca", board_ids(boards), certificates)
    return ["--port", str(lab.mqtt_port), "--certificates", str(certificates)]


@asynccontextmanager
async def _load(where: list[str], boards: int, seconds: float) -> AsyncIterator[asyncio.subprocess.Process]:
    tool = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("load.py")), *where,
        "--boards", str(boards), "--rate", str(RATE_PER_S),
        "--seconds", str(seconds), "--readings", str(READINGS),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert tool.stdin is not None
    try:
        yield tool
        tool.stdin.close()
    except BaseException:
        tool.kill()
        raise
    finally:
        await tool.wait()


async def _use_after(tool: asyncio.subprocess.Process, line: bytes, hub: int, broker: int) -> Use:
    """Wait for a line of the load tool, then look at both processes."""
    assert tool.stdout is not None
    said = await tool.stdout.readline()
    if said.strip() != line:
        raise RuntimeError(f"the load tool said {said!r} where {line!r} was due")
    return Use(time.monotonic(), meter.cpu_s(hub), meter.waited_s(hub), meter.cpu_s(broker))


async def _ask_for_page(lab: Lab) -> list[float]:
    """How long the fleet page took, several times in a row, until its last byte was here."""
    took_s = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {lab.api_token}"}) as http:
        for _ in range(PAGES):
            began_s = time.perf_counter()
            async with http.get(f"{lab.url}/", headers={"Accept": "text/html"}) as response:
                assert response.status == 200, response.status
                assert b"board-" in await response.read()
            took_s.append(time.perf_counter() - began_s)
    return took_s


# --- rows ------------------------------------------------------------------------------------------


def _rows(boards: int, found: Found) -> list[Row]:
    rows = _load_rows(boards, found)
    if boards <= MOST_OVER_TLS:
        rows.append(_handshakes(boards, found))
    if boards == 1_000:
        rows.append(_page(found.page_s))
    if boards == RATE_PER_S * 10:
        rows.insert(0, _capacity(boards, found))
    return rows


def _load_rows(boards: int, found: Found) -> list[Row]:
    report, took_s = found.report, found.after.at_s - found.before.at_s
    lost = report["readings"] - found.stored
    way = "over mutual TLS" if boards <= MOST_OVER_TLS else "over the broker's Unix socket, without TLS"
    budget_mb, aim_mb = RSS_BUDGETS.get(boards, (None, None))
    who = f"hub, {boards:,} boards"
    waited = (found.after.waited_s - found.before.waited_s) / took_s
    return [
        Row(
            f"{who}: readings lost of {report['readings']:,}",
            lost,
            "",
            0,
            note=f"rows counted in the store; acknowledged {report['acked_readings']:,};"
            f" {report['messages']:,} messages of {READINGS} readings at {RATE_PER_S:,}/s, {way};"
            f" {report['resent']:,} sent again after 30 s; {report['lost_connections']} connections lost;"
            f" the tool was {report['late_ms']:.0f} ms late at most; the fleet was settled"
            f" {report['warm_s']:.0f} s after its first connection",
        ),
        Row(
            f"{who}: RSS",
            found.rss_mb,
            "MB",
            budget_mb,
            aim_mb,
            note=f"with all boards connected, after the load and {PAGES} fleet pages; MB of 2**20 bytes",
        ),
        Row(f"{who}: RSS of mosquitto", found.broker_mb, "MB", note=f"with {boards:,} connections {way}"),
        Row(
            f"{who}: CPU",
            (found.after.hub_s - found.before.hub_s) / took_s * 100,
            "% of a core",
            note=f"and ready to run but without a core {waited:.0%} of the time: where that is much,"
            " something else was busy, and delays say little",
        ),
        Row(
            f"{who}: CPU of mosquitto",
            (found.after.broker_s - found.before.broker_s) / took_s * 100,
            "% of a core",
        ),
        Row(
            f"{who}: publish to acknowledgement, p99",
            report["delay_p99_ms"],
            "ms",
            note=f"median {report['delay_p50_ms']:.0f} ms, longest {report['delay_max_ms']:.0f} ms;"
            f" the last one came {report['settled_s']:.1f} s after the end",
        ),
    ]


def _handshakes(boards: int, found: Found) -> Row:
    report = found.report
    return Row(
        f"hub, {boards:,} boards: connected over mutual TLS within",
        report["connect_s"],
        "s",
        note=f"all at once, {boards / report['connect_s']:,.0f} handshakes a second, both ends on the same"
        f" cores; {found.connected.broker_s / boards * 1000:.1f} ms of CPU of mosquitto each",
    )


def _page(page_s: list[float]) -> Row:
    return Row(
        "hub: fleet page of 1,000 boards",
        statistics.median(page_s) * 1000,
        "ms",
        200,
        50,
        note=f"median of {len(page_s)} in a row on one connection, from the request to the last byte at a"
        f" client on the same machine, with all boards connected; longest {max(page_s) * 1000:.0f} ms",
    )


def _capacity(boards: int, found: Found) -> Row:
    report, took_s = found.report, found.after.at_s - found.before.at_s
    keeps_up = (
        found.stored == report["readings"]
        and report["settled_s"] <= LATE_S
        and report["lost_connections"] + report["resent"] == 0
    )
    return Row(
        "hub: boards at a 10 s interval, nothing lost",
        boards if keeps_up else 0,
        "",
        10_000,
        20_000,
        "more",
        note=f"held for {took_s:.0f} s beside the load tool on the same cores; not tried with more",
    )
