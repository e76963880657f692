"""Manifests for tests, and a model of a board that follows a plan: pure, in a time of its own.

`Board` holds what Podman would and does what a step says, at once.  What a container does is said by the
name of its image: "registry.example/<behaviour>": "bad" never gets healthy, "crash" ends at once with
code 1, "job" ends with 0; anything else is well after a second.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.containers.actual import Seen, Sight
from agent.containers.aim import Aim, Past, choose
from agent.containers.engine import LABEL_APP, Container
from agent.containers.names import LABEL_SHARED, LABEL_SPEC, definition, find_service
from agent.containers.plan import plan
from agent.containers.spec import labels
from agent.containers.steps import (
    Accept,
    Await,
    Create,
    CreateNetwork,
    CreateSecret,
    CreateVolume,
    GiveUp,
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
from agent.wire.apps import Failure
from agent.wire.order import App, Attachment, Health, Network, Port, Service, Update, Volume

CHECK = Health(("CMD", "true"))


def image(behaviour: str = "good", version: int = 1) -> str:
    """A pinned reference; versions differ in their digest."""
    return (
        f"registry.example/{behaviour}@sha256:{hashlib.sha256(f'{behaviour}{version}'.encode()).hexdigest()}"
    )


def web(name: str = "web", behaviour: str = "good", version: int = 1, **more: Any) -> Service:
    """A service with a healthcheck on the app's own network."""
    more = {"health": CHECK, "networks": (Attachment("demo_default"),), **more}
    return Service(name, image(behaviour, version), **more)


def start_first(**more: Any) -> dict[str, Any]:
    """What makes a service one that is updated without a gap, with a published port."""
    return {"update": Update(order="start-first"), "ports": (Port(80, 8080),), **more}


def demo(revision: int = 1, *services: Service, **more: Any) -> App:
    """An app with a network, and volumes for what its services mount."""
    sources = {m.source for s in services for m in s.mounts if m.kind == "volume"}
    return App(
        "demo",
        revision,
        services=services,
        networks=(Network("demo_default"),),
        volumes=tuple(Volume(source) for source in sorted(sources)),
        **more,
    )


