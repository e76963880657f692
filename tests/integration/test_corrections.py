"""Readings whose board did not know the time: stored, marked, corrected, and counted exactly once."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from agent.base.broker import Message
from agent.clock import Clock
from agent.outbox import START, Outbox
from agent.sensors.pending import Pending
from agent.wire import topics
from agent.wire.envelope import pack
from agent.wire.errors import LinkDown, Refused
from agent.wire.messages import Ack, ClockState, Presence, Reading
from agent.wire.plain import dumps
from hub.fleet.arrivals import PresenceCame, read_arrival
from hub.fleet.boots import BootNews, KnownBoots
from hub.fleet.commit import Commit
from hub.store import schema
from hub.store.gaps import GapRow, list_gaps
from hub.store.ranges import BUCKET_MS, read_range
from support.ingesting import Hub, Line, boots_of
from support.stream import BOARD, BOOT, WALL_MS, Stream

DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS
UNSET_MS = -WALL_MS
"""The error of a clock that counts from 1970."""
SECOND_BOOT, THIRD_BOOT = "c" * 32, "d" * 32


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub.open(tmp_path) as opened:
        await opened.join(BOARD)
        yield opened


def set_late(unset: int = 60, more: int = 60, **options: object) -> Stream:
    """A stream whose clock is set after its first ``unset`` readings."""
    made = Stream(clock="unsynced", skew_ms=UNSET_MS, **options)  # type: ignore[arg-type]
    made.sample(unset)
    made.clock, made.skew_ms = "synced", 0
    made.sample(more)
    return made


async def check_times(hub: Hub, *streams: Stream, uncertain: tuple[str, ...] = ()) -> None:
    """Each reading is there once, with its true time; roll-ups hold exactly those whose time is known."""
    found = await hub.stored()
    assert [(each.stream, each.seq, each.value) for each in found] == [
        (made.name, seq, reading.value)
        for made in sorted(streams, key=lambda made: made.name)
        for seq, reading in enumerate(made.readings, 1)
    ]
    expected: Counter[int] = Counter()
    for each in found:
        made = next(made for made in streams if made.name == each.stream)
        if each.stream in uncertain:
            assert (each.uncertain, each.wall_ms) == (True, made.readings[each.seq - 1].wall_ms)
        else:
            assert (each.uncertain, each.wall_ms) == (False, made.true_ms(each.seq))
            expected[each.wall_ms // BUCKET_MS * BUCKET_MS] += 1
    assert await buckets(hub) == expected


async def buckets(hub: Hub) -> Counter[int]:
    """How many readings each roll-up holds."""
    async with hub.store.read() as tx:
        rows = (await tx.execute(select(schema.rollups.c.bucket_ms, schema.rollups.c.count))).all()
    return Counter(dict(rows))


async def spans(hub: Hub) -> list[tuple[int, int, int]]:
    """(pending, from, to) of each batch in the order in which they came."""
    columns = (schema.batches.c.pending, schema.batches.c.from_ms, schema.batches.c.to_ms)
    async with hub.store.read() as tx:
        return [tuple(row) for row in await tx.execute(select(*columns).order_by(schema.batches.c.id))]


# --- a clock that is set late ----------------------------------------------------------------------


async def test_readings_from_1970_are_marked_until_the_clock_is_set_and_then_corrected(hub: Hub) -> None:
    made = set_late(unset=40, more=20)
    line = await hub.take(made.message((1, 20)), made.message((21, 40), low=21))
    assert line.acks()[-1] == {made.name: 40}
    assert [each.uncertain for each in await hub.stored()] == [True] * 40
    assert await hub.rolled() == (0, 0)
    async with hub.store.read() as tx:
        series = await read_range(tx, BOARD, "room", 0, 10**9, 100)
    assert [(point.at_ms, point.uncertain) for point in series.points[:2]] == [(0, 1), (1000, 1)]

    await hub.take(made.message((41, 60), low=41))
    assert not any(each.uncertain for each in await hub.stored())
    assert [pending for pending, *_ in await spans(hub)] == [1, 1, 0]
    assert await hub.ingest.corrections.settle() == 2
    await check_times(hub, made)
    assert (await spans(hub))[0] == (0, WALL_MS, WALL_MS + 19_000)
    async with hub.store.read() as tx:
        series = await read_range(tx, BOARD, "room", WALL_MS, WALL_MS + DAY_MS, 100)
    assert [(point.at_ms, point.uncertain) for point in series.points] == [
        (WALL_MS + at * 1000, 0) for at in range(60)
    ]
    assert await hub.ingest.corrections.settle() == 0


async def test_a_clock_that_is_set_within_a_batch_corrects_it_at_once(hub: Hub) -> None:
    made = set_late(unset=20, more=20)
    await hub.take(made.message((1, 20), (21, 40)))
    assert (await spans(hub)) == [(0, WALL_MS, WALL_MS + 39_000)]
    await check_times(hub, made)


async def test_the_time_of_the_hub_counts_as_well(hub: Hub) -> None:
    made = Stream(clock="unsynced", skew_ms=UNSET_MS)
    made.sample(10)
    made.clock, made.skew_ms = "hub", 0
    made.sample(10)
    await hub.take(made.message((1, 10)), made.message((11, 20), low=11))
    await hub.ingest.corrections.settle()
    await check_times(hub, made)


async def test_a_boot_whose_clock_was_never_set_stays_uncertain(hub: Hub) -> None:
    lost = Stream("l" * 16, clock="unsynced", skew_ms=UNSET_MS, boot=SECOND_BOOT)
    lost.sample(30)
    made = Stream(wall_ms=WALL_MS + DAY_MS)
    made.sample(30)
    hub.now_ms += DAY_MS
    line = await hub.take(lost.message((1, 30)), made.message((1, 30)))
    assert line.acks()[-1] == {made.name: 30}
    await hub.ingest.corrections.settle()
    await check_times(hub, lost, made, uncertain=(lost.name,))


async def test_a_jump_of_a_year_forward_and_back_changes_no_time(hub: Hub) -> None:
    """The kernel takes its clock for unset when somebody sets it; or nobody notices, within a block."""
    made = Stream()
    made.sample(20)
    made.clock, made.skew_ms = "unsynced", YEAR_MS
    made.sample(20)
    made.clock, made.skew_ms = "synced", 0
    made.sample(20)
    made.skew_ms = -YEAR_MS
    made.sample(5)
    made.skew_ms = 0
    made.sample(5)
    for first in range(1, 61, 20):
        await hub.take(made.message((first, first + 19), low=first))
    await hub.take(made.message((61, 70), low=61))
    await check_times(hub, made)
    assert [pending for pending, *_ in await spans(hub)] == [0] * 4
    assert hub.latest.boards[BOARD].values["room"].wall_ms == made.true_ms(70)


async def test_a_clock_a_year_ahead_is_not_believed_though_its_board_is_sure(hub: Hub) -> None:
    made = Stream(skew_ms=YEAR_MS)
    made.sample(20)
    made.skew_ms = 0
    made.sample(20)
    await hub.take(made.message((1, 20)))
    assert await hub.rolled() == (0, 0)
    await hub.take(made.message((21, 40), low=21))
    await hub.ingest.corrections.settle()
    await check_times(hub, made)


async def test_a_block_of_another_boot_in_the_same_stream_is_not_believed(hub: Hub) -> None:
    made = Stream()
    made.sample(10)
    payload = made.payload((1, 5), (6, 10))
    at = payload.rindex(BOOT.encode())
    forged = payload[:at] + SECOND_BOOT.encode() + payload[at + 32 :]
    await hub.take(Message(topics.up(BOARD, "readings"), forged))
    assert await hub.stored() == []
    assert sum(hub.ingest.counters().refused.values()) == 1


# --- a board that plays along -------------------------------------------------------------------------


class Machine:
    """A board's clock, and what really was the time: ``wrong_ms`` is the error of what it believes."""

    def __init__(self, boot: str) -> None:
        self.true_ms = WALL_MS
        self.wrong_ms = UNSET_MS
        self.kernel: ClockState = "unsynced"
        self.clock = Clock(
            boot, lambda: self.true_ms - WALL_MS, lambda: self.true_ms + self.wrong_ms, lambda: self.kernel
        )


