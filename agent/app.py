"""The agent on one page: configuration in, objects, one TaskGroup.

    sensors -> sampler -> outbox -> reports -> link -> the hub's broker
                                    inbox   <- link <- acknowledgements, hub document, commands, time
       Podman <- reconciler <- desk <- inbox   <- link <- orders
            |                  desk -> link -> how apps are
            +---> usage: meter -> ledger -> link -> the hub's receipts -> ledger
                                               renewal -> the hub's HTTPS side, some times a year

`agent.service` runs it under `agent.base.process.run`.  Read `Agent.run` from top to bottom;
each object has a module of its name, and none of them knows this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import agent
from agent.base import process
from agent.base.broker import Connect, connect
from agent.base.files import make_directory
from agent.base.lock import held
from agent.clock import Clock
from agent.config import Config
from agent.containers.apps import Containers, OpenEngine
from agent.deliveries import counted
from agent.health import Health, gathered
from agent.identity import Identity, Membership, open_identity
from agent.link import Link
from agent.outbox import Outbox
from agent.portrait import Portrait
from agent.renewal import Renewal
from agent.sensors.sampler import Sampler
from agent.status import LinkState, Status, write_status
from agent.usage.usage import Usage
from agent.vitals import Gauges, supply_alarm
from agent.wire.errors import Busy, ConfigError, LichenError, Refused
from agent.wire.messages import Problem

if TYPE_CHECKING:
    from agent.join import Admission

log = logging.getLogger(__name__)

LOCK = "agent.lock"
OUTBOX = "outbox.db"
NO_ROOM = ("disk-full", "disk-read-only")
ROOM_S = 10.0
"""How often to try again when the outbox could not be opened at the start."""
MAX_TEXT = 256
"""Characters of a problem's sentence."""


