"""A service: all that a recipe says of one, put together."""

from __future__ import annotations

from agent.wire.order import Attachment, Dependency, Given, Service
from hub.apps.compile import deploy, machine, process
from hub.apps.compile.given import given
from hub.apps.compile.health import health, is_disabled
from hub.apps.compile.image import image, pull_policy
from hub.apps.compile.mounts import mounts
from hub.apps.compile.networks import network_mode, pid_mode
from hub.apps.compile.ports import ports
from hub.apps.compile.scope import Scope
from hub.apps.compile.wishes import wants_direct_ports


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
    mode = network_mode(node, scope)
    published = ports(node)
    if published and mode:
        if mode != "host":
            raise node["ports"].refused(f"with network_mode {mode!r} there are no ports to publish")
        scope.warn(node["ports"], "changes nothing: with network_mode host every port is one of the board")
        published = ()
    replicas = deploy.replicas(node)
    if replicas > 1 and published and wants_direct_ports(node, scope):
        raise node["ports"].refused(f"{replicas} replicas cannot have the same port directly")
    return Service(
        name,
        image(node),
        written=node["image"].text(),
        replicas=replicas,
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
        network_mode=mode,
        pid=pid_mode(node, scope),
        ports=published,
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
        devices=machine.devices(node),
        group_add=node["group_add"].texts(),
        cap_add=machine.capabilities(node["cap_add"]),
        cap_drop=machine.capabilities(node["cap_drop"]),
        security_opt=node["security_opt"].texts(),
        sysctls=machine.sysctls(node),
        ulimits=machine.ulimits(node),
        extra_hosts=machine.extra_hosts(node),
        dns=node["dns"].texts(),
        dns_search=node["dns_search"].texts(),
        dns_options=node["dns_opt"].texts(),
        init=node["init"].flag(),
        read_only=node["read_only"].flag(),
        tty=node["tty"].flag(),
        open_stdin=node["stdin_open"].flag(),
        privileged=node["privileged"].flag(),
        oom_score_adj=node["oom_score_adj"].whole(-1000, 1000) if node["oom_score_adj"].is_given else None,
        log_max_bytes=machine.log_max_bytes(node),
        log_driver=machine.log_driver(node),
    )