@dataclass
class Board:
    """What is there, and the time."""

    ordered: App | None = None
    past: Past = field(default_factory=Past)
    now_ms: int = 0
    sights: dict[str, Sight] = field(default_factory=dict)
    images: dict[str, Literal["whole", "broken"]] = field(default_factory=dict)
    networks: dict[str, dict[str, str]] = field(default_factory=lambda: {"theirs": {}})
    volumes: dict[str, dict[str, str]] = field(default_factory=lambda: {"theirs": {}})
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    started_ms: dict[str, int] = field(default_factory=dict)
    hold: str = ""
    proxy: bool = True

    @property
    def aim(self) -> Aim:
        return choose("demo", self.ordered, self.past, hold=self.hold)

    @property
    def seen(self) -> Seen:
        return Seen(
            self.now_ms,
            tuple(self._look(sight) for sight in self.sights.values()),
            self.images,
            self.networks,
            self.volumes,
            self.secrets,
        )

    def plan(self) -> list[Step]:
        return plan(self.aim, self.seen, proxy=self.proxy)

    def step(self) -> Step | None:
        """Do the next step; None when there is none, or only waiting without an end."""
        steps = self.plan()
        if not steps:
            return None
        self.do(steps[0])
        return steps[0]

    def settle(self, most: int = 2000) -> list[str]:
        """Follow the plan to its end; what was done, in words."""
        done: list[str] = []
        for _ in range(most):
            step = self.step()
            if step is None:
                return done
            if not isinstance(step, Await):
                done.append(say(step))
        raise AssertionError(f"no end after {most} steps: {done[-10:]}, then {self.plan()}")

    def restart_agent(self) -> None:
        """What an agent that is killed forgets."""
        self.sights = {name: replace(sight, ends=0, back_ms=0) for name, sight in self.sights.items()}

    def reboot(self) -> None:
        """Nothing runs any more, and nobody has stopped it."""
        self.restart_agent()
        for name, sight in self.sights.items():
            if sight.runs or sight.container.phase == "exited":
                self._set(name, phase="exited", exit_code=0, rested=True)

    @property
    def serving(self) -> list[str]:
        """The services that somebody can reach."""
        return sorted(sight.service for sight in self.seen.containers if sight.serves)

    @property
    def running(self) -> list[str]:
        return sorted(name for name, sight in self.sights.items() if sight.runs)

    # --- what happens to containers ------------------------------------------------------------

    def _look(self, sight: Sight) -> Sight:
        up_ms = self.now_ms - self.started_ms.get(sight.name, self.now_ms) if sight.runs else 0
        service = self._service(sight)
        health: Any = ""
        if sight.runs and service is not None and service.health is not None:
            health = "healthy" if up_ms >= 1000 else "starting"
            if "/bad@" in sight.container.image_id:
                health = "unhealthy" if up_ms >= 90_000 else "starting"
        return replace(sight, up_ms=up_ms, health=health)

    def _service(self, sight: Sight) -> Service | None:
        for app in (self.ordered, self.past.good):
            found = find_service(app, sight.service) if app is not None else None
            if found is not None:
                return found
        return None

    def _set(self, name: str, **changes: Any) -> None:
        sight = self.sights[name]
        own = {key: changes.pop(key) for key in list(changes) if key in Sight.__dataclass_fields__}
        self.sights[name] = replace(sight, container=replace(sight.container, **changes), **own)

    def do(self, step: Step) -> None:  # noqa: C901 - a table
        """What a step does, to the model."""
        aim = self.aim
        if aim.mode == "update" and self.past.begun != aim.app.revision:
            self.past = replace(self.past, begun=aim.app.revision, begun_ms=self.now_ms)
        match step:
            case Pull(reference):
                self.images[reference] = "whole"
            case RemoveImage(reference):
                del self.images[reference]
            case CreateNetwork(network):
                self.networks[network.name] = {
                    LABEL_APP: "demo",
                    LABEL_SPEC: definition(network),
                    **({LABEL_SHARED: "1"} if network.shared else {}),
                }
            case CreateVolume(volume):
                assert volume.name not in self.volumes
                self.volumes[volume.name] = {LABEL_APP: "demo", LABEL_SPEC: definition(volume)}
            case CreateSecret(name):
                self.secrets[name] = {LABEL_APP: "demo"}
            case Create(name, of, slot, bare):
                service = find_service(aim.app, of)
                assert service is not None
                assert name not in self.sights
                assert self.images[service.image] == "whole"
                assert all(each.network in self.networks for each in service.networks)
                made = labels(aim.app, service, slot, proxy=self.proxy, bare=bare)
                networks = {each.network: "10.89.0.2" for each in service.networks}
                self.sights[name] = Sight(
                    Container(name, name, made, "created", service.image, networks=networks)
                )
            case Start(name):
                self._start(name)
            case Switch(name):
                self._set(name, standing="switched")
            case Stop(name, unwell=unwell, leave=leave):
                if leave:
                    self._set(name, standing="left")
                ends = self.sights[name].ends + unwell
                self._set(name, phase="exited", exit_code=0, rested=True, ends=ends)
            case StopAll(stops):
                for stop in stops:
                    self.do(stop)
            case Remove(name):
                del self.sights[name]
            case RemoveNetwork(name):
                on_it = [each.name for each in self.sights.values() if name in each.container.networks]
                assert not on_it, f"{on_it} are on {name}"
                del self.networks[name]
            case RemoveSecret(name):
                del self.secrets[name]
            case RemoveVolume(name):
                del self.volumes[name]
            case Accept():
                self.past = Past(good=aim.app)
            case GiveUp():
                failure = Failure(aim.app.revision, 0, step.step, step.reason, code=step.code)
                self.past = replace(self.past, failure=failure, begun=0, begun_ms=None)
            case Await(_, until_ms):
                self.now_ms += 1000 if until_ms is None else max(1, min(1000, until_ms - self.now_ms))

    def _start(self, name: str) -> None:
        if self.sights[name].standing == "left":
            self._set(name, standing="bare")
        sight = self.sights[name]
        taken = {
            port
            for other in self.sights.values()
            if other.runs
            for port in other.container.labels.get("lichen.direct", "").split()
        }
        wanted = set(sight.container.labels.get("lichen.direct", "").split())
        assert not wanted & taken, f"{name} cannot start: {wanted & taken}"
        self.started_ms[name] = self.now_ms
        self._set(name, phase="running", exit_code=None, rested=False, begun=self.now_ms)
        for behaviour, code in (("crash", 1), ("job", 0)):
            if f"/{behaviour}@" in sight.container.image_id:
                ends = sight.ends + 1
                back_ms = self.now_ms + 1000 * 2**ends
                self._set(name, phase="exited", exit_code=code, ends=ends, back_ms=back_ms)


def say(step: Step) -> str:  # noqa: C901 - a table
    """A step in a few characters, as a table has it."""
    match step:
        case Pull(reference) | RemoveImage(reference):
            return f"{type(step).__name__.lower()} {reference.partition('@')[0].rpartition('/')[2]}"
        case CreateNetwork(network):
            return f"network {network.name}"
        case CreateVolume(volume):
            return f"volume {volume.name}"
        case CreateSecret(name):
            return f"secret {name}"
        case Create(name, bare=bare):
            return f"create {_short(name)}{' bare' if bare else ''}"
        case Stop(name, drain=drain, leave=leave):
            return f"{'drain' if drain else 'stop'} {_short(name)}{' leaving' if leave else ''}"
        case StopAll(stops):
            return " + ".join(say(stop) for stop in stops)
        case Start(name) | Switch(name) | Remove(name):
            return f"{type(step).__name__.lower()} {_short(name)}"
        case RemoveNetwork(name) | RemoveSecret(name) | RemoveVolume(name):
            return f"remove {name}"
        case Accept(revision):
            return f"accept {revision}"
        case GiveUp():
            return f"give up: {step.reason}"
        case Await(reason):
            return f"await: {reason}"


def _short(name: str) -> str:
    """ "demo_web.0.1a2b3c4d-r1" -> "web.0-r1"."""
    service, slot, digest = name.removeprefix("demo_").rsplit(".", 2)
    return f"{service}.{slot}{digest[8:]}"
