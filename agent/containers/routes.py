"""What haproxy is told: which port of the board leads to which containers.  Pure text.

A `Route` is a port that the board publishes, a `Backend` a container behind it.  haproxy gets one
section for each route, with more server *slots* than there are containers: putting one into a slot
needs no reload.  `assign` says which container has which slot, `render` writes the configuration,
`parse` reads our own back (a new agent learns from it who is in which slot), and `changes` are the
commands that bring a running haproxy there.  `agent.containers.proxy` does what they say.

What comes from an order reaches a configuration only as a number, an address or a checked word:

>>> route = Route("", 8080, "demo", "web", target=80)
>>> slots = assign((), {"demo_web.0.1a2b3c4d": Backend("10.89.0.2", 80)})
>>> [line for line in render({route: slots}).splitlines() if "10.89.0.2" in line]
['    server s0 10.89.0.2:80 # demo_web.0.1a2b3c4d']
>>> parse(render({route: slots})) == {route: slots}
True
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Literal

from agent.wire.errors import Refused

SPARE = 16
"""Slots are made by so many: eight replicas can be replaced all at once."""
NOWHERE = "127.0.0.1:1"
"""The address of a slot that nobody has; haproxy wants one."""
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on

HEAD = """\
# Written by the agent whenever containers change; what is changed here is lost.
global
    nbthread 1
    # Each connection takes two files; without a bound the tables for them grow with the system's limit.
    fd-hard-limit 8192
    # Workers from before a reload stay while they have connections, but no more than so many.
    mworker-max-reloads 3
{user}
defaults
    mode tcp
    balance leastconn
    # Two retransmissions of a SYN; a container is on this machine.
    timeout connect 4s
    # Until there is a connection to a container.
    timeout client 1m
    timeout server 1m
    # After that it may be silent for a day, as MQTT and websockets are; peers that have gone are
    # found by the kernel's keepalive.
    timeout tunnel 1d
    option tcpka
    # A container that has just died: at once to another one, if there is one.
    retries 3
    option redispatch 1
