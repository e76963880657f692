"""Which services there are, and what has to hold before each of them starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from agent.wire.order import Dependency
from hub.apps.compile.health import is_disabled
from hub.apps.compile.networks import named_service
from hub.apps.compile.scope import Scope
from hub.apps.tree import Node

Condition = Literal["started", "healthy", "completed"]
CONDITIONS: dict[str, Condition] = {
    "": "started",
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


def active_services(document: Node, env: Mapping[str, str]) -> dict[str, Node]:
    """The services without a profile, and those of the profiles in COMPOSE_PROFILES ("*": all)."""
    profiles = {word.strip() for word in env.get("COMPOSE_PROFILES", "").split(",")}
    return {
        name: service
        for name, service in document["services"].items()
        if not service["profiles"].texts() or profiles & {"*", *service["profiles"].texts()}
    }


def dependencies(name: str, scope: Scope) -> tuple[Dependency, ...]:
    """What a service waits for: what it says, and whose network or processes it shares."""
    service = scope.services[name]
    found: dict[str, Dependency] = {}
    for key in ("network_mode", "pid"):
        if other := named_service(service[key].text()):
            scope.service(service[key], other)
            found[other] = Dependency(other, restart=True)
    for each in service["links"]:
        other = each.text().partition(":")[0]
        scope.service(each, other)
        found.setdefault(other, Dependency(other))
    node = service["depends_on"]
    for each in node:
        scope.service(each, each.text())
        found.setdefault(each.text(), Dependency(each.text()))
    for other, each in node.items():
        dependency = _dependency(other, each, scope)
        if dependency is not None:
            # Whose network it shares is gone when that one is replaced, whatever is said here.
            shares = other in found and found[other].restart
            found[other] = replace(dependency, restart=True) if shares else dependency
    if name in found:
        raise service["depends_on"].refused(f"{name!r} depends on itself")
    return tuple(found.values())


def _dependency(other: str, node: Node, scope: Scope) -> Dependency | None:
    is_required = node["required"].flag(default=True)
    if not is_required and other not in scope.services:
        return None
    target = scope.service(node, other)
    condition = CONDITIONS[node["condition"].text()]
    if condition == "healthy" and is_disabled(target):
        raise node.refused(f"the healthcheck of {other!r} is disabled, so it never is healthy")
    return Dependency(other, condition, is_required, node["restart"].flag())


def awaited(waits: Mapping[str, tuple[Dependency, ...]]) -> set[str]:
    """The services whose end others wait for."""
    return {
        each.service for all_of_one in waits.values() for each in all_of_one if each.condition == "completed"
    }


def refuse_cycles(waits: Mapping[str, tuple[Dependency, ...]], scope: Scope) -> None:
    """Raise Refused naming a circle of services that wait for each other."""
    done: set[str] = set()
    for start in waits:
        way = [start]
        while way:
            name = way[-1]
            following = next((each.service for each in waits[name] if each.service not in done), None)
            if following is None:
                done.add(way.pop())
            elif following in way:
                circle = " -> ".join([*way[way.index(following) :], following])
                raise scope.services[following]["depends_on"].refused(f"a circle of dependencies: {circle}")
            else:
                way.append(following)
