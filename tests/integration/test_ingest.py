"""Ingest on a real database: exactly once, whatever the line and the machine do.

The broker is a `Line`: the test says what arrives, and sees what is published.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import delete, text

from agent.base.broker import Message
from agent.wire import topics
from agent.wire.decode import decode_json
from agent.wire.envelope import ZLIB_JSON, unpack
from agent.wire.messages import About, Held, Presence, Sensor
from agent.wire.package import Receipt, encode_package
from agent.wire.plain import dumps
from hub.fleet.latest import BoardLatest
from hub.store import boards, schema
from hub.store.gaps import list_gaps
from support.blank import new_store
from support.boardlog import BoardLog
from support.ingest import KEYS
from support.ingesting import Hub, Line
from support.stream import BOARD, BOOT, WALL_MS, Stream
from support.witnessing import at_work, new_witness

OTHER = "c" * 16


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub.open(tmp_path) as opened:
        await opened.join(BOARD)
        yield opened


def stream(count: int = 30, name: str = "s" * 16, **options: object) -> Stream:
    made = Stream(name, **options)  # type: ignore[arg-type]
    made.sample(count)
    return made


async def test_a_board_that_was_started_very_often_is_looked_up_no_slower(hub: Hub) -> None:
    """Else one that starts over and over, or says so, holds up every commit, and so all others."""
    many = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) "
    async with hub.store.write() as tx:
        for into in (
            "streams SELECT :board, printf('%016d', i), 1, 1 FROM n",
            "boots SELECT :board, printf('%032d', i), i, 1, 1 FROM n",
        ):
            await tx.execute(text(f"{many}INSERT INTO {into}"), {"board": BOARD})
    made, born = stream(10), Presence("online", "n", BOOT, 1)
    tracemalloc.start()
    try:
        await hub.take(Message(topics.up(BOARD, "presence"), dumps(born)), made.message((1, 10)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**21, f"{peak / 2**20:.1f} MB for a board with 50,000 streams and boots"
    assert await hub.stored() != []


# --- exactly once --------------------------------------------------------------------------------


async def test_readings_are_stored_acknowledged_counted_and_shown(hub: Hub) -> None:
    made = stream(30, sensors=("room", "hall"))
    line = await hub.take(made.message((1, 10), (11, 20)), made.message((21, 30), low=21))
    assert line.acks() == [{made.name: 20}, {made.name: 30}]
    await hub.check(made)
    assert hub.latest.boards[BOARD].values["hall"].value == 30.0
    assert (await hub.board()).latest == {"room": (29.0, WALL_MS + 28_000), "hall": (30.0, WALL_MS + 29_000)}
    counters = hub.ingest.counters()
    assert (counters.messages, counters.readings, counters.acks) == ({"readings": 2}, 30, 2)


async def test_how_much_a_board_still_holds_is_known(hub: Hub) -> None:
    made = stream(30)
    assert (hub.latest.boards.get(BOARD) or BoardLatest()).waiting is None
    await hub.take(made.message((1, 10)))
    assert hub.latest.boards[BOARD].waiting == 20
    await hub.take(made.message((11, 30)))
    assert hub.latest.boards[BOARD].waiting == 0


async def test_what_comes_again_or_overlaps_is_stored_once(hub: Hub) -> None:
    made = stream(40)
    first, second = made.message((1, 10)), made.message((11, 20))
    overlap, rest = made.message((6, 25)), made.message((21, 40))
    await hub.take(first, first, second, first, overlap, second, rest, rest)
    await hub.check(made)
    assert hub.ingest.counters().duplicates == 4


async def test_the_same_within_one_transaction(hub: Hub) -> None:
    made = stream(40)
    spans = [(1, 10), (1, 10), (11, 20), (6, 25), (31, 40), (26, 40), (11, 20)]
    line = await hub.take_at_once(*(made.message(span) for span in spans))
    await hub.check(made)
    assert line.acks()[-1] == {made.name: 40}


async def test_behind_a_hole_nothing_is_stored_and_the_board_is_told_once(hub: Hub) -> None:
    made = stream(80)
    windows = [made.message((first, first + 9)) for first in range(21, 80, 10)]
    line = await hub.take(made.message((1, 10)), *windows)
    assert line.acks() == [{made.name: 10}, {made.name: 10}]
    assert [reading.seq for reading in await hub.stored()] == list(range(1, 11))
    assert hub.ingest.counters().stalled == 6
    line = await hub.take(made.message((11, 20)), *windows)
    assert line.acks()[-1] == {made.name: 80}
    await hub.check(made)


async def test_an_answer_that_was_lost_is_given_again_but_not_to_each_resend(hub: Hub) -> None:
    made = stream(10)
    again = made.message((1, 10))
    line = await hub.take(again, again, again)
    assert line.acks() == [{made.name: 10}]
    line = Line()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(hub._run(line))
        for _ in range(3):
            hub.now_ms += 6_000
            before = hub.settled
            line.arrive(again)
            while hub.settled == before and not running.done():
                await asyncio.sleep(0.001)
        line.cut()
    assert line.acks() == [{made.name: 10}] * 2  # a new session begins with none; then every ten seconds
    await hub.check(made)


async def test_two_streams_are_answered_together(hub: Hub) -> None:
    old, new = stream(10, "o" * 16), stream(5, "n" * 16, wall_ms=WALL_MS + 60_000)
    held = {new.name: Held(1, 6)}
    line = await hub.take(old.message((1, 10), held=held), new.message((1, 5), held={old.name: Held(11, 11)}))
    assert line.acks() == [{old.name: 10, new.name: 0}, {old.name: 10, new.name: 5}]
    await hub.check(old, new)
    assert hub.latest.boards[BOARD].values["room"].value == 5.0


async def test_boards_may_use_the_same_stream_id(hub: Hub) -> None:
    await hub.join(OTHER)
    mine, theirs = stream(10), stream(12, board=OTHER)
    line = await hub.take_at_once(mine.message((1, 10)), theirs.message((1, 12)))
    assert (line.acks(BOARD)[-1], line.acks(OTHER)[-1]) == ({mine.name: 10}, {mine.name: 12})
    await hub.check(mine, theirs)


# --- gaps ----------------------------------------------------------------------------------------


async def test_a_declared_gap_is_recorded_once_and_settles_the_stream(hub: Hub) -> None:
    made = stream(40)
    gap = made.gap(11, 20)
    line = await hub.take(made.message((1, 10)), *[made.message((21, 40), low=21, gaps=[gap])] * 2)
    assert line.acks()[-1] == {made.name: 40}
    async with hub.store.read() as tx:
        [found] = await list_gaps(tx, BOARD, 0, 2 * WALL_MS)
    assert (found.seq0, found.count, found.reason) == (11, 10, "outbox-full")
    assert (found.from_ms, found.to_ms) == (gap.from_ms, gap.to_ms)
    assert await hub.events() == [("gap", "10 readings are gone: the board had no room to keep them")]
    assert hub.ingest.counters().lost == 10


async def test_a_batch_may_hold_nothing_but_a_gap(hub: Hub) -> None:
    made = stream(20)
    line = await hub.take(made.message(low=21, gaps=[made.gap(1, 20)]))
    assert line.acks() == [{made.name: 20}]
    assert await hub.stored() == []


async def test_a_gap_of_a_stream_that_was_forgotten_is_told_again_and_does_no_harm(hub: Hub) -> None:
    """As from a card that is set back to a copy from years ago."""
    made = stream(30)
    again = made.message((11, 20), low=11, gaps=[made.gap(1, 10)])
    await hub.take(again)
    async with hub.store.write() as tx:
        await tx.execute(delete(schema.streams))
    line = await hub.take(again)
    assert line.acks() == [{made.name: 20}]
    async with hub.store.read() as tx:
        [gap] = await list_gaps(tx, BOARD, 0, 2**53)
    assert (gap.seq0, gap.count) == (1, 10)


async def test_what_a_deleted_outbox_took_with_it_is_lost_between_two_known_times(hub: Hub) -> None:
    made = stream(40)
    line = await hub.take(made.message((1, 10)), made.message((31, 40), low=31))
    assert line.acks()[-1] == {made.name: 40}
    async with hub.store.read() as tx:
        [gap] = await list_gaps(tx, BOARD, 0, 2 * WALL_MS)
    assert (gap.seq0, gap.count, gap.reason) == (11, 20, "lost")
    assert (gap.from_ms, gap.to_ms) == (made.readings[9].wall_ms, made.readings[30].wall_ms)


# --- the machine ---------------------------------------------------------------------------------


async def test_a_crash_between_the_commit_and_the_ack(tmp_path: Path) -> None:
    made = stream(20)
    async with Hub.open(tmp_path) as hub:
        await hub.join(BOARD)
        line = Line()
        line.arrive(made.message((1, 20)))
        line.cut()
        await hub._run(line)
        assert line.acks() == []
    async with Hub.open(tmp_path) as hub:
        assert (await hub.take(made.message((1, 20)))).acks() == [{made.name: 20}]
        await hub.check(made)


async def test_what_came_before_the_link_ended_is_committed(hub: Hub) -> None:
    made = stream(500)
    line = Line()
    line.arrive(*(made.message((first, first)) for first in range(1, 501)))
    line.cut()
    await hub._run(line)
    await hub.check(made)


async def test_a_hub_restored_from_an_older_copy_shows_the_loss_as_a_gap(tmp_path: Path) -> None:
    made = stream(60)
    async with Hub.open(tmp_path) as hub:
        await hub.join(BOARD)
        await hub.take(made.message((1, 20)))
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "hub.db", tmp_path / "copy" / "hub.db")
    async with Hub.open(tmp_path) as hub:
        await hub.take(made.message((21, 40), low=21))
    async with Hub.open(tmp_path / "copy") as hub:
        line = await hub.take(made.message((41, 60), low=41))
        assert line.acks() == [{made.name: 60}]
        assert [reading.seq for reading in await hub.stored()] == [*range(1, 21), *range(41, 61)]
        async with hub.store.read() as tx:
            [gap] = await list_gaps(tx, BOARD, 0, 2 * WALL_MS)
        assert (gap.seq0, gap.count, gap.reason) == (21, 20, "lost")
        assert await hub.rolled() == (
            40,
            sum(reading.value or 0 for reading in made.readings[:20] + made.readings[40:]),
        )


async def test_rollups_and_picture_survive_a_kill_before_they_were_saved(tmp_path: Path) -> None:
    """A kill leaves the database as it was at the last commit: so a copy of it is one."""
    made = stream(2000)
    async with Hub.open(tmp_path) as hub:
        await hub.join(BOARD)
        line = Line()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hub._run(line))
            for number in range(4):
                line.arrive(made.message((500 * number + 1, 500 * number + 500), low=500 * number + 1))
                while hub.settled <= number:
                    await asyncio.sleep(0.001)
            assert await hub.rolled() == (0, 0)
            (tmp_path / "killed").mkdir()
            for file in tmp_path.glob("hub.db*"):
                shutil.copy(file, tmp_path / "killed" / file.name)
            line.cut()
        await hub.check(made)
    async with Hub.open(tmp_path / "killed") as hub:
        assert hub.latest.boards[BOARD].values["room"].value == 2000.0
        await hub.take()
        await hub.check(made)
        await hub.take()
        await hub.check(made)


@pytest.mark.slow
async def test_ingest_stopped_at_any_moment_goes_on_where_it_was(tmp_path: Path) -> None:
    """Cancelled in the middle of reading, deciding, committing or answering, with the same objects
    or new ones: the board sends again what was not acknowledged, and each reading is there once."""
    luck = random.Random(5)
    made = stream(3000)
    acknowledged = 0
    async with Hub.open(tmp_path) as hub:
        await hub.join(BOARD)
    while acknowledged < 3000:
        async with Hub.open(tmp_path) as hub:
            for _ in range(3):
                line = Line()
                line.arrive(*resend(made, acknowledged))
                running = asyncio.ensure_future(hub.ingest.run(line))
                await asyncio.sleep(luck.uniform(0.0, 0.06))
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
                acknowledged = max([acknowledged, *(ack[made.name] for ack in line.acks())])
    async with Hub.open(tmp_path) as hub:
        await hub.take()
        await hub.check(made)


def resend(made: Stream, acknowledged: int) -> Iterator[Message]:
    """What a board sends that was told so far: at most 16 batches of 20."""
    for first in range(acknowledged + 1, min(acknowledged + 320, len(made.readings)), 20):
        yield made.message((first, min(first + 19, len(made.readings))), low=acknowledged + 1)


async def test_a_full_disk_takes_nothing_and_loses_nothing(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    made = stream(4000)
    await hub.take(made.message((1, 1000)))
    await limit_pages(hub, 1)
    full = await hub.take(made.message((1001, 3000)), made.message((1001, 3000)))
    assert full.acks() == []
    assert hub.ingest.counters().refused == {"disk-full": 2}
    assert [record.message for record in caplog.records] == ["cannot commit"]
    await limit_pages(hub, 1_000_000)
    with caplog.at_level(logging.INFO):
        line = await hub.take(made.message((1001, 3000)), made.message((3001, 4000)))
    assert line.acks()[-1] == {made.name: 4000}
    assert "commits again" in caplog.messages
    await hub.check(made)


async def limit_pages(hub: Hub, pages: int) -> None:
    async with hub.store.write() as tx:
        await tx.exec_driver_sql(f"PRAGMA max_page_count={pages}")


async def test_what_is_only_in_memory_is_saved_though_nothing_comes(tmp_path: Path) -> None:
    made = stream(10)
    async with new_store(tmp_path / "hub.db") as store:
        hub = Hub(store)
        hub.ingest = hub.new_ingest(fold_every_s=0.05)
        await hub.join(BOARD)
        line = Line()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hub._run(line))
            line.arrive(made.message((1, 10)))
            async with asyncio.timeout(5):
                while (await hub.rolled())[0] < 10:
                    await asyncio.sleep(0.005)
            assert (await hub.board()).latest == {"room": (10.0, WALL_MS + 9000)}
            line.cut()


# --- who speaks ----------------------------------------------------------------------------------


async def test_unknown_and_revoked_boards_are_not_believed(hub: Hub) -> None:
    await hub.join(OTHER)
    async with hub.store.write() as tx:
        await boards.revoke_board(tx, OTHER, 1)
    stranger, revoked = stream(5, board="d" * 16), stream(5, board=OTHER)
    line = await hub.take(stranger.message((1, 5)), revoked.message((1, 5)), presence("online", board=OTHER))
    assert line.published == []
    assert hub.ingest.counters().refused == {"unknown-board": 1, "revoked": 2}
    assert hub.latest.boards.keys() <= {BOARD, OTHER}
    assert await hub.stored(OTHER) == []
    await hub.join("d" * 16)
    assert (await hub.take(stranger.message((1, 5)))).acks("d" * 16) == [{stranger.name: 5}]


def garbage() -> list[Message]:
    good = stream(4)
    topic = topics.up(BOARD, "readings")
    return [
        Message(topic, b"\x00\xff garbage"),
        Message(topic, b"not zlib", content_type=ZLIB_JSON),
        Message(topic, good.message((1, 4)).payload, content_type="text/plain"),
        Message(topic, b"[" * 100_000),
        Message(topic, b"x" * 300_000),
        Message(topic, good.payload((1, 2), (4, 4))),
        Message(topic, good.payload((1, 4)).replace(b'"value":[1,', b'"value":[1,1,')),
        Message(topics.up(BOARD, "about"), dumps(about(board=OTHER))),
        Message(f"lichen/v1/{BOARD}/up/nonsense", b"{}"),
        good.message((1, 4), held={"t" * 16: Held(9, 2)}),
    ]


async def test_garbage_is_counted_named_once_and_harms_nobody(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    await hub.join(OTHER)
    good = stream(5, board=OTHER)
    bad = garbage()
    await hub.take_at_once(*bad[:5], good.message((1, 5)), *bad[5:])
    counters = hub.ingest.counters()
    assert sum(counters.refused.values()) == counters.offenders[BOARD] == len(bad)
    assert counters.refused["too-large"] == 1
    assert [record.message for record in caplog.records] == ["refusing messages"]
    assert await hub.stored(BOARD) == []
    with caplog.at_level(logging.INFO):
        await hub.take(stream(4).message((1, 4)))
    assert caplog.messages[-1] == "messages are good again"
    await hub.check(stream(4), good)


async def test_an_emptied_topic_says_nothing(hub: Hub) -> None:
    line = Line()
    line.arrive(
        Message(topics.up(BOARD, "presence"), b"", retain=True),
        Message(topics.up(BOARD, "about"), b"", retain=True),
    )
    line.cut()
    await hub._run(line)
    assert hub.settled == 0


async def test_a_package_of_a_usage_log_goes_to_the_witness(hub: Hub) -> None:
    """And its answer to the broker, retained; what is no package is refused at the gate."""
    witness = new_witness(hub.store, KEYS, lambda: hub.now_ms, hub.alerts)
    log = BoardLog(epoch="e" * 16)
    await hub.join_with(log.board, log.key.vkey)
    log.grow(3)
    topic = topics.up(log.board, "usage")
    hub.ingest, line, receipts = hub.new_ingest(witness=witness), Line(), Line()
    line.arrive(Message(topic, b"{}"), Message(topic, encode_package(log.package(0, 3))))
    line.cut()
    await hub._run(line)
    counters = hub.ingest.counters()
    assert (counters.messages["usage"], counters.offenders[log.board]) == (1, 1)
    async with at_work(witness), asyncio.TaskGroup() as group:
        speaking = group.create_task(witness.speak(receipts))
        while not receipts.published:
            await asyncio.sleep(0.001)
        speaking.cancel()
    (message,) = receipts.published
    receipt = decode_json(Receipt, unpack(message.payload, message.content_type), max_bytes=10_000)
    assert (message.topic, message.retain) == (topics.down(log.board, "receipt"), True)
    assert (receipt.state, receipt.size, receipt.nonce) == ("ok", 3, "n")


# --- presence and about --------------------------------------------------------------------------


def presence(state: str, nonce: str = "n1", *, retained: bool = False, board: str = BOARD) -> Message:
    said = Presence(state, nonce, BOOT, 5)  # type: ignore[arg-type]
    return Message(topics.up(board, "presence"), dumps(said), retain=retained)


def about(board: str = BOARD, sensors: Sequence[Sensor] = ()) -> About:
    return About(
        board=board, version="1", log_key="", seal_key="", boot=BOOT, started_ms=1, sensors=tuple(sensors)
    )


async def test_boards_come_and_go_and_events_tell_only_that(hub: Hub) -> None:
    await hub.take(
        presence("online", "n1", retained=True), presence("online", "n1"), presence("offline", "n1")
    )
    assert await hub.events() == [("online", "went online"), ("offline", "went offline")]
    assert hub.latest.boards[BOARD].presence == (await hub.board()).presence == "offline"


async def test_the_will_of_an_earlier_session_is_not_believed(hub: Hub) -> None:
    await hub.take(presence("online", "n1"), presence("online", "n2"), presence("offline", "n1"))
    assert (await hub.board()).presence == hub.latest.boards[BOARD].presence == "online"
    await hub.take(presence("offline", "n2"))
    assert (await hub.board()).presence == "offline"


async def test_what_the_broker_kept_is_the_last_that_was_said(hub: Hub) -> None:
    """While the hub was away the board came back and left: its nonce is news, and true."""
    await hub.take(presence("online", "n1"))
    await hub.take(presence("offline", "n2", retained=True))
    assert (await hub.board()).presence == "offline"


async def test_presence_within_one_transaction(hub: Hub) -> None:
    await hub.take_at_once(
        presence("online", "n1"),
        presence("offline", "n1"),
        presence("online", "n2"),
        presence("offline", "n1"),
    )
    assert (await hub.board()).presence == "online"
    assert [kind for kind, _ in await hub.events()] == ["online", "offline", "online"]


async def test_what_a_board_says_of_itself_is_kept_and_its_sensors_described(hub: Hub) -> None:
    made = stream(4)
    room = Sensor("room", "thermal", "Cel", "temperature", 1000)
    await hub.take(made.message((1, 4)), Message(topics.up(BOARD, "about"), dumps(about(sensors=[room]))))
    async with hub.store.read() as tx:
        [sensor] = await boards.list_sensors(tx, BOARD)
    assert (sensor.unit, sensor.quantity) == ("Cel", "temperature")
    row = await hub.board()
    assert row.about is not None
    assert row.heard_ms == WALL_MS


async def test_watchers_hear_of_readings_after_their_commit(hub: Hub) -> None:
    made = stream(4)
    with hub.latest.watch(BOARD) as changes:
        await hub.take(made.message((1, 4)))
        change = await anext(changes)
    assert change.values == {"room": (4.0, WALL_MS + 3000)}


# --- load ----------------------------------------------------------------------------------------


async def test_beyond_what_can_wait_readings_are_dropped_and_come_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = stream(200)
    batches = [made.message((first, first + 1)) for first in range(1, 200, 2)]
    async with Hub.open(tmp_path, most_waiting=10) as hub:
        await hub.join(BOARD)
        with caplog.at_level(logging.INFO, "hub.fleet.tally"):
            await hub.take_at_once(*batches, presence("online"))
        assert hub.ingest.counters().refused == {"behind": 90}
        assert (await hub.board()).presence == "online"
        assert [record.message for record in caplog.records] == [
            "more comes than can be committed",
            "keeping up again",
        ]
        await hub.take(*batches)
        await hub.check(made)
