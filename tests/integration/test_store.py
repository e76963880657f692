"""The hub's database on a real file: its version, its transactions, and every question asked of it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, delete, insert, text
from sqlalchemy.exc import OperationalError

from agent.wire.envelope import JSON
from agent.wire.errors import ConfigError, Corrupt, Refused
from agent.wire.messages import About, Sensor
from hub.fleet.arrivals import ReadingsCame, read_arrival
from hub.fleet.commit import Commit
from hub.fleet.rollup import Fold
from hub.store import batches, billing_schema, boards, database, events, schema
from hub.store.boards import BoardRow, PresenceChange
from hub.store.database import REVISION, Store
from hub.store.gaps import GapRow, add_gaps, list_gaps
from hub.store.ranges import BUCKET_MS, read_range
from hub.store.readings import SLICE, RawReading, iter_raw
from hub.store.rollups import Part, add_parts
from support.stream import BOARD, WALL_MS, Stream

OTHER = "c" * 16
HOUR_MS = 3_600_000


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "hub.db") as opened:
        yield opened


async def join(
    store: Store, id: str = BOARD, name: str = "", labels: dict[str, str] | None = None
) -> BoardRow:
    async with store.write() as tx:
        return await boards.add_board(
            tx, id=id, name=name, labels=labels, log_key="log", seal_key="seal", joined_ms=1
        )


async def keep(store: Store, stream: Stream, *spans: tuple[int, int], low: int = 1) -> None:
    """Commit one batch as ingest does, roll-ups included."""
    arrival = read_arrival(stream.message(*spans, low=low), WALL_MS)
    assert isinstance(arrival, ReadingsCame)
    commit, fold = Commit(WALL_MS), Fold()
    async with store.write() as tx:
        await commit.apply(tx, [arrival], {})
        for batch in commit.stored:
            fold.add(batch.board, batch.blocks, batch.skip)
        await add_parts(tx, fold.parts())


# --- version -------------------------------------------------------------------------------------


async def test_migrations_make_exactly_the_tables_of_the_schema(store: Store) -> None:
    fresh = create_engine("sqlite://")
    billing_schema.usage_rates.metadata.create_all(fresh)
    with fresh.connect() as connection:
        wanted = statements(connection)
    fresh.dispose()
    async with store.read() as tx:
        assert await tx.run_sync(statements) == wanted


def statements(connection: Connection) -> dict[str, list[str]]:
    """The statements that made the tables and indexes, as their sorted parts: the order may differ."""
    rows = connection.execute(text("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    made = {name: sorted(parts_of(sql)) for name, sql in rows}
    made.pop("alembic_version", None)
    return made


def parts_of(sql: str) -> list[str]:
    """What stands before the outer brackets, each entry between them, and what stands behind."""
    head, _, rest = " ".join(sql.split()).partition("(")
    body, _, tail = rest.rpartition(")")
    return [head.strip(), *(part.strip() for part in re.split(r",(?![^()]*\))", body)), tail.strip()]


def test_the_revision_that_open_looks_for_is_the_newest() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


async def test_a_database_of_this_version_opens_without_the_migration_tool(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with Store.open(path) as store:
        await join(store)
    program = (
        "import asyncio, sys, pathlib\n"
        "from hub.store.database import Store\n"
        "async def main():\n"
        "    async with Store.open(pathlib.Path(sys.argv[1])): pass\n"
        "asyncio.run(main())\n"
        "print('alembic' in sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(database.__file__).parents[2])},
    )
    assert ran.stdout == "False\n"
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "hub.db") as store, store.write() as tx:
        await tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="has schema 9999") as refusal:
        async with Store.open(tmp_path / "hub.db"):
            pass
    assert "install the version" in refusal.value.hint


async def test_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"these are not the bytes of a database" * 100)
    with pytest.raises(Corrupt, match="not a database"):
        async with Store.open(tmp_path / "hub.db"):
            pass
    with pytest.raises(ConfigError, match="no such directory"):
        async with Store.open(tmp_path / "nowhere" / "hub.db"):
            pass


# --- transactions --------------------------------------------------------------------------------


async def test_a_transaction_that_raises_never_was(store: Store) -> None:
    async def fail() -> None:
        async with store.write() as tx:
            await boards.add_board(tx, id=BOARD, log_key="", seal_key="", joined_ms=1)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    async with store.read() as tx:
        assert await boards.count_boards(tx) == 0


async def test_a_transaction_that_is_cancelled_lets_the_next_one_in(store: Store) -> None:
    begun = asyncio.Event()

    async def never_ends() -> None:
        async with store.write() as tx:
            await boards.add_board(tx, id=BOARD, log_key="", seal_key="", joined_ms=1)
            begun.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(never_ends())
        await begun.wait()
        task.cancel()
    await join(store, OTHER)
    async with store.read() as tx:
        assert [row.id for row in await boards.list_boards(tx)] == [OTHER]


async def test_a_statement_that_is_cancelled_does_not_keep_the_lock(store: Store) -> None:
    """The task is kept, and with it the traceback, the cursor and the connection."""
    await join(store)
    endless = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000) SELECT max(i) FROM n"
    )
    begun = asyncio.Event()

    async def cancelled() -> None:
        async with store.write() as tx:
            await boards.rename_board(tx, BOARD, "attic")
            begun.set()
            await tx.execute(endless)

    task = asyncio.ensure_future(cancelled())
    await begun.wait()
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(database.BUSY_TIMEOUT_S / 2):
        await label(store, "still-here")
    async with store.read() as tx:
        assert (await boards.get_board(tx, BOARD)).name == BOARD


async def test_writers_take_turns_and_readers_do_not_wait(store: Store) -> None:
    await join(store)
    async with store.write() as tx:
        await boards.rename_board(tx, BOARD, "attic")
        async with store.read() as other:
            assert (await boards.get_board(other, BOARD)).name == BOARD
    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(label(store, str(number)))
    async with store.read() as tx:
        assert len((await boards.get_board(tx, BOARD)).labels) == 20


async def label(store: Store, key: str) -> None:
    async with store.write() as tx:
        await boards.label_board(tx, BOARD, {key: "x"})


async def test_who_reads_cannot_write(store: Store) -> None:
    with pytest.raises(OperationalError, match="readonly"):
        async with store.read() as tx:
            await boards.add_board(tx, id=BOARD, log_key="", seal_key="", joined_ms=1)


async def test_the_probe_of_the_watchdog_leaves_nothing(store: Store) -> None:
    before = store.size_bytes()
    await store.probe()
    assert store.size_bytes() == before > 0


async def test_a_full_disk_is_said_in_words_and_gone_when_there_is_room(store: Store) -> None:
    await join(store)
    await limit_pages(store, 1)
    row = {"at_ms": 1, "board": None, "actor": "hub", "kind": "joined", "text": "x" * 1000}

    async def note(count: int) -> None:
        async with store.write() as tx:
            await events.add_events(tx, [row] * count)

    with pytest.raises(Refused, match="no space left") as refusal:
        await note(1000)
    assert refusal.value.code == "disk-full"
    await limit_pages(store, 1_000_000)
    await note(1000)


async def limit_pages(store: Store, pages: int) -> None:
    async with store.write() as tx:
        await tx.exec_driver_sql(f"PRAGMA max_page_count={pages}")


async def test_the_queries_of_each_transaction_use_an_index(store: Store) -> None:
    """With 10,000 boards a scan for each transaction costs more than everything else."""
    statements = (
        "SELECT * FROM streams WHERE board IN ('a', 'b')",
        "SELECT * FROM boards WHERE id IN ('a', 'b')",
        "SELECT max(id) FROM batches",
        "SELECT * FROM batches WHERE board = 'a' AND to_ms >= 1 AND from_ms < 9 ORDER BY to_ms, from_ms, id",
    )
    async with store.read() as tx:
        for statement in statements:
            plan = str((await tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")).all())
            assert "SEARCH" in plan
            assert "TEMP B-TREE" not in plan


# --- boards --------------------------------------------------------------------------------------


async def test_boards_are_listed_by_name_page_by_page(store: Store) -> None:
    for number, name in enumerate(["pump", "attic", "shed", "barn"]):
        await join(store, f"{'abcd'[number] * 16}", name, {"site": "north" if number % 2 else "south"})
    async with store.read() as tx:
        first = await boards.list_boards(tx, limit=3)
        assert [row.name for row in first] == ["attic", "barn", "pump"]
        assert [row.name for row in await boards.list_boards(tx, after=first[-1].name)] == ["shed"]
        assert [row.name for row in await boards.list_boards(tx, labels={"site": "north"})] == [
            "attic",
            "barn",
        ]
        assert [row.name for row in await boards.list_boards(tx, search="A")] == ["attic", "barn", "pump"]
        assert [row.name for row in await boards.list_boards(tx, search="dddd")] == ["barn"]
        assert await boards.list_boards(tx, search="%") == []
        assert await boards.count_boards(tx, labels={"site": "south"}) == 2
        assert await boards.count_boards(tx, presence="online") == 0
        with pytest.raises(Refused, match="not a key"):
            await boards.list_boards(tx, labels={'a"b': "x"})


async def test_one_name_for_one_board(store: Store) -> None:
    names = [(await join(store, letter * 16, "n" * 64)).name for letter in "abc"]
    assert names == ["n" * 64, "n" * 62 + "-2", "n" * 62 + "-3"]
    async with store.write() as tx:
        await boards.rename_board(tx, "a" * 16, "greenhouse")
    with pytest.raises(Refused, match="another board is called") as refusal:
        async with store.write() as tx:
            await boards.rename_board(tx, "b" * 16, "greenhouse")
    assert refusal.value.code == "conflict"
    async with store.read() as tx:
        assert (await boards.get_board(tx, "greenhouse")).id == "a" * 16
        with pytest.raises(Refused) as missing:
            await boards.get_board(tx, "greenhuose")
    assert (missing.value.code, missing.value.hint) == ("not-found", "did you mean 'greenhouse'?")


async def test_an_id_wins_over_a_name(store: Store) -> None:
    await join(store, BOARD, "x")
    await join(store, OTHER, BOARD)
    async with store.read() as tx:
        assert (await boards.get_board(tx, BOARD)).id == BOARD


async def test_a_board_joins_once(store: Store) -> None:
    await join(store)
    with pytest.raises(Refused, match="joined already"):
        await join(store)


@pytest.mark.parametrize("name", ["", " pump", "pump ", "a\nb", "a/b", "x" * 65, "\x00", ".", ".."])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(Refused, match="not a name"):
        boards.check_name(name)


async def test_labels_are_set_and_removed(store: Store) -> None:
    await join(store, labels={"site": "north", "floor": "2"})
    async with store.write() as tx:
        assert await boards.label_board(tx, BOARD, {"site": "south"}, ["floor", "nothing"]) == {
            "site": "south"
        }
        with pytest.raises(Refused, match="more than the 32"):
            await boards.label_board(tx, BOARD, {f"k{number}": "" for number in range(33)})


async def test_a_revoked_board_is_listed_only_when_asked_for(store: Store) -> None:
    await join(store)
    async with store.write() as tx:
        assert await boards.revoke_board(tx, BOARD, 5)
        assert not await boards.revoke_board(tx, BOARD, 6)
        assert await boards.list_boards(tx) == []
        assert [row.revoked_ms for row in await boards.list_boards(tx, revoked=True)] == [5]
        assert (await boards.standings(tx, [BOARD, OTHER]))[BOARD].revoked
        assert await batches.load_latest(tx) == []


async def test_what_a_board_says_of_itself(store: Store) -> None:
    await join(store)
    sensor = Sensor("room", "thermal", "Cel", "temperature", 10_000)
    about = About(
        board=BOARD, version="1", log_key="", seal_key="", boot="b" * 32, started_ms=1, sensors=(sensor,)
    )
    async with store.write() as tx:
        await batches.add_sensors(tx, [(BOARD, "room"), (BOARD, "hall")])
        await boards.save_abouts(tx, {BOARD: about}, 9, most_sensors=512)
        await boards.save_presence(tx, [PresenceChange(BOARD, "online", "n", 9)])
        row = await boards.get_board(tx, BOARD)
        assert row.about is not None
        assert (row.about["version"], row.presence, row.presence_ms, row.heard_ms) == ("1", "online", 9, 9)
        found = [
            (sensor.name, sensor.unit, sensor.interval_ms) for sensor in await boards.list_sensors(tx, BOARD)
        ]
        assert found == [("hall", "", 0), ("room", "Cel", 10_000)]


async def test_events_newest_first_page_by_page(store: Store) -> None:
    async with store.write() as tx:
        for number in range(5):
            board = BOARD if number % 2 else None
            await events.add_event(tx, at_ms=number, kind="joined", text=str(number), board=board)
        first = await events.list_events(tx, limit=3)
        assert [event.text for event in first] == ["4", "3", "2"]
        assert [event.text for event in await events.list_events(tx, before=first[-1].id)] == ["1", "0"]
        assert [event.text for event in await events.list_events(tx, board=BOARD)] == ["3", "1"]


# --- readings ------------------------------------------------------------------------------------


async def raw(store: Store, sensor: str | None = None, **bounds: int) -> list[RawReading]:
    asked = {"since_ms": 0, "until_ms": 2 * WALL_MS} | bounds
    return [reading async for reading in iter_raw(store, BOARD, sensor, **asked)]


async def test_a_short_range_is_made_of_single_readings(store: Store) -> None:
    await join(store)
    stream = Stream(sensors=("room", "hall"))
    stream.sample(20)
    await keep(store, stream, (1, 8), (9, 12))
    await keep(store, stream, (13, 20), low=13)
    async with store.read() as tx:
        series = await read_range(tx, BOARD, "room", WALL_MS + 2000, WALL_MS + 16_000, 100)
    assert (series.source, series.step_ms) == ("readings", 0)
    assert [(point.at_ms - WALL_MS, point.mean) for point in series.points] == [
        (at_s * 1000, at_s + 1.0) for at_s in range(2, 16, 2)
    ]


async def test_too_many_single_readings_become_steps(store: Store) -> None:
    await join(store)
    stream = Stream()
    stream.sample(600)
    await keep(store, stream, (1, 600))
    start_ms = WALL_MS - WALL_MS % 60_000
    async with store.read() as tx:
        series = await read_range(tx, BOARD, "room", start_ms, start_ms + HOUR_MS, 60)
    assert (series.source, series.step_ms) == ("readings", 60_000)
    assert sum(point.count for point in series.points) == 600
    assert all(point.min <= point.mean <= point.max and point.at_ms % 60_000 == 0 for point in series.points)
    assert len(series.points) <= 60


async def test_a_long_range_is_made_of_rollups(store: Store) -> None:
    await join(store)
    day_ms = 24 * HOUR_MS
    start_ms = WALL_MS - WALL_MS % (364 * day_ms)
    async with store.write() as tx:
        await batches.add_sensors(tx, [(BOARD, "room")])
        await add_parts(
            tx,
            [
                Part(BOARD, "room", start_ms + n * BUCKET_MS, n, n + 2.0, 4.0 * n + 4, 4)
                for n in range(96 * 7)
            ],
        )
    async with store.read() as tx:
        week = await read_range(tx, BOARD, "room", start_ms, start_ms + 7 * day_ms, 100)
        assert (week.source, week.step_ms, len(week.points)) == ("rollups", 2 * HOUR_MS, 84)
        first = week.points[0]
        assert (first.at_ms, first.min, first.max, first.mean, first.count) == (start_ms, 0, 9, 4.5, 32)
        day = await read_range(tx, BOARD, "room", start_ms, start_ms + day_ms, 1000)
        assert (day.step_ms, len(day.points)) == (BUCKET_MS, 96)
        for points in (1, 2, 3, 10):
            for from_ms in (0, start_ms - 1, start_ms + 1):
                series = await read_range(tx, BOARD, "room", from_ms, start_ms + 7 * day_ms, points)
                assert 1 <= len(series.points) <= points


async def test_rollups_answer_where_single_readings_cost_too_much_or_are_gone(store: Store) -> None:
    await join(store)
    stream = Stream()
    stream.sample(3600)
    for first in range(1, 3600, 60):
        await keep(store, stream, (first, first + 59), low=first)

    async def source(most_batches: int) -> str:
        span = (WALL_MS - HOUR_MS, WALL_MS + 2 * HOUR_MS)
        async with store.read() as tx:
            series = await read_range(tx, BOARD, "room", *span, 100, most_batches=most_batches)
        return series.source

    assert await source(60) == "readings"
    assert await source(59) == "rollups"
    async with store.write() as tx:
        await tx.execute(delete(schema.batches).where(schema.batches.c.to_ms < WALL_MS + HOUR_MS / 2))
    assert await source(60) == "rollups"


async def test_what_a_sensor_could_not_tell_is_in_no_series(store: Store) -> None:
    await join(store)
    stream = Stream()
    stream.sample(4)
    stream.readings[1] = stream.readings[1]._replace(value=None)
    await keep(store, stream, (1, 4))
    async with store.read() as tx:
        series = await read_range(tx, BOARD, "room", WALL_MS, WALL_MS + 10_000, 10)
    assert [point.mean for point in series.points] == [1.0, 3.0, 4.0]
    assert [reading.value for reading in await raw(store)] == [1.0, None, 3.0, 4.0]


async def test_what_can_not_be_answered(store: Store) -> None:
    await join(store)
    async with store.write() as tx:
        await batches.add_sensors(tx, [(BOARD, "room")])
        with pytest.raises(Refused, match="no sensor 'rom'") as missing:
            await read_range(tx, BOARD, "rom", 0, 1, 1)
        assert (missing.value.code, missing.value.hint) == ("not-found", "did you mean 'room'?")
        for from_ms, to_ms, points in [(5, 5, 10), (5, 4, 10), (0, 10, 0), (-9, -5, 10)]:
            with pytest.raises(Refused):
                await read_range(tx, BOARD, "room", from_ms, to_ms, points)


async def test_enormous_values_have_a_mean(store: Store) -> None:
    await join(store)
    async with store.write() as tx:
        await batches.add_sensors(tx, [(BOARD, "room")])
        huge = 1.7e308
        await add_parts(tx, [Part(BOARD, "room", n * BUCKET_MS, -huge, huge, huge, 1) for n in range(4)])
        await add_parts(tx, [Part(BOARD, "room", 0, huge, huge, huge, 1)])
        series = await read_range(tx, BOARD, "room", 0, HOUR_MS, 1)
    assert series.points[0].min <= series.points[0].mean <= series.points[0].max


@pytest.mark.slow
async def test_every_reading_once_in_slices(store: Store) -> None:
    """More batches than a slice, an overlap, and other boards and sensors beside."""
    await join(store)
    await join(store, OTHER)
    stream, noise = Stream(sensors=("room", "hall")), Stream(board=OTHER)
    count = 2 * (2 * SLICE + 5)
    stream.sample(count)
    noise.sample(10)
    await keep(store, noise, (1, 10))
    for first in range(1, count, 2):
        await keep(store, stream, (max(first - 1, 1), first + 1))  # with the reading before it again
    assert [reading.seq for reading in await raw(store)] == list(range(1, count + 1))
    halls = await raw(store, "hall", since_ms=WALL_MS + 1000, until_ms=WALL_MS + 9000)
    assert [reading.value for reading in halls] == [2.0, 4.0, 6.0, 8.0]
    assert [reading.seq for reading in await raw(store, limit=7)] == list(range(1, 8))
    assert await raw(store, limit=0) == []
    assert {(reading.stream, reading.clock) for reading in halls} == {("s" * 16, "synced")}


async def test_gaps_of_a_time(store: Store) -> None:
    await join(store)
    rows = [
        GapRow(BOARD, "s" * 16, 1, 10, 1000, 2000, "outbox-full", 9000),
        GapRow(BOARD, "s" * 16, 11, 10, None, 3000, "lost", 9000),
        GapRow(BOARD, "s" * 16, 21, 10, None, None, "lost", 9000),
    ]
    async with store.write() as tx:
        await add_gaps(tx, rows)
        assert await list_gaps(tx, BOARD, 0, 10_000) == rows
        assert await list_gaps(tx, BOARD, 2000, 3000) == rows[:1]
        assert await list_gaps(tx, BOARD, 3000, 9000) == rows[1:2]
        assert await list_gaps(tx, BOARD, 5000, 9001) == rows[2:]
        assert await list_gaps(tx, OTHER, 0, 10_000) == []


async def test_ids_of_batches_are_never_given_again(store: Store) -> None:
    """The watermark of the fold is an id: a batch under an old id would never be folded."""
    await join(store)
    row = {"board": BOARD, "received_ms": 1, "from_ms": 1, "to_ms": 1, "stream": "s" * 16, "seq0": 1}
    row |= {"count": 1, "skip": 0, "content_type": JSON, "payload": b"{}"}
    async with store.write() as tx:
        await tx.execute(insert(schema.batches), [row, row])
        assert await batches.last_id(tx) == 2
        await tx.execute(delete(schema.batches))
        await tx.execute(insert(schema.batches), [row])
        assert await batches.last_id(tx) == 3
