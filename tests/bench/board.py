"""What an agent costs: the real process, joined, connected over TLS to a real hub, 10 sensors."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.base.broker import Address, Session, connect
from agent.outbox import Outbox
from agent.wire import topics
from agent.wire.messages import Reading
from bench import meter
from bench.budget import Row
from support.lab import Board, Lab

INTERVAL_S = 10
SETTLE_S = 15
"""How long a start is left alone before anything is measured."""
TICK_S = 1.0
"""How long after a tick of the grid wake-ups belong to sampling, committing and reporting."""
EARLY_S = 0.05
BACKLOG_READINGS = 120_000
BLOCK_READINGS = 60


async def measure(folder: Path, seconds: float, starts: int) -> list[Row]:
    """Every row about the agent; takes about ``seconds`` and a minute more."""
    async with Lab(folder) as lab:
        await lab.start_hub()
        board = await lab.add_board("bench", sensors=ten_sensors(folder))
        await board.start()
        await lab.until(lambda: board.joined and board.stored() > 0, "the first readings are stored")
        rows = [await _start(lab, board, starts)]
        rows += await _at_rest(board, seconds)
        rows.append(await _backlog(lab, board))
        await board.stop()
        await lab.hub.stop(within_s=30)
        return rows


def ten_sensors(folder: Path) -> list[dict[str, object]]:
    """Ten: the capacity of the machine (8 values), and nine numbers in files."""
    files = [folder / f"sensor-{number}" for number in range(9)]
    for number, file in enumerate(files):
        file.write_text(f"{20 + number}.5\n")
    named = [{"name": file.name, "kind": "file", "path": str(file)} for file in files]
    every: dict[str, object] = {"interval_s": INTERVAL_S}
    return [{"name": "capacity", "kind": "capacity", **every}, *({**one, **every} for one in named)]


# --- at rest -------------------------------------------------------------------------------------


async def _at_rest(board: Board, seconds: float) -> list[Row]:
    await asyncio.sleep(SETTLE_S)
    began, before = time.monotonic(), meter.cpu_s(board.pid)
    between, watched_s = await _between_samples(board.pid, seconds)
    took_s, cpu_s = time.monotonic() - began, meter.cpu_s(board.pid) - before
    return [
        Row(
            "agent over TLS, 10 sensors: RSS",
            meter.rss_mb(board.pid),
            "MB",
            33,
            28,
            note="a joined board after a restart, with its usage log; MB of 2**20 bytes",
        ),
        Row(
            "agent: CPU per hour at a 10 s interval",
            cpu_s / took_s * 3600,
            "s",
            2.0,
            1.0,
            note=f"schedstat of all threads over {took_s:.0f} s, reports every 60 s included",
        ),
        Row(
            "agent: wake-ups per minute between samples",
            between / watched_s * 60,
            "",
            75,
            20,
            note=f"voluntary switches of all threads, without those from {EARLY_S} s before to {TICK_S} s"
            f" after each tick of the 10 s grid (sampling, commit, report); {watched_s:.0f} s watched",
        ),
    ]


async def _between_samples(pid: int, seconds: float) -> tuple[int, float]:
    """Wake-ups outside of the ticks, and how long was looked at, over whole intervals."""
    wakes, watched_s = 0, 0.0
    end_s = _boot_s() + seconds
    while _boot_s() < end_s:
        tick_s = (_boot_s() // INTERVAL_S + 1) * INTERVAL_S
        await _until(tick_s + TICK_S)
        began_s, before = _boot_s(), meter.wake_ups(pid)
        await _until(tick_s + INTERVAL_S - EARLY_S)
        wakes += meter.wake_ups(pid) - before
        watched_s += _boot_s() - began_s
    return wakes, watched_s


def _boot_s() -> float:
    """The clock whose multiples are the sampler's grid."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def _until(at_s: float) -> None:
    await asyncio.sleep(max(0, at_s - _boot_s()))


# --- start -----------------------------------------------------------------------------------------


@asynccontextmanager
async def listener(lab: Lab) -> AsyncIterator[Session]:
    """A session of our own beside the hub's, that hears every board."""
    socket = lab.hub_dir / "broker" / "broker.sock"
    async with connect(Address(client_id="bench", unix=socket, username="hub")) as session:
        await session.subscribe(topics.up_all())
        yield session


async def _start(lab: Lab, board: Board, starts: int) -> Row:
    took_s = []
    for _ in range(starts):
        await board.stop()
        async with listener(lab) as session:
            began = time.monotonic()
            await board.start()
            async with asyncio.timeout(20):
                async for message in session.messages():
                    if not message.retain:
                        break
            took_s.append(time.monotonic() - began)
    return Row(
        "agent: start to first message published",
        statistics.median(took_s),
        "s",
        0.5,
        0.25,
        note=f"exec of a joined agent until another client of the broker has it; median of {starts}:"
        f" {', '.join(f'{one:.2f}' for one in sorted(took_s))}",
    )


# --- backlog ---------------------------------------------------------------------------------------


async def _backlog(lab: Lab, board: Board) -> Row:
    """Fill the outbox as an outage of two days does, then let the agent send it."""
    await board.stop()
    await _fill(board.state / "outbox.db")
    end = board.stored() + BACKLOG_READINGS
    await board.start()
    async with listener(lab) as session, asyncio.timeout(20):
        async for message in session.messages():
            if not message.retain and topics.parse(message.topic).leaf == "readings":
                break
    # By the hub's store: the board deletes what is acknowledged with its next commit.
    before = await asyncio.to_thread(board.stored)
    held = end - before
    began = time.monotonic()
    await lab.until(lambda: board.stored() >= end, "the backlog is drained", within_s=180)
    took_s = time.monotonic() - began
    return Row(
        "agent: backlog drained after an outage",
        held / took_s,
        "readings/s",
        2_000,
        10_000,
        "more",
        note=f"{held:,} readings in blocks of {BLOCK_READINGS}, from the first batch until the hub had all in"
        f" its store: {took_s:.1f} s",
    )


async def _fill(path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    async with Outbox.open(path, boot="b" * 32, max_bytes=256 * 1024 * 1024) as outbox:
        for number in range(0, BACKLOG_READINGS, BLOCK_READINGS):
            readings = [
                Reading(
                    f"sensor-{index % 10}",
                    20 + index / 7 % 5,
                    (number + index) * 1000,
                    now_ms - (BACKLOG_READINGS - number - index) * 1000,
                )
                for index in range(BLOCK_READINGS)
            ]
            await outbox.append(readings, "synced")
