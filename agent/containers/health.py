"""How containers are: their healthchecks, run through the engine when they are due, and how long they run.

Owns what each container was last found to be, in memory; `agent.containers.reconcile` says which
containers there are, runs `check` for those that are due, and asks for the rest.  Podman's own timers
need systemd, so none are set.

A container that has just started is asked at once and then ever less often, up to its interval, so one
that is well soon is known to be soon.  It has ``start_period_ms`` and then ``retries`` intervals to get
well.  One that was well is ill after ``retries`` checks in a row that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from agent.containers.actual import Health as State
from agent.containers.engine import Container, Engine
from agent.wire.errors import LinkDown, Refused
from agent.wire.order import Health

FIRST_MS = 250
"""After its start a container is asked the first time; then after twice that, and so on."""
MAX_OUTPUT = 256
OF_THE_IMAGE = Health(("CMD",))
"""The check that an image brings, of which nobody tells how often it is to be run."""


@dataclass(slots=True)
class _Pulse:
    """One run of one container."""

    run: tuple[str, int | None]
    check: Health | None
    since_ms: int
    state: State
    due_ms: int
    tries: int = 0
    failures: int = 0
    output: str = ""
    is_asked: bool = False


class Checks:
    """The pulse of each container that runs."""

    def __init__(self, engine: Engine, mono_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._mono_ms = mono_ms
        self._pulses: dict[str, _Pulse] = {}

    def follow(
        self, containers: Mapping[str, tuple[Container, Health | None]], adopted: Collection[str]
    ) -> None:
        """These run now, each with its check.  Those that are ``adopted`` were well before the agent
        started, and are until they are found not to be."""
        now_ms = self._mono_ms()
        for name in self._pulses.keys() - containers.keys():
            del self._pulses[name]
        for name, (container, check) in containers.items():
            run, pulse = (container.id, container.started_ms), self._pulses.get(name)
            if pulse is None or pulse.run != run:
                was_well = name in adopted
                state: State = "" if check is None else "healthy" if was_well else "starting"
                since_ms = 0 if was_well else now_ms
                self._pulses[name] = _Pulse(run, check, since_ms, state, now_ms + FIRST_MS)

    def state(self, name: str) -> State:
        """How a container is; "" where it cannot be asked, or does not run."""
        pulse = self._pulses.get(name)
        return "" if pulse is None else pulse.state

    def output(self, name: str) -> str:
        """What its last check said that failed."""
        pulse = self._pulses.get(name)
        return "" if pulse is None else pulse.output

    def up_ms(self, name: str) -> int:
        """How long it has been running, as far as that was seen."""
        pulse = self._pulses.get(name)
        return 0 if pulse is None else self._mono_ms() - pulse.since_ms

    def due(self) -> list[str]:
        """Whose check is to be run now."""
        now_ms = self._mono_ms()
        return [
            name
            for name, pulse in self._pulses.items()
            if pulse.check is not None and not pulse.is_asked and pulse.due_ms <= now_ms
        ]

    def next_ms(self) -> int | None:
        """When the next check is due."""
        times = [
            pulse.due_ms for pulse in self._pulses.values() if pulse.check is not None and not pulse.is_asked
        ]
        return min(times, default=None)

    async def check(self, name: str) -> bool:
        """Run the check of a container.  Whether it is otherwise than before."""
        pulse = self._pulses.get(name)
        if pulse is None or pulse.check is None:
            return False
        before, pulse.is_asked = pulse.state, True
        try:
            # The engine knows how long it may take, and when it began: others may go before it, whose
            # checks hang, and that says nothing about this container.
            found = await self._engine.check(pulse.run[0])
            self._found(pulse, pulse.check, found.healthy, found.output)
        except Refused as error:
            if error.code == "no-check":
                pulse.check, pulse.state = None, ""
            self._plan_next(pulse)
        except LinkDown:  # nobody could ask; that says nothing about the container
            self._plan_next(pulse)
        finally:
            pulse.is_asked = False
        return pulse.state != before

    def _found(self, pulse: _Pulse, check: Health, healthy: bool, output: str) -> None:
        pulse.tries += 1
        if healthy:
            pulse.state, pulse.failures, pulse.output = "healthy", 0, ""
        else:
            pulse.failures += 1
            pulse.output = " ".join(output.split())[-MAX_OUTPUT:]
            if pulse.state == "healthy" and pulse.failures >= check.retries:
                pulse.state = "unhealthy"
            patience_ms = check.start_period_ms + check.retries * check.interval_ms
            if pulse.state == "starting" and self._mono_ms() - pulse.since_ms >= patience_ms:
                pulse.state = "unhealthy"
        self._plan_next(pulse)

    def _plan_next(self, pulse: _Pulse) -> None:
        interval_ms = OF_THE_IMAGE.interval_ms if pulse.check is None else pulse.check.interval_ms
        now_ms = self._mono_ms()
        if pulse.state == "starting":
            pulse.due_ms = now_ms + min(interval_ms, FIRST_MS * 2 ** min(pulse.tries, 20))
        else:
            # On a grid, so that the checks of all containers wake the board together.
            pulse.due_ms = (now_ms // interval_ms + 1) * interval_ms
