"""What containers take now, and whether the kernel ended one for its memory: their counters, kept open.

`agent.containers.reconcile` says which containers run; the report asks for `figures`.  A container that
has died is looked at once more, for Podman does not always say that it was killed for its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from agent.containers.counters import Counters, Figures, cpu_milli
from agent.containers.engine import Container
from agent.wire.errors import Refused

FRESH_MS = 10_000
"""For so long figures are as good as new: a processor's share over less says little."""


@dataclass(slots=True)
class _Meter:
    run: tuple[str, int]
    counters: Counters | None
    before: Figures
    at_ms: int
    cpu_milli: int | None = None
    memory_bytes: int | None = None
    oom: bool = False


class Meters:
    """The counters of the containers that run."""

    def __init__(
        self, mono_ms: Callable[[], int], open_counters: Callable[[int], Counters] = Counters.open
    ) -> None:
        self._mono_ms = mono_ms
        self._open = open_counters
        self._meters: dict[str, _Meter] = {}

    def follow(self, containers: Mapping[str, Container]) -> None:
        """These are there now."""
        for name in self._meters.keys() - containers.keys():
            self._close(self._meters.pop(name))
        for name, container in containers.items():
            meter = self._meters.get(name)
            if meter is not None and meter.run != (container.id, container.pid):
                self._close(meter)
            if container.pid and (meter is None or meter.run != (container.id, container.pid)):
                self._meters[name] = self._begin(container)

    def close(self) -> None:
        """Let all of them go."""
        self.follow({})

    def told(self, container: Container) -> Container:
        """The container, with what its counters say of how it ended."""
        meter = self._meters.get(container.name)
        if meter is None or container.pid or meter.run[0] != container.id or not meter.oom:
            return container
        return replace(container, oom=True)

    def look(self) -> None:
        """Take the figures of all."""
        now_ms = self._mono_ms()
        for meter in self._meters.values():
            if meter.counters is not None and now_ms - meter.at_ms >= FRESH_MS:
                now = meter.counters.look()
                meter.cpu_milli = cpu_milli(meter.before, now, (now_ms - meter.at_ms) / 1000)
                meter.memory_bytes, meter.before, meter.at_ms = now.memory_bytes, now, now_ms

    def figures(self, name: str) -> tuple[int | None, int | None]:
        """Thousandths of a processor, and bytes of memory, as of the last look."""
        meter = self._meters.get(name)
        if meter is None or meter.counters is None:
            return None, None
        return meter.cpu_milli, meter.memory_bytes

    def _begin(self, container: Container) -> _Meter:
        run, now_ms = (container.id, container.pid), self._mono_ms()
        try:
            counters = self._open(container.pid)
        except Refused:  # it has ended already
            return _Meter(run, None, Figures(), now_ms)
        before = counters.look()
        return _Meter(run, counters, before, now_ms, memory_bytes=before.memory_bytes)

    def _close(self, meter: _Meter) -> None:
        """The last look: its cgroup is gone some milliseconds after its death."""
        if meter.counters is not None:
            meter.oom = bool(meter.counters.look().oom_kills)
            meter.counters.close()
            meter.counters = None
