"""What an order may ask of this board: the file that the board's owner writes, and what it refuses.

The socket of Podman equals root, so whoever may order containers could take the board.  This file, which
no hub can change, is where that ends.  Without it the defaults hold: no privileges, no devices, no paths
of the board, not its network, not its processes, no volumes that were not made for apps; images of any
registry.  What would reach around all of that (`agent.wire.rights`) no key allows.  As TOML:

    registries = ["docker.io", "ghcr.io"]   # whose images may run; "*": anybody's
    plain_http = ["192.168.1.10:5000"]      # those of them that are asked without TLS
    devices = ["/dev/ttyUSB*", "/dev/i2c-1"]
    binds = ["/srv/data"]                   # paths that containers may see, and all below them
    memory_bytes = 400000000                # what the limits of all apps may be together
    do_not_touch = ["08:00-18:00"]          # by the board's own time

>>> web = Service("web", "registry.example/web@sha256:" + "0" * 64, privileged=True)
>>> str(refusal(Policy(), App("demo", 1, services=(web,))))
"this board's policy does not allow web to be privileged"
>>> touches(("22:00-06:00",), 23 * 60), touches(("22:00-06:00",), 7 * 60)
(True, False)
"""

from __future__ import annotations

import ipaddress
import posixpath
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Annotated

from agent.containers.engine import LABEL_APP
from agent.containers.spec import capability, security_options
from agent.wire.decode import Length, Range, decode
from agent.wire.errors import ConfigError, Refused
from agent.wire.order import App, Clockwise, Device, Names, Network, Service, Volume
from agent.wire.rights import is_mount_option, is_reserved, shown_path, steers

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_FILE = 64 * 1024
HARMLESS = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
    "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
"""The capabilities that container engines give to everybody."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The keys of ``policy.toml``."""

    registries: Names = ("*",)
    """Whose images may run, as host or host:port; "*" is anybody's."""
    plain_http: Names = ()
    """Registries that are asked over plain HTTP, as host or host:port. All others need TLS."""
    privileged: bool = False
    """Whether a container may be privileged, which makes it root of the board."""
    host_network: bool = False
    """Whether a container may use the board's own network."""
    host_pid: bool = False
    """Whether a container may see the board's processes."""
    devices: Names = ()
    """Device nodes that containers may get; "*" stands for any characters of a name."""
    binds: Names = ()
    """Paths of the board that containers may see, with all below them, wherever links lead."""
    external: Names = ()
    """Volumes and networks of the board that apps may use though they were not made for apps."""
    subnets: Names = ()
    """Address ranges such as "10.89.0.0/16" in which an app may choose the subnet of a network. Without any,
    Podman chooses, and takes nothing that leads elsewhere."""
    oom_score_adj: Annotated[int, Range(-1000, 0)] = 0
    """The lowest one that a service may have. Below 0 others are killed before it when memory runs out, and
    the agent may be one of them."""
    capabilities: Names = HARMLESS
    """Capabilities that a service may ask for."""
    security_opt: Names = ()
    """Security options that a service may ask for, such as "seccomp=unconfined"."""
    memory_bytes: Annotated[int, Range(0, 2**53)] = 0
    """What the memory limits of all apps may be together; each service then needs one. 0: no ceiling."""
    disk_bytes: Annotated[int, Range(0, 2**53)] = 0
    """What the images of all apps may take together. 0: no ceiling."""
    keep_free_bytes: Annotated[int, Range(0, 2**53)] = 256 * 1024 * 1024
    """What must stay free on the disk when an image is pulled."""
    do_not_touch: Annotated[tuple[Clockwise, ...], Length(0, 16)] = ()
    """When nothing may be changed, by the board's own time, as "HH:MM-HH:MM". What runs is still kept
    running."""
    lock_file: Path = Path("/run/lichen/do-not-touch")
    """While this file is there, nothing is changed: for whoever works on the board."""


