"""How what we make is named, labelled and compared: one container is the wanted one, or it is not.

Pure.  `agent.containers.spec` makes containers by it, `agent.containers.plan` and its neighbours find
them again.

**The digest** says whether a container that is there is the one that is wanted: it covers everything
that a container is made of, the versions of the secrets and configs that it uses, how its ports are
published, and what it shares or must follow: a service whose network namespace it joins, and those
that it depends on with ``restart: true``.  Not covered is what can change while it runs: how many
there are, who waits for whom, when it is restarted, how it is updated.  What has its default value is
not covered either, so a newer agent, which knows more keys, does not make everything anew.  Networks and
volumes carry one, too: what they are made like, without name and labels.

**Ports.**  A TCP port with a number of its own that several containers serve, be it at the same time
(replicas) or one after the other (start-first), is published by the proxy; everything else by Podman.

>>> web = Service("web", "registry.example/web@sha256:" + "0" * 64)
>>> app = App("demo", 1, services=(web,))
>>> container_name(app, web, 0, proxy=True)
'demo_web.0.a39c8ed9'
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.wire.errors import Refused
from agent.wire.order import App, Config, Network, Port, Restart, Secret, Service, Update, Volume
from agent.wire.plain import dumps
from agent.wire.rights import is_reserved

LABEL_SERVICE = "lichen.service"
LABEL_SLOT = "lichen.slot"
LABEL_SPEC = "lichen.spec"
LABEL_REVISION = "lichen.revision"
LABEL_RESTARTED = "lichen.restarted"
LABEL_BARE = "lichen.bare"
"""Made while another container of its service served: it has no aliases until it is switched to."""
LABEL_PARENT = "lichen.parent"
"""The name of the cgroup that was made for it (`agent.parents`); empty: none was."""
LABEL_NET = "lichen.net"
"""Whether it has a network that is not also another's: "own", or empty."""
LABEL_SHARED = "lichen.shared"
"""Of a network that several apps may use: it goes with the last of them."""
LABEL_DIRECT = "lichen.direct"
"""The numbered ports that Podman publishes for it, as "address:port/protocol address:port/protocol"."""
LABEL_PROXIED = "lichen.proxied"
"""The ports that the proxy publishes for it, as "address:port>target"."""
MAX_SECRET_NAME = 64
_PORT = re.compile(
    r"(?P<address>[0-9A-Fa-f.:]*):(?P<number>[0-9]{1,5})(/|>(?=[0-9]))(?P<rest>[a-z]+|[0-9]{1,5})"
)

ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - it is compared with


# --- names -------------------------------------------------------------------------------------


def container_name(app: App, service: Service, slot: int, *, proxy: bool) -> str:
    """The name of one container: versions, and restarts that were asked for, never share one."""
    return named(app, service, slot, digest(app, service, proxy=proxy))


def named(app: App, service: Service, slot: int, spec: str) -> str:
    """The name of a container of which the digest is known."""
    again = f"-r{service.restarted}" if service.restarted else ""
    return f"{app.name}_{service.name}.{slot}.{spec[:8]}{again}"


def secret_name(app: str, name: str, version: str) -> str:
    """What Podman calls a secret or config: versions live side by side during an update.

    No app has a dot in its name and no version has one, so two never share a name; nor does one that is
    too long for Podman 4, for it has one dot where others have two.
    """
    full = f"{app}.{name}.{version}"
    if len(full) <= MAX_SECRET_NAME:
        return full
    return f"{app}.{hashlib.sha256(full.encode()).hexdigest()}"[:MAX_SECRET_NAME]


