"""One sensor as it is asked: opened once it can be, given up when it hangs, its answers conditioned.

Owns the driver of one sensor from opening to closing, and turns whatever can go wrong in it into
an answer.  The sampler has one for each sensor, `agent.workbench` for those that are read by hand.
It knows no time of day and keeps no readings.

    probe = Probe(config, Environment(...))
    answers = await probe.ask()         # {"room": 21.5} or {"room": Refused("...")}
    await probe.close()
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from agent.sensors.conditioning import condition
from agent.sensors.driver import (
    Answer,
    Driver,
    Environment,
    Kind,
    SensorConfig,
    Unloadable,
    channels_of,
    load_kind,
)
from agent.wire.errors import LichenError, Refused

log = logging.getLogger(__name__)

CLOSE_S = 2.0
"""How long a driver may take to close."""


class Probe:
    """A sensor and its driver."""

    def __init__(
        self, config: SensorConfig, env: Environment, load: Callable[[str], Kind] = load_kind
    ) -> None:
        self.config = config
        self.channels = channels_of(config)
        self._env = env
        self._load = load
        self._driver: Driver | None = None

    async def open(self) -> None:
        """Open the driver, unless it is open.  Raises whatever the driver does."""
        if isinstance(self.config, Unloadable):
            raise Refused(self.config.reason, code="driver")
        if self._driver is None:
            self._driver = await self._load(self.config.kind).open(self.config, self._env)

    async def ask(self) -> Mapping[str, Answer]:
        """A value, or what is wrong, for each channel that has something to tell."""
        error: LichenError
        try:
            async with asyncio.timeout(self.config.timeout_s):
                await self.open()
                assert self._driver is not None
                answers = await self._driver.read()
            return {
                channel.name: condition(
                    answers[channel.name], self.config.conditioning(channel.name), channel.unit
                )
                for channel in self.channels
                if channel.name in answers
            }
        except TimeoutError:
            error = Refused(f"no answer within {self.config.timeout_s:g} s", code="timeout")
        except LichenError as failure:
            error = failure
        # A driver's fault costs its own sensor, not the board: not even when it ends the process.
        except (Exception, SystemExit) as failure:  # noqa: BLE001
            error = _fault(failure)
        except asyncio.CancelledError as failure:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody stops us: something that the driver waited for was cancelled.
            error = _fault(failure)
        return dict.fromkeys((channel.name for channel in self.channels), error)

    async def close(self) -> None:
        """Give back what the driver holds; one that cannot, or not in time, is told of and left."""
        driver, self._driver = self._driver, None
        if driver is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await driver.close()
        except Exception as failure:  # noqa: BLE001  a driver's fault must not make a crash of a stop
            extra = {"sensor": self.config.name, "reason": f"{type(failure).__name__}: {failure}"}
            log.warning("sensor cannot be closed", extra=extra)


def _fault(failure: BaseException) -> Refused:
    error = Refused(f"{type(failure).__name__}: {failure}", code="fault")
    error.__cause__ = failure
    return error
