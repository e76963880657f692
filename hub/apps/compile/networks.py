"""Networks: those of an app, and under which names its services are found there."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent.wire.order import Attachment, Network
from hub.apps.compile.scope import Scope, is_external, labels_of
from hub.apps.tree import Node

DEFAULT = "default"
MODES = ("", "bridge", "default")
"""Modes that mean: on the app's networks."""

_SERVICE_MODE = re.compile(r"service:(.+)")


@dataclass(frozen=True, slots=True)
class Membership:
    """That a service is on a network, by key; ``said``: where.  ``names``: it is found there by its own."""

    key: str
    said: Node
    aliases: tuple[str, ...] = ()
    names: bool = True


@dataclass(frozen=True, slots=True)
class Networks:
    """All networks of an app by key, and who is on them."""

    definitions: Mapping[str, Network]
    members: Mapping[str, tuple[Membership, ...]] = field(default_factory=dict)


def network_mode(service: Node, scope: Scope) -> str:
    """Empty, "host", "none" or "service:<name>"."""
    return _mode(service["network_mode"], scope, ("host", "none"), MODES)


def pid_mode(service: Node, scope: Scope) -> str:
    """Empty, "host" or "service:<name>"."""
    return _mode(service["pid"], scope, ("host",), ("",))


def named_service(mode: str) -> str:
    """The service that a mode names, or empty."""
    found = _SERVICE_MODE.fullmatch(mode)
    return found[1] if found else ""


def _mode(node: Node, scope: Scope, modes: tuple[str, ...], usual: tuple[str, ...]) -> str:
    mode = node.text()
    if mode in usual:
        return ""
    if mode in modes:
        return mode
    if name := named_service(mode):
        scope.service(node, name)
        return mode
    raise node.refused(
        f"{mode[:60]!r} is not supported", hint=f"one of {', '.join(modes)} or 'service:' and a name"
    )


def networks(scope: Scope) -> Networks:
    """The networks that the app's services use."""
    members = {name: _memberships(service, scope) for name, service in scope.services.items()}
    definitions: dict[str, Network] = {}
    for member in itertools.chain.from_iterable(members.values()):
        if member.key not in definitions:
            definitions[member.key] = _network(_definition(member, scope), member.key, scope)
    return Networks(definitions, members)


def _definition(member: Membership, scope: Scope) -> Node:
    if member.key == DEFAULT:  # is there, whether or not it is described
        return scope.document["networks"][DEFAULT]
    return scope.defined("networks", member.said, member.key)


def _memberships(service: Node, scope: Scope) -> tuple[Membership, ...]:
    node = service["networks"]
    if network_mode(service, scope):
        if node.is_given:
            raise node.refused("a service with 'network_mode' is on no networks", hint="remove one of them")
        return ()
    if node.is_mapping:
        found = [
            Membership(key, each, each["aliases"].texts(), each["use_service_name_alias"].flag(default=True))
            for key, each in node.items()
        ]
    else:
        found = [Membership(each.text(), each) for each in node]
    return tuple(found or [Membership(DEFAULT, service)])


def _network(definition: Node, key: str, scope: Scope) -> Network:
    name = scope.full_name(definition, key)
    if name in ("host", "none", "bridge") and is_external(definition):
        raise definition.refused(f"the network {name!r} is Docker's own", hint="write 'network_mode: host'")
    driver = definition["driver"]
    if driver.text() not in ("", "bridge", "overlay", "default"):
        raise driver.refused(
            f"boards have no network driver {driver.text()[:60]!r}", hint="bridge or overlay"
        )
    pools = list(definition["ipam"]["config"])
    if len(pools) > 1:
        raise definition["ipam"]["config"].refused("a network has one subnet here")
    subnet, gateway = _addresses(pools[0]) if pools else ("", "")
    return Network(
        name,
        internal=definition["internal"].flag(),
        shared=is_external(definition),
        ipv6=definition["enable_ipv6"].flag(),
        subnet=subnet,
        gateway=gateway,
        labels=labels_of(definition["labels"]),
    )


def _addresses(pool: Node) -> tuple[str, str]:
    """Subnet and gateway."""
    subnet, gateway = pool["subnet"].text(), pool["gateway"].text()
    try:
        network = ipaddress.ip_network(subnet) if subnet else None
        address = ipaddress.ip_address(gateway) if gateway else None
    except ValueError as error:
        raise pool.refused(str(error)) from None
    if address is not None and (network is None or address not in network):
        raise pool["gateway"].refused(f"{gateway!r} is not in the subnet")
    return subnet, gateway


# --- names on networks ---------------------------------------------------------------------------


def attachments(name: str, networks: Networks, scope: Scope) -> tuple[Attachment, ...]:
    """The networks of a service, with all the names under which others find it there."""
    container_name = scope.services[name]["container_name"].text()
    found = []
    for member in networks.members[name]:
        network = networks.definitions[member.key]
        names: list[str] = []
        if member.names:
            if not network.shared or _needs_short_names(name, member.key, networks):
                names += [name, *_linked(name, scope)]
            names.append(f"{scope.app}_{name}")
        names += [*member.aliases, container_name]
        found.append(Attachment(network.name, tuple(dict.fromkeys(filter(None, names)))))
    return tuple(found)


def _needs_short_names(name: str, key: str, networks: Networks) -> bool:
    """Whether a service of this app reaches ``name`` only over a network that other apps are on, too.

    There, "db" of one app would answer for "db" of the next one; so the short name is left out where the
    app has a network of its own for it.
    """
    own = _private(name, networks)
    others = [other for other, members in networks.members.items() if key in {each.key for each in members}]
    return any(not own & _private(other, networks) for other in others)


def _private(name: str, networks: Networks) -> set[str]:
    return {each.key for each in networks.members[name] if not networks.definitions[each.key].shared}


def _linked(name: str, scope: Scope) -> Iterator[str]:
    """What other services call this one by their 'links'."""
    for service in scope.services.values():
        for each in service["links"]:
            target, _, alias = each.text().partition(":")
            if target == name:
                yield alias