"""

WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,255}")
ROUTE_LINE = re.compile(r"# route (\S+) (\S+) (\d+) on (\S+) (\d+)")
SERVER_LINE = re.compile(
    r"    server s\d+ (?:127\.0\.0\.1:1 disabled|\[?([0-9a-f.:]+?)\]?:(\d+)(?: disabled)? # (\S+)( drains)?)"
)


@dataclass(frozen=True, slots=True)
class Route:
    """A TCP port of the board for ``target`` of a service.  ``host_ip`` empty: on every address."""

    host_ip: str
    port: int
    app: str
    service: str
    target: int

    @property
    def section(self) -> str:
        """What haproxy calls it."""
        return f"{self.host_ip or 'any'}:{self.port}"

    def overlaps(self, other: Route) -> bool:
        """Whether the two cannot both be listened on."""
        here, there = self.host_ip, other.host_ip
        return self.port == other.port and (here == there or here in EVERYWHERE or there in EVERYWHERE)


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a container answers.  One that drains keeps its connections and gets no new ones."""

    address: str
    port: int
    drain: bool = False

    @property
    def endpoint(self) -> str:
        """As haproxy writes it."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Slot:
    """A container in its slot."""

    name: str
    backend: Backend


Slots = tuple[Slot | None, ...]
Table = Mapping[Route, Slots]
State = Literal["up", "drain", "off"]


@dataclass(frozen=True, slots=True)
class Server:
    """A slot as a running haproxy has it."""

    endpoint: str
    state: State
    sessions: int


def check(routes: Mapping[Route, Mapping[str, Backend]]) -> None:
    """Raise Refused unless everything can stand in a configuration as what it is."""
    for route, backends in routes.items():
        if route.host_ip:
            _check_address(route.host_ip)
        _check_port(route.port)
        _check_port(route.target)
        for word in (route.app, route.service, *backends):
            if not WORD.fullmatch(word):
                raise Refused(f"{word!r} is no name that the proxy's configuration can hold")
        for backend in backends.values():
            _check_address(backend.address)
            _check_port(backend.port)


def _check_address(text: str) -> None:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise Refused(f"{text!r} is no IP address") from error
    # A zone may contain anything; and what haproxy shows must compare equal to what it was told.
    if (isinstance(address, IPv6Address) and address.scope_id) or str(address) != text:
        raise Refused(f"{text!r} is no IP address in its usual form", hint=f"write {str(address)!r}")


def _check_port(port: int) -> None:
    if not 0 < port < 65536:
        raise Refused(f"{port} is no port")


def assign(before: Slots, wanted: Mapping[str, Backend]) -> Slots:
    """Who gets which slot: those who have one keep it, newcomers get one that was free before.

    A container whose address has changed is a newcomer.  There are never fewer slots than before.
    """
    left = dict(wanted)
    slots: list[Slot | None] = []
    for slot in before:
        backend = left.get(slot.name) if slot is not None else None
        if slot is not None and backend is not None and backend.endpoint == slot.backend.endpoint:
            slots.append(Slot(slot.name, left.pop(slot.name)))
        else:
            slots.append(None)
    was_free = [index for index, slot in enumerate(before) if slot is None]
    while len(was_free) < len(left) or not slots:
        was_free += range(len(slots), len(slots) + SPARE)
        slots += [None] * SPARE
    for index, (name, backend) in zip(was_free, left.items(), strict=False):
        slots[index] = Slot(name, backend)
    return tuple(slots)


def render(table: Table, *, user: str = "", ipv6: bool = True) -> str:
    """The text of haproxy.cfg (2.6).  ``user``: whom workers become, where root starts them."""
    lines = [HEAD.format(user=f"    user {user}\n    group {user}\n" if user else "")]
    for route, slots in table.items():
        lines += [
            f"# route {route.app} {route.service} {route.target} on {route.host_ip or '*'} {route.port}",
            f"listen {route.section}",
            f"    bind {_bind(route, ipv6=ipv6)}",
            *(f"    server s{index} {_server(slot)}" for index, slot in enumerate(slots)),
            "",
        ]
    return "\n".join(lines)


def _bind(route: Route, *, ipv6: bool) -> str:
    if not route.host_ip:
        return f":::{route.port} v4v6" if ipv6 else f"0.0.0.0:{route.port}"
    if ":" in route.host_ip:
        return f"[{route.host_ip}]:{route.port} v6only"
    return f"{route.host_ip}:{route.port}"


def _server(slot: Slot | None) -> str:
    if slot is None:
        return f"{NOWHERE} disabled"
    # A worker that starts has no connections to keep for one that drains.
    state, note = (" disabled", " drains") if slot.backend.drain else ("", "")
    return f"{slot.backend.endpoint}{state} # {slot.name}{note}"


def parse(text: str) -> dict[Route, Slots]:
    """The table of a text that `render` made; what it did not make has no routes."""
    table: dict[Route, Slots] = {}
    route: Route | None = None
    for line in text.splitlines():
        if found := ROUTE_LINE.fullmatch(line):
            app, service, target, host_ip, port = found.groups()
            route = Route("" if host_ip == "*" else host_ip, int(port), app, service, int(target))
            table[route] = ()
        elif route is not None and (found := SERVER_LINE.fullmatch(line)):
            address, port, name, drains = found.groups()
            slot = Slot(name, Backend(address, int(port), drain=bool(drains))) if name else None
            table[route] = (*table[route], slot)
    return table


def changes(server: str, now: Server, slot: Slot | None) -> list[str]:
    """The commands that make of the ``server`` ("section/s0") what its slot says."""
    stop = [f"set server {server} state maint", f"shutdown sessions server {server}"]
    if slot is None:
        return [] if now.state == "off" else stop
    backend = slot.backend
    if now.endpoint != backend.endpoint:
        move = f"set server {server} addr {backend.address} port {backend.port}"
        return [*stop, move, *([] if backend.drain else [f"set server {server} state ready"])]
    if backend.drain:
        return [f"set server {server} state drain"] if now.state == "up" else []
    return [] if now.state == "up" else [f"set server {server} state ready"]
