"""A week of a fleet with random faults: in the end the hub has what its boards committed, and says what not.

Ten boards in virtual time, with the agent's own sampler, outbox and link and the hub's own ingest and
store, each on files of its own; only machines, sensors and the broker are played (`support.fleet`).
Sensors are asked once a minute, or in five, and all boards sample and report in the same seconds: that is
what compresses a week into minutes.

`make test` plays a tenth of a week, `make soak` all of it.  The seed is in the name of the test and in what
it prints; `LICHEN_SEED=5 make soak` plays another one.  Threads are real, so two runs of a seed differ in
small things.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hub.store.database import Store
from hub.store.gaps import GapRow, list_gaps
from hub.store.ranges import BUCKET_MS
from hub.store.readings import RawReading, iter_raw
from support.fleet.board import NEAR_MS, Board, Key
from support.fleet.faults import Faults
from support.fleet.hub import Hub
from support.fleet.machine import HOUR_S
from support.fleet.network import Network
from support.homehub import HomeHub
from support.lab import read_only
from support.virtual import database_takes_no_time, virtual

LONG = bool(os.environ.get("LICHEN_SOAK"))
SEED = int(os.environ.get("LICHEN_SEED", "20261122"))
HOURS = 168.0 if LONG else 16.8
BOARDS = 10
ALWAYS_MS = 2**52

pytestmark = [pytest.mark.soak, pytest.mark.slow, pytest.mark.timeout(3600 if LONG else 300)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory: a commit that waits for a disk would make this take hours."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="lichen-week-", dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Thousands of lines about faults that are meant."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@dataclass
class Fleet:
    """All that there is."""

    hub: Hub
    boards: list[Board]
    network: Network
    faults: Counter[str] = field(default_factory=Counter)


@pytest.mark.parametrize("seed", [SEED])
def test_a_week_of_faults_ends_with_what_was_committed(folder: Path, seed: int) -> None:
    print(f"LICHEN_SEED={seed}, {HOURS:.0f} hours")
    random.seed(seed)  # back-off and jitter of the hub

    @virtual
    async def week() -> None:
        fleet = await make(folder, seed)
        await live(fleet, seed)
        await judge(fleet)

    with database_takes_no_time():
        week()


async def make(folder: Path, seed: int) -> Fleet:
    """Ten boards that have joined a hub."""
    home = HomeHub(folder / "home")
    network = Network(random.Random(f"{seed} network"))
    boards = [Board(folder / f"board-{n}", home, network, f"{seed} board {n}") for n in range(BOARDS)]
    hub = Hub(folder / "hub", home, network)
    await hub.admit([board.id for board in boards])
    return Fleet(hub, boards, network)


async def live(fleet: Fleet, seed: int) -> None:
    """The week, then peace until everything has arrived, and a stop."""
    async with asyncio.TaskGroup() as group:
        fleet.hub.start(group)
        for board in fleet.boards:
            board.start(group)
        faults = Faults(random.Random(seed), group, fleet.network, fleet.hub, fleet.boards)
        await faults.run(HOURS * HOUR_S)
        fleet.faults = faults.seen
        await asyncio.sleep(HOUR_S)
        for board in fleet.boards:
            await board.stop()
            board.start(group, samples=False)
        await asyncio.sleep(60)
        for board in fleet.boards:
            await board.commit_one()  # a gap without readings behind it waits for some
        await until_drained(fleet)
        await asyncio.sleep(HOUR_S)  # roll-ups and corrections
        for board in fleet.boards:
            await board.stop()
        await fleet.hub.stop()


async def until_drained(fleet: Fleet) -> None:
    """Wait until no board holds anything."""
    async with asyncio.timeout(6 * HOUR_S):
        for board in fleet.boards:
            while not await board.is_drained():
                await asyncio.sleep(30)


# --- the verdict ---------------------------------------------------------------------------------


async def judge(fleet: Fleet) -> None:
    """Compare the hub's store with the list of each board."""
    made = stored = gone = uncertain = 0
    everything: dict[str, list[RawReading]] = {}
    async with Store.open(fleet.hub.file) as store:
        for board in fleet.boards:
            found = await readings_of(store, board)
            check_stored(board, found)
            gone += await check_gaps(store, board, found)
            uncertain += check_times(board, found)
            made += len(board.made)
            stored += len(found)
            everything[board.id] = list(found.values())
    check_roll_ups(fleet, everything)
    print(
        f"{BOARDS} boards, {sum(fleet.faults.values())} faults"
        f" ({', '.join(f'{name} {count}' for name, count in fleet.faults.most_common())});"
        f" {made} readings made, {stored} stored, {gone} in gaps, {uncertain} of uncertain time"
    )
    assert stored > 0.5 * made, "there was more fault than fleet"


