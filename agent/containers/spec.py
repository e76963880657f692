"""What a container is made like: a service of a manifest as the libpod specification of a container.

Pure.  `agent.containers.worker` creates what `body` returns; `agent.containers.names` says what it is
called.  Nothing here talks to Podman.

**Rights.**  Containers cannot gain privileges, and lose seven of the capabilities that engines give:
FSETID, SETFCAP, SETPCAP, SYS_CHROOT, NET_RAW, MKNOD and AUDIT_WRITE.  Those that stay are what
entry points of usual images need before they step down to a user of their own: CHOWN, DAC_OVERRIDE
and FOWNER to own their data, SETUID, SETGID and KILL to become another user and to end its processes,
and NET_BIND_SERVICE to listen on port 80.  A service asks for others by ``cap_add``, if the board's
policy lets it.  (They are dropped one by one: whatever is added by name, Podman gives to a container's
user even when that is not root.)
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from typing import Any

from agent.containers.engine import LABEL_APP
from agent.containers.names import (
    LABEL_BARE,
    LABEL_DIRECT,
    LABEL_NET,
    LABEL_PARENT,
    LABEL_PROXIED,
    LABEL_RESTARTED,
    LABEL_REVISION,
    LABEL_SERVICE,
    LABEL_SLOT,
    LABEL_SPEC,
    container_name,
    digest,
    direct_ports,
    find_service,
    foreign,
    proxied_ports,
    secret_names,
)
from agent.parents import path_of
from agent.wire.errors import Refused
from agent.wire.order import App, Given, Health, Mount, Port, Service

DROPPED = ("AUDIT_WRITE", "FSETID", "MKNOD", "NET_RAW", "SETFCAP", "SETPCAP", "SYS_CHROOT")
PERIOD_US = 100_000
"""Of the processor's scheduler: quotas are shares of it."""
UNLIMITED = 2**64 - 1
HEALTH_LOG = {"healthLogDestination": "local", "healthMaxLogCount": 5, "healthMaxLogSize": 500}
"""Podman 5.3 to 5.4.1 keep what checks said without end, unless they are told not to."""


def labels(
    app: App, service: Service, slot: int, *, proxy: bool, bare: bool, parent: str = ""
) -> dict[str, str]:
    """The labels of a container: the service's own, and what we find it again by.

    All of ours are there, even when they are empty: an image brings labels, too, and those hide behind them.
    """
    direct = (
        f"{port.host_ip}:{port.published}/{port.protocol}"
        for port in direct_ports(service, proxy=proxy)
        if port.published
    )
    proxied = (
        f"{port.host_ip}:{port.published}>{port.target}" for port in proxied_ports(service, proxy=proxy)
    )
    ours = {
        LABEL_APP: app.name,
        LABEL_SERVICE: service.name,
        LABEL_SLOT: str(slot),
        LABEL_SPEC: digest(app, service, proxy=proxy),
        LABEL_REVISION: str(app.revision),
        LABEL_RESTARTED: str(service.restarted),
        LABEL_BARE: "1" if bare else "",
        LABEL_DIRECT: " ".join(direct),
        LABEL_PROXIED: " ".join(proxied),
        LABEL_PARENT: parent,
        LABEL_NET: "" if service.network_mode else "own",
    }
    return {**foreign(service.labels), **ours}


def aliases(app: App, service: Service, network: str) -> list[str]:
    """What others call a service on a network: by its name, with the app's, and what was asked for."""
    asked = (alias for each in service.networks if each.network == network for alias in each.aliases)
    return list(dict.fromkeys((service.name, f"{app.name}_{service.name}", *asked)))


