"""Whether an app can run on this board at all, told before anything of the old version is stopped.

Pure: facts in, a verdict out.  `agent.containers.look` gathers the facts when an update is about to
begin; `agent.containers.reconcile` acts on the verdict.  A verdict is a Refused, with a code and a hint,
or the words of what has to be waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.containers.engine import LABEL_APP, Image, Info
from agent.containers.names import LABEL_DIRECT, LABEL_PROXIED, overlap, read_ports
from agent.containers.policy import Policy, link_refusal, thing_refusal
from agent.wire.errors import Refused
from agent.wire.order import App, Port, Service

CMDLINE = "add `cgroup_enable=memory` to /boot/firmware/cmdline.txt and restart the board"
UNPACKED = 3
"""How many times its compressed layers an image takes: those of Debian, Alpine and Python unpack to 2.3 to
2.9 times.  The rest is for what Podman needs while it pulls: the compressed layers themselves."""
EQUAL = {"arm": ("arm", "armhf"), "arm64": ("arm64", "aarch64"), "amd64": ("amd64", "x86_64")}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the verdicts are about.

    ``free_bytes``: of the disk with the images, None where that cannot be told; ``memory_free_bytes``:
    what programs could have now.  ``images``: those that are there, by each of their names.
    ``others``: the manifests of the other apps that run here.  ``labels``: of all containers that run.
    ``volumes`` and ``networks``: those there are, by name, with their labels.  ``exists`` tells whether a
    path of the board does, ``resolve`` where its links lead, and ``port_refusal`` why a port cannot be
    listened on.  ``served``: app, address and number of the ports that the proxy has, for containers that are
    not started yet, too.
    """

    info: Info
    free_bytes: int | None = None
    memory_free_bytes: int | None = None
    images: Mapping[str, Image] = field(default_factory=dict)
    others: tuple[App, ...] = ()
    labels: tuple[tuple[str, Mapping[str, str]], ...] = ()
    volumes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    exists: Callable[[str], bool] = lambda path: True
    resolve: Callable[[str], str] = lambda path: path
    port_refusal: Callable[[str, int, str], Refused | None] = lambda host_ip, port, protocol: None
    served: tuple[tuple[str, str, int], ...] = ()


def examine(app: App, good: App | None, policy: Policy, facts: Facts) -> str:
    """What has to be waited for; "" when the update may begin.  Raises Refused for what never will do."""
    for service in app.services:
        _check_architecture(service, facts)
        _check_pull(service, facts)
        _check_paths(service, facts)
        if (refused := link_refusal(policy, app, service, facts.resolve)) is not None:
            raise refused
        _check_replicas(service)
        _check_memory_limits(service, facts.info)
    _check_things(app, policy, facts)
    _check_ports(app, facts)
    check_disk(app, good, policy, facts)
    return _check_memory(app, good, policy, facts)


def _check_architecture(service: Service, facts: Facts) -> None:
    image = facts.images.get(service.image)
    if image is not None and (wrong := wrong_architecture(image, facts.info)):
        raise Refused(f"{service.name}: {wrong}", code="architecture", hint="name an image for this board")


def wrong_architecture(image: Image, info: Info) -> str:
    """Why an image cannot run here, in words; "" when it can, or does not tell."""
    have = image.architecture
    if not have or have in EQUAL.get(info.arch, (info.arch,)) or (have == "arm" and info.arch == "arm64"):
        return ""
    return f"the image is for {have}, and this board is {info.arch}"


def _check_pull(service: Service, facts: Facts) -> None:
    if service.pull == "never" and service.image not in facts.images:
        raise Refused(
            f"{service.name}: its image is not on this board, and is never to be pulled", code="image"
        )


def _check_paths(service: Service, facts: Facts) -> None:
    for device in service.devices:
        if not facts.exists(device.host):
            raise Refused(
                f"{service.name}: there is no device {device.host} on this board",
                code="device",
                hint="is it plugged in, and its interface switched on?",
            )
    for mount in service.mounts:
        if mount.kind == "bind" and not facts.exists(mount.source):
            raise Refused(f"{service.name}: there is no {mount.source} on this board", code="path")


def _check_replicas(service: Service) -> None:
    if service.replicas < 2:
        return
    for port in service.ports:
        if port.published and port.protocol != "tcp":
            raise Refused(
                f"{service.name}: {service.replicas} containers cannot share port"
                f" {port.published}/{port.protocol}: only TCP is passed on to several",
                code="port-taken",
            )


def _check_memory_limits(service: Service, info: Info) -> None:
    limits = service.limits
    if (limits.memory_bytes or limits.reserve_memory_bytes) and not info.memory_limits:
        raise Refused(
            f"{service.name} has a memory limit, and the kernel of this board does not keep any",
            code="memory-cgroup-off",
            hint=CMDLINE,
        )


def _check_things(app: App, policy: Policy, facts: Facts) -> None:
    """What is there under the name of a volume or network must be for apps; it is not made anew."""
    for volume in app.volumes:
        if volume.external and volume.name not in facts.volumes:
            raise Refused(
                f"there is no volume {volume.name} on this board",
                code="volume",
                hint=f"`podman volume create --label {LABEL_APP}={app.name} {volume.name}` makes one;"
                " then deploy again",
            )
    there = [("the volume", each.name, facts.volumes) for each in app.volumes]
    there += [("the network", each.name, facts.networks) for each in app.networks]
    for what, name, things in there:
        labels = things.get(name)
        if labels is not None and (refused := thing_refusal(policy, what, name, labels)) is not None:
            raise refused