async def test_a_board_whose_clock_starts_in_1970_and_jumps_a_year_and_back(hub: Hub, tmp_path: Path) -> None:
    """With the clock, the pending readings and the outbox of an agent: only its sensors are played."""
    machine = Machine(BOOT)
    took: list[int] = []
    async with Outbox.open(tmp_path / "outbox.db", boot=BOOT, max_bytes=10**6) as outbox:
        pending = Pending(outbox, machine.clock, asyncio.Event(), asyncio.Event())

        async def report(wrong_ms: int, kernel: ClockState, learned: bool = False) -> None:
            """Six readings; the clock changes after the third, and then the report is due."""
            for number in range(6):
                if number == 3:
                    machine.wrong_ms, machine.kernel = wrong_ms, kernel
                    if learned:
                        machine.clock.learn(machine.true_ms)
                pending.keep(
                    Reading("room", float(len(took)), machine.clock.mono_ms(), machine.clock.wall_ms())
                )
                took.append(machine.true_ms)
                machine.true_ms += 10_000
            await pending.commit()
            parcel = await outbox.take(START)
            assert parcel is not None
            payload, content_type = pack(parcel.payload)
            line = await hub.take(Message(topics.up(BOARD, "readings"), payload, content_type=content_type))
            await outbox.acknowledge(Ack(line.acks()[-1]))

        await report(UNSET_MS, "unsynced")
        await report(YEAR_MS, "unsynced")  # somebody set it, wrong by a year
        assert all(each.uncertain for each in await hub.stored())
        await report(YEAR_MS, "unsynced", learned=True)  # the hub told it
        await report(0, "synced")
        await report(-YEAR_MS, "unsynced")
        await report(0, "synced")
        assert (await outbox.state()).readings == 0
    await hub.ingest.corrections.settle()
    assert [(each.wall_ms, each.value, each.uncertain) for each in await hub.stored()] == [
        (at_ms, float(number), False) for number, at_ms in enumerate(took)
    ]
    assert await buckets(hub) == Counter(at_ms // BUCKET_MS * BUCKET_MS for at_ms in took)


# --- gaps ------------------------------------------------------------------------------------------


async def test_a_gap_from_1970_is_shown_where_it_was(hub: Hub) -> None:
    made = set_late(unset=40, more=20)
    gap = made.gap(1, 20)
    await hub.take(made.message((21, 40), low=21, gaps=[gap]))
    assert [found.to_ms for found in await gaps(hub)] == [gap.to_ms]
    await hub.take(made.message((41, 60), low=41))
    await hub.ingest.corrections.settle()
    [found] = await gaps(hub)
    assert (found.from_ms, found.to_ms) == (made.true_ms(21) - 19_000, made.true_ms(21))


async def test_a_gap_that_ends_as_the_clock_is_set_is_shown_where_it_was(hub: Hub) -> None:
    made = set_late(unset=40, more=20)
    await hub.take(made.message((41, 60), low=41, gaps=[made.gap(1, 40)]))
    [found] = await gaps(hub)
    assert (found.from_ms, found.to_ms) == (made.true_ms(41) - 39_000, made.true_ms(41))


async def gaps(hub: Hub) -> list[GapRow]:
    async with hub.store.read() as tx:
        return await list_gaps(tx, BOARD, -(2**53), 2**53)


# --- the machine -----------------------------------------------------------------------------------


async def test_what_is_not_folded_yet_waits_so_that_a_kill_counts_nothing_twice(tmp_path: Path) -> None:
    """The moment that matters: the clock is known, and the roll-ups of ingest are only in memory.

    A kill leaves the database as it was at the last commit: so a copy of it is one.
    """
    made = set_late(unset=60, more=60)
    (tmp_path / "killed").mkdir()
    async with Hub.open(tmp_path) as hub:
        await hub.join(BOARD)
        line = Line()
        running = asyncio.ensure_future(hub.ingest.run(line))
        for number, first in enumerate(range(1, 120, 20), 1):
            line.arrive(made.message((first, first + 19), low=first))
            while hub.settled < number:
                await asyncio.sleep(0.001)
        assert await hub.ingest.corrections.settle() == 0
        for file in tmp_path.glob("hub.db*"):
            shutil.copy(file, tmp_path / "killed" / file.name)
        line.cut()
        with pytest.raises(LinkDown):
            await running
        assert await hub.ingest.corrections.settle() == 3
        await check_times(hub, made)
    async with Hub.open(tmp_path / "killed") as hub:
        await hub.take()
        await settle_after_start(hub)
        await check_times(hub, made)


async def settle_after_start(hub: Hub, left: int = 0) -> None:
    """What `Corrections.run` does first; so many batches can not be corrected."""
    running = asyncio.ensure_future(hub.ingest.corrections.run())
    async with asyncio.timeout(10):
        while sum(pending for pending, *_ in await spans(hub)) > left:
            await asyncio.sleep(0.005)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_stopped_at_any_moment_each_reading_is_counted_once_and_at_its_time(
    tmp_path: Path, seed: int
) -> None:
    """Cancelled while it stores, folds, corrects, or in between: three boots, two of them set late."""
    luck = random.Random(seed)
    streams = [
        set_late(400, 200, name="s" * 16, boot=BOOT),
        set_late(300, 300, name="t" * 16, boot=SECOND_BOOT, wall_ms=WALL_MS + 1_000_000),
    ]
    never = Stream("u" * 16, clock="unsynced", skew_ms=UNSET_MS, boot=THIRD_BOOT)
    never.sample(200)
    acknowledged = dict.fromkeys([made.name for made in (*streams, never)], 0)
    async with Hub.open(tmp_path) as hub:
        await hub.join(BOARD)
    while any(acknowledged[made.name] < len(made.readings) for made in (*streams, never)):
        async with Hub.open(tmp_path) as hub:
            line = Line()
            for made in (*streams, never):
                line.arrive(*resend(made, acknowledged[made.name]))
            running = [
                asyncio.ensure_future(hub.ingest.run(line)),
                asyncio.ensure_future(hub.ingest.corrections.run()),
            ]
            await asyncio.sleep(luck.uniform(0.0, 0.04))
            luck.shuffle(running)
            for task in running:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            for ack in line.acks():
                acknowledged |= {name: max(acknowledged[name], seq) for name, seq in ack.items()}
    async with Hub.open(tmp_path) as hub:
        await hub.take()
        await settle_after_start(hub, left=10)
        await check_times(hub, *streams, never, uncertain=(never.name,))


def resend(made: Stream, acknowledged: int) -> list[Message]:
    """What a board sends that was told so far: at most 8 batches of 20."""
    count = len(made.readings)
    begins = range(acknowledged + 1, min(acknowledged + 160, count), 20)
    return [made.message((first, min(first + 19, count)), low=acknowledged + 1) for first in begins]


async def test_a_full_disk_puts_corrections_off(hub: Hub) -> None:
    made = set_late(unset=60, more=20)
    for first in range(1, 81, 20):
        await hub.take(made.message((first, first + 19), low=first))
    async with hub.store.write() as tx:
        full = "SELECT RAISE(FAIL, 'database or disk is full')"
        await tx.exec_driver_sql(f"CREATE TRIGGER no_room BEFORE UPDATE ON batches BEGIN {full}; END")
    with pytest.raises(Refused, match="no space left"):
        await hub.ingest.corrections.settle()
    assert (await hub.rolled())[0] == 20
    async with hub.store.write() as tx:
        await tx.exec_driver_sql("DROP TRIGGER no_room")
    assert await hub.ingest.corrections.settle() == 3
    await check_times(hub, made)


async def test_a_hub_restored_from_yesterday_goes_on_and_shows_the_loss(tmp_path: Path) -> None:
    """Its clocks, its uncertain readings and its roll-ups are those of yesterday, and agree."""
    made, waiting = set_late(unset=40, more=100), set_late(unset=20, more=0, name="w" * 16, boot=SECOND_BOOT)
    async with Hub.open(tmp_path) as hub:
        await hub.join(BOARD)
        await hub.take(waiting.message((1, 20)), made.message((1, 40)))
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "hub.db", tmp_path / "copy" / "hub.db")
    async with Hub.open(tmp_path) as hub:
        await hub.take(made.message((41, 100), low=41))
        await hub.ingest.corrections.settle()
    async with Hub.open(tmp_path / "copy") as hub:
        line = await hub.take(made.message((101, 140), low=101))
        assert line.acks() == [{made.name: 140}]
        await hub.ingest.corrections.settle()
        [gap] = await gaps(hub)
        assert (gap.seq0, gap.count, gap.reason) == (41, 60, "lost")
        assert (gap.from_ms, gap.to_ms) == (made.true_ms(40), made.true_ms(101))
        kept = [*range(1, 41), *range(101, 141)]
        found = [each for each in await hub.stored() if each.stream == made.name]
        assert [(each.seq, each.wall_ms) for each in found] == [(seq, made.true_ms(seq)) for seq in kept]
        assert (await hub.rolled())[0] == len(kept)
        assert [each.uncertain for each in await hub.stored() if each.stream == waiting.name] == [True] * 20


