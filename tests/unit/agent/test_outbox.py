"""The outbox keeps its invariants, one by one, on a real file."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.outbox import BLOCK_READINGS, START, Cursor, Outbox, Parcel, peek
from agent.shelf import HELD_STREAMS, SCHEMA, Row, Shelf
from agent.wire.errors import Busy, Corrupt, Refused
from agent.wire.messages import Ack, Batch, Gap, Held, OutboxState, Reading, read_batch, readings_of

BOOT = "b" * 32
PLENTY = 10_000_000


def opened(path: Path, max_bytes: int = PLENTY) -> AbstractAsyncContextManager[Outbox]:
    return Outbox.open(path, boot=BOOT, max_bytes=max_bytes)


def readings(count: int, first: int = 1) -> list[Reading]:
    """Readings whose value tells which one they are."""
    return [
        Reading("room", float(n), 1000 * n, 1_700_000_000_000 + 1000 * n) for n in range(first, first + count)
    ]


async def commit(outbox: Outbox, *sizes: int) -> None:
    """Commits of the given numbers of readings."""
    first = 1
    for size in sizes:
        await outbox.append(readings(size, first), "synced")
        first += size


async def drain(outbox: Outbox, after: Cursor = START, **limits: int) -> list[Parcel]:
    parcels = []
    while parcel := await outbox.take(after, **limits):
        parcels.append(parcel)
        after = parcel.cursor
    return parcels


async def one(outbox: Outbox) -> Batch:
    """The batch that a board sends first."""
    parcel = await outbox.take(START)
    assert parcel is not None
    return read_batch(parcel.payload)


def numbers(parcels: Sequence[Parcel]) -> list[tuple[str, int]]:
    """(stream, seq) of every reading in parcels, as a hub counts them."""
    found = []
    for parcel in parcels:
        for block in read_batch(parcel.payload).blocks:
            found += [(block.stream, block.seq0 + i) for i in range(len(block.sensor))]
    return found


async def test_what_was_committed_comes_out_in_order_and_whole(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 3, 2)
        (parcel,) = await drain(outbox)
    batch = read_batch(parcel.payload)
    assert [r.value for block in batch.blocks for r in readings_of(block)] == [1, 2, 3, 4, 5]
    assert batch.held == {parcel.stream: Held(1, 6)}
    assert (parcel.last_seq, parcel.readings, batch.gaps) == (5, 5, ())


async def test_each_start_numbers_under_an_id_of_its_own(tmp_path: Path) -> None:
    streams = []
    for _ in range(3):
        async with opened(tmp_path / "o.db") as outbox:
            await commit(outbox, 1)
            streams.append(outbox.stream)
            parcels = await drain(outbox)
    assert numbers(parcels) == [(stream, 1) for stream in streams]
    assert len(set(streams)) == 3


async def test_a_parcel_never_mixes_streams_and_speaks_of_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 2)
        old = outbox.stream
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 4)
        first, second = (read_batch(parcel.payload) for parcel in await drain(outbox))
    assert {block.stream for block in first.blocks} == {old}
    assert first.held == second.held == {old: Held(1, 3), outbox.stream: Held(1, 5)}


async def test_an_acknowledgement_deletes_what_it_covers_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 2, 2, 2)
        assert await outbox.acknowledge(Ack({outbox.stream: 4}))
        assert numbers(await drain(outbox)) == [(outbox.stream, 5), (outbox.stream, 6)]
        assert (await one(outbox)).held == {outbox.stream: Held(5, 7)}


async def test_a_lower_or_repeated_acknowledgement_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 2, 2)
        await outbox.acknowledge(Ack({outbox.stream: 2}))
        before = await outbox.state()
        for seq in (2, 1, 0):
            assert not await outbox.acknowledge(Ack({outbox.stream: seq}))
        assert await outbox.state() == before


async def test_an_acknowledgement_in_the_middle_of_a_block_keeps_the_block(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 2, 4)
        await outbox.acknowledge(Ack({outbox.stream: 4}))
        assert numbers(await drain(outbox)) == [(outbox.stream, n) for n in (3, 4, 5, 6)]


async def test_an_acknowledgement_for_a_stream_of_somebody_else_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 2)
        assert not await outbox.acknowledge(Ack({"a" * 16: 100}))
        assert (await outbox.state()).readings == 2


async def test_an_old_copy_with_a_retained_acknowledgement_drops_nothing_new(tmp_path: Path) -> None:
    file, copy = tmp_path / "o.db", tmp_path / "copy.db"
    async with opened(file) as outbox:
        await commit(outbox, 2)
        old = outbox.stream
    shutil.copy(file, copy)
    async with opened(copy) as outbox:
        await outbox.append(readings(3), "synced")
        # The hub holds far more of the old stream than this copy ever knew of.
        assert await outbox.acknowledge(Ack({old: 500, "z" * 16: 7}))
        assert numbers(await drain(outbox)) == [(outbox.stream, n) for n in (1, 2, 3)]


async def test_a_deleted_file_with_a_retained_acknowledgement_drops_nothing_new(tmp_path: Path) -> None:
    file = tmp_path / "o.db"
    async with opened(file) as outbox:
        await commit(outbox, 5)
        retained = Ack({outbox.stream: 5})
    for part in tmp_path.glob("o.db*"):
        part.unlink()
    async with opened(file) as outbox:
        await commit(outbox, 2)
        assert not await outbox.acknowledge(retained)
        assert (await outbox.state()).readings == 2


async def test_an_acknowledgement_of_what_was_never_made_starts_another_stream(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 2)
        known = outbox.stream
        assert await outbox.acknowledge(Ack({known: 10}))
        await outbox.append(readings(3), "synced")
        # Under the known id the hub would take these three for numbers 3 to 5, which it "has".
        assert outbox.stream != known
        assert numbers(await drain(outbox)) == [(outbox.stream, n) for n in (1, 2, 3)]


async def test_the_oldest_readings_make_room_and_a_gap_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db", max_bytes=1000) as outbox:
        await commit(outbox, *[2] * 20)
        state = await outbox.state()
        assert state.bytes <= 1000
        assert state.readings + state.dropped == 40
        batch = await one(outbox)
    (gap,) = batch.gaps
    assert (gap.seq0, gap.count, gap.reason) == (1, state.dropped, "outbox-full")
    assert (gap.from_ms, gap.to_ms) == (1_700_000_001_000, 1_700_000_000_000 + 1000 * state.dropped)
    assert batch.held[outbox.stream] == Held(state.dropped + 1, 41)
    assert batch.blocks[0].seq0 == state.dropped + 1


async def test_gaps_and_totals_outlive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db", max_bytes=1000) as outbox:
        await commit(outbox, *[2] * 20)
        before, batch = await outbox.state(), await one(outbox)
    async with opened(tmp_path / "o.db", max_bytes=1000) as outbox:
        assert await outbox.state() == before
        assert await one(outbox) == batch


async def test_a_gap_is_settled_by_an_acknowledgement_in_parts(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db", max_bytes=1000) as outbox:
        await commit(outbox, *[2] * 20)
        (gap,) = (await one(outbox)).gaps
        assert await outbox.acknowledge(Ack({outbox.stream: 4}))
        (rest,) = (await one(outbox)).gaps
        assert (rest.seq0, rest.count) == (5, gap.count - 4)
        assert await outbox.acknowledge(Ack({outbox.stream: gap.count}))
        assert (await one(outbox)).gaps == ()


async def test_a_stream_of_which_only_a_gap_is_left_rides_with_the_next_batch(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db", max_bytes=400) as outbox:
        await commit(outbox, 2)
        old = outbox.stream
    async with opened(tmp_path / "o.db", max_bytes=400) as outbox:
        await commit(outbox, 2, 2, 2)
        batch = await one(outbox)
        assert batch.held[old] == Held(3, 3)
        assert Gap(old, 1, 2, 1_700_000_001_000, 1_700_000_002_000) in batch.gaps
        await outbox.acknowledge(Ack({old: 2}))
        assert old not in (await one(outbox)).held


async def test_a_lowered_bound_holds_from_the_next_commit_on(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, *[50] * 20)
    async with opened(tmp_path / "o.db", max_bytes=3000) as outbox:
        await commit(outbox, 1)
        state = await outbox.state()
        assert state.bytes <= 3000
        assert state.readings + state.dropped == 1001


async def test_a_block_over_the_bound_becomes_a_gap(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db", max_bytes=400) as outbox:
        await outbox.append(readings(500), "synced")
        assert await outbox.state() == OutboxState(0, 0, 400, None, 500)
        await outbox.append(readings(1), "synced")
        assert (await one(outbox)).gaps[0].count == 500


async def test_a_large_commit_becomes_several_blocks(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await outbox.append(readings(2 * BLOCK_READINGS + 1), "synced")
        parcels = await drain(outbox, max_bytes=1)
        assert [parcel.readings for parcel in parcels] == [BLOCK_READINGS, BLOCK_READINGS, 1]
        assert len(numbers(parcels)) == 2 * BLOCK_READINGS + 1


async def test_a_parcel_keeps_its_limits(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, *[10] * 30)
        by_blocks = await drain(outbox, max_blocks=4)
        by_bytes = await drain(outbox, max_bytes=1500)
    assert [len(read_batch(parcel.payload).blocks) for parcel in by_blocks] == [4] * 7 + [2]
    assert all(len(parcel.payload) < 1800 for parcel in by_bytes)
    assert numbers(by_blocks) == numbers(by_bytes)


async def test_a_cursor_survives_that_everything_before_it_is_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 3)
        (parcel,) = await drain(outbox)
        await outbox.acknowledge(Ack({outbox.stream: 3}))
        await outbox.append(readings(2), "synced")
        assert numbers(await drain(outbox, parcel.cursor)) == [(outbox.stream, 4), (outbox.stream, 5)]


async def test_of_many_streams_a_batch_speaks_of_the_oldest(tmp_path: Path) -> None:
    streams = []
    for _ in range(HELD_STREAMS + 8):
        async with opened(tmp_path / "o.db") as outbox:
            await commit(outbox, 1)
            streams.append(outbox.stream)
    async with opened(tmp_path / "o.db") as outbox:
        parcels = await drain(outbox)
        assert numbers(parcels) == [(stream, 1) for stream in streams]
        last = read_batch(parcels[-1].payload)
        assert list(last.held) == [streams[-1], *streams[: HELD_STREAMS - 1]]
        assert await outbox.acknowledge(Ack(dict.fromkeys(streams, 1)))
        assert await outbox.state() == OutboxState(0, 0, PLENTY, None, 0)


async def test_the_bell_rings_at_open_and_at_each_commit(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        assert outbox.bell.is_set()
        outbox.bell.clear()
        await outbox.append([], "synced")
        assert not outbox.bell.is_set()
        await commit(outbox, 1)
        assert outbox.bell.is_set()


async def test_what_a_full_disk_refuses_is_not_kept_and_spends_no_numbers(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 2)
        before = await outbox.state()
        await bound_pages(outbox, 1)  # SQLite makes that the size which the file has
        with pytest.raises(Refused, match="disk is full"):
            await outbox.append(readings(600, first=3), "synced")
        assert await outbox.state() == before
        await bound_pages(outbox, 1000)
        await outbox.append(readings(600, first=3), "synced")
        assert numbers(await drain(outbox)) == [(outbox.stream, n) for n in range(1, 603)]


async def test_an_acknowledgement_is_written_with_the_next_commit(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 3)
        assert await outbox.acknowledge(Ack({outbox.stream: 3})) == {outbox.stream}
        assert rows(tmp_path / "o.db") == [(1, 3)]
        assert (await outbox.state()).readings == 0
        assert await outbox.state() == OutboxState(0, 0, PLENTY, None, 0)
        await outbox.append(readings(2, first=4), "synced")
        assert rows(tmp_path / "o.db") == [(4, 2)]
        await outbox.acknowledge(Ack({outbox.stream: 5}))
    assert rows(tmp_path / "o.db") == []


async def test_what_is_acknowledged_and_not_deleted_is_not_handed_out(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 3, 3)
        await outbox.acknowledge(Ack({outbox.stream: 3}))
        assert numbers(await drain(outbox)) == [(outbox.stream, n) for n in (4, 5, 6)]


async def test_a_crash_before_the_next_commit_only_sends_once_more(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 3)
        await outbox.acknowledge(Ack({outbox.stream: 3}))
        for part in tmp_path.glob("o.db*"):
            shutil.copy(part, tmp_path / part.name.replace("o.db", "cut.db"))
        stream = outbox.stream
    async with opened(tmp_path / "cut.db") as outbox:
        assert numbers(await drain(outbox)) == [(stream, 1), (stream, 2), (stream, 3)]
        assert await outbox.acknowledge(Ack({stream: 3}))
        assert (await outbox.state()).readings == 0


async def test_much_that_is_acknowledged_does_not_wait(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await outbox.append(readings(5000), "synced")
        await outbox.acknowledge(Ack({outbox.stream: 4096}))
        assert rows(tmp_path / "o.db")[0] == (4097, 512)


async def test_an_acknowledgement_frees_space_on_a_full_disk(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, *[500] * 4)
        await outbox.acknowledge(Ack({outbox.stream: 1500}))  # owed until the next commit
        await bound_pages(outbox, 1)
        await outbox.append(readings(500, first=2001), "synced")  # it takes the place of what is acknowledged
        with pytest.raises(Refused, match="disk is full"):
            await outbox.append(readings(5000, first=2501), "synced")
        await outbox.acknowledge(Ack({outbox.stream: 2000}))
        assert rows(tmp_path / "o.db") == [(2001, 500)]  # not owed: the disk is full


async def test_row_numbers_are_not_given_again_after_a_refusal(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 2, 2)
        (parcel,) = await drain(outbox)
        await outbox.acknowledge(Ack({outbox.stream: 4}))
        await outbox.settle()
        await bound_pages(outbox, 1)
        with pytest.raises(Refused):
            await outbox.append(readings(5000, first=5), "synced")
        await bound_pages(outbox, 1000)
        await outbox.append(readings(1, first=5), "synced")
        assert numbers(await drain(outbox, parcel.cursor)) == [(outbox.stream, 5)]


async def test_after_a_part_the_rest_is_of_another_stream(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 2)
        old, between = outbox.stream, await outbox.part()
        await outbox.append(readings(3), "synced")
        assert outbox.stream != old
        behind = await drain(outbox, between)
        assert numbers(behind) == [(outbox.stream, n) for n in (1, 2, 3)]
        before = await outbox.take(START, until=between)
        assert before is not None
        assert numbers([before]) == [(old, 1), (old, 2)]
        assert await outbox.take(before.cursor, until=between) is None


async def test_a_part_where_nothing_of_this_stream_is_held_keeps_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        await commit(outbox, 2)
    async with opened(tmp_path / "o.db") as outbox:
        stream, between = outbox.stream, await outbox.part()
        assert outbox.stream == stream
        await commit(outbox, 1)
        assert numbers(await drain(outbox, between)) == [(stream, 1)]


async def test_a_note_is_written_with_a_commit_or_at_the_close(tmp_path: Path) -> None:
    file = tmp_path / "o.db"
    async with opened(file) as outbox:
        assert outbox.recall("traffic") == ""
        outbox.remember("traffic", "1")
        assert outbox.recall("traffic") == "1"
        assert ask(file, "SELECT * FROM notes") == []
        await commit(outbox, 1)
        assert ask(file, "SELECT * FROM notes") == [("traffic", "1")]
        outbox.remember("traffic", "2")
    async with opened(file) as outbox:
        assert outbox.recall("traffic") == "2"


async def test_a_file_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    file = tmp_path / "o.db"
    async with opened(file) as outbox:
        await commit(outbox, 2)
        stream = outbox.stream
    with sqlite3.connect(file) as connection:
        connection.executescript("DROP TABLE notes; PRAGMA user_version = 1;")
    connection.close()
    async with opened(file) as outbox:
        assert numbers(await drain(outbox)) == [(stream, 1), (stream, 2)]
        outbox.remember("a", "b")


def ask(file: Path, sql: str) -> list[tuple[object, ...]]:
    """What another process would find in the file after a power cut."""
    look = file.with_name("look")
    look.mkdir()
    for each in (file, file.with_name(file.name + "-wal")):
        if each.exists():
            # By another process: to open and close the file in this one would drop SQLite's locks on it.
            subprocess.run(["cp", each, look], check=True)
    connection = sqlite3.connect(look / file.name)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()
        shutil.rmtree(look)


def rows(file: Path) -> list[tuple[object, ...]]:
    """The first number and the count of each row."""
    return ask(file, "SELECT seq0, count FROM blocks ORDER BY id")


# --- whoever looks from outside ----------------------------------------------------------------------


async def test_a_look_is_for_when_nobody_has_it_open(tmp_path: Path) -> None:
    file = tmp_path / "o.db"
    assert await peek(file, PLENTY) == OutboxState(max_bytes=PLENTY)
    async with opened(file) as outbox:
        await commit(outbox, 3)
        state = await outbox.state()
        with pytest.raises(Busy, match=r"o\.db is locked by another process"):
            await peek(file, PLENTY)
        await commit(outbox, 1)
        assert (await outbox.state()).readings == 4
    assert (await peek(file, PLENTY)).readings == 4
    assert state.readings == 3


async def test_a_file_in_which_nothing_is_yet_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "o.db"
    file.touch()
    assert await peek(file, PLENTY) == OutboxState(max_bytes=PLENTY)
    with contextlib.closing(sqlite3.connect(file)) as made:  # as it is when the disk is full
        made.execute("PRAGMA journal_mode = WAL")
    assert await peek(file, PLENTY) == OutboxState(max_bytes=PLENTY)


def killed(file: Path) -> str:
    """Let an agent commit two readings and die; returns its stream."""
    script = (
        "import asyncio, os, signal, sys\nfrom pathlib import Path\nfrom agent.outbox import Outbox\n"
        "from agent.wire.messages import Reading\n"
        "async def main():\n"
        f"    async with Outbox.open(Path(sys.argv[1]), boot={BOOT!r}, max_bytes={PLENTY}) as outbox:\n"
        "        for n in (1, 2):\n"
        "            await outbox.append([Reading('room', float(n), n, 1_700_000_000_000 + n)], 'synced')\n"
        "        print(outbox.stream, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    died = subprocess.run(
        [sys.executable, "-c", script, file], stdout=subprocess.PIPE, text=True, check=False
    )
    assert died.returncode == -9
    return died.stdout.strip()


async def test_after_kill_9_it_is_there_to_be_looked_at_and_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "o.db"
    stream = killed(file)
    assert {each.name for each in tmp_path.iterdir()} == {"o.db", "o.db-wal"}
    for _ in range(2):
        assert (await peek(file, PLENTY)).readings == 2
    async with opened(file) as outbox:
        assert numbers(await drain(outbox)) == [(stream, 1), (stream, 2)]
        await outbox.acknowledge(Ack({stream: 1}))
        await commit(outbox, 1)
    assert (await peek(file, PLENTY)).readings == 2


async def test_a_cancelled_append_is_kept_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "o.db") as outbox:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await commit(outbox, 3)
        await outbox.append(readings(2, first=4), "synced")
        values = [
            reading.value
            for parcel in await drain(outbox)
            for block in read_batch(parcel.payload).blocks
            for reading in readings_of(block)
        ]
    assert values in ([1, 2, 3, 4, 5], [4, 5])


async def bound_pages(outbox: Outbox, pages: int) -> None:
    """Let the file have no more than so many pages: SQLite's own full disk."""
    await outbox._do(lambda connection, _: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())


