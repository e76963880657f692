"""What boards may send, and what becomes of it: limits, bombs, old messages, problems of their own."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.base.broker import Message
from agent.wire import topics
from agent.wire.apps import Apps
from agent.wire.envelope import MAX_INFLATED, ZLIB_JSON
from agent.wire.messages import About, Held, Presence, Problem, Sensor, frame
from agent.wire.plain import dumps
from hub.config import Limits
from hub.fleet.limits import NEWS_BURST
from hub.store import boards
from hub.store.app_reports import find_reports
from hub.store.events import list_events
from support.ingesting import Hub
from support.stream import BOARD, BOOT, WALL_MS, Stream

OTHER = "c" * 16
ABOUT = About(BOARD, "1", "", "", BOOT, 1, clock="synced")
DISK = Problem("disk-low", "1 GB is left", "remove something", "warn", WALL_MS - 5000)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub.open(tmp_path) as opened:
        await opened.join(BOARD, OTHER)
        await opened.latest.load(opened.store)
        yield opened


def about(**changes: object) -> Message:
    said = replace(ABOUT, **changes)  # type: ignore[arg-type]
    return Message(topics.up(said.board, "about"), dumps(said))


def presence(state: str, nonce: str, at_ms: int, *, retained: bool = False) -> Message:
    said = Presence(state, nonce, BOOT, at_ms)  # type: ignore[arg-type]
    return Message(topics.up(BOARD, "presence"), dumps(said), retain=retained)


def stream(count: int, board: str = BOARD) -> Stream:
    made = Stream(board=board)
    made.sample(count)
    return made


def found(hub: Hub, board: str = BOARD) -> dict[str, str]:
    """What the hub finds wrong with a board: code and sentence."""
    return {each.code: each.sentence for each in hub.latest.boards[board].seen}


# --- problems that boards tell of ----------------------------------------------------------------


async def test_problems_come_and_go_with_what_a_board_says_of_itself(hub: Hub) -> None:
    await hub.take(about(problems=(DISK,)))
    assert await hub.problems() == [(BOARD, "disk-low", WALL_MS - 5000)]
    assert [each.code for each in hub.latest.boards[BOARD].problems] == ["disk-low"]
    hub.now_ms += 60_000
    await hub.take(about())
    assert (await hub.problems(), await hub.problems(open=False)) == (
        [],
        [(BOARD, "disk-low", WALL_MS - 5000)],
    )


async def test_since_when_is_believed_only_of_a_board_that_knows_the_time(hub: Hub) -> None:
    await hub.take(about(clock="unsynced", problems=(replace(DISK, since_ms=5),)))
    assert await hub.problems() == [(BOARD, "disk-low", WALL_MS)]
    await hub.take(about(problems=(replace(DISK, since_ms=WALL_MS + 10**9),)))
    assert await hub.problems() == [(BOARD, "disk-low", WALL_MS)]
    await hub.take(about(clock="hub", problems=(DISK,)))
    assert await hub.problems() == [(BOARD, "disk-low", WALL_MS - 5000)]


async def test_problems_are_stored_with_the_rest_or_not_at_all(hub: Hub) -> None:
    await hub.take(about(problems=(DISK,)))
    async with hub.store.write() as tx:
        await tx.exec_driver_sql("PRAGMA max_page_count=1")
    many = tuple(replace(DISK, code=f"p-{number}", sentence="x" * 250) for number in range(100))
    await hub.take(about(problems=many, hostname="new"))
    assert await hub.problems() == [(BOARD, "disk-low", WALL_MS - 5000)]
    async with hub.store.write() as tx:
        await tx.exec_driver_sql("PRAGMA max_page_count=1000000")
    line = await hub.take(about(problems=many, hostname="new"))
    assert len(await hub.problems()) == 100
    # What could not be written came once; who subscribes again hears what the broker has kept.
    assert line.filters == ["lichen/v1/+/up/#"] * 2


# --- what the broker had kept --------------------------------------------------------------------


async def test_what_the_broker_had_kept_is_not_heard_now(hub: Hub) -> None:
    await hub.take(presence("online", "n1", WALL_MS), about())
    hub.now_ms += 3_600_000
    kept = replace(about(hostname="kept"), retain=True)
    await hub.take(presence("online", "n1", WALL_MS, retained=True), kept)
    assert hub.latest.boards[BOARD].heard_ms == WALL_MS
    row = await hub.board()
    assert row.about is not None
    assert row.about["hostname"] == "kept"


@pytest.mark.parametrize(
    ("said_ms", "noted_ms"),
    [
        (WALL_MS - 9_000, WALL_MS),  # a will was written when its session began
        (WALL_MS + 60_000, WALL_MS + 60_000),  # a goodbye says when
        (WALL_MS + 10**10, WALL_MS + 3_600_000),  # by a clock that ran away
    ],
)
async def test_a_board_that_left_while_the_hub_was_away_went_offline_then(
    hub: Hub, said_ms: int, noted_ms: int
) -> None:
    await hub.take(presence("online", "n1", WALL_MS))
    hub.now_ms += 3_600_000
    await hub.take(presence("offline", "n1", said_ms, retained=True))
    async with hub.store.read() as tx:
        [left, _] = await list_events(tx)
    assert (left.text, left.at_ms) == ("went offline", noted_ms)
    assert (await hub.board()).presence_ms == noted_ms


# --- limits --------------------------------------------------------------------------------------


async def test_one_board_sends_too_much_and_others_lose_nothing(hub: Hub) -> None:
    """The burst of ten seconds passes, the rest is dropped unread."""
    flood = [Message(topics.up(BOARD, "readings"), b"{}") for _ in range(5000)]
    good = stream(50, OTHER)
    hub.ingest = hub.new_ingest(limits=Limits(messages_per_s=20))
    line = await hub.take_at_once(*flood, good.message((1, 25)), *flood, good.message((26, 50)))
    assert line.acks(OTHER)[-1] == {good.name: 50}
    refused = hub.ingest.counters().refused
    assert refused["limits"] > 9500
    assert sum(refused.values()) == 10_000
    assert "limits-exceeded" in found(hub)
    assert found(hub, OTHER) == {}
    await hub.check(good)


async def test_bytes_count_too(hub: Hub) -> None:
    hub.ingest = hub.new_ingest(limits=Limits(bytes_per_s=10_000))
    large = [Message(topics.up(BOARD, "readings"), b"x" * 200_000) for _ in range(10)]
    await hub.take_at_once(*large)
    assert hub.ingest.counters().refused["limits"] == 9


async def test_a_backlog_that_is_drained_stays_within_the_limits(hub: Hub) -> None:
    """16 batches under way and a commit every 200 ms: 80 messages a second, of 16 KiB at most."""
    made = stream(800)
    await hub.take_at_once(*(made.message((first, first)) for first in range(1, 801)))
    assert hub.ingest.counters().refused == {}
    await hub.check(made)


async def test_a_board_may_not_leave_gaps_and_streams_without_end(hub: Hub) -> None:
    names = [f"{letter}{number}" * 8 for letter in "abcdefgh" for number in range(2, 8)]
    for low in range(2, 52):
        held = {name: Held(low, low) for name in names}
        await hub.take(Message(topics.up(BOARD, "readings"), frame(held, (), [])))
    counters = hub.ingest.counters()
    assert NEWS_BURST - 100 < counters.gaps < NEWS_BURST + 100
    assert counters.refused["too-much-news"] > 5
    assert "messages-refused" in found(hub)
    made = stream(5, OTHER)
    assert (await hub.take(made.message((1, 5)))).acks(OTHER) == [{made.name: 5}]


async def test_a_board_may_not_come_and_go_without_end(hub: Hub) -> None:
    both = [presence(state, f"n{number}", 5) for number in range(1500) for state in ("online", "offline")]
    await hub.take_at_once(*both)
    async with hub.store.read() as tx:
        rows = await list_events(tx, limit=5000)
    assert NEWS_BURST - 100 < len(rows) < NEWS_BURST + 200


async def test_sensors_are_counted_under_all_their_names(hub: Hub) -> None:
    hub.ingest = hub.new_ingest(limits=Limits(sensors=3))
    made = Stream(sensors=("a", "b", "c", "d"))
    made.sample(4)
    other = Stream(board=OTHER, sensors=("d",))
    other.sample(1)
    line = await hub.take(made.message((1, 3)), made.message((4, 4)), other.message((1, 1)))
    assert line.acks()[-1] == {made.name: 3}
    assert line.acks(OTHER) == [{other.name: 1}]
    assert hub.ingest.counters().refused == {"too-many-sensors": 1}
    assert "with d it would have 4 sensors, and it may have 3" in found(hub)["messages-refused"]


async def test_sensors_that_are_only_described_are_counted_too(hub: Hub) -> None:
    hub.ingest = hub.new_ingest(limits=Limits(sensors=4))
    for number in range(3):
        names = [f"new-{number}-{at}" for at in range(3)]
        await hub.take(about(sensors=tuple(Sensor(name, "iio", "Cel") for name in names)))
    async with hub.store.read() as tx:
        described = await boards.list_sensors(tx, BOARD)
    assert [each.name for each in described] == ["new-0-0", "new-0-1", "new-0-2", "new-1-0"]
    await hub.take(about(sensors=(Sensor("new-0-1", "w1", "K"), Sensor("new-9", "w1", "K"))))
    async with hub.store.read() as tx:
        described = await boards.list_sensors(tx, BOARD)
    assert [(each.name, each.unit) for each in described][1] == ("new-0-1", "K")
    assert len(described) == 4


async def test_many_new_sensors_at_once_are_counted_before_they_are_stored(hub: Hub) -> None:
    hub.ingest = hub.new_ingest(limits=Limits(sensors=3))
    made = Stream(sensors=tuple("abcdef"))
    made.sample(6)
    await hub.take_at_once(*(made.message((seq, seq)) for seq in range(1, 7)))
    async with hub.store.read() as tx:
        assert len(await boards.list_sensors(tx, BOARD)) == 3
    assert hub.ingest.counters().refused == {"too-many-sensors": 3}


# --- what is no message --------------------------------------------------------------------------


def bombs() -> dict[str, Message]:
    topic = topics.up(BOARD, "readings")
    squeezer = zlib.compressobj(9)
    megabyte = bytes(2**20)
    bomb = b"".join([*(squeezer.compress(megabyte) for _ in range(200)), squeezer.flush()])
    nested = zlib.compress(b'{"held":' + b"[" * 500_000, 9)
    name = json.dumps("n" * 65).encode()
    return {
        "zip bomb": Message(topic, bomb, content_type=ZLIB_JSON),
        "zip bomb as about": Message(topics.up(BOARD, "about"), bomb, content_type=ZLIB_JSON),
        "deeply nested": Message(topic, nested, content_type=ZLIB_JSON),
        "cut short": Message(topic, zlib.compress(b"{}" * 100)[:-5], content_type=ZLIB_JSON),
        "oversized": Message(topic, b" " * 300_000),
        "garbage": Message(topic, b"\x00\xff garbage"),
        "long name": Message(topic, stream(1).payload((1, 1)).replace(b'"room"', name)),
        "about of another": Message(topics.up(BOARD, "about"), dumps(replace(ABOUT, board=OTHER))),
        "no topic of ours": Message(f"lichen/v1/{BOARD}/up/readings/x", b"{}"),
        "reply under a false id": Message(topics.up(BOARD, "reply", "abc"), b'{"id":"x","status":"done"}'),
    }


BOMBS = bombs()


@pytest.mark.parametrize("what", BOMBS)
async def test_what_is_no_message_is_refused_and_its_board_named(hub: Hub, what: str) -> None:
    bad, good = BOMBS[what], stream(5, OTHER)
    tracemalloc.start()
    try:
        await hub.take(bad, good.message((1, 5)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MAX_INFLATED, "200 MB would be inflated to find out that they are too many"
    assert sum(hub.ingest.counters().refused.values()) == 1
    assert list(found(hub)) == ["messages-refused"]
    assert found(hub, OTHER) == {}
    await hub.check(good)


async def test_what_boards_say_of_apps_counts_against_their_limits(hub: Hub) -> None:
    hub.ingest = hub.new_ingest(limits=Limits(messages_per_s=1))
    said = [Message(topics.up(BOARD, "apps"), dumps(Apps(number))) for number in range(50)]
    others = Message(topics.up(OTHER, "apps"), dumps(Apps(7)))
    stranger = Message(topics.up("d" * 16, "apps"), dumps(Apps(7)))
    await hub.take_at_once(*said, others, stranger)
    counters = hub.ingest.counters()
    assert counters.messages["apps"] == 10 + 1
    assert (counters.refused["limits"], counters.refused["unknown-board"]) == (40, 1)
    async with hub.store.read() as tx:
        found = await find_reports(tx, [BOARD, OTHER, "d" * 16])
    assert {board: report.apps.generation for board, report in found.items()} == {BOARD: 9, OTHER: 7}