def body(
    app: App, service: Service, slot: int, *, proxy: bool, bare: bool = False, parent: str = ""
) -> dict[str, Any]:
    """The libpod specification of one container (podman, pkg/specgen/specgen.go, v4.0.0 and later).

    ``bare``: on its networks without aliases; ``parent``: the cgroup that is made for it.  Raises Refused for
    a signal that does not exist.
    """
    made: dict[str, Any] = {
        "name": container_name(app, service, slot, proxy=proxy),
        "image": service.image,
        "labels": labels(app, service, slot, proxy=proxy, bare=bare, parent=parent),
        "cgroup_parent": path_of(parent) if parent else "",
        "env": dict(service.environment),
        "annotations": dict(service.annotations),
        "restart_policy": "no",  # restarts are the agent's: it counts them, and waits ever longer
        "stop_timeout": -(-service.stop_grace_ms // 1000),
        "log_configuration": _log(service),
        **_process(service),
        **_network(app, service, proxy=proxy, bare=bare),
        **_storage(app, service),
        **_rights(service),
        **_resources(service),
        **HEALTH_LOG,
    }
    if service.no_health:
        made["healthconfig"] = {"Test": ["NONE"]}
    elif service.health is not None:
        made["healthconfig"] = _health(service.health)
    if service.pid == "host":
        made["pidns"] = {"nsmode": "host"}
    elif service.pid:
        made["pidns"] = _joined(app, service.pid, proxy=proxy)
    return {key: value for key, value in made.items() if value not in ({}, [], "", None)}


def _process(service: Service) -> dict[str, Any]:
    return {
        "entrypoint": None if service.entrypoint is None else list(service.entrypoint) or [""],
        "command": None if service.command is None else list(service.command),
        "user": service.user,
        "groups": list(service.group_add),
        "work_dir": service.working_dir,
        "hostname": service.hostname,
        "stop_signal": signal_number(service.stop_signal) if service.stop_signal else None,
        "init": service.init or None,
        "terminal": service.tty or None,
        "stdin": service.open_stdin or None,
        "sysctl": dict(service.sysctls),
        "oom_score_adj": service.oom_score_adj,
    }


def signal_number(text: str) -> int:
    """The number of a signal as compose names it.  Raises Refused.

    >>> signal_number("SIGQUIT"), signal_number("quit"), signal_number("3"), signal_number("SIGRTMIN+3")
    (3, 3, 3, 37)
    """
    name, _, more = text.upper().removeprefix("SIG").partition("+")
    try:
        if name.isdecimal():
            return int(signal.Signals(int(name)))
        return int(signal.Signals[f"SIG{name}"]) + int(more or 0)
    except (KeyError, ValueError) as error:
        raise Refused(f"{text[:64]!r} is no signal", code="compose", hint="such as SIGTERM") from error


def _log(service: Service) -> dict[str, Any]:
    if service.log_driver == "k8s-file":
        return {"driver": "k8s-file", "size": service.log_max_bytes}
    return {"driver": service.log_driver}


def _health(health: Health) -> dict[str, Any]:
    # Without an interval Podman sets no timer, which needs systemd: the agent runs the check itself.
    return {
        "Test": list(health.test),
        "Interval": 0,
        "Timeout": health.timeout_ms * 1_000_000,
        "StartPeriod": health.start_period_ms * 1_000_000,
        "Retries": health.retries,
    }


# --- its parts: network, storage, rights, resources ------------------------------------------------


def _network(app: App, service: Service, *, proxy: bool, bare: bool) -> dict[str, Any]:
    extra = {
        "hostadd": list(service.extra_hosts),
        "dns_server": list(service.dns),
        "dns_search": list(service.dns_search),
        "dns_option": list(service.dns_options),
    }
    match service.network_mode:
        case "":
            networks = {
                each.network: {} if bare else {"aliases": aliases(app, service, each.network)}
                for each in service.networks
            }
            return {
                "netns": {"nsmode": "bridge"},
                "Networks": networks,
                "portmappings": [_mapping(port) for port in direct_ports(service, proxy=proxy)],
                **extra,
            }
        case "none" | "host" as mode:
            return {"netns": {"nsmode": mode}, **extra}
        case mode:
            return {"netns": _joined(app, mode, proxy=proxy)}  # names come from the one that is joined


def _joined(app: App, mode: str, *, proxy: bool) -> dict[str, str]:
    leader = find_service(app, mode.partition(":")[2])
    if leader is None:
        raise Refused(f"{app.name}: {mode} names no service of the app", code="compose")
    return {"nsmode": "container", "value": container_name(app, leader, 0, proxy=proxy)}


def _mapping(port: Port) -> dict[str, Any]:
    return {
        "container_port": port.target,
        "host_port": port.published,
        "host_ip": port.host_ip,
        "protocol": port.protocol,
    }


def _storage(app: App, service: Service) -> dict[str, Any]:
    names = secret_names(app)
    return {
        "mounts": [_mount(mount) for mount in service.mounts if mount.kind != "volume"],
        "volumes": [_volume(mount) for mount in service.mounts if mount.kind == "volume"],
        "secrets": [_given(names, given) for given in (*service.secrets, *service.configs)],
        "devices": [{"path": f"{each.host}:{each.container}:{each.permissions}"} for each in service.devices],
        "shm_size": service.limits.shm_bytes or None,
        "read_only_filesystem": service.read_only or None,
    }


def _mount(mount: Mount) -> dict[str, Any]:
    options = ["ro" if mount.read_only else "rw", *mount.options]
    if mount.kind == "bind":
        return {
            "type": "bind",
            "source": mount.source,
            "destination": mount.target,
            "options": ["rbind", *options],
        }
    options += ["nosuid", "nodev"]
    if mount.size_bytes:
        options.append(f"size={mount.size_bytes}")
    if mount.mode is not None:
        options.append(f"mode={mount.mode:o}")
    return {"type": "tmpfs", "source": "tmpfs", "destination": mount.target, "options": options}


def _volume(mount: Mount) -> dict[str, Any]:
    options = [*(["ro"] if mount.read_only else []), *(["nocopy"] if mount.no_copy else []), *mount.options]
    return {"Name": mount.source, "Dest": mount.target, "Options": options}


def _given(names: Mapping[str, str], given: Given) -> dict[str, Any]:
    if given.source not in names:
        raise Refused(f"{given.source} is neither a secret nor a config of the app", code="compose")
    return {
        "Source": names[given.source],
        "Target": given.target,
        "UID": given.uid,
        "GID": given.gid,
        "Mode": given.mode,
    }


def _rights(service: Service) -> dict[str, Any]:
    if service.privileged:
        return {"privileged": True}
    added = [capability(name) for name in service.cap_add]
    lost = [capability(name) for name in service.cap_drop]
    if "ALL" not in added:
        lost += [name for name in DROPPED if name not in (*added, *lost)]
    made: dict[str, Any] = {"cap_add": added, "cap_drop": lost, "no_new_privileges": True}
    for key, value in security_options(service):
        match key:
            case "no-new-privileges":
                made["no_new_privileges"] = value != "false"
            case "seccomp":
                made["seccomp_profile_path"] = value
            case "apparmor":
                made["apparmor_profile"] = value
            case "label":
                made.setdefault("selinux_opts", []).append(value)
            case _:
                raise Refused(f"the security option {key[:64]!r} is not known", code="compose")
    return made


def capability(name: str) -> str:
    """A capability's name without what some write before it.

    >>> capability("cap_net_admin"), capability("NET_ADMIN")
    ('NET_ADMIN', 'NET_ADMIN')
    """
    return name.upper().removeprefix("CAP_")


def security_options(service: Service) -> Iterator[tuple[str, str]]:
    """Key and value of each: "=" and ":" both part them."""
    for option in service.security_opt:
        key, _, value = option.replace(":", "=", 1).partition("=")
        yield key, value


def _resources(service: Service) -> dict[str, Any]:
    limits, resources = service.limits, {}
    if limits.memory_bytes or limits.reserve_memory_bytes:
        memory = {"limit": limits.memory_bytes, "reservation": limits.reserve_memory_bytes}
        resources["memory"] = {key: value for key, value in memory.items() if value}
    if limits.cpu_milli:
        resources["cpu"] = {"quota": limits.cpu_milli * PERIOD_US // 1000, "period": PERIOD_US}
    if limits.pids:
        resources["pids"] = {"limit": limits.pids}
    rlimits = [
        {"type": each.name, "soft": each.soft % (UNLIMITED + 1), "hard": each.hard % (UNLIMITED + 1)}
        for each in service.ulimits
    ]
    return {"resource_limits": resources, "r_limits": rlimits}
