"""What the hub drops, and how: the oldest first, in small slices, with a word, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text

from agent.base.broker import Message
from agent.wire import topics
from agent.wire.messages import Presence
from agent.wire.plain import dumps
from hub.config import Retention as Config
from hub.fleet.retention import BATCHES, DAY_MS, Retention
from hub.store import boards, schema
from hub.store.batches import NewBatch, add_batches, add_sensors, move_streams
from hub.store.boots import BootRow, save_boots
from hub.store.database import Store
from hub.store.events import list_events
from hub.store.facts import write_fact
from hub.store.gaps import GapRow, add_gaps, list_gaps
from hub.store.ranges import read_range
from hub.store.rollups import Part, add_parts
from support.blank import new_store
from support.ingesting import Hub, Line, boots_of
from support.stream import BOARD, BOOT, WALL_MS, Stream

OTHER = "c" * 16
BYTES = 100
NOW_MS = WALL_MS + 1000 * DAY_MS
LARGE = Config(max_bytes=2**40)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with new_store(tmp_path / "hub.db") as opened:
        async with opened.write() as tx:
            for id in (BOARD, OTHER):
                await boards.add_board(tx, id=id, log_key="", seal_key="", joined_ms=0)
        yield opened


async def fill(store: Store, count: int, *, every_ms: int = 1000, **columns: object) -> None:
    """Batches of `BYTES`, received from `WALL_MS` on, all folded."""
    made = [
        NewBatch(
            board=BOARD,
            received_ms=WALL_MS + number * every_ms,
            from_ms=WALL_MS,
            to_ms=WALL_MS,
            stream="s" * 16,
            seq0=number * 10 + 1,
            count=10,
            skip=1,
            content_type="application/json",
            payload=b"x" * BYTES,
            **columns,  # type: ignore[arg-type]
        )
        for number in range(count)
    ]
    async with store.write() as tx:
        await add_batches(tx, made)
        await write_fact(tx, "fold", 10**9)


async def left(store: Store, table: str = "batches") -> list[int]:
    """The ids that are there."""
    async with store.read() as tx:
        return [row[0] for row in await tx.execute(text(f"SELECT id FROM {table} ORDER BY id"))]


def retention(store: Store, config: Config, now_ms: int = NOW_MS) -> Retention:
    return Retention(store, config, lambda: now_ms)


# --- single readings -------------------------------------------------------------------------------


async def test_beyond_the_bound_the_oldest_go_and_it_is_told(store: Store) -> None:
    await fill(store, 250)
    keeper = retention(store, Config(max_bytes=100 * BYTES))
    await keeper.turn()
    assert await left(store) == list(range(151, 251))
    storage = keeper.storage()
    assert (storage.bytes, storage.max_bytes) == (100 * BYTES, 100 * BYTES)
    assert (storage.dropped_readings, storage.dropped_until_ms) == (150 * 9, WALL_MS + 149_000)
    async with store.read() as tx:
        [event] = await list_events(tx)
    assert (event.kind, event.board) == ("dropped", None)
    assert "the bound is 10.0 kB" in event.text

    await fill(store, 20)
    await keeper.turn()
    assert len(await left(store)) == 100
    async with store.read() as tx:
        assert len(await list_events(tx)) == 1  # one a day
    again = retention(store, Config(max_bytes=100 * BYTES), NOW_MS + DAY_MS)
    await fill(store, 1)
    await again.turn()
    assert again.storage().dropped_readings == 171 * 9
    async with store.read() as tx:
        assert len(await list_events(tx)) == 2


async def test_what_is_within_its_bounds_stays(store: Store) -> None:
    await fill(store, 100)
    keeper = retention(store, Config(max_bytes=100 * BYTES))
    await keeper.turn()
    assert len(await left(store)) == 100
    assert (keeper.storage().dropped_readings, keeper.storage().dropped_until_ms) == (0, None)


async def test_days_count_from_the_receipt_whatever_clocks_of_boards_say(store: Store) -> None:
    await fill(store, 10, every_ms=DAY_MS)
    await retention(store, Config(raw_days=3), WALL_MS + 9 * DAY_MS).turn()
    assert await left(store) == [7, 8, 9, 10]


async def test_charts_go_on_with_rollups(tmp_path: Path) -> None:
    made = Stream()
    made.sample(60)
    async with Hub.open(tmp_path) as hub:
        await hub.join(BOARD)
        await hub.take(made.message((1, 30)), made.message((31, 60), low=31))
        await retention(hub.store, Config(max_bytes=1), WALL_MS + DAY_MS).turn()
        assert await hub.stored() == []
        async with hub.store.read() as tx:
            series = await read_range(tx, BOARD, "room", WALL_MS - DAY_MS, WALL_MS + DAY_MS, 100)
        assert (series.source, sum(point.count for point in series.points)) == ("rollups", 60)


async def test_what_is_in_no_rollup_yet_stays(store: Store) -> None:
    await fill(store, 20)
    async with store.write() as tx:
        await write_fact(tx, "fold", 5)
    await retention(store, Config(max_bytes=1)).turn()
    assert await left(store) == list(range(6, 21))


async def test_what_is_about_to_get_its_time_stays_and_what_never_will_goes(store: Store) -> None:
    await fill(store, 3, boot=BOOT, pending=1)
    await fill(store, 3, boot="c" * 32, pending=1)
    async with store.write() as tx:
        await save_boots(tx, [BootRow(BOARD, BOOT, 1, 1, offset_ms=5), BootRow(BOARD, "c" * 32, 1, 1)])
    await retention(store, Config(max_bytes=1)).turn()
    assert await left(store) == [1, 2, 3]


@pytest.mark.slow
async def test_others_write_between_two_slices(store: Store) -> None:
    """Ingest waits for one slice at most: whoever asks meanwhile is next."""
    await fill(store, 12 * BATCHES)
    keeper = retention(store, Config(max_bytes=1))
    seen: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        dropping = tasks.create_task(keeper.turn())
        while not dropping.done():
            async with store.write() as tx:
                seen.append((await tx.execute(select(func.count()).select_from(schema.batches))).scalar_one())
            await asyncio.sleep(0)
    steps = [before - after for before, after in pairwise(seen)]
    assert set(steps) <= {0, BATCHES}
    assert seen[-1] == 0


@pytest.mark.slow
async def test_ingest_commits_and_acknowledges_while_much_is_dropped(tmp_path: Path) -> None:
    made = Stream()
    made.sample(400)
    async with Hub.open(tmp_path) as hub:
        await hub.join(BOARD)
        await fill(hub.store, 20 * BATCHES)
        line = Line()
        keeper = retention(hub.store, Config(max_bytes=1))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(hub._run(line))
            dropping = tasks.create_task(keeper.turn())
            for first in range(1, 400, 20):
                assert not dropping.done()
                line.arrive(made.message((first, first + 19), low=first))
                async with asyncio.timeout(10):
                    while not line.acks() or line.acks()[-1][made.name] < first + 19:
                        await asyncio.sleep(0.001)
            line.cut()
            await running
        assert {reading.seq for reading in await hub.stored()} == set(range(1, 401))


@pytest.mark.slow
async def test_room_is_used_again(store: Store) -> None:
    """The file keeps its size, and grows by no more than some slack while as much comes as goes."""
    keeper = retention(store, Config(max_bytes=500 * BYTES))

    async def pages() -> int:
        async with store.read() as tx:
            return int((await tx.execute(text("PRAGMA page_count"))).scalar_one())

    await fill(store, 1000)
    await keeper.turn()
    full = await pages()
    for _ in range(4):
        await fill(store, 500)
        await keeper.turn()
    assert await pages() <= full * 1.05


async def test_a_full_disk_is_said_once_and_tried_again(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(store, 20)
    keeper = retention(store, Config(max_bytes=1))
    async with store.write() as tx:
        full = "SELECT RAISE(FAIL, 'database or disk is full')"
        await tx.exec_driver_sql(f"CREATE TRIGGER no_room BEFORE DELETE ON batches BEGIN {full}; END")
    with caplog.at_level(logging.WARNING):
        running = asyncio.ensure_future(keeper.run())
        async with asyncio.timeout(5):
            while not caplog.records:
                await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert keeper.storage().bytes == 20 * BYTES
    async with store.write() as tx:
        await tx.exec_driver_sql("DROP TRIGGER no_room")
    await keeper.turn()
    assert await left(store) == []


# --- history ---------------------------------------------------------------------------------------


async def test_old_rollups_gaps_and_events_go(store: Store) -> None:
    config = Config(rollup_days=10, history_days=5)
    ages = (1, 4, 6, 9, 11, 400)
    async with store.write() as tx:
        await add_sensors(tx, [(BOARD, "room"), (BOARD, "hall")])
        for days in ages:
            at_ms = NOW_MS - days * DAY_MS
            parts = [
                Part(BOARD, name, at_ms + n, 1, 1, 1, 1) for name in ("room", "hall") for n in range(400)
            ]
            await add_parts(tx, parts)
            await add_gaps(tx, [GapRow(BOARD, "s" * 16, days, 1, None, None, "lost", at_ms)])
        for days in sorted(ages, reverse=True):
            event = {"at_ms": NOW_MS - days * DAY_MS, "actor": "hub", "kind": "x", "text": str(days)}
            await tx.execute(insert(schema.events), [event])
    await retention(store, config).turn()
    async with store.read() as tx:
        buckets = (await tx.execute(select(schema.rollups.c.bucket_ms))).scalars().all()
        assert len(buckets) == 4 * 400 * 2
        assert min(buckets) >= NOW_MS - 9 * DAY_MS
        assert {gap.seq0 for gap in await list_gaps(tx, BOARD, 0, 2**53)} == {1, 4, 6, 9}
        assert [event.text for event in await list_events(tx)] == ["1", "4"]


async def test_only_streams_that_no_board_can_hold_go(store: Store) -> None:
    """A board that was away since, or that has only just moved on, may still send from them."""
    year = 366
    streams: Sequence[tuple[str, str, int]] = [
        (BOARD, "ended", year + 100),
        (BOARD, "ended-later", year + 40),
        (BOARD, "hardly-older", year + 2),
        (BOARD, "newest", year + 1),
        (OTHER, "away-for-years", 3 * year),
        (OTHER, "away-as-well", 3 * year - 1),
    ]
    async with store.write() as tx:
        for board, stream, days in streams:
            await move_streams(tx, {(board, stream): 5}, NOW_MS - days * DAY_MS)
    await retention(store, LARGE).turn()
    async with store.read() as tx:
        rows = (await tx.execute(select(schema.streams.c.stream))).scalars().all()
    assert set(rows) == {"hardly-older", "newest", "away-for-years", "away-as-well"}


async def test_boots_stay_as_long_as_readings_need_them(store: Store) -> None:
    old, older = NOW_MS - 500 * DAY_MS, NOW_MS - 600 * DAY_MS
    rows = [
        BootRow(BOARD, "older", older, older),
        BootRow(BOARD, "old", old, old),
        BootRow(BOARD, "newest", old + 1, old + 1),
        BootRow(OTHER, "only", older, older),
    ]
    async with store.write() as tx:
        await save_boots(tx, rows)
    await fill(store, 1)  # received 1,000 days ago
    await retention(store, LARGE).turn()
    async with store.read() as tx:
        assert len(await boots_of(tx, BOARD, OTHER)) == 4
    await retention(store, Config(max_bytes=1)).turn()
    async with store.read() as tx:
        assert {boot for _, boot in await boots_of(tx, BOARD, OTHER)} == {"newest", "only"}


async def test_a_birth_in_a_boot_that_was_forgotten_is_that_of_a_new_one(tmp_path: Path) -> None:
    async with Hub.open(tmp_path) as hub:
        await hub.join(BOARD)
        births = [Presence("online", f"n{number}", str(number) * 32, 5) for number in range(3)]
        topic = topics.up(BOARD, "presence")
        for said in births:
            await hub.take(Message(topic, dumps(said)))
        await retention(hub.store, LARGE).turn()
        async with hub.store.read() as tx:
            assert {boot[0] for _, boot in await boots_of(tx, BOARD)} == {"2"}
        await hub.take(Message(topic, dumps(births[0])))
        assert "identity-twice" not in [each.code for each in hub.latest.boards[BOARD].problems]
