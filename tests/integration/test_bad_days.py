"""Bad days, with real processes: whatever is killed, frozen or restored, the counts agree.

The proof is the same each time.  A board numbers its readings within a stream when it commits
them, so at the end the hub must hold, for each stream, the numbers 1 to the last one that the
board committed: all of them, each once, with no gap declared.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from support.lab import Board, Lab, read_only

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if os.environ.get("LICHEN_SOAK") else 180)]

ROUNDS = 50 if os.environ.get("LICHEN_SOAK") else 5
SEED = int(os.environ.get("LICHEN_SEED", "20261122"))
FAST = {
    "report": {"every_s": 0.2, "commit_every_s": 0.1},
    "link": {"backoff_low_s": 0.05, "backoff_high_s": 1, "resend_s": 2},
    "sensors": [
        {"name": "load", "kind": "file", "path": "/proc/loadavg", "pattern": r"^(\S+)", "interval_s": 0.1},
        {
            "name": "entropy",
            "kind": "file",
            "path": "/proc/sys/kernel/random/entropy_avail",
            "interval_s": 0.1,
        },
    ],
}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path) as lab:
        await lab.start_hub()
        yield lab


@pytest.fixture
async def board(lab: Lab) -> Board:
    """A board that reports ten times a second and has been heard."""
    board = await lab.add_board("pump", **FAST)
    await board.start()
    await lab.until(lambda: board.joined and board.stored() > 0, "the first reading is stored")
    return board


def committed(board: Board) -> dict[str, int]:
    """The last number of each stream that the board's outbox holds (an earlier one is acknowledged)."""
    sql = "SELECT stream, max(seq0 + count - 1) FROM blocks GROUP BY stream"
    return dict(board.ask_outbox(sql))


def check_exactly_once(board: Board, seen: dict[str, int]) -> None:
    """Every number up to the last is stored, and none twice; ``seen`` had been committed."""
    ranges = "SELECT stream, seq0 + skip, seq0 + count FROM batches WHERE board = ? ORDER BY 1, 2"
    with read_only(board.lab.hub_dir / "hub.db") as hub:
        rows = hub.execute(ranges, (board.id,)).fetchall()
        gaps = hub.execute("SELECT stream, seq0, count, reason FROM gaps").fetchall()
    assert gaps == []
    ends: dict[str, int] = {}
    for stream, start, end in rows:
        assert start == ends.get(stream, 1), f"{stream}: {start} does not follow {ends.get(stream, 1)}"
        ends[stream] = end
    for stream, last in seen.items():
        assert ends.get(stream, 1) > last, (
            f"{stream}: {last} was committed, {ends.get(stream, 1) - 1} arrived"
        )


async def settle(board: Board) -> None:
    """Stop the board in peace once; afterwards everything that it committed is at the hub."""
    await board.lab.until(lambda: board.held() < 20, "the outbox is drained", within_s=60)
    await board.stop()
    await board.start()
    await board.lab.until(lambda: board.running and board.held() < 20, "and again", within_s=30)
    await board.stop()
    seen = committed(board)
    await board.start()
    await board.lab.until(lambda: not set(committed(board)) & set(seen), "every old stream is acknowledged")
    check_exactly_once(board, seen)


def holds_more_than(board: Board, count: int) -> Callable[[], bool]:
    """Whether the hub has stored more than ``count`` readings of a board."""
    return lambda: board.stored() > count


def broker_of(lab: Lab) -> psutil.Process:
    """The hub's mosquitto."""
    children = psutil.Process(lab.hub.pid).children(recursive=True)
    return next(child for child in children if child.name() == "mosquitto")


async def test_a_killed_broker_comes_back_and_nothing_is_lost(lab: Lab, board: Board) -> None:
    for _ in range(3):
        before = board.stored()
        broker_of(lab).kill()
        await lab.until(holds_more_than(board, before + 10), "readings arrive again")
    await settle(board)


async def test_a_broker_that_has_forgotten_everything_costs_nothing(lab: Lab, board: Board) -> None:
    """Acknowledgements, births, abouts and the hub document were kept there; all of it comes again."""
    database = lab.hub_dir / "broker" / "mosquitto.db"
    for _ in range(2):
        before = board.stored()
        broker = broker_of(lab)
        broker.send_signal(signal.SIGUSR1)  # it saves its database (mosquitto(8))
        await lab.until(database.exists, "the broker has saved its database")
        broker.suspend()
        database.unlink()
        broker.kill()
        await lab.until(holds_more_than(board, before + 10), "readings arrive again")
        shown = await lab.api("GET", f"/boards/{board.id}")
        assert (shown["presence"], shown["state"]) == ("online", "fine"), shown["sentence"]
        assert not database.exists()
    await settle(board)


