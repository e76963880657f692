"""Looking: what Podman has, in as few questions as will do, and what the machine says before an update.

`agent.containers.reconcile` looks before each step.  A quick look asks for the containers alone; a full
one also for what they are made with, and for the images that are named.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.containers import ports
from agent.containers.engine import LABEL_APP, Container, Engine, Image
from agent.containers.policy import Policy
from agent.containers.preflight import Facts
from agent.containers.routes import Route
from agent.wire.errors import Refused
from agent.wire.order import App

MEMINFO = Path("/proc/meminfo")
Labels = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Look:
    """What is there; all but the containers may be as of an earlier look."""

    containers: tuple[Container, ...] = ()
    images: Mapping[str, Image] = field(default_factory=dict)
    networks: Labels = field(default_factory=dict)
    volumes: Labels = field(default_factory=dict)
    secrets: Labels = field(default_factory=dict)


async def quick(engine: Engine, before: Look) -> Look:
    """The containers of now.  Raises LinkDown."""
    return replace(before, containers=tuple(await engine.containers()))


async def full(engine: Engine, references: Iterable[str]) -> Look:
    """Everything of now; of images those that are named.  Raises LinkDown."""
    found = {reference: await engine.find_image(reference) for reference in sorted(set(references))}
    return Look(
        tuple(await engine.containers()),
        {reference: image for reference, image in found.items() if image is not None},
        {thing.name: thing.labels for thing in await engine.networks()},
        {thing.name: thing.labels for thing in await engine.volumes()},
        {thing.name: thing.labels for thing in await engine.secrets()},
    )


async def facts(engine: Engine, look: Look, others: Iterable[App], routes: Iterable[Route]) -> Facts:
    """What the verdicts before an update are about; the proxy serves ``routes``.  Raises LinkDown."""
    info = await engine.info()
    known = {name: image for image in await engine.images() for name in image.names}
    running = [each for each in look.containers if each.phase in ("running", "paused")]
    return Facts(
        info,
        free_bytes(Path(info.storage)),
        memory_free_bytes(),
        known | {name: image for name, image in look.images.items() if not image.broken},
        tuple(others),
        tuple((each.labels[LABEL_APP], each.labels) for each in running),
        look.volumes,
        look.networks,
        os.path.exists,
        os.path.realpath,
        _port_refusal,
        tuple((route.app, route.host_ip, route.port) for route in routes),
    )


def _port_refusal(host_ip: str, port: int, protocol: str) -> Refused | None:
    return ports.refusal(host_ip, port, "udp" if protocol == "udp" else "tcp")


def free_bytes(folder: Path) -> int | None:
    """What is free on the disk of a folder that we may not be let into; None when it cannot be told."""
    for place in (folder, *folder.parents):
        try:
            disk = os.statvfs(place)
        except OSError:
            continue
        return disk.f_bavail * disk.f_frsize
    return None


def memory_free_bytes(path: Path = MEMINFO) -> int | None:
    """What programs could have now, by the kernel's own estimate (proc(5), MemAvailable)."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def is_locked(policy: Policy) -> bool:
    """Whether somebody works on the board and wants nothing changed."""
    return policy.lock_file.exists()


def references(apps: Iterable[App | None]) -> frozenset[str]:
    """The images of manifests."""
    return frozenset(service.image for app in apps if app is not None for service in app.services)