class Agent:
    """One agent.  `run` it once; `watch` proves that it lives."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        connect: Connect = connect,
        open_engine: OpenEngine | None = None,
    ) -> None:
        """``open_engine``: another container engine than Podman."""
        self._config = config
        self._clock = clock
        self._connect = connect
        self._open_engine = open_engine
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
            _show(config, starting(identity, state_dir, clock.wall_ms()))
            membership = await join_or_load(identity, config, clock)
            while admission := await self._live(identity, membership):
                membership = await asyncio.to_thread(admission.keep, clock)

    async def _live(self, identity: Identity, membership: Membership) -> Admission | None:
        """Sample and report as the board of one hub, until cancelled, or until another takes it."""
        config, clock, state_dir = self._config, self._clock, self._config.state_dir
        async with AsyncExitStack() as stack:
            self._outbox = outbox = await self._open_outbox(identity, stack)
            sampler = Sampler(
                config.sensors, clock=clock, sink=outbox, sysfs=config.sysfs, state_dir=state_dir,
                commit_every_s=config.report.commit_every_s,
            )  # fmt: skip
            deliveries = await stack.enter_async_context(counted(outbox, clock))
            usage = Usage(config, clock, identity, deliveries=deliveries, sensors=sampler.sensors)
            containers = Containers(
                config, clock, identity.board, identity.seal_key.unseal, self._open_engine,
                account=usage.see, note_order=usage.note_order,
            )  # fmt: skip
            health = Health(
                clock, state_dir, gauges=Gauges(state_dir, config.sysfs), lane=sampler.lane,
                gather=lambda: gathered(clock, sampler, identity, containers.troubles() + usage.troubles()),
                alarm=supply_alarm(config.sysfs),
            )  # fmt: skip
            portrait = Portrait(
                identity, membership, config, clock, outbox, sampler, health, containers.report
            )
            renewal = Renewal(identity, config, clock)
            link = Link(
                identity, outbox, config, clock,
                connect=self._connect,
                describe=portrait.about,
                tell=portrait.tell,
                hurry=sampler.hurry,
                uncertified=renewal.wanted.set,
                again=renewal.renewed,
                desk=containers,
                books=usage,
            )  # fmt: skip
            bells = {
                "health": health.changed, "outbox": outbox.committed, "sensors": sampler.changed,
                "apps": containers.troubled, "usage log": usage.changed,
            }  # fmt: skip
            admission: Admission | None = None
            try:
                async with asyncio.TaskGroup() as group:
                    sampler.start(group)
                    group.create_task(link.run(), name="link")
                    group.create_task(renewal.run(), name="renewal")
                    group.create_task(health.run(), name="health")
                    group.create_task(containers.run(), name="apps")
                    group.create_task(usage.run(), name="usage")
                    group.create_task(portrait.keep(link.changed), name="status")
                    for what, bell in bells.items():
                        group.create_task(portrait.heed(bell), name=f"status of the {what}")
                    if admission := await self._apply_elsewhere(identity, membership):
                        raise _Admitted  # ends all of them: the next round is of another hub
            except* _Admitted:
                pass
            finally:
                self._outbox = None  # it closes now, and a watchdog must not find it closed
        return admission

    async def watch(self) -> None:
        """Return if the database answers, once it is open."""
        if self._outbox is not None:
            with contextlib.suppress(Busy):  # whoever holds it hangs, and not we
                await self._outbox.probe()

    async def _open_outbox(self, identity: Identity, stack: AsyncExitStack) -> Outbox:
        """The outbox, as soon as the disk has room and nobody else has it: to end would not help."""
        config, clock, said = self._config, self._clock, ""
        path = config.state_dir / OUTBOX
        while True:
            opening = Outbox.open(path, boot=clock.boot, max_bytes=config.outbox.max_bytes)
            try:
                return await stack.enter_async_context(opening)
            except (Refused, Busy) as error:
                if isinstance(error, Refused) and error.code not in NO_ROOM:
                    raise
                if said != str(error):
                    said = str(error)
                    log.error("outbox cannot be opened, trying again", extra={"error": said})
                    problem = Problem(error.code, said[:MAX_TEXT], error.hint, "fail", clock.wall_ms())
                    status = starting(identity, config.state_dir, clock.wall_ms())
                    _show(config, replace(status, problems=(problem,)))
                    process.status(said)
            await asyncio.sleep(ROOM_S)

    async def _apply_elsewhere(self, identity: Identity, membership: Membership) -> Admission | None:
        """Ask for admission with a join file that a board which has joined brings, if there is one."""
        config = self._config
        path = config.find_join_file()
        if path is None:
            return None
        from agent import join  # only to join

        if not join.is_new(membership, path):
            return None
        low_s, high_s = config.link.backoff_low_s, config.link.backoff_high_s
        return await join.join_again(identity, path, self._clock, low_s=low_s, high_s=high_s)


class _Admitted(Exception):
    """Another hub has taken this board."""


def starting(identity: Identity, state_dir: Path, now_ms: int) -> Status:
    """The status until there is more to say; joining may have to wait for the hub."""
    return Status(
        state_dir=str(state_dir),
        board=identity.board,
        version=agent.__version__,
        running=True,
        pid=os.getpid(),
        written_ms=now_ms,
        started_ms=now_ms,
        link=LinkState("connecting", now_ms),
    )


def _show(config: Config, status: Status) -> None:
    """Write the status, where that can be written."""
    with contextlib.suppress(Refused, ConfigError):
        write_status(config.runtime_dir, status)


async def join_or_load(identity: Identity, config: Config, clock: Clock) -> Membership:
    """What this board is at its hub; one that is at none joins with the join file that lies there."""
    path = config.find_join_file()
    try:
        membership = identity.membership()
        if membership is not None:
            identity.document()
    except LichenError:
        # A cut while it joined again may have mixed two hubs; the file is still there then.
        membership = None
        if path is None:
            raise
    if membership is not None:
        return membership
    if path is None:
        raise ConfigError(
            f"this board ({identity.board}) has not joined a hub, and there is no join file",
            hint=f"`lichen token new` on the hub prints one: put it at {config.join_files[0]}",
        )
    from agent import join  # only to join

    low_s, high_s = config.link.backoff_low_s, config.link.backoff_high_s
    return await join.join(identity, path, clock, low_s=low_s, high_s=high_s)