async def test_a_broker_frozen_for_a_minute_is_left_and_found_again(lab: Lab, board: Board) -> None:
    broker = broker_of(lab)
    broker.suspend()
    await asyncio.sleep(60)  # the minute itself is the test
    before = board.stored()
    broker.resume()
    await lab.until(lambda: board.stored() > before + 600, "the minute's readings arrive", within_s=30)
    await settle(board)


async def test_a_board_that_is_suspended_is_missed_and_goes_on(lab: Lab) -> None:
    """The broker ends its session meanwhile, which nobody on the board notices before it wakes up."""
    link = {"backoff_low_s": 0.05, "backoff_high_s": 1, "keepalive_s": 5}
    board = await lab.add_board("pump", **{**FAST, "link": link})
    await board.start()
    await lab.until(lambda: board.joined and board.stored() > 0, "the first reading is stored")

    async def is_missed() -> bool:
        sessions = broker_of(lab).net_connections("tcp")
        ended = not [each for each in sessions if each.status == psutil.CONN_ESTABLISHED]
        found = (await lab.api("GET", "/problems"))["problems"]
        return ended and [each["code"] for each in found] == ["board-silent"]

    async def is_well() -> bool:
        shown = await lab.api("GET", f"/boards/{board.id}")
        return shown["presence"] == "online" and not (await lab.api("GET", "/problems"))["problems"]

    os.kill(board.pid, signal.SIGSTOP)
    await lab.until(is_missed, "its session has ended, and the hub tells of it", within_s=40)
    before = board.stored()
    os.kill(board.pid, signal.SIGCONT)
    await lab.until(holds_more_than(board, before + 10), "readings arrive again")
    await lab.until(is_well, "nothing is wrong any more")
    past = (await lab.api("GET", "/problems?open=false"))["problems"]
    assert [(each["board"], each["code"]) for each in past] == [(board.id, "board-silent")]
    await settle(board)


@pytest.mark.soak
async def test_a_hub_killed_while_it_ingests_stores_each_reading_once(lab: Lab, board: Board) -> None:
    dice = random.Random(SEED)
    for _ in range(ROUNDS):
        await asyncio.sleep(dice.uniform(0, 0.8))
        await lab.hub.kill()
        await lab.start_hub()
        before = board.stored()
        await lab.until(holds_more_than(board, before), "readings arrive again")
    await settle(board)


@pytest.mark.soak
async def test_an_agent_killed_while_it_samples_loses_nothing_committed(lab: Lab, board: Board) -> None:
    dice = random.Random(SEED)
    seen: dict[str, int] = {}

    def commits() -> bool:
        return bool(committed(board).keys() - seen.keys())

    for _ in range(ROUNDS):
        await asyncio.sleep(dice.uniform(0, 0.8))
        await board.kill()
        seen |= committed(board)
        await board.start()
        await lab.until(commits, "the next start commits")
    await settle(board)
    check_exactly_once(board, seen)


@pytest.mark.soak
async def test_both_killed_at_once(lab: Lab, board: Board) -> None:
    dice = random.Random(SEED + 1)
    for _ in range(ROUNDS):
        await asyncio.sleep(dice.uniform(0, 0.5))
        await board.kill()
        await lab.hub.kill()
        await board.start()
        await lab.start_hub()
    await settle(board)


@pytest.mark.parametrize("restored", [True, False], ids=["restored from an old copy", "deleted"])
async def test_an_outbox_that_is_not_the_last_one_drops_nothing_new(
    lab: Lab, board: Board, restored: bool
) -> None:
    old = lab.dir / "old.db"
    await board.stop()
    if restored:
        shutil.copy(board.state / "outbox.db", old)
    await board.start()
    before = board.stored()
    await lab.until(lambda: board.stored() > before + 20, "the hub acknowledges, retained")
    await board.stop()
    await lab.hub.stop()
    for file in board.state.glob("outbox.db*"):
        file.unlink()
    if restored:
        shutil.copy(old, board.state / "outbox.db")
    await board.start()  # samples while the hub is away, then meets the retained ack
    await lab.until(lambda: board.held() > 20, "readings are committed")
    seen = committed(board)
    await lab.start_hub()
    await settle(board)
    check_exactly_once(board, seen)


async def test_both_sides_end_within_two_seconds(lab: Lab, board: Board) -> None:
    assert await board.stop(signal.SIGTERM, within_s=2) == 0
    assert await lab.hub.stop(signal.SIGTERM, within_s=2) == 0