# --- ports -------------------------------------------------------------------------------------


def _check_ports(app: App, facts: Facts) -> None:
    for service in app.services:
        if service.replicas and not service.network_mode:
            for port in service.ports:
                if port.published:
                    _check_port(app, service, port, facts)


def _check_port(app: App, service: Service, port: Port, facts: Facts) -> None:
    holders = {*_holders(port, facts.labels), *_served(port, facts.served)}
    others = sorted(holders - {app.name})
    if others:
        raise Refused(
            f"{service.name}: port {port.published} is taken by the app {others[0]}",
            code="port-taken",
            hint="publish another one",
        )
    if holders or port.protocol == "sctp":
        return  # the version before has it, and will give it up
    if (error := facts.port_refusal(port.host_ip, port.published, port.protocol)) is not None:
        raise Refused(f"{service.name}: {error}", code=error.code, hint=error.hint)


def _holders(port: Port, labels: Iterable[tuple[str, Mapping[str, str]]]) -> Iterator[str]:
    """The apps whose containers have a port."""
    for app, each in labels:
        held = [(host, number, protocol) for host, number, protocol in read_ports(each.get(LABEL_DIRECT, ""))]
        held += [(host, number, "tcp") for host, number, _ in read_ports(each.get(LABEL_PROXIED, ""))]
        for host, number, protocol in held:
            if (number, protocol) == (port.published, port.protocol) and overlap(host, port.host_ip):
                yield app


def _served(port: Port, served: Iterable[tuple[str, str, int]]) -> Iterator[str]:
    """The apps for which the proxy has a port."""
    for app, host, number in served:
        if (number, "tcp") == (port.published, port.protocol) and overlap(host, port.host_ip):
            yield app


# --- disk and memory -----------------------------------------------------------------------------


def check_disk(app: App, good: App | None, policy: Policy, facts: Facts, *, pulled: bool = False) -> None:
    """Raise Refused unless there is room for the images of an app; asked again when one was ``pulled``.

    An image tells its size only when it is there, and before that what its registry has of it does.
    """
    missing = {
        service.image: service.image_bytes for service in app.services if service.image not in facts.images
    }
    guess = sum(size * UNPACKED or _guess(reference, facts) for reference, size in missing.items())
    need = guess + policy.keep_free_bytes
    if (missing or pulled) and facts.free_bytes is not None and facts.free_bytes < need:
        raise Refused(
            f"the disk has {_mb(facts.free_bytes)} free, and {_mb(need)} are needed",
            code="no-space",
            hint="free some space: `podman image prune -a` removes images that nobody uses",
        )
    if not policy.disk_bytes:
        return
    wanted = [app, *facts.others, *([good] if good is not None else [])]
    references = {service.image for each in wanted for service in each.services}
    sizes = {image.id: image.size_bytes for name, image in facts.images.items() if name in references}
    if sum(sizes.values()) + guess > policy.disk_bytes:
        raise Refused(
            f"the images of all apps would take {_mb(sum(sizes.values()) + guess)},"
            f" and this board's policy allows {_mb(policy.disk_bytes)}",
            code="policy",
            hint="the board's owner raises `disk_bytes` in the policy file",
        )


def _guess(reference: str, facts: Facts) -> int:
    """As large as one of the same name, when nobody says how large it is."""
    name = reference.partition("@")[0] + "@"
    sizes = [image.size_bytes for known, image in facts.images.items() if known.startswith(name)]
    return max(sizes, default=0)


def _check_memory(app: App, good: App | None, policy: Policy, facts: Facts) -> str:
    limit = sum(_memory(each)[0] for each in (app, *facts.others))
    if policy.memory_bytes and limit > policy.memory_bytes:
        raise Refused(
            f"the memory limits of all apps would be {_mb(limit)} together,"
            f" and this board's policy allows {_mb(policy.memory_bytes)}",
            code="policy",
            hint="the board's owner raises `memory_bytes` in the policy file",
        )
    reserved = sum(_memory(each)[1] for each in (app, *facts.others))
    if reserved > facts.info.memory_bytes:
        raise Refused(
            f"all apps together reserve {_mb(reserved)} of memory, and this board has"
            f" {_mb(facts.info.memory_bytes)}",
            code="no-memory",
            hint="reserve less, or move an app to another board",
        )
    more = _memory(app)[1] - (_memory(good)[1] if good is not None else 0)
    if facts.memory_free_bytes is not None and more > facts.memory_free_bytes:
        return f"waits for memory: {_mb(more)} are reserved, {_mb(facts.memory_free_bytes)} are free"
    return ""


def _memory(app: App) -> tuple[int, int]:
    """The limits and the reservations of an app."""
    limits = [(service.replicas, service.limits) for service in app.services]
    return (
        sum(count * each.memory_bytes for count, each in limits),
        sum(count * each.reserve_memory_bytes for count, each in limits),
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
