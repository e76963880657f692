"""What the agent says of itself: to the hub as the about message, to a technician as the status.

`agent.app` makes one from the agent's parts; it looks at them and changes none.  The status file
is written when a part has changed, after each commit and each acknowledgement, and removed at the
stop; systemd is told in one line how the link is.
"""

from __future__ import annotations

import asyncio
import logging
import os

import agent
from agent import about
from agent.base import process
from agent.clock import Clock
from agent.config import Config
from agent.identity import Identity, Membership
from agent.outbox import Outbox
from agent.sensors.sampler import Latest, Sampler
from agent.status import LinkState, SensorState, Status, remove_status, write_status
from agent.wire.errors import ConfigError, Refused
from agent.wire.messages import About, Sensor

log = logging.getLogger(__name__)


class Portrait:
    """Composes both from the parts; rung by those that change."""

    def __init__(
        self,
        identity: Identity,
        membership: Membership,
        config: Config,
        clock: Clock,
        outbox: Outbox,
        sampler: Sampler,
    ) -> None:
        self._changed = asyncio.Event()
        self._written = True
        self._identity = identity
        self._membership = membership
        self._config = config
        self._clock = clock
        self._outbox = outbox
        self._sampler = sampler
        self._document = identity.document()
        self._machine = about.look(config.state_dir, config.sysfs)
        self._started_ms = clock.wall_ms()
        self._link = LinkState("connecting", self._started_ms)

    async def keep(self, described: asyncio.Event) -> None:
        """Keep the status file up to date until cancelled, and pass on that something changed."""
        try:
            while True:
                self._write(await self.status())
                described.set()
                await self._changed.wait()
                self._changed.clear()
        finally:
            remove_status(self._config.runtime_dir)

    def _write(self, status: Status) -> None:
        """Write the status file; a full disk or a lost directory costs the status, not the agent."""
        try:
            write_status(self._config.runtime_dir, status)
        except (Refused, ConfigError) as error:
            if self._written:
                log.warning("status cannot be written", extra={"error": str(error)})
            self._written = False
        else:
            self._written = True

    async def heed(self, event: asyncio.Event) -> None:
        """Look again whenever ``event`` is set, until cancelled."""
        while True:
            await event.wait()
            event.clear()
            self._changed.set()

    def tell(self, link: LinkState) -> None:
        """The link says how it is."""
        if link.state != self._link.state:
            process.status(f"{link.state}, {link.error or link.broker}")
            self._document = self._identity.document()
        self._link = link
        self._changed.set()

    async def about(self) -> About:
        """The about message of now."""
        outbox, machine = await self._outbox.state(), self._machine
        return About(
            board=self._identity.board,
            version=agent.__version__,
            log_key=self._identity.log_key.vkey,
            seal_key=self._identity.seal_key.public,
            boot=self._clock.boot,
            started_ms=self._started_ms,
            hostname=machine.hostname,
            model=machine.model,
            system=machine.system,
            kernel=machine.kernel,
            arch=machine.arch,
            cpus=machine.cpus,
            memory_bytes=machine.memory_bytes,
            disk_bytes=machine.disk_bytes,
            clock=self._clock.state(),
            report_every_ms=round(self._config.report.every_s * 1000),
            outbox=outbox,
            sensors=self._sampler.sensors(),
            problems=about.problems(outbox, self._sampler.dropped),
        )

    async def status(self) -> Status:
        """The status of now."""
        outbox, latest, document = await self._outbox.state(), self._sampler.latest(), self._document
        return Status(
            board=self._identity.board,
            name=self._membership.name,
            hub=document.name,
            hub_url=document.url,
            version=agent.__version__,
            running=True,
            pid=os.getpid(),
            written_ms=self._clock.wall_ms(),
            started_ms=self._started_ms,
            clock=self._clock.state(),
            link=self._link,
            outbox=outbox,
            sensors=tuple(_state(sensor, latest[sensor.name]) for sensor in self._sampler.sensors()),
            problems=about.problems(outbox, self._sampler.dropped),
        )


def _state(sensor: Sensor, latest: Latest) -> SensorState:
    return SensorState(
        name=sensor.name,
        unit=sensor.unit,
        value=latest.value,
        at_ms=latest.wall_ms or None,
        interval_ms=sensor.interval_ms,
        error=latest.error,
    )