# --- who came back ---------------------------------------------------------------------------------


def birth(boot: str, nonce: str) -> Message:
    return Message(topics.up(BOARD, "presence"), dumps(Presence("online", nonce, boot, 5)))


async def codes(hub: Hub) -> list[str]:
    return [problem.code for problem in hub.latest.boards[BOARD].problems]


async def test_two_machines_with_one_identity_are_noticed_when_an_earlier_boot_is_back(hub: Hub) -> None:
    await hub.take(birth(BOOT, "n1"), birth(BOOT, "n2"), birth(SECOND_BOOT, "n3"), birth(SECOND_BOOT, "n4"))
    assert "identity-twice" not in await codes(hub)
    await hub.take(birth(BOOT, "n5"))
    assert "identity-twice" in await codes(hub)


async def test_after_the_other_machine_has_gone_its_boot_is_not_back_for_ever(hub: Hub) -> None:
    await hub.take(birth(BOOT, "n1"), birth(SECOND_BOOT, "n2"), birth(BOOT, "n3"))
    assert await returned(hub, birth(BOOT, "n4")) == set()
    assert await returned(hub, birth(SECOND_BOOT, "n5")) == {BOARD}


async def test_what_an_earlier_boot_left_behind_is_no_second_machine(hub: Hub) -> None:
    """Readings of a boot that never reached the hub come after the birth of the next."""
    earlier = Stream("e" * 16, boot=SECOND_BOOT)
    earlier.sample(10)
    await hub.take(birth(BOOT, "n1"), earlier.message((1, 10)))
    assert await returned(hub, birth(BOOT, "n2")) == set()


async def returned(hub: Hub, message: Message) -> set[str]:
    """What a commit of this message alone says, and leaves undone."""
    arrival = read_arrival(message, hub.now_ms + 5)
    assert isinstance(arrival, PresenceCame)
    commit = Commit(hub.now_ms + 5, BootNews(KnownBoots()))
    async with hub.store.write() as tx:
        await commit.apply(tx, [arrival], {})
    return set(commit.returned)


async def test_a_boot_is_written_once_not_with_each_message(hub: Hub) -> None:
    made = Stream()
    made.sample(60)
    await hub.take(made.message((1, 20)))
    async with hub.store.read() as tx:
        before = await boots_of(tx, BOARD)
    assert before[BOARD, BOOT].offset_ms == WALL_MS
    hub.now_ms += 60_000
    await hub.take(made.message((21, 40), low=21), made.message((41, 60), low=41))
    async with hub.store.read() as tx:
        assert await boots_of(tx, BOARD) == before
