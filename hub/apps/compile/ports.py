"""Ports that the board publishes, in the short form and in the long one, and ranges of them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from agent.wire.order import Port, Service
from hub.apps.tree import Node

MAX_PORTS = 256
PROTOCOLS: tuple[Literal["tcp", "udp", "sctp"], ...] = ("tcp", "udp", "sctp")

_RANGE = r"[0-9]{1,5}(?:-[0-9]{1,5})?"
# [[address:]published:]target[/protocol]; the published one may be left empty behind an address.
_SHORT = re.compile(
    rf"(?:(?:(?P<ip>\[[0-9A-Fa-f:.]+\]|[0-9.]+):)?(?P<published>{_RANGE})?:)?(?P<target>{_RANGE})"
    r"(?:/(?P<protocol>[a-z]+))?"
)


def ports(service: Node) -> tuple[Port, ...]:
    """The published ports of a service."""
    found = [port for each in service["ports"] for port in _ports(each)]
    if len(found) > MAX_PORTS:
        raise service["ports"].refused(f"{len(found)} ports, of {MAX_PORTS} allowed")
    return tuple(dict.fromkeys(found))


def published_on_host(service: Node) -> Node | None:
    """The first port that Swarm would publish directly (mode host)."""
    modes = (each["mode"] for each in service["ports"] if each.is_mapping)
    return next((mode for mode in modes if mode.choice(("host", "ingress"), default="") == "host"), None)


def refuse_conflicts(services: Iterable[tuple[Node, Service]]) -> None:
    """Raise Refused when the same port is published twice."""
    taken: dict[tuple[int, str], list[tuple[str, str]]] = {}
    for node, service in services:
        for port in service.ports:
            if not port.published:
                continue
            others = taken.setdefault((port.published, port.protocol), [])
            for address, name in others:
                if address == port.host_ip or not address or not port.host_ip:
                    raise node["ports"].refused(
                        f"port {port.published}/{port.protocol} is published by {name!r} already"
                    )
            others.append((port.host_ip, service.name))


def _ports(node: Node) -> Iterator[Port]:
    if node.is_mapping:
        target, published, address, protocol = (
            node[key].text().strip() for key in ("target", "published", "host_ip", "protocol")
        )
        if not target:
            raise node.refused("'target' is missing: the port of the container")
        node["mode"].choice(("host", "ingress"), default="")
    else:
        written = node.text().strip()
        found = _SHORT.fullmatch(written)
        if not found:
            raise node.refused(
                f"{written[:60]!r} is no port", hint="such as '8080:80', '127.0.0.1:8080:80' or '53:53/udp'"
            )
        target, published, address, protocol = (
            found[key] or "" for key in ("target", "published", "ip", "protocol")
        )
    targets = _range(node, target)
    # As in compose, 0 is any free one, too.
    numbers = _range(node, published) if published not in ("", "0") else [0] * len(targets)
    if len(numbers) != len(targets):
        raise node.refused(f"{len(numbers)} published ports for {len(targets)} of the container")
    for one, number in zip(targets, numbers, strict=True):
        kind = node.with_value(protocol).choice(PROTOCOLS, default="tcp")
        yield Port(one, number, kind, _address(node, address))


def _range(node: Node, text: str) -> Sequence[int]:
    """A port, or a range of them."""
    if not re.fullmatch(_RANGE, text):
        raise node.refused(f"{text[:60]!r} is no port")
    first, _, last = text.partition("-")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= 65535:
        raise node.refused(f"{text[:60]!r} is not within 1 to 65535")
    if high - low >= MAX_PORTS:
        raise node.refused(f"{high - low + 1} ports, of {MAX_PORTS} allowed")
    return range(low, high + 1)


def _address(node: Node, text: str) -> str:
    if not text:
        return ""
    try:
        address = str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise node.refused(f"{text[:60]!r} is no address") from None
    return "" if address == "0.0.0.0" else address  # noqa: S104  # all addresses is what none means