def foreign(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of a recipe, without any that would be taken for ours."""
    return {label: value for label, value in labels.items() if not is_reserved(label)}


def secret_names(app: App) -> dict[str, str]:
    """The full name of each secret and config of an app by its own."""
    given: list[Secret | Config] = [*app.secrets, *app.configs]
    return {each.name: secret_name(app.name, each.name, each.version) for each in given}


def find_service(app: App, name: str) -> Service | None:
    """The service of that name."""
    return next((service for service in app.services if service.name == name), None)


def shared_with(service: Service) -> tuple[str, ...]:
    """The services whose namespaces a service joins."""
    modes = (service.network_mode, service.pid)
    return tuple(dict.fromkeys(mode.partition(":")[2] for mode in modes if mode.startswith("service:")))


def followed(service: Service) -> tuple[str, ...]:
    """The services with which a service is made anew: those it shares with, and ``restart: true``."""
    restarting = (each.service for each in service.depends_on if each.restart)
    return tuple(dict.fromkeys((*shared_with(service), *restarting)))


# --- ports -------------------------------------------------------------------------------------


def proxied_ports(service: Service, *, proxy: bool) -> tuple[Port, ...]:
    """The ports that the proxy publishes.  ``proxy`` is False where the board can have none."""
    if not proxy or service.network_mode:
        return ()
    if service.replicas < 2 and service.update.order != "start-first":
        return ()
    return tuple(port for port in service.ports if port.protocol == "tcp" and port.published)


def direct_ports(service: Service, *, proxy: bool) -> tuple[Port, ...]:
    """The ports that Podman publishes."""
    if service.network_mode:
        return ()
    others = proxied_ports(service, proxy=proxy)
    return tuple(port for port in service.ports if port not in others)


def overlap(one: str, other: str) -> bool:
    """Whether two host addresses of the same port are in each other's way.

    >>> overlap("", "127.0.0.1"), overlap("127.0.0.1", "192.168.1.5")
    (True, False)
    """
    return one in ANY_ADDRESS or other in ANY_ADDRESS or one == other


def read_ports(label: str) -> list[tuple[str, int, str]]:
    """Address, number and protocol (of LABEL_DIRECT) or target (of LABEL_PROXIED) of each port.

    What cannot be read is left out: labels can be written by anybody who makes a container.

    >>> read_ports("127.0.0.1:80/tcp :53/udp"), read_ports(":8080>80")
    ([('127.0.0.1', 80, 'tcp'), ('', 53, 'udp')], [('', 8080, '80')])
    """
    found = []
    for word in label.split():
        port = _PORT.fullmatch(word)
        if port and 0 < int(port["number"]) < 65536:
            found.append((port["address"], int(port["number"]), port["rest"]))
    return found


# --- the digest --------------------------------------------------------------------------------


def digest(app: App, service: Service, *, proxy: bool) -> str:
    """SHA-256, in hexadecimal, of everything that a container of this service is made of."""
    return _Digests(app, proxy).of(service, ())


def digests(app: App, *, proxy: bool) -> dict[str, str]:
    """The digest of each service of an app."""
    found = _Digests(app, proxy)
    return {service.name: found.of(service, ()) for service in app.services}


class _Digests:
    """Those of one app.  Each is computed once, however many services follow it, and in however many ways."""

    def __init__(self, app: App, proxy: bool) -> None:
        self._app, self._proxy = app, proxy
        self._services = {service.name: service for service in app.services}
        self._secrets = secret_names(app)
        self._known: dict[str, str] = {}

    def of(self, service: Service, above: tuple[str, ...]) -> str:
        """``above`` are those that follow it, and for which it is computed."""
        name = service.name
        if name in above:
            circle = " -> ".join((*above, name))
            raise Refused(
                f"{self._app.name}: the services follow each other in a circle: {circle}", code="compose"
            )
        if name not in self._known:
            leaders = {}
            for each in followed(service):
                if (leader := self._services.get(each)) is not None:
                    leaders[each] = [self.of(leader, (*above, name)), leader.restarted]
            self._known[name] = self._hash(service, leaders)
        return self._known[name]

    def _hash(self, service: Service, leaders: Mapping[str, list[object]]) -> str:
        bare = replace(
            service,
            replicas=1,
            restarted=0,
            written="",
            image_bytes=0,
            pull="missing",
            depends_on=(),
            restart=Restart(),
            update=Update(),
        )
        given = (*service.secrets, *service.configs)
        parts = {
            "service": _told(bare),
            "secrets": {each.source: self._secrets.get(each.source, "") for each in given},
            "proxied": [[port.host_ip, port.published] for port in proxied_ports(service, proxy=self._proxy)],
            "leaders": leaders,
        }
        return hashlib.sha256(dumps(parts)).hexdigest()


def definition(thing: Network | Volume) -> str:
    """A digest of what a network or volume is made like."""
    told = {key: value for key, value in _told(thing).items() if key not in ("name", "labels", "shared")}
    return hashlib.sha256(dumps(told)).hexdigest()


def is_changed(thing: Network | Volume, labels: Mapping[str, str]) -> bool:
    """Whether what is there with these labels was made like something else, as far as anybody knows."""
    return labels.get(LABEL_SPEC, definition(thing)) != definition(thing)


def _told(value: Any) -> Any:
    """Plain data without what has its default value, in an order that does not depend on the writer."""
    if dataclasses.is_dataclass(value):
        return {
            each.name: _told(getattr(value, each.name))
            for each in dataclasses.fields(value)
            if getattr(value, each.name) != _default(each)
        }
    if isinstance(value, dict):
        return {key: _told(value[key]) for key in sorted(value)}
    if isinstance(value, tuple):
        return [_told(each) for each in value]
    return value


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
