"""Ports that the board publishes, in the short form and in the long one, and ranges of them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Literal, cast

from agent.wire.order import Port, Service
from hub.apps.tree import Node

MAX_PORTS = 256
PROTOCOLS = ("tcp", "udp", "sctp")
Protocol = Literal["tcp", "udp", "sctp"]

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
    """Raise Refused when two services, or two replicas' worth of entries, publish the same port."""
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
        targets, published = _numbers(node["target"]), _numbers(node["published"])
        if not targets:
            raise node.refused("'target' is missing: the port of the container")
        address, protocol = node["host_ip"].text(), node["protocol"].text()
        node["mode"].choice(("host", "ingress"), default="")
    else:
        written = node.text().strip()
        found = _SHORT.fullmatch(written)
        if not found:
            raise node.refused(
                f"{written[:60]!r} is no port", hint="such as '8080:80', '127.0.0.1:8080:80' or '53:53/udp'"
            )
        targets, published = _range(node, found["target"]), _range(node, found["published"] or "")
        address, protocol = found["ip"] or "", found["protocol"] or ""
    if not published:
        published = range(1)
    elif len(published) != len(targets):
        raise node.refused(f"{len(published)} published ports for {len(targets)} of the container")
    protocol = protocol or "tcp"
    if protocol not in PROTOCOLS:
        raise node.refused(f"{protocol[:30]!r} is none of {', '.join(PROTOCOLS)}")
    address = _address(node, address)
    for index, target in enumerate(targets):
        yield Port(target, published[index] if published[0] else 0, cast("Protocol", protocol), address)


def _numbers(node: Node) -> range:
    return _range(node, node.text().strip())


def _range(node: Node, text: str) -> range:
    """A port, or a range of them; none for empty text and for a published "0"."""
    if text in ("", "0"):
        return range(0)
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise node.refused(f"{text[:60]!r} is no port")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= 65535:
        raise node.refused(f"{text[:60]!r} is not within 1 to 65535")
    return range(low, high + 1)


def _address(node: Node, text: str) -> str:
    if not text:
        return ""
    try:
        address = str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise node.refused(f"{text[:60]!r} is no address") from None
    return "" if address == "0.0.0.0" else address  # noqa: S104  # all addresses is what none means