async def readings_of(store: Store, board: Board) -> dict[Key, RawReading]:
    """What the hub has of a board, each reading once."""
    found: dict[Key, RawReading] = {}
    numbers: set[tuple[str, int]] = set()
    async for reading in iter_raw(store, board.id, since_ms=-ALWAYS_MS, until_ms=ALWAYS_MS):
        key = reading.boot, reading.sensor, reading.mono_ms
        assert key not in found, f"{board.id}: {key} is stored twice"
        assert (reading.stream, reading.seq) not in numbers, f"{board.id}: {reading} has a number twice"
        numbers.add((reading.stream, reading.seq))
        found[key] = reading
    return found


def check_stored(board: Board, found: dict[Key, RawReading]) -> None:
    """Nothing is stored that was not made and committed, and all as it was."""
    assert found.keys() <= board.committed, f"{board.id}: {len(found.keys() - board.committed)} from nowhere"
    wrong = [key for key, reading in found.items() if reading.value != board.made[key].value]
    assert not wrong, f"{board.id}: {len(wrong)} readings have changed on the way, such as {wrong[:3]}"


async def check_gaps(store: Store, board: Board, found: dict[Key, RawReading]) -> int:
    """What is missing is in gaps that the board declared, all of it; returns how much."""
    async with store.read() as tx:
        gaps = await list_gaps(tx, board.id, -ALWAYS_MS, ALWAYS_MS)
    missing = board.committed - found.keys()
    declared = sum(gap.count for gap in gaps)
    assert declared == len(missing), (
        f"{board.id}: of {len(board.committed)} readings {len(missing)} are missing and"
        f" {declared} declared: {gaps}"
    )
    known = known_boots(found)
    for key in missing:
        boot, _, mono_ms = key
        if boot in known and board.knew_the_time(key):
            at_ms = board.machine.boots[boot].zero_ms + mono_ms
            assert any(covers(gap, at_ms) for gap in gaps), (
                f"{board.id}: nothing says that {at_ms} is gone: {gaps}"
            )
    reasons = {gap.reason for gap in gaps}
    assert reasons <= {"outbox-full"}, f"{board.id}: gaps for {reasons}"
    return declared


def covers(gap: GapRow, at_ms: int) -> bool:
    """Whether a gap says that a reading of this time is gone; what it does not know, it does not deny."""
    after = gap.from_ms is None or gap.from_ms - NEAR_MS <= at_ms
    before = gap.to_ms is None or at_ms <= gap.to_ms + NEAR_MS
    return after and before


def known_boots(found: dict[Key, RawReading]) -> set[str]:
    """The boots in which the board ever knew the time, as what is stored of them says."""
    return {boot for (boot, _, _), reading in found.items() if reading.clock != "unsynced"}


def check_times(board: Board, found: dict[Key, RawReading]) -> int:
    """Every time is right where the board ever knew it in that boot; returns how many are not."""
    known = known_boots(found)
    uncertain = 0
    for (boot, _, mono_ms), reading in found.items():
        assert reading.uncertain == (boot not in known), f"{board.id}: {reading}"
        true_ms = board.machine.boots[boot].zero_ms + mono_ms
        if reading.uncertain:
            uncertain += 1
        else:
            off_ms = reading.wall_ms - true_ms
            assert abs(off_ms) <= NEAR_MS, f"{board.id}: {off_ms} ms off: {reading}"
    return uncertain


def check_roll_ups(fleet: Fleet, found: dict[str, list[RawReading]]) -> None:
    """The roll-ups are the sums of the readings whose time is known, each counted once."""
    expected: dict[tuple[str, str, int], list[float]] = {}
    for board, readings in found.items():
        for reading in readings:
            if reading.value is not None and not reading.uncertain:
                key = board, reading.sensor, reading.wall_ms // BUCKET_MS * BUCKET_MS
                expected.setdefault(key, []).append(reading.value)
    sql = (
        "SELECT board, name, bucket_ms, count, sum, min, max FROM rollups"
        " JOIN sensors ON sensors.id = rollups.sensor"
    )
    with read_only(fleet.hub.file) as hub:
        rolled = {row[:3]: row[3:] for row in hub.execute(sql)}
    assert rolled == {
        key: (len(values), sum(values), min(values), max(values)) for key, values in expected.items()
    }
