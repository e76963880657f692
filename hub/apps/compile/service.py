"""A service: all that a recipe says of one, put together."""

from __future__ import annotations

from agent.wire.order import Attachment, Dependency, Given, Port, Service
from hub.apps.compile import deploy, machine, process
from hub.apps.compile.given import given
from hub.apps.compile.health import health, is_disabled
from hub.apps.compile.image import image, pull_policy
from hub.apps.compile.mounts import mounts
from hub.apps.compile.networks import network_mode, pid_mode
from hub.apps.compile.ports import ports
from hub.apps.compile.scope import Scope
from hub.apps.compile.wishes import wants_direct_ports
from hub.apps.tree import Node


def service(
    name: str,
    scope: Scope,
    *,
    networks: tuple[Attachment, ...],
    configs: tuple[Given, ...],
    depends_on: tuple[Dependency, ...],
    is_awaited: bool,
) -> Service:
    """The manifest of one service."""
    node = scope.services[name]
    made = Service(
        name,
        image(node),
        written=node["image"].text(),
        replicas=deploy.replicas(node),
        pull=pull_policy(node),
        entrypoint=process.words(node["entrypoint"]),
        command=process.words(node["command"]),
        environment=process.environment(node, scope),
        labels=process.labels(node, scope),
        annotations=process.annotations_of(node),
        user=node["user"].text(),
        working_dir=node["working_dir"].text(),
        hostname=node["hostname"].text(),
        networks=networks,
        network_mode=network_mode(node, scope),
        pid=pid_mode(node, scope),
        ports=_published(node, scope),
        mounts=mounts(node, name, scope),
        secrets=given(node, "secrets", scope),
        configs=configs,
        health=health(node, scope),
        no_health=is_disabled(node),
        depends_on=depends_on,
        restart=deploy.restart(node, is_awaited=is_awaited),
        update=deploy.update(node, scope),
        limits=deploy.limits(node),
        stop_signal=process.stop_signal(node),
        stop_grace_ms=node["stop_grace_period"].duration_ms(default=10_000),
    )
    return machine.equipped(made, node)


def _published(node: Node, scope: Scope) -> tuple[Port, ...]:
    """The ports that the board publishes for a service, as far as its network has any."""
    published, mode = ports(node), network_mode(node, scope)
    if not published:
        return ()
    if mode == "host":
        scope.warn(node["ports"], "changes nothing: with network_mode host every port is one of the board")
        return ()
    if mode:
        raise node["ports"].refused(f"with network_mode {mode!r} there are no ports to publish")
    replicas = deploy.replicas(node)
    if replicas > 1 and wants_direct_ports(node, scope):
        raise node["ports"].refused(f"{replicas} replicas cannot have the same port directly")
    return published