def load(path: Path) -> Policy:
    """Read the file; the defaults where there is none.  Raises ConfigError."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE + 1).decode("utf-8")
    except FileNotFoundError:
        return Policy()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse(text, path)


def parse(text: str, path: Path | str = "policy.toml") -> Policy:
    """The policy in ``text``.  Raises ConfigError that names the file and the key."""
    if len(text.encode()) > MAX_FILE:  # a part of it would say something else
        raise ConfigError(f"{path} is over {MAX_FILE // 1024} KiB")
    try:
        policy = decode(Policy, tomllib.loads(text), strict=True)
        for number, subnet in enumerate(policy.subnets):
            _network_of(subnet, f"subnets[{number}]")
        return policy
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error


def _network_of(text: str, where: str) -> IPNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}", hint='such as "10.89.0.0/16"') from error


# --- what it refuses ---------------------------------------------------------------------------


def refusal(policy: Policy, app: App) -> Refused | None:
    """Why this board does not run a manifest; None when it does."""
    wishes = [wish for service in app.services for wish in _wishes(policy, service)]
    wishes += [wish for volume in app.volumes for wish in _volume(policy, volume)]
    wishes += [wish for network in app.networks for wish in _network(policy, network)]
    if not wishes:
        return None
    return _refused(*wishes[0])


def _refused(what: str, key: str) -> Refused:
    if not key:
        return Refused(f"no board allows {what}", code="policy", hint="leave it out of the recipe")
    return Refused(
        f"this board's policy does not allow {what}",
        code="policy",
        hint=f"the board's owner allows it by `{key}` in the policy file",
    )


def _wishes(policy: Policy, service: Service) -> Iterator[tuple[str, str]]:
    """What a service asks for and may not have, with the key that allows it."""
    name, registry = service.name, registry_of(service.image)
    if not {"*", registry} & set(policy.registries):
        yield f"{name} to have an image from {registry}", "registries"
    for device in service.devices:
        if not _is_device(policy, device):
            yield f"{name} to have the device {device.host}", "devices"
    for mount in service.mounts:
        if mount.kind == "bind" and not _is_allowed(policy, mount.source):
            yield f"{name} to see the board's path {mount.source}", "binds"
        for option in mount.options:
            if not is_mount_option(mount.kind, option):
                yield f"{name} to mount {mount.target} with the option {option}", ""
    if policy.memory_bytes and not service.limits.memory_bytes:
        yield f"{name} to run without a memory limit", "memory_bytes"
    for annotation in filter(steers, service.annotations):
        yield f"{name} to have the annotation {annotation}", ""
    yield from _labels(name, service.labels)
    yield from _rights(policy, service)


def _rights(policy: Policy, service: Service) -> Iterator[tuple[str, str]]:
    name = service.name
    if service.privileged and not policy.privileged:
        yield f"{name} to be privileged", "privileged"
    if service.network_mode == "host" and not policy.host_network:
        yield f"{name} to use the board's own network", "host_network"
    if service.pid == "host" and not policy.host_pid:
        yield f"{name} to see the board's processes", "host_pid"
    if (score := service.oom_score_adj) is not None and score < policy.oom_score_adj:
        yield f"{name} to have the oom_score_adj {score}", "oom_score_adj"
    for wanted in map(capability, service.cap_add):
        if wanted not in map(capability, policy.capabilities):
            yield f"{name} to have the capability {wanted}", "capabilities"
    for key, value in security_options(service):
        tightens = (key, value) in (("no-new-privileges", ""), ("no-new-privileges", "true"))
        if not tightens and f"{key}={value}" not in policy.security_opt:
            yield f"{name} to have the security option {key}={value}", "security_opt"


def _volume(policy: Policy, volume: Volume) -> Iterator[tuple[str, str]]:
    """A volume with a device of its own shows a path of the board, or a whole disk."""
    yield from _labels(f"the volume {volume.name}", volume.labels)
    try:
        path = shown_path(volume.driver_options)
    except ValueError as error:
        yield f"the volume {volume.name}: {error}", ""
        return
    if path and not _is_allowed(policy, path):
        yield f"the volume {volume.name} to show the board's path {path}", "binds"


def _network(policy: Policy, network: Network) -> Iterator[tuple[str, str]]:
    """A subnet takes the traffic of the whole board that went there before."""
    yield from _labels(f"the network {network.name}", network.labels)
    if network.subnet and not _is_within(network.subnet, policy.subnets):
        yield f"the network {network.name} to have the subnet {network.subnet}", "subnets"


def _labels(whose: str, labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """By labels of ours the agent knows what it made, and which ports to publish."""
    for label in filter(is_reserved, labels):
        yield f"{whose} to have the label {label}", ""


def _is_within(subnet: str, ranges: Names) -> bool:
    try:
        wanted = ipaddress.ip_network(subnet)
    except ValueError:
        return False
    known = map(ipaddress.ip_network, ranges)
    return any(each in _above(wanted, each.prefixlen) for each in known)


def _above(network: IPNetwork, prefix: int) -> list[IPNetwork]:
    """The range of that size around a network."""
    return [network.supernet(new_prefix=prefix)] if prefix <= network.prefixlen else []


def _is_device(policy: Policy, device: Device) -> bool:
    """A path as it is written: Podman itself would follow "..", and part at ":"."""
    is_plain = ".." not in device.host.split("/") and ":" not in device.host + device.container
    return is_plain and any(fnmatchcase(device.host, pattern) for pattern in policy.devices)


def _is_allowed(policy: Policy, source: str) -> bool:
    """Whether a path of the board, as it is written, is or is below one that may be seen."""
    path = PurePosixPath(source)
    return ".." not in path.parts and any(path.is_relative_to(root) for root in policy.binds)


def link_refusal(policy: Policy, app: App, service: Service, resolve: Callable[[str], str]) -> Refused | None:
    """Why the containers of a service may not see a path of the board, given where links lead.

    ``resolve`` follows them.  An app that writes to a path of the board can make some there, so this is
    asked again before each start.  What leads nowhere else than it says was allowed as it is written.
    """
    roots = [resolve(root) for root in policy.binds]
    for path in shown_paths(app, service):
        real = resolve(path)
        if real != posixpath.normpath(path) and not any(PurePosixPath(real).is_relative_to(x) for x in roots):
            return _refused(f"{service.name} to see the board's path {real}, to which {path} leads", "binds")
    return None


def shown_paths(app: App, service: Service) -> Iterator[str]:
    """The paths of the board that containers of a service see, by themselves or as a volume."""
    options = {volume.name: volume.driver_options for volume in app.volumes}
    for mount in service.mounts:
        if mount.kind == "bind":
            yield mount.source
        elif mount.kind == "volume":
            device = options.get(mount.source, {}).get("device", "")
            if device.startswith("/"):
                yield device


def thing_refusal(policy: Policy, what: str, name: str, labels: Mapping[str, str]) -> Refused | None:
    """Why an app may not have a volume or network ("the volume") that is there with these labels."""
    if LABEL_APP in labels or name in policy.external:
        return None
    return _refused(f"apps to use {what} {name}, which was not made for apps", "external")


def registry_of(reference: str) -> str:
    """The registry of an image (distribution reference grammar: the first part names one if it has a
    dot or a port, or is "localhost").

    >>> registry_of("nginx@sha256:0"), registry_of("localhost:5000/nginx@sha256:0")
    ('docker.io', 'localhost:5000')
    """
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


# --- when nothing may be changed -------------------------------------------------------------------


def touches(windows: tuple[str, ...], minute: int) -> bool:
    """Whether a minute of the day is in one of the windows."""
    for window in windows:
        begin, end = (int(part[:2]) * 60 + int(part[3:]) for part in window.split("-"))
        if begin <= minute < end or (end <= begin and not end <= minute < begin):
            return True
    return False


def hold(policy: Policy, app: App | None, minute: int | None, *, locked: bool) -> str:
    """Why nothing may be changed now; "" when something may.

    ``minute`` of the board's day, None while its clock is not trusted; ``app`` is what is to come.
    """
    if locked:
        return f"waits until {policy.lock_file} is removed"
    windows = () if app is None else app.windows
    if minute is None:
        return "waits for a clock that is right" if policy.do_not_touch or windows else ""
    if touches(policy.do_not_touch, minute):
        return f"waits: this board may not be touched at {', '.join(policy.do_not_touch)}"
    if windows and not touches(windows, minute):
        return f"waits for its update window, {', '.join(windows)}"
    return ""
