"""One step of a plan, done through the engine, with what has to be remembered of it.

`agent.containers.reconcile` hands in each step; nothing is decided here.  What must be known after a
power cut is on the disk before the engine is asked.  Secrets are unsealed for the one call that needs
them, and are neither kept nor logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from agent.containers import spec
from agent.containers.engine import LABEL_APP, Engine, Login, Thing
from agent.containers.memory import Memory
from agent.containers.meters import Meters
from agent.containers.names import LABEL_SHARED, LABEL_SPEC, definition, find_service, foreign
from agent.containers.policy import Policy, link_refusal, registry_of
from agent.containers.preflight import wrong_architecture
from agent.containers.publish import Routes
from agent.containers.routes import Route
from agent.containers.steps import (
    Create,
    CreateNetwork,
    CreateSecret,
    CreateVolume,
    Pull,
    Remove,
    RemoveImage,
    RemoveNetwork,
    RemoveSecret,
    RemoveVolume,
    Start,
    Step,
    Stop,
    StopAll,
    Switch,
)
from agent.wire.apps import Progress
from agent.wire.errors import Corrupt, LichenError, Refused
from agent.wire.order import App, Config, Secret, Service

log = logging.getLogger(__name__)

SETTLE_S = 1.5
"""How long one that has given up its names serves on at least: whoever had asked for it before connects by
then, even where that begins in the moment in which it is off the network (RFC 6298: again after 1 s)."""
DRAIN_LOOK_S = 0.2
"""How often to look whether connections have ended."""


class Proxy(Protocol):
    """What publishes ports (`agent.containers.proxy`).  It is told the whole of it each time."""

    async def apply(self, routes: Routes) -> None:
        """Return when traffic goes there.  Raises Refused, LinkDown."""

    async def sessions(self, route: Route, name: str) -> int:
        """The connections that a container still has through a route.  Raises LinkDown."""

    def close(self) -> None:
        """Let go of it; it serves on."""


@dataclass(frozen=True, slots=True)
class Job:
    """A step of an app, and what it needs to know: the ids of containers by name, the routes served."""

    app: App
    step: Step
    ids: Mapping[str, str]
    routes: Routes
    proxy: bool

    @property
    def service(self) -> Service:
        """The service that the step is about.  Raises Refused when the manifest has none."""
        name = getattr(self.step, "service", "")
        found = find_service(self.app, name)
        if found is None:
            raise Refused(f"{self.app.name} has no service {name}", code="not-found")
        return found

    def id(self, name: str) -> str:
        """What the engine knows a container by."""
        return self.ids.get(name, name)


class Worker:
    """Does steps."""

    def __init__(
        self,
        engine: Engine,
        memory: Memory,
        meters: Meters,
        unseal: Callable[[str], bytes],
        policy: Callable[[], Policy],
        draw_parent: Callable[[], str] = lambda: "",
    ) -> None:
        """``draw_parent`` names the cgroup that is made for a container; empty: none is."""
        self._engine = engine
        self._memory = memory
        self._meters = meters
        self._unseal = unseal
        self._policy = policy
        self._draw_parent = draw_parent

    async def do(self, job: Job, *, proxy: Proxy | None, told: Callable[[Progress], None]) -> None:
        """Do a step.  Raises Refused, LinkDown."""
        match job.step:
            case Pull():
                await self._pull(job, told)
            case Stop():
                await self._stop(job, job.step, proxy)
            case StopAll(stops):
                await self._stop_all(job, stops, proxy)
            case Start(name):
                self._check_links(job)
                if self._memory.standing(name) == "left":
                    await self._return(job, name)
                await self._memory.started(name, job.app.name)
                # Whatever is to be known of its end: it may come before `start` returns.
                pid = await self._engine.init(job.id(name))
                self._meters.meet(name, job.id(name), pid, net=_has_network(job))
                await self._engine.start(job.id(name))
            case Switch(name):
                await self._switch(job, name)
            case Create(name, _, slot, bare):
                self._check_links(job)
                await self._memory.removed([name])  # of one that had this name before
                parent = self._draw_parent()
                await self._engine.create(
                    spec.body(job.app, job.service, slot, proxy=job.proxy, bare=bare, parent=parent)
                )
            case Remove(name):
                await self._engine.remove(job.id(name))
                await self._memory.removed([name])
            case _:
                await self._supply(job)

    def _check_links(self, job: Job) -> None:
        """Look once more where paths lead: since they were allowed, an app may have made links."""
        service = find_service(job.app, getattr(job.step, "service", ""))
        if service is not None:
            refused = link_refusal(self._policy(), job.app, service, os.path.realpath)
            if refused is not None:
                raise refused

    async def _stop(self, job: Job, step: Stop, proxy: Proxy | None) -> None:
        if step.leave:
            await self._leave(job, step)
        settled_s = asyncio.get_running_loop().time() + (SETTLE_S if step.leave else 0)
        if step.drain and proxy is not None:
            await self._drain(job, proxy, step.name, step.grace_ms / 1000)
        await asyncio.sleep(max(0, settled_s - asyncio.get_running_loop().time()))
        await self._memory.stopped(step.name)
        await self._engine.stop(job.id(step.name), step.grace_ms / 1000)

    async def _stop_all(self, job: Job, stops: Iterable[Stop], proxy: Proxy | None) -> None:
        """Stop each, whatever becomes of the others."""
        errors: list[LichenError] = []

        async def stop(step: Stop) -> None:
            try:
                await self._stop(job, step, proxy)
            except LichenError as error:
                errors.append(error)

        async with asyncio.TaskGroup() as group:
            for step in stops:
                group.create_task(stop(step), name=step.words)
        if errors:
            raise errors[0]

    async def _supply(self, job: Job) -> None:
        """Make or remove what containers need."""
        labels, engine = {LABEL_APP: job.app.name}, self._engine
        match job.step:
            case CreateNetwork(network):
                labels = {**foreign(network.labels), **labels, LABEL_SPEC: definition(network)}
                labels |= {LABEL_SHARED: "1"} if network.shared else {}
                await _once(
                    engine.create_network(
                        network.name,
                        labels,
                        internal=network.internal,
                        ipv6=network.ipv6,
                        subnet=network.subnet,
                        gateway=network.gateway,
                    ),
                    engine.networks,
                    lambda thing: thing.name == network.name and LABEL_APP in thing.labels,
                )
            case CreateVolume(volume):
                labels = {**foreign(volume.labels), **labels, LABEL_SPEC: definition(volume)}
                await _once(
                    engine.create_volume(volume.name, labels, volume.driver_options),
                    engine.volumes,
                    lambda thing: thing.name == volume.name and LABEL_APP in thing.labels,
                )
            case CreateSecret(name, source):
                await _once(
                    engine.create_secret(name, self._content(source), labels),
                    engine.secrets,
                    lambda thing: thing.name == name and thing.labels.get(LABEL_APP) == job.app.name,
                )
            case RemoveImage(reference):
                await self._remove_broken(reference)
            case RemoveNetwork(name):
                await engine.remove_network(name)
            case RemoveSecret(name):
                await engine.remove_secret(name)
            case RemoveVolume(name):
                await engine.remove_volume(name)

    # --- images and secrets --------------------------------------------------------------------

    async def _pull(self, job: Job, told: Callable[[Progress], None]) -> None:
        service = job.service
        registry = registry_of(service.image)
        await self._memory.pulled(service.image)
        image = await self._engine.pull(
            service.image,
            login=self._login(job.app, registry),
            plain_http=registry in self._policy().plain_http,
            told=told,
        )
        if wrong := wrong_architecture(image, await self._engine.info()):
            raise Refused(
                f"{service.name}: {wrong}", code="architecture", hint="name an image for this board"
            )

    async def _remove_broken(self, reference: str) -> None:
        """Let go of an image that lacks a layer, if it was pulled for an app."""
        image = await self._engine.find_image(reference)
        if image is None or not image.broken:
            return
        if reference not in self._memory.images:
            raise Refused(
                f"{reference} lacks a layer, and was not pulled by this agent",
                code="image",
                hint=f"remove it, and it is pulled again: podman rmi --force {image.id[:12]}",
            )
        await self._engine.remove_image(image.id, force=True)

    def _login(self, app: App, registry: str) -> Login | None:
        found = next((each for each in app.logins if each.registry == registry), None)
        if found is None:
            return None
        return Login(found.user, self._open(found.box, f"the password of {registry}").decode())

    def _content(self, source: Secret | Config) -> bytes:
        if isinstance(source, Config) and not source.box:
            return source.content.encode()
        return self._open(source.box, source.name)

    def _open(self, box: str, what: str) -> bytes:
        try:
            return self._unseal(box)
        except (Refused, Corrupt) as error:
            raise Refused(
                f"{what} cannot be unsealed: {error}",
                code="secret",
                hint="it was sealed to another key: deploy again, so that it is sealed to this board",
            ) from error

    # --- traffic -------------------------------------------------------------------------------

    async def _switch(self, job: Job, name: str) -> None:
        """Take it off each network and put it on again, with its aliases: Podman knows no other way.

        Nobody is connected to it yet.
        """
        for each in job.service.networks:
            await self._engine.disconnect(each.network, job.id(name))
            aliases = spec.aliases(job.app, job.service, each.network)
            await self._engine.connect(each.network, job.id(name), aliases)
        await self._memory.stands(name, job.app.name, "switched")

    async def _leave(self, job: Job, step: Stop) -> None:
        """Let nobody find it any more who is not connected to it yet."""
        await self._memory.stands(step.name, job.app.name, "left")
        for network in step.leave:
            try:
                await self._engine.leave(network, job.id(step.name))
            except Refused as error:  # it goes in any case
                log.info("container keeps its names", extra={"container": step.name, "reason": str(error)})

    async def _return(self, job: Job, name: str) -> None:
        """Let go of the addresses to which it was bound when it left, and which others may have now."""
        for each in job.service.networks:
            await self._engine.disconnect(each.network, job.id(name))
            await self._engine.connect(each.network, job.id(name), [])
        await self._memory.stands(name, job.app.name, "bare")

    async def _drain(self, job: Job, proxy: Proxy, name: str, grace_s: float) -> None:
        """Wait until the connections have ended that a container has through the proxy."""
        routes = [route for route, backends in job.routes.items() if name in backends]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while True:
                    if not any([await proxy.sessions(route, name) for route in routes]):
                        return
                    await asyncio.sleep(DRAIN_LOOK_S)


def _has_network(job: Job) -> bool:
    """Whether the container to be started has a network that is not also another's."""
    service = find_service(job.app, getattr(job.step, "service", ""))
    return service is not None and not service.network_mode


async def _once(
    making: Awaitable[object],
    looking: Callable[[], Awaitable[Iterable[Thing]]],
    is_ours: Callable[[Thing], bool],
) -> None:
    """What is there already need not be made: the agent died after it was.  Somebody else's is not ours."""
    try:
        await making
    except Refused as error:
        if error.code != "exists":
            raise
        if not any(map(is_ours, await looking())):
            raise Refused(
                f"{error}, and it was not made for the app",
                code="name-taken",
                hint="rename what is there, or remove it if nobody needs it",
            ) from error
