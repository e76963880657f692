"""A board of the fleet: the agent's outbox, sampler and link on a machine that things happen to.

It keeps a list beside them: every reading that was made, and which of them were committed.  A reading
is known by (boot, sensor, mono_ms), which no two of a board share.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import agent
from agent.config import Config
from agent.identity import open_identity
from agent.link import Link
from agent.outbox import Outbox
from agent.sensors.sampler import Sampler
from agent.wire.decode import decode_json
from agent.wire.envelope import MAX_INFLATED
from agent.wire.errors import Refused
from agent.wire.messages import About, Block, ClockState, Reading, readings_of
from fakes.sensor import FakeSensors
from support.fleet.files import Folders, fill, leave_room, quiet
from support.fleet.machine import Machine
from support.fleet.network import Network
from support.homehub import HomeHub

Key = tuple[str, str, int]
"""Boot, sensor, mono_ms."""
OUTBOX_BYTES = 24_000
"""Room for half a day: a day's outage is longer."""
EVERY_S = {"room": 60.0, "tank": 60.0, "door": 300.0}
"""The sensors, and how often each is asked."""
NEAR_MS = 3_000
"""How far a clock may be off that is called right: the hub's word travels, and reports are a second old."""
FAILS = 0.02
"""How often a sensor does not answer."""


class Board:
    """One board.  ``made`` and ``committed`` outlive every agent; ``alive`` is whether one runs."""

    def __init__(self, root: Path, home: HomeHub, network: Network, seed: str) -> None:
        self.dice = random.Random(seed)
        self.identity = open_identity(root / "state")
        home.admit(self.identity)
        self.id = self.identity.board
        self.machine = Machine(self.dice)
        self.made: dict[Key, Reading] = {}
        self.committed: set[Key] = set()
        self.full = False
        self.busy = False
        self._network = network
        self._folders = Folders(root, "outbox.db")
        self._life: asyncio.Task[None] | None = None
        self._sink: _Sink | None = None
        self._sensors = FakeSensors()
        for name in EVERY_S:
            self._sensors.says[name] = self._tell

    @property
    def alive(self) -> bool:
        return self._life is not None

    # --- what can happen to it -------------------------------------------------------------------

    def start(self, group: asyncio.TaskGroup, *, samples: bool = True) -> None:
        """Start an agent."""
        assert self._life is None
        self._life = group.create_task(self._live(samples), name=f"agent {self.id}")

    async def stop(self) -> None:
        """Stop the agent in peace."""
        if self._life is not None:
            life, self._life = self._life, None
            life.cancel()
            await asyncio.wait([life])

    async def kill(self) -> None:
        """End the agent as SIGKILL or a power cut does: its files stay as they are at this moment."""
        await quiet()
        if self._life is None or self._sink is None:
            return await self.stop()
        self._sink.counts = False
        self._network.break_line(self.id)
        left = self._folders.leave()
        self._count(left)
        await self.stop()  # what it does by now happens in a folder that nobody looks at
        self._folders.forget(left)
        return None

    async def fill_disk(self) -> None:
        """Leave no room for another page of the outbox."""
        self.full = True
        if self._sink is not None:
            await self._sink.outbox._database.run(fill)

    async def free_disk(self) -> None:
        """Make room again."""
        self.full = False
        if self._sink is not None:
            await self._sink.outbox._database.run(leave_room)

    # --- its agent -------------------------------------------------------------------------------

    async def _live(self, samples: bool) -> None:
        clock = self.machine.clock()
        config = Config()
        async with Outbox.open(self._folders.file, boot=clock.boot, max_bytes=OUTBOX_BYTES) as outbox:
            sink = self._sink = _Sink(self, outbox)
            try:
                if self.full:
                    await self.fill_disk()
                sampler = Sampler(
                    [self._sensors.configure(name, interval_s=every_s) for name, every_s in EVERY_S.items()]
                    if samples
                    else [],
                    clock=clock,
                    sink=sink,
                    sysfs=Path("/nowhere"),
                    state_dir=Path("/nowhere"),
                    commit_every_s=config.report.commit_every_s,
                    load=self._sensors.load,
                )

                async def describe() -> About:
                    return About(
                        self.id,
                        agent.__version__,
                        "",
                        "",
                        clock.boot,
                        clock.wall_ms(),
                        clock=clock.state(),
                        outbox=await outbox.state(),
                        sensors=sampler.sensors(),
                    )

                link = Link(
                    self.identity,
                    outbox,
                    config,
                    clock,
                    connect=self._network.connect,
                    describe=describe,
                    tell=lambda state: None,
                    hurry=sampler.hurry,
                    draw=self.dice.random,
                )
                async with asyncio.TaskGroup() as group:
                    sampler.start(group)
                    group.create_task(link.run(), name=f"link {self.id}")
            finally:
                if self._sink is sink:
                    self._sink = None

    async def commit_one(self) -> None:
        """Commit a reading now, as a sampler would."""
        assert self._sink is not None
        clock = self.machine.clock()
        reading = Reading("room", 1.0, clock.mono_ms(), clock.wall_ms())
        await self._sink.append([reading], clock.state())

    async def is_drained(self) -> bool:
        """Whether the outbox holds nothing any more, and its gaps are told."""
        assert self._sink is not None
        return (await self._sink.outbox.state()).readings == 0

    async def _tell(self) -> float:
        if self.dice.random() < FAILS:
            raise Refused("no answer")
        return float(len(self.made))

    # --- the list --------------------------------------------------------------------------------

    def make(self, boot: str, readings: Sequence[Reading]) -> list[Key]:
        """Write readings down, before anything can happen to them."""
        keys = [(boot, reading.sensor, reading.mono_ms) for reading in readings]
        self.made |= zip(keys, readings, strict=True)
        return keys

    def knew_the_time(self, key: Key) -> bool:
        """Whether its clock was right when it made a reading."""
        boot, _, mono_ms = key
        true_ms = self.machine.boots[boot].zero_ms + mono_ms
        return abs(self.made[key].wall_ms - true_ms) < NEAR_MS

    def _count(self, folder: Path) -> None:
        """What a dead agent had committed, even if it had not heard of it."""
        look = folder.with_name(folder.name + "-look")
        shutil.copytree(folder, look)
        with closing(sqlite3.connect(look / "outbox.db")) as connection:
            for (body,) in connection.execute("SELECT body FROM blocks").fetchall():
                block = decode_json(Block, body, max_bytes=MAX_INFLATED)
                self.committed |= {
                    (block.boot, reading.sensor, reading.mono_ms) for reading in readings_of(block)
                }
        shutil.rmtree(look)


class _Sink:
    """The outbox, as the sampler sees it; what it takes is written down while this ``counts``."""

    def __init__(self, board: Board, outbox: Outbox) -> None:
        self.outbox = outbox
        self.counts = True
        self._board = board
        self._boot = board.machine.boot.id

    async def append(self, readings: Sequence[Reading], clock: ClockState) -> None:
        keys = self._board.make(self._boot, readings) if self.counts else []
        await self.outbox.append(readings, clock)
        if self.counts:
            self._board.committed.update(keys)
