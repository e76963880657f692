"""A day without the hub, in virtual time: what is kept, what is told of the rest, and who comes first.

A real outbox, too small for the day, behind a sampler with sensors that never say the same; the link
over a broker in memory, whose line to the board carries a kilobyte a second.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.base.broker import Address, Message, Session
from agent.clock import Clock
from agent.config import Config, Report
from agent.config import Outbox as Settings
from agent.identity import open_identity
from agent.link import Link
from agent.outbox import Outbox
from agent.sensors.sampler import Sampler
from agent.wire.errors import LinkDown
from agent.wire.messages import About
from fakes.broker import FakeBroker, lichen_rule
from fakes.sensor import FakeSensors
from support.homehub import Ear, HomeHub
from support.virtual import BOOT, WALL_MS, virtual, virtual_clock

DAY_S = 86_400
BYTES_PER_S = 1000
SENSORS = 5
ROOM = 400 * 1024
"""Bytes of the outbox: a good half of a day at these sensors."""


class ThinLine:
    """A connection that carries so many bytes in a second and no more."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turn = asyncio.Lock()
        self.subscribe, self.messages, self.traffic = session.subscribe, session.messages, session.traffic

    async def publish(self, message: Message) -> None:
        async with self._turn:
            await asyncio.sleep(len(message.payload) / BYTES_PER_S)
        await self._session.publish(message)


@dataclass
class Board:
    """One board, and the ear of its hub."""

    outbox: Outbox
    ear: Ear
    broker: FakeBroker
    has_route: bool = True

    def cut(self) -> None:
        """Lose the way to the hub."""
        self.has_route = False
        self.broker.cut(self.ear.board)

    def newest_s(self) -> float:
        """When the newest reading was taken that the hub has."""
        return max(sum(block.wall_ms) - WALL_MS for block in self.ear.blocks) / 1000

    def oldest_s(self, after_s: float) -> float:
        """When the oldest one was taken behind a moment."""
        begins = [(block.wall_ms[0] - WALL_MS) / 1000 for block in self.ear.blocks]
        return min((begin_s for begin_s in begins if begin_s > after_s), default=math.inf)


@asynccontextmanager
async def running(folder: Path, config: Config, clock: Clock) -> AsyncIterator[Board]:
    hub, identity = HomeHub(folder / "hub"), open_identity(folder / "state")
    hub.admit(identity)
    broker, ear, world = FakeBroker(allow=lichen_rule), Ear(identity.board), FakeSensors()

    dice = random.Random(1)

    async def noise() -> float:
        return dice.randrange(100_000) / 100

    world.says = dict.fromkeys([f"room{n}" for n in range(SENSORS)], noise)

    @asynccontextmanager
    async def connect(address: Address) -> AsyncIterator[Session]:
        if not board.has_route:
            raise LinkDown("no route to host")
        async with broker.connect(address) as session:
            yield ThinLine(session)

    async def describe() -> About:
        return About(identity.board, "1", "", "", BOOT, 0, outbox=await outbox.state())

    async with AsyncExitStack() as stack:
        opening = Outbox.open(folder / "outbox.db", boot=BOOT, max_bytes=config.outbox.max_bytes)
        outbox = await stack.enter_async_context(opening)
        board = Board(outbox, ear, broker)
        sampler = Sampler(
            [world.configure(name, interval_s=10) for name in world.says],
            clock=clock,
            sink=outbox,
            sysfs=folder,
            state_dir=folder,
            commit_every_s=config.report.commit_every_s,
            load=world.load,
        )
        link = Link(
            identity, outbox, config, clock,
            connect=connect, describe=describe, tell=lambda state: None, hurry=sampler.hurry,
        )  # fmt: skip
        group = await stack.enter_async_context(asyncio.TaskGroup())

        async def live() -> None:
            async with asyncio.TaskGroup() as parts:
                sampler.start(parts)
                parts.create_task(link.run(), name="link")

        async def listen() -> None:
            await ear.listen(broker.connect, Address("hub", username="hub"))

        hearing = group.create_task(listen(), name="ear")
        living = group.create_task(live(), name="board")
        yield board
        living.cancel()
        hearing.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["default", "metered"])
@virtual
async def test_a_day_without_the_hub(tmp_path: Path, profile: str) -> None:
    every_s = 300.0 if profile == "metered" else 60.0
    config = Config(
        report=Report(profile=profile, every_s=every_s),  # type: ignore[arg-type]
        outbox=Settings(max_bytes=ROOM),
    )
    loop = asyncio.get_running_loop()
    async with running(tmp_path, config, virtual_clock()) as board:
        await asyncio.sleep(1200)
        before_s = board.newest_s()
        board.cut()
        await asyncio.sleep(DAY_S)
        held = await board.outbox.state()
        assert held.bytes <= ROOM
        assert held.oldest_ms is not None
        assert board.newest_s() == before_s

        board.has_route = True
        await until(lambda: board.ear.board in board.broker.connected, within_s=400)
        back_s, oldest_s = loop.time(), (held.oldest_ms - WALL_MS) / 1000
        await until(lambda: board.newest_s() > back_s - 15, within_s=30)
        live_s = loop.time() - back_s
        assert live_s < 5  # it did not wait for what the line is given of the backlog either
        await until(lambda: board.oldest_s(before_s) <= oldest_s + 3600, within_s=30)  # from its old end
        while (await board.outbox.state()).bytes > 20_000:
            await asyncio.sleep(1)
        drained_s = loop.time() - back_s
        assert drained_s > 3 * live_s  # the newest did not wait for the oldest
        await asyncio.sleep(2 * every_s)
        check(board, (await board.outbox.state()).dropped, before_s)


async def until(condition: Callable[[], bool], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.5)


def check(board: Board, dropped: int, before_s: float) -> None:
    """Every ten seconds are there, or in the gap that was told, and none in both."""
    times = sorted({reading.wall_ms for reading in board.ear.readings})
    assert {hole.reason for hole in board.ear.holes} == {"outbox-full"}
    gone = sum(hole.count for hole in board.ear.holes)
    assert 10_000 < gone <= dropped  # what was dropped on its way may have arrived all the same
    assert gone % SENSORS == 0
    hole = board.ear.holes[0]
    assert (len(board.ear.holes), hole.from_ms is None, hole.to_ms is None) == (1, False, False)
    assert hole.from_ms is not None
    assert hole.to_ms is not None
    assert before_s < (hole.from_ms - WALL_MS) / 1000 <= before_s + 400
    assert (hole.to_ms - hole.from_ms) // 10_000 + 1 == gone // SENSORS  # its span, one each 10 s
    assert not [at_ms for at_ms in times if hole.from_ms <= at_ms <= hole.to_ms]
    kept = [at_ms for at_ms in times if at_ms > hole.to_ms]
    assert kept[0] - hole.to_ms == 10_000  # the newest are kept, without a hole
    assert set(range(kept[0], kept[-1], 10_000)) <= set(kept)
    assert len(board.ear.readings) == len({(each.sensor, each.mono_ms) for each in board.ear.readings})
