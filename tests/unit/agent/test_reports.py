"""The sending half of a session: when it looks again, and what may coincide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.base.broker import Message
from agent.outbox import Outbox
from agent.reports import Reports
from agent.window import Window
from agent.wire.envelope import unpack
from agent.wire.messages import Ack, Reading, read_batch
from support.virtual import virtual

RESEND_S = 0.1


@dataclass
class Desk:
    """Reports over a real outbox; ``sent`` is what a broker would have been given."""

    outbox: Outbox
    hold_s: float = 0
    sent: list[Message] = field(default_factory=list)
    moments: set[int] = field(default_factory=set)
    """The seconds in which something was sent."""

    @asynccontextmanager
    async def reporting(self, **options: Any) -> AsyncIterator[Reports]:
        window = Window(size=4, resend_s=RESEND_S, high_s=60)
        reports = Reports(self.outbox, window, topic="t", publish=self.publish, hold_s=self.hold_s, **options)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(reports.run(), name="reports")
            yield reports
            task.cancel()

    async def publish(self, message: Message) -> bool:
        self.sent.append(message)
        self.moments.add(int(asyncio.get_running_loop().time()))
        return True

    async def commit(self) -> None:
        await self.outbox.append([Reading("room", 21.5, 1, 1)], "synced")

    async def until_sent(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.sent) < count:
                await asyncio.sleep(0.002)


class HeldBack(Outbox):
    """An outbox that answers an acknowledgement when the test says so."""

    answer: asyncio.Event

    async def acknowledge(self, ack: Ack) -> frozenset[str]:
        moved = await super().acknowledge(ack)
        await self.answer.wait()
        return moved


async def test_an_answer_and_the_deadline_may_come_at_the_same_moment(tmp_path: Path) -> None:
    async with HeldBack.open(tmp_path / "outbox.db", boot="b" * 32, max_bytes=10**6) as box:
        assert isinstance(box, HeldBack)
        box.answer = asyncio.Event()
        desk = Desk(box)
        await desk.commit()
        async with desk.reporting() as reports, asyncio.TaskGroup() as group:
            await desk.until_sent(1)
            ack = reports.acknowledge(Ack({box.stream: 1}), retained=False)
            told = group.create_task(ack, name="ack")
            while (await box.state()).readings:
                await asyncio.sleep(0)
            stalled_until_s = time.monotonic() + RESEND_S
            while time.monotonic() < stalled_until_s:
                pass  # the machine stalls: in the next turn of the loop both are due
            await asyncio.sleep(0)
            box.answer.set()
            await told
            await asyncio.sleep(2 * RESEND_S)
        assert len(desk.sent) == 1


async def test_what_got_lost_does_not_wait_for_the_next_report(tmp_path: Path) -> None:
    async with Outbox.open(tmp_path / "outbox.db", boot="b" * 32, max_bytes=10**6) as box:
        desk = Desk(box, hold_s=3600)
        await desk.commit()
        async with desk.reporting():
            await desk.until_sent(1)
            await desk.commit()  # its time has not come, and the first one is not acknowledged
            await desk.until_sent(2)


async def test_a_hub_that_missed_something_need_not_wait_for_the_next_report(tmp_path: Path) -> None:
    async with Outbox.open(tmp_path / "outbox.db", boot="b" * 32, max_bytes=10**6) as box:
        desk = Desk(box, hold_s=3600)
        await desk.commit()
        async with desk.reporting() as reports:
            await desk.until_sent(1)
            await desk.commit()
            await asyncio.sleep(RESEND_S / 10)
            before_s = time.monotonic()
            await reports.acknowledge(Ack({box.stream: 0}), retained=False)
            await desk.until_sent(2)
            assert time.monotonic() - before_s < RESEND_S / 2


# --- a long backlog ----------------------------------------------------------------------------------


@dataclass
class Hub:
    """Takes batches in order per stream, some each ``turn_s``, as over a thin line, and answers."""

    desk: Desk
    reports: Reports
    turn_s: float = 0.01
    stands: dict[str, int] = field(default_factory=dict)
    order: list[tuple[str, int]] = field(default_factory=list)

    async def work(
        self,
        until: Callable[[], bool],
        lose: Callable[[int], bool] = lambda count: False,
        within_s: float = 20,
    ) -> None:
        taken = 0
        async with asyncio.timeout(within_s):
            while not until():
                await asyncio.sleep(self.turn_s)
                while taken < len(self.desk.sent):
                    taken += 1
                    if not lose(taken):
                        await self._take(self.desk.sent[taken - 1])

    async def _take(self, message: Message) -> None:
        batch = read_batch(unpack(message.payload, message.content_type))
        for block in batch.blocks:
            stands = self.stands.get(block.stream, 0)
            if block.seq0 <= stands + 1 < block.next:
                self.stands[block.stream] = block.next - 1
                self.order.append((block.stream, block.next - 1))
        streams = {stream: self.stands.get(stream, 0) for stream in batch.held}
        await self.reports.acknowledge(Ack(streams), retained=False)


LONG = 10_000
"""Readings of a backlog that is longer than a window of four."""


async def backlog(box: Outbox, count: int = LONG) -> str:
    values = [Reading("room", n / 7, n, 1_700_000_000_000 + n) for n in range(1, count + 1)]
    for at in range(0, count, 400):
        await box.append(values[at : at + 400], "synced")
    return box.stream


async def test_what_is_new_passes_a_long_backlog(tmp_path: Path) -> None:
    async with Outbox.open(tmp_path / "outbox.db", boot="b" * 32, max_bytes=10**7) as box:
        old = await backlog(box)
        desk = Desk(box)
        async with desk.reporting() as reports:
            hub = Hub(desk, reports)
            await desk.until_sent(2)
            assert box.stream != old
            await box.append([Reading("room", 1.0, 1, 1)], "synced")
            new = box.stream
            await hub.work(lambda: hub.stands.get(old) == LONG and hub.stands.get(new) == 1)
            position = hub.order.index((new, 1))
            assert hub.order[position - 1][1] < LONG / 2  # it did not wait for the end
            await box.append([Reading("room", 2.0, 2, 2)], "synced")
            await hub.work(lambda: hub.stands[new] == 2)
        state = await box.state()
    assert (state.readings, state.dropped) == (0, 0)


async def test_the_lanes_do_not_make_each_other_send_again(tmp_path: Path) -> None:
    async with Outbox.open(tmp_path / "outbox.db", boot="b" * 32, max_bytes=10**7) as box:
        old = await backlog(box)
        desk = Desk(box)
        async with desk.reporting() as reports:
            hub = Hub(desk, reports)
            await desk.until_sent(2)

            def done() -> bool:
                box.bell.set()
                return hub.stands.get(old) == LONG

            async with asyncio.TaskGroup() as group:
                group.create_task(tick(box, 20), name="tick")
                await hub.work(done)
            await hub.work(lambda: hub.stands.get(box.stream, 0) >= 20)
        payload = sum(len(unpack(message.payload, message.content_type)) for message in desk.sent)
    assert payload < 1.2 * LONG * 35  # each once, and no lane because of the other


async def tick(box: Outbox, count: int) -> None:
    for n in range(count):
        await box.append([Reading("room", float(n), n, n)], "synced")
        await asyncio.sleep(0.005)


async def test_both_lanes_get_over_losses(tmp_path: Path) -> None:
    async with Outbox.open(tmp_path / "outbox.db", boot="b" * 32, max_bytes=10**7) as box:
        old = await backlog(box)
        desk = Desk(box)
        async with desk.reporting() as reports:
            hub = Hub(desk, reports)
            await desk.until_sent(2)
            await tick(box, 10)
            await hub.work(
                lambda: hub.stands.get(old) == LONG and hub.stands.get(box.stream) == 10,
                lose=lambda count: count % 5 == 2,
            )
    ends = [seq for stream, seq in hub.order if stream == old]
    assert ends == sorted(ends)


async def test_a_hub_that_was_silent_for_long_gets_the_newest_first(tmp_path: Path) -> None:
    async with Outbox.open(tmp_path / "outbox.db", boot="b" * 32, max_bytes=10**7) as box:
        desk = Desk(box)
        parted: list[bool] = []
        async with desk.reporting(parted=lambda: parted.append(True)) as reports:
            await desk.commit()
            await desk.until_sent(2)  # sent again, for nobody answers
            old = await backlog(box)
            hub = Hub(desk, reports)
            await hub.work(lambda: box.stream != old)
            assert parted == [True]
            await box.append([Reading("room", 1.0, 1, 1)], "synced")
            await hub.work(lambda: hub.stands.get(old) == LONG + 1 and hub.stands.get(box.stream) == 1)
            assert hub.order.index((box.stream, 1)) < len(hub.order) - 1


async def test_a_short_backlog_keeps_its_stream(tmp_path: Path) -> None:
    async with Outbox.open(tmp_path / "outbox.db", boot="b" * 32, max_bytes=10**7) as box:
        old = await backlog(box, 400)
        desk = Desk(box)
        async with desk.reporting() as reports:
            hub = Hub(desk, reports)
            await box.append([Reading("room", 1.0, 1, 1)], "synced")
            await hub.work(lambda: hub.stands.get(old) == 401)


# --- somebody watches --------------------------------------------------------------------------------


@virtual
async def test_while_somebody_watches_reports_come_sooner_and_then_as_before(tmp_path: Path) -> None:
    async with Outbox.open(tmp_path / "outbox.db", boot="b" * 32, max_bytes=10**6) as box:
        desk = Desk(box, hold_s=300)
        async with desk.reporting() as reports, asyncio.TaskGroup() as group:
            hub = Hub(desk, reports, turn_s=0.01)
            working = group.create_task(hub.work(lambda: False, within_s=10_000), name="hub")
            ticking = group.create_task(committing(desk), name="commits")
            await asyncio.sleep(100)
            held = len(desk.moments)
            reports.hurry(2, 20)
            await asyncio.sleep(20)
            hurried = len(desk.moments) - held
            await asyncio.sleep(400)
            after = len(desk.moments) - held - hurried
            working.cancel()
            ticking.cancel()
    assert held == 1
    assert 10 <= hurried <= 11
    assert 1 <= after <= 2


async def committing(desk: Desk) -> None:
    while True:
        await desk.commit()
        await asyncio.sleep(2)
