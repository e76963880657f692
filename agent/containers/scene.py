"""An app as a planner looks at it: which of the containers that are there are the wanted ones.

Pure; shared by `agent.containers.plan` and `agent.containers.services`.  A container is *current* when
its name is the one that the aim gives it, and *old* otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from agent.containers.actual import Seen, Sight
from agent.containers.aim import Aim
from agent.containers.engine import LABEL_APP
from agent.containers.names import (
    LABEL_DIRECT,
    LABEL_PROXIED,
    LABEL_SHARED,
    direct_ports,
    find_service,
    is_changed,
    overlap,
    proxied_ports,
    read_ports,
    shared_with,
)
from agent.containers.roster import Rosters
from agent.containers.steps import Stop, StopAll, together
from agent.wire.order import App, Network, Service

GRACE_MS = 10_000
"""For a container of a service that nobody knows any more."""
MOST_ENDS = 3
"""How often a container may end by itself while its revision is on trial."""


class Scene:
    """An aim and what is there, with the questions that planning asks."""

    def __init__(self, aim: Aim, seen: Seen, proxy: bool, rosters: Rosters) -> None:
        self.aim, self.app, self.seen, self.proxy = aim, aim.app, seen, proxy
        self._by_name = {sight.name: sight for sight in seen.containers}
        self._services = {service.name: service for service in self.app.services}
        self._roster = rosters.of(self.app, proxy=proxy)
        self._one_shots = {
            each.service
            for service in self.app.services
            for each in service.depends_on
            if each.condition == "completed"
        }
        manifests = [app for app in (self.app, aim.keep) if app is not None]
        self.kept = frozenset().union(*(rosters.of(app, proxy=proxy).all for app in manifests))
        """The names of the containers that are wanted, and of those that one could go back to."""

    def name(self, service: Service, slot: int) -> str:
        """What the current container of a slot is called."""
        return self._roster.names[service.name, slot]

    def current(self, service: Service, slot: int) -> Sight | None:
        """The container that is wanted in a slot, if it is there."""
        return self._by_name.get(self.name(service, slot))

    def all_current(self, service: Service) -> list[Sight | None]:
        """Those of each slot."""
        return [self.current(service, slot) for slot in range(service.replicas)]

    def olds(self) -> list[Sight]:
        """Containers that run and are not wanted."""
        return [sight for sight in self.seen.containers if sight.runs and sight.name not in self._roster.all]

    def lacks(self, service: Service) -> bool:
        """Whether a container of it has to be made."""
        return any(sight is None for sight in self.all_current(service))

    def stale_networks(self) -> list[Network]:
        """The networks of this app alone that are to be others than they were made."""
        return [
            network
            for network in self.app.networks
            if is_changed(network, labels := self.seen.networks.get(network.name, {}))
            and is_own(self.app, network, labels, self.seen.used)
        ]

    def stop(self, sight: Sight, *, unwell: bool = False, going: Collection[Sight] = ()) -> Stop:
        """The step that stops it; what is published by the proxy is drained first.

        ``going`` are those that are stopped at the same time.
        """
        known = [app for app in (self.aim.keep, self.app) if app is not None]
        found = [service for app in known if (service := find_service(app, sight.service)) is not None]
        grace_ms = found[0].stop_grace_ms if found else GRACE_MS
        is_proxied = bool(sight.container.labels.get(LABEL_PROXIED))
        drain = is_proxied and (sight.serves or sight.leaves) and not unwell
        leave = () if unwell else self._left_behind(sight, going)
        return Stop(sight.name, sight.service, grace_ms, drain, unwell, leave)

    def stops(self, sights: Collection[Sight]) -> Iterator[Stop | StopAll]:
        """The step that stops all of them at the same time, if there are any."""
        return together([self.stop(sight, going=sights) for sight in sights])

    def _left_behind(self, sight: Sight, going: Collection[Sight]) -> tuple[str, ...]:
        """The networks on which somebody may ask for its service, and find others of it."""
        others = [each for each in self.seen.containers if each not in going and each.runs]
        if not sight.serves or not any(
            each.service == sight.service and each.serves and each.health != "unhealthy" and each != sight
            for each in others
        ):
            return ()
        has_company = any(each.service != sight.service for each in others)
        return tuple(
            name
            for name in sorted(sight.container.networks)
            if has_company or name in self.seen.used or LABEL_SHARED in self.seen.networks.get(name, {})
        )

    # --- how a service stands --------------------------------------------------------------------

    def is_one_shot(self, service: Service) -> bool:
        """Whether others wait for it to end well."""
        return service.name in self._one_shots

    def is_done(self, service: Service, sight: Sight) -> bool:
        """Whether it has ended as it should, and need not run again."""
        if not sight.ended or sight.container.exit_code != 0:
            return False
        return service.restart.condition != "any" or self.is_one_shot(service)

    def is_ready(self, service: Service, sight: Sight) -> bool:
        """Whether it has passed the gate: healthy, or up for long enough where nobody can ask it."""
        if not sight.runs:
            return self.is_done(service, sight)
        if sight.health:
            return sight.health == "healthy"
        return sight.up_ms >= service.update.monitor_ms

    def may_restart(self, service: Service, sight: Sight) -> bool:
        """Whether one that ended is started again."""
        policy = service.restart
        if policy.condition == "none" or self.is_done(service, sight):
            return False
        return not policy.max_attempts or sight.ends <= policy.max_attempts

    def unfinished(self) -> list[str]:
        """The services that are not all there and ready."""
        return [
            service.name
            for service in self.app.services
            for sight in self.all_current(service)
            if sight is None or not self.is_ready(service, sight)
        ]

    def unmet(self, service: Service) -> str:
        """What a service has to wait for before it starts; "" for nothing."""
        for name in shared_with(service):
            leader = self._services.get(name)
            sight = None if leader is None else self.current(leader, 0)
            if sight is None or not sight.runs:
                return f"{service.name} waits for {name} to start"
        for each in service.depends_on:
            target = self._services.get(each.service)
            if target is None or self._holds(target, each.condition):
                continue
            if not each.required and self._is_in_trouble(target):
                continue
            verb = {"started": "start", "healthy": "become healthy", "completed": "complete"}[each.condition]
            return f"{service.name} waits for {each.service} to {verb}"
        return ""

    def _holds(self, target: Service, condition: str) -> bool:
        sights = self.all_current(target)
        match condition:
            case "completed":
                return all(sight is not None and self.is_done(target, sight) for sight in sights)
            case "healthy":
                return all(sight is not None and self.is_ready(target, sight) for sight in sights)
        return all(sight is not None and (sight.runs or self.is_done(target, sight)) for sight in sights)

    def _is_in_trouble(self, target: Service) -> bool:
        return any(
            sight is not None
            and (sight.health == "unhealthy" or (sight.ended and not self.is_done(target, sight)))
            for sight in self.all_current(target)
        )

    # --- ports -----------------------------------------------------------------------------------

    def collides(self, service: Service, old: Sight) -> bool:
        """Whether a container of the service cannot publish its ports while the old one runs."""
        labels = old.container.labels
        direct: list[tuple[str, int, str]] = [
            (port.host_ip, port.published, port.protocol)
            for port in direct_ports(service, proxy=self.proxy)
            if port.published
        ]
        proxied = [(port.host_ip, port.published, "tcp") for port in proxied_ports(service, proxy=self.proxy)]
        theirs = read_ports(labels.get(LABEL_DIRECT, ""))
        through = [(host, number, "tcp") for host, number, _ in read_ports(labels.get(LABEL_PROXIED, ""))]
        if _meet(direct, theirs + through) or _meet(proxied, theirs):
            return True
        # The proxy serves both versions of a service under one port, and not two services.
        return old.service != service.name and _meet(proxied, through)


def _meet(ours: list[tuple[str, int, str]], theirs: list[tuple[str, int, str]]) -> bool:
    return any(
        number == other and protocol == spoken and overlap(host, there)
        for host, number, protocol in ours
        for there, other, spoken in theirs
    )


def in_order(app: App) -> list[Service]:
    """The services, those that others depend on first; as written where nothing says otherwise."""
    placed: dict[str, Service] = {}
    services = {service.name: service for service in app.services}

    def place(service: Service, above: tuple[str, ...]) -> None:
        if service.name in placed or service.name in above:
            return
        for name in _leaders(service):
            if (leader := services.get(name)) is not None:
                place(leader, (*above, service.name))
        placed[service.name] = service

    for service in app.services:
        place(service, ())
    return list(placed.values())


def _leaders(service: Service) -> list[str]:
    """The services that must be there before this one."""
    return [*(each.service for each in service.depends_on), *shared_with(service)]


def waves(app: App, sights: Iterable[Sight]) -> Iterator[list[Sight]]:
    """In which order to stop containers: in each wave those that nobody needs who is left."""
    left = sorted(sights, key=lambda sight: sight.name)
    there = {sight.service for sight in left}
    levels: dict[str, int] = {}  # of each service, how many that stop one after the other go before it
    for service in reversed(in_order(app)):
        beyond = levels.get(service.name, 0) + (service.name in there)
        for leader in _leaders(service):
            levels[leader] = max(levels.get(leader, 0), beyond)
    by_level: dict[int, list[Sight]] = {}
    for sight in left:
        by_level.setdefault(levels.get(sight.service, 0), []).append(sight)
    for level in sorted(by_level):
        yield by_level[level]


def why_stop_first(service: Service, *, proxy: bool) -> str:
    """What keeps a new container of a service from running beside the old one; "" for nothing."""
    if any(port.published for port in direct_ports(service, proxy=proxy)):
        return "a port that only one container can have"
    if service.network_mode == "host":
        return "the board's own network"
    if any(mount.kind != "tmpfs" and not mount.read_only for mount in service.mounts):
        return "a volume that it writes to"
    if service.devices:
        return "a device"
    return ""


def is_own(app: App, network: Network, labels: Mapping[str, str], used: Collection[str]) -> bool:
    """Whether a network that is there was made for this app, and no other is on it."""
    shared = network.shared or LABEL_SHARED in labels
    return labels.get(LABEL_APP) == app.name and not shared and network.name not in used


def notes(app: App, seen: Seen, *, proxy: bool) -> list[str]:
    """What the operator should know of how an app is updated, and of what is not as it says."""
    return [
        *(
            f"{service.name} is updated stop-first, because it has {why}"
            for service in app.services
            if service.update.order == "start-first" and (why := why_stop_first(service, proxy=proxy))
        ),
        *(
            f"the network {network.name} stays as it was made, since other apps use it: "
            "it is made anew when all of them have been undeployed"
            for network in app.networks
            if not network.shared
            and is_changed(network, labels := seen.networks.get(network.name, {}))
            and not is_own(app, network, labels, seen.used)
        ),
        *(
            f"the volume {volume.name} stays as it was made, for what is in it: "
            "a volume of another name gets the new options"
            for volume in app.volumes
            if not volume.external and is_changed(volume, seen.volumes.get(volume.name, {}))
        ),
    ]
