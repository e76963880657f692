"""Containers as planners see them: what Podman says of each, and what the agent knows besides.

Joins the look at the engine with memory (was it we who stopped it?), healthchecks, how often it ended,
and its counters.  `agent.containers.reconcile` asks once in each turn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from agent import cgroups
from agent.containers.actual import Seen, Sight
from agent.containers.aim import Aim
from agent.containers.endings import Endings
from agent.containers.engine import LABEL_APP, Container, Engine
from agent.containers.health import OF_THE_IMAGE, Checks
from agent.containers.look import Look
from agent.containers.memory import Memory
from agent.containers.meters import Meters
from agent.containers.names import LABEL_SERVICE, find_service
from agent.containers.roster import Rosters
from agent.wire.order import App, Health, Restart, Service

RUNNING = ("running", "paused")
ENDING_MS = 5_000
"""How long Podman may take to clean up behind a container that has ended: a process of its own does that."""
UNKNOWN = Restart()
"""The policy for a container of a service that nobody knows any more."""


class Observer:
    """What is known of the containers of this board, from one look to the next."""

    def __init__(
        self,
        engine: Engine,
        memory: Memory,
        mono_ms: Callable[[], int],
        *,
        proxy: bool,
        meters: Meters,
        begun: Callable[[int], int | None] = cgroups.begun,
    ) -> None:
        """``begun`` says when a process began (`agent.cgroups.begun`)."""
        self.checks = Checks(engine, mono_ms)
        self.endings = Endings()
        self.meters = meters
        self.proxy = proxy
        self.rosters = Rosters()
        self._memory = memory
        self._mono_ms, self._begun = mono_ms, begun
        self._is_first = True
        self._networks: dict[str, Mapping[str, str]] = {}  # the addresses of each, as they were last
        self._ending: dict[str, tuple[str, int]] = {}  # since when a container has been

    async def see(self, look: Look, aims: Mapping[str, Aim], busy: Collection[str]) -> dict[str, Seen]:
        """What is there of each app.

        ``busy``: the containers of steps that were being done when the look began.  How they look may be
        neither how they were nor how they will be, so nothing is concluded from it.
        """
        now_ms = self._mono_ms()
        self.rosters.keep(app for aim in aims.values() for app in (aim.app, aim.keep) if app is not None)
        self.meters.follow({each.name: each for each in look.containers}, busy)
        by_app: dict[str, list[Container]] = {app: [] for app in aims}
        for container in look.containers:
            told = self._ended(self.meters.told(container), now_ms)
            if container.name in busy and self._memory.standing(container.name) == "left":
                # For a moment it is off its network, and has the same address again after that.
                told = replace(told, networks=self._networks.get(container.name, told.networks))
            by_app.setdefault(container.labels[LABEL_APP], []).append(told)
        if self._is_first:
            await self._adopt(by_app, aims)
        self._networks = {each.name: each.networks for told in by_app.values() for each in told}
        self.endings.keep({each.name for each in look.containers})
        self._follow(look, by_app, aims)
        used = {app: _networks(aim) for app, aim in aims.items()}
        ending = [each for containers in by_app.values() for each in containers if each.phase == "ending"]
        return {
            app: Seen(
                now_ms,
                tuple(
                    self._sight(container, aims.get(app), now_ms, is_busy=container.name in busy)
                    for container in containers
                ),
                {name: "broken" if image.broken else "whole" for name, image in look.images.items()},
                look.networks,
                look.volumes,
                {name: labels for name, labels in look.secrets.items() if labels.get(LABEL_APP) == app},
                frozenset().union(*(names for other, names in used.items() if other != app)),
                tuple(
                    each.name
                    for each in ending
                    if each.labels[LABEL_APP] != app and not used.get(app, set()).isdisjoint(each.networks)
                ),
            )
            for app, containers in by_app.items()
        }

    def _ended(self, container: Container, now_ms: int) -> Container:
        """One that has been ending for too long has ended: nobody takes it down any more."""
        if container.phase != "ending":
            self._ending.pop(container.name, None)
            return container
        id, since_ms = self._ending.get(container.name, ("", now_ms))
        if id != container.id:
            self._ending[container.name] = container.id, now_ms
        return replace(container, phase="exited") if now_ms - since_ms > ENDING_MS else container

    async def _adopt(self, by_app: Mapping[str, list[Container]], aims: Mapping[str, Aim]) -> None:
        """Take for ours what runs, and forget what is not there.  At the start, when no step is done."""
        for app, containers in by_app.items():
            for container in containers:
                if container.phase in RUNNING and app in aims and not self._memory.has_run(container.name):
                    await self._memory.started(container.name, app)
        names = {container.name for containers in by_app.values() for container in containers}
        await self._memory.removed(self._memory.containers - names)

    def _follow(self, look: Look, by_app: Mapping[str, list[Container]], aims: Mapping[str, Aim]) -> None:
        """Keep the pulse of what runs.  What ran before the agent started, and had come up, is well."""
        followed, adopted = {}, set()
        for app, containers in by_app.items():
            aim = aims.get(app)
            for container in containers:
                if container.phase in RUNNING and aim is not None:
                    followed[container.name] = container, self._check(container, aim, look)
                    if self._is_first and container.name in self._names(aim.keep):
                        adopted.add(container.name)
        self.checks.follow(followed, adopted)
        self._is_first = False

    def _check(self, container: Container, aim: Aim, look: Look) -> Health | None:
        service = self._service(container, aim)
        if service is None or service.no_health:
            return None
        image = look.images.get(service.image)
        of_image = OF_THE_IMAGE if image is not None and image.has_health else None
        return service.health or of_image

    def _service(self, container: Container, aim: Aim | None) -> Service | None:
        """The service that a container was made for."""
        if aim is None:
            return None
        name = container.labels.get(LABEL_SERVICE, "")
        manifests = (aim.app, aim.keep)
        first = next((app for app in manifests if container.name in self._names(app)), aim.app)
        found = find_service(first, name) if first is not None else None
        return found or (find_service(aim.keep, name) if aim.keep is not None else None)

    def _names(self, app: App | None) -> frozenset[str]:
        return frozenset() if app is None else self.rosters.of(app, proxy=self.proxy).all

    def _sight(self, container: Container, aim: Aim | None, now_ms: int, *, is_busy: bool) -> Sight:
        name, up_ms = container.name, self.checks.up_ms(container.name)
        rested = is_busy or not self._memory.has_run(name)
        service = self._service(container, aim)
        policy = UNKNOWN if service is None else service.restart
        if container.phase in RUNNING:
            self.endings.runs(name, up_ms=up_ms, policy=policy)
        elif container.phase == "exited" and not rested:
            trial = aim is not None and aim.mode == "update"
            self.endings.saw(container, now_ms, up_ms=_ran_ms(container), policy=policy, trial=trial)
        return Sight(
            container,
            self.checks.state(name),
            self.checks.output(name),
            up_ms,
            standing=self._memory.standing(name),
            rested=rested,
            ends=self.endings.count(name),
            back_ms=self.endings.back_ms(name),
            begun=self._begun(container.pid) if container.pid else None,
        )


def _ran_ms(container: Container) -> int:
    """How long a container that ended had been running."""
    if container.started_ms is None or container.finished_ms is None:
        return 0
    return max(0, container.finished_ms - container.started_ms)


def _networks(aim: Aim) -> set[str]:
    """The networks that an app needs, or would need if it went back."""
    manifests = () if aim.mode in ("remove", "clean") else (aim.app, aim.keep)
    return {each.name for app in manifests if app is not None for each in app.networks}
