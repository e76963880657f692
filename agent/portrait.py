"""What the agent says of itself: to the hub as the about message, to a technician as the status.

`agent.app` makes one from the agent's parts; it looks at them and tells `agent.health` what it saw.
The status file is written when a part has changed, after each commit and each acknowledgement,
and removed at the stop; systemd is told in one line how the link is and what is wrong most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import agent
from agent import about
from agent.base import process
from agent.clock import Clock
from agent.config import Config
from agent.health import Health
from agent.identity import Identity, Membership
from agent.outbox import Outbox
from agent.sensors.sampler import Latest, Sampler
from agent.status import AppLine, LinkState, SensorState, Status, remove_status, write_status
from agent.wire.errors import ConfigError, LichenError, Refused
from agent.wire.messages import About, OutboxState, Sensor

if TYPE_CHECKING:  # what only a board with apps needs
    from agent.wire.apps import Apps, AppState

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
        health: Health,
        apps: Callable[[], Apps | None] = lambda: None,
    ) -> None:
        """``apps``: how the apps are, None where there are none."""
        self._changed = asyncio.Event()
        self._written = True
        self._said = ""
        self._identity = identity
        self._membership = membership
        self._config = config
        self._clock = clock
        self._outbox = outbox
        self._sampler = sampler
        self._health = health
        self._apps = apps
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
            with contextlib.suppress(LichenError):  # a card that fails for a moment: what was known stays
                self._document = self._identity.document()
        self._link = link
        self._changed.set()

    def _say(self) -> None:
        """Tell systemd in one line how it is."""
        worst, link = self._health.worst(), self._link
        text = f"{link.state}, {link.error or link.broker}"
        if worst is not None and worst.code != "hub-unreachable":
            text += f"; {worst.sentence}"
        if text != self._said:
            self._said = text
            process.status(text)

    async def _look(self) -> OutboxState:
        """The outbox as it is now; health hears of it, and of the link, before anybody is told."""
        outbox = await self._outbox.state()
        self._health.tell(self._link, outbox)
        self._say()
        return outbox

    async def about(self) -> About:
        """The about message of now."""
        outbox, machine = await self._look(), self._machine
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
            traffic=self._link.traffic,
            certificate_until_ms=self._certificate_until_ms(),
            problems=self._health.problems(),
        )

    def _certificate_until_ms(self) -> int | None:
        try:
            return self._identity.certificate_until_ms()
        except LichenError:
            return None

    async def status(self) -> Status:
        """The status of now."""
        outbox, latest, document = await self._look(), self._sampler.latest(), self._document
        return Status(
            state_dir=str(self._config.state_dir),
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
            apps=tuple(_line(app) for app in apps.apps) if (apps := self._apps()) is not None else (),
            problems=self._health.problems(),
        )


def _line(app: AppState) -> AppLine:
    failure = app.failure
    if failure is None:
        return AppLine(app.name, app.state, app.step)
    return AppLine(app.name, app.state, app.step, failure.revision, failure.reason)


def _state(sensor: Sensor, latest: Latest) -> SensorState:
    return SensorState(
        name=sensor.name,
        unit=sensor.unit,
        value=latest.value,
        at_ms=latest.wall_ms or None,
        interval_ms=sensor.interval_ms,
        error=latest.error,
    )