async def test_a_damaged_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "o.db").write_bytes(b"not a database at all, but long enough" * 200)
    with pytest.raises(Corrupt, match=r"o\.db"):
        async with opened(tmp_path / "o.db"):
            pass


@pytest.mark.slow
async def test_a_huge_backlog_is_taken_and_acknowledged_fast(tmp_path: Path) -> None:
    """Over 10,000 readings a second, with a wide margin."""
    async with opened(tmp_path / "o.db", max_bytes=64 * 2**20) as outbox:
        total = 100_000
        for _ in range(5):
            await outbox.append(readings(total // 5), "synced")
        began, taken = time.monotonic(), 0
        while parcel := await outbox.take(START):
            taken += parcel.readings
            assert await outbox.acknowledge(Ack({parcel.stream: parcel.last_seq}))
        rate = taken / (time.monotonic() - began)
    assert taken == total
    assert rate > 20_000


class Counts(RuleBasedStateMachine):
    """Whatever happens to it, the shelf agrees with a plain list of numbers, and with its file."""

    MAX_BYTES = 1200

    @initialize()
    def open(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(SCHEMA)
        self.next: dict[str, int] = {}
        self.acked: dict[str, int] = {}
        self.start()

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()

    @rule()
    def start(self) -> None:
        """The agent starts again: a new stream, the index read from the file."""
        self.stream = f"{len(self.next):016d}"
        self.next[self.stream] = 1
        self.shelf = Shelf.load(self.connection)

    @rule(counts=st.lists(st.integers(1, 5), min_size=1, max_size=3))
    def append(self, counts: list[int]) -> None:
        self.shelf.append(self.connection, [self._row(count) for count in counts], self.MAX_BYTES)

    @rule()
    def append_too_much(self) -> None:
        self.shelf.append(self.connection, [self._row(13)], self.MAX_BYTES)

    def _row(self, count: int) -> Row:
        seq0, self.next[self.stream] = self.next[self.stream], self.next[self.stream] + count
        return Row(Gap(self.stream, seq0, count, seq0, seq0 + count), b"x" * (100 * count))

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(self.next)))
        seq = data.draw(st.integers(0, self.next[stream] - 1))
        self.shelf.acknowledge(self.connection, Ack({stream: seq, "unknown": 9}))
        self.acked[stream] = max(self.acked.get(stream, 0), seq)

    @invariant()
    def the_index_is_what_the_file_says(self) -> None:
        fresh = Shelf.load(self.connection)
        for shelf in (fresh, self.shelf):
            assert shelf.bytes <= self.MAX_BYTES
        described = [
            {stream: (run.low, run.next, run.gap) for stream, run in shelf.runs.items()}
            for shelf in (fresh, self.shelf)
        ]
        assert described[0] == described[1]
        totals = [(shelf.readings, shelf.bytes, shelf.dropped) for shelf in (fresh, self.shelf)]
        assert totals[0] == totals[1]

    @invariant()
    def every_number_is_held_or_declared_or_acknowledged_and_none_twice(self) -> None:
        for stream, after in self.next.items():
            spans = self.connection.execute(
                "SELECT seq0, count FROM blocks WHERE stream = ?1"
                " UNION ALL SELECT seq0, count FROM gaps WHERE stream = ?1",
                (stream,),
            )
            kept = [seq for seq0, count in spans for seq in range(seq0, seq0 + count)]
            assert len(kept) == len(set(kept))
            assert set(range(self.acked.get(stream, 0) + 1, after)) <= set(kept)


Counts.TestCase.settings = settings(stateful_step_count=30)
test_the_shelf_counts_like_a_list = pytest.mark.soak(Counts.TestCase)
