"""What containers take now, and whether the kernel ended one for its memory: their counters, kept open.

`agent.containers.worker` says which process is about to be started, `agent.containers.observer` which
containers run; the report asks for `figures`, and who counts what they use gets `runs`.

Podman before 5 does not say that a container was killed for its memory, so its counters say it.  Their files
can be read for some 50 ms after its death, if they were open before: they are opened before it does
anything, and read in the moment in which it ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from agent.cgroups import Counters, Figures, begun_ms, cpu_milli
from agent.containers.deaths import Deaths
from agent.containers.engine import LABEL_APP, Container
from agent.containers.names import LABEL_NET, LABEL_PARENT, LABEL_SERVICE
from agent.runs import Run
from agent.wire.errors import Refused

FRESH_MS = 10_000
"""For so long figures are as good as new: a processor's share over less says little."""
UNAWARE_MS = 50
"""How soon to ask again about one that has ended when Podman says that it runs; then after ever longer."""


@dataclass(slots=True)
class _Meter:
    run: tuple[str, int]  # its id, and the pid of its first process
    started_ms: int | None  # as Podman says it, once it does: the kernel gives a pid twice
    counters: Counters | None  # until it has ended
    opened: Counters | None  # the same, and then, too
    is_fresh: bool  # they were before it did anything
    begun_ms: int | None
    before: Figures
    at_ms: int
    cpu_milli: int | None = None
    memory_bytes: int | None = None
    oom: bool = False
    ended_ms: int | None = None
    again_ms: int | None = None  # when to look again at what has ended, and is still said to run

    def is_of(self, container: Container) -> bool:
        """Whether this is the run in which the container is now."""
        is_same = self.started_ms is None or self.started_ms == container.started_ms
        return self.run == (container.id, container.pid) and is_same


class Meters:
    """The counters of the containers that run."""

    def __init__(
        self,
        mono_ms: Callable[[], int],
        died: Callable[[], object],
        open_counters: Callable[..., Counters] = Counters.open,
        deaths: Callable[[Callable[[str], None]], Deaths] = Deaths,
    ) -> None:
        """``died`` is called when the process of a container has ended; ``deaths`` makes what hears it."""
        self._mono_ms = mono_ms
        self._tell_death = died
        self._open = open_counters
        self._meters: dict[str, _Meter] = {}
        self._deaths = deaths(self._died)

    def meet(self, name: str, id: str, pid: int, *, net: bool = False) -> None:
        """This process waits to be started; 0: it has none that waits.  ``net``: its network is its own."""
        self._drop(name)
        if pid:
            self._begin(name, (id, pid), net=net, is_fresh=True)

    def follow(self, containers: Mapping[str, Container], busy: Collection[str] = ()) -> None:
        """These are there now; how those look that are ``busy`` may be how they were before."""
        for name in self._meters.keys() - containers.keys():
            self._drop(name)
        for name, container in containers.items():
            meter = self._meters.get(name)
            if meter is not None and meter.is_of(container):
                meter.started_ms = container.started_ms
                meter.again_ms = self._again_ms(meter) if container.pid else None
            elif container.pid:
                self._drop(name)
                run = container.id, container.pid
                # Of one that has another's network Podman tells that, too.
                net = container.labels.get(LABEL_NET, "") == "own"
                self._begin(name, run, container.started_ms, net=net)
            elif meter is not None and name not in busy:
                self._close(name, meter)
                meter.run, meter.again_ms = (meter.run[0], 0), None

    def next_ms(self) -> int | None:
        """When somebody should look again: Podman has yet to notice that a process has ended."""
        times = [meter.again_ms for meter in self._meters.values() if meter.again_ms is not None]
        return min(times, default=None)

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

    def runs(self, containers: Iterable[Container], order: int) -> list[Run]:
        """These containers, and what was opened of each; ``order`` is in force."""
        return [self._run(container, order) for container in containers]

    def _run(self, container: Container, order: int) -> Run:
        meter = self._meters.get(container.name)
        if meter is not None and meter.run[0] != container.id:
            meter = None
        is_open = meter is not None and meter.counters is not None
        # Podman lists one that has died as running for a moment still.
        has_died = meter is not None and meter.opened is not None and meter.opened.ended_ms is not None
        is_alive = bool(container.pid) and not has_died
        return Run(
            container.id,
            container.name,
            container.labels.get(LABEL_APP, ""),
            container.labels.get(LABEL_SERVICE, ""),
            container.image,
            "alive" if is_alive else "waiting" if is_open else "dead",
            container.labels.get(LABEL_PARENT, ""),
            order,
            container.exit_code,
            container.started_ms,
            container.finished_ms,
            None if meter is None else meter.opened,
            None if meter is None else meter.begun_ms,
            meter is not None and meter.is_fresh,
        )

    def _begin(
        self,
        name: str,
        run: tuple[str, int],
        started_ms: int | None = None,
        *,
        net: bool,
        is_fresh: bool = False,
    ) -> None:
        now_ms, counters, before = self._mono_ms(), None, Figures()
        with contextlib.suppress(Refused):  # it has ended already
            counters = self._open(run[1], net=net)
            before = counters.look()
        since_ms = now_ms if is_fresh else begun_ms(run[1])
        self._meters[name] = _Meter(
            run, started_ms, counters, counters, is_fresh, since_ms, before, now_ms,
            memory_bytes=before.memory_bytes,
        )  # fmt: skip
        self._deaths.watch(name, run[1])

    def _died(self, name: str) -> None:
        meter = self._meters.get(name)
        if meter is not None:
            meter.ended_ms = self._mono_ms()
            if meter.counters is not None:
                meter.counters.ended_ms = meter.ended_ms
            self._close(name, meter)
        self._tell_death()

    def _again_ms(self, meter: _Meter) -> int | None:
        now_ms = self._mono_ms()
        return None if meter.ended_ms is None else now_ms + max(UNAWARE_MS, now_ms - meter.ended_ms)

    def _drop(self, name: str) -> None:
        meter = self._meters.pop(name, None)
        if meter is not None:
            self._close(name, meter)

    def _close(self, name: str, meter: _Meter) -> None:
        """The last look: its cgroup is gone some milliseconds after its death."""
        self._deaths.release(name)
        if meter.counters is not None:
            meter.oom = bool(meter.counters.look().oom_kills)
            meter.counters.close()
            meter.counters = None
