"""The agent on one page: configuration in, objects, one TaskGroup.

    sensors -> sampler -> outbox -> reports -> link -> the hub's broker
                                    inbox   <- link <- acknowledgements, hub document, commands

`agent.__main__` runs it under `agent.base.process.run`.  Read `Agent.run` from top to bottom;
each object has a module of its name, and none of them knows this one.
"""

from __future__ import annotations

import asyncio
import os

import agent
from agent.base import process
from agent.base.broker import Connect, connect
from agent.base.files import make_directory
from agent.base.lock import held
from agent.clock import Clock
from agent.config import Config
from agent.identity import Identity, Membership, open_identity
from agent.link import Link
from agent.outbox import Outbox
from agent.portrait import Portrait
from agent.sensors.sampler import Sampler
from agent.status import LinkState, Status, write_status
from agent.wire.errors import ConfigError

LOCK = "agent.lock"
OUTBOX = "outbox.db"


class Agent:
    """One agent.  `run` it once; `watch` proves that it lives."""

    def __init__(self, config: Config, clock: Clock, connect: Connect = connect) -> None:
        self._config = config
        self._clock = clock
        self._connect = connect
        self._outbox: Outbox | None = None

    async def run(self) -> None:
        """Join if need be, then sample and report until cancelled.

        Raises Busy when another agent runs on the same state, ConfigError when the board has not
        joined and has no join file, and whatever joining raises.
        """
        config, clock, state_dir = self._config, self._clock, self._config.state_dir
        make_directory(state_dir)
        make_directory(config.runtime_dir, 0o755)
        with held(state_dir / LOCK, "an agent"):
            process.ready("starting")
            identity = open_identity(state_dir)
            write_status(config.runtime_dir, starting(identity, clock.wall_ms()))
            membership = await join_or_load(identity, config, clock)
            async with Outbox.open(
                state_dir / OUTBOX, boot=clock.boot, max_bytes=config.outbox.max_bytes
            ) as outbox:
                self._outbox = outbox
                sampler = Sampler(
                    config.sensors,
                    clock=clock,
                    sink=outbox,
                    sysfs=config.sysfs,
                    state_dir=state_dir,
                    commit_every_s=config.report.commit_every_s,
                )
                portrait = Portrait(identity, membership, config, clock, outbox, sampler)
                link = Link(
                    identity,
                    outbox,
                    config,
                    clock,
                    connect=self._connect,
                    describe=portrait.about,
                    tell=portrait.tell,
                )
                try:
                    async with asyncio.TaskGroup() as group:
                        sampler.start(group)
                        group.create_task(link.run(), name="link")
                        group.create_task(portrait.keep(link.changed), name="status")
                        group.create_task(portrait.heed(outbox.committed), name="status of the outbox")
                        group.create_task(portrait.heed(sampler.changed), name="status of the sensors")
                finally:
                    self._outbox = None  # it closes now, and a watchdog must not find it closed

    async def watch(self) -> None:
        """Return if the database answers, once it is open."""
        if self._outbox is not None:
            await self._outbox.probe()


def starting(identity: Identity, now_ms: int) -> Status:
    """The status until there is more to say; joining may have to wait for the hub."""
    return Status(
        board=identity.board,
        version=agent.__version__,
        running=True,
        pid=os.getpid(),
        written_ms=now_ms,
        started_ms=now_ms,
        link=LinkState("connecting", now_ms),
    )


async def join_or_load(identity: Identity, config: Config, clock: Clock) -> Membership:
    """What this board is at its hub; a join file that lies there is used first."""
    path = config.find_join_file()
    if path is not None:
        from agent import join  # only to join

        low_s, high_s = config.link.backoff_low_s, config.link.backoff_high_s
        return await join.follow(identity, path, clock.state, low_s=low_s, high_s=high_s)
    membership = identity.membership()
    if membership is None:
        raise ConfigError(
            f"this board ({identity.board}) has not joined a hub, and there is no join file",
            hint=f"`lichen token new` on the hub prints one: put it at {config.join_files[0]}",
        )
    return membership
