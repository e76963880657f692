"""What a container gets of its board beyond memory and time: devices, capabilities, limits, names, logs."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

from agent.wire.order import MAX_LOG_BYTES, Device, Service, Ulimit
from hub.apps import units
from hub.apps.tree import Node

DEFAULT_LOG_BYTES = 5_000_000
MIN_LOG_BYTES = 4096

LogDriver = Literal["k8s-file", "journald", "none"]
LOG_DRIVERS: dict[str, LogDriver] = {
    "": "k8s-file",
    "json-file": "k8s-file",
    "local": "k8s-file",
    "k8s-file": "k8s-file",
    "journald": "journald",
    "none": "none",
}

_DEVICE = re.compile(r"(?P<host>/[^:]+)(?::(?P<container>/[^:]+))?(?::(?P<permissions>[rwm]{1,3}))?")
_CAPABILITY = re.compile(r"[A-Z_]{2,40}")


def equipped(made: Service, node: Node) -> Service:
    """A service with all that this module knows of it."""
    score = node["oom_score_adj"]
    return replace(
        made,
        devices=devices(node),
        group_add=node["group_add"].texts(),
        cap_add=capabilities(node["cap_add"]),
        cap_drop=capabilities(node["cap_drop"]),
        security_opt=node["security_opt"].texts(),
        sysctls=sysctls(node),
        ulimits=ulimits(node),
        extra_hosts=extra_hosts(node),
        dns=node["dns"].texts(),
        dns_search=node["dns_search"].texts(),
        dns_options=node["dns_opt"].texts(),
        init=node["init"].flag(),
        read_only=node["read_only"].flag(),
        tty=node["tty"].flag(),
        open_stdin=node["stdin_open"].flag(),
        privileged=node["privileged"].flag(),
        oom_score_adj=score.whole(-1000, 1000) if score.is_given else None,
        log_max_bytes=log_max_bytes(node),
        log_driver=log_driver(node),
    )


def devices(service: Node) -> tuple[Device, ...]:
    """The device nodes of a service."""
    return tuple(_device(each) for each in service["devices"])


def _device(node: Node) -> Device:
    if node.is_mapping:
        parts = [node["source"].text(), node["target"].text() or node["source"].text()]
        parts.append(node["permissions"].text() or "rwm")
        written = ":".join(parts)
    else:
        written = node.text()
    found = _DEVICE.fullmatch(written)
    if not found:
        hint = "a path, where it is in the container, and some of r, w and m: /dev/ttyUSB0:/dev/tty:rw"
        raise node.refused(f"{written[:80]!r} is no device", hint=hint)
    return Device(found["host"], found["container"] or found["host"], found["permissions"] or "rwm")


def capabilities(node: Node) -> tuple[str, ...]:
    """Capabilities as the kernel calls them, without "CAP_"; ALL is all of them."""
    found = []
    for each in node:
        name = each.text().upper().removeprefix("CAP_")
        if not _CAPABILITY.fullmatch(name):
            raise each.refused(f"{each.text()[:40]!r} is no capability", hint="such as NET_ADMIN")
        found.append(name)
    return tuple(dict.fromkeys(found))


def sysctls(service: Node) -> dict[str, str]:
    """Settings of the kernel in the container's namespaces."""
    found = {}
    for name, node in service["sysctls"].pairs().items():
        if not node.text():
            raise node.refused(f"{name[:80]!r} has no value")
        found[name] = node.text()
    return found


def ulimits(service: Node) -> tuple[Ulimit, ...]:
    """The resource limits of a service."""
    found = []
    for name, node in service["ulimits"].items():
        soft, hard = (node["soft"], node["hard"]) if node.is_mapping else (node, node)
        limit = Ulimit(name, soft.whole(-1, 2**53), hard.whole(-1, 2**53))
        if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
            raise node.refused(f"the soft limit {limit.soft} is above the hard one, {limit.hard}")
        found.append(limit)
    return tuple(found)


def extra_hosts(service: Node) -> tuple[str, ...]:
    """Further names for /etc/hosts, as "name:address"."""
    node = service["extra_hosts"]
    if node.is_mapping:
        return tuple(f"{name}:{address}" for name, each in node.items() for address in each.texts())
    found = []
    for each in node:
        entry = each.text()
        cut = min((at for at in map(entry.find, "=:") if at > 0), default=-1)
        if cut < 0 or not entry[cut + 1 :]:
            raise each.refused(
                f"{entry[:80]!r} is no name with an address", hint="such as 'gate:192.168.1.1'"
            )
        found.append(f"{entry[:cut]}:{entry[cut + 1 :].strip('[]')}")
    return tuple(found)


def log_driver(service: Node) -> LogDriver:
    """Where output goes."""
    node = service["logging"]["driver"]
    if node.text() not in LOG_DRIVERS:
        raise node.refused(
            f"boards have no log driver {node.text()[:40]!r}", hint="json-file, journald or none"
        )
    return LOG_DRIVERS[node.text()]


def log_max_bytes(service: Node) -> int:
    """How large a log grows before it begins anew."""
    node = service["logging"]["options"]["max-size"]
    if not node.text():
        return DEFAULT_LOG_BYTES
    try:
        size = units.size_bytes(node.text())
    except ValueError as error:
        raise node.refused(str(error)) from None
    return min(max(size, MIN_LOG_BYTES), MAX_LOG_BYTES)
