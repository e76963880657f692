"""The sending half of a session: when it looks again, and what may coincide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.base.broker import Message
from agent.outbox import Outbox
from agent.reports import Reports
from agent.window import Window
from agent.wire.messages import Ack, Reading

RESEND_S = 0.1


@dataclass
class Desk:
    """Reports over a real outbox; ``sent`` is what a broker would have been given."""

    outbox: Outbox
    hold_s: float = 0
    sent: list[Message] = field(default_factory=list)

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[Reports]:
        window = Window(size=4, resend_s=RESEND_S, high_s=60)
        reports = Reports(self.outbox, window, topic="t", publish=self.publish, hold_s=self.hold_s)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(reports.run(group), name="reports")
            yield reports
            task.cancel()

    async def publish(self, message: Message) -> bool:
        self.sent.append(message)
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

    async def acknowledge(self, ack: Ack) -> bool:
        advanced = await super().acknowledge(ack)
        await self.answer.wait()
        return advanced


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
