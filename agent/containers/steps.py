"""The steps that `agent.containers.plan` takes an app by.

Values.  `agent.containers.worker` does them; ``words`` is what the report says of one while it is done.
A step is safe to be done twice: whoever died in the middle of one looks again and goes on from what is
there.

>>> Pull("registry.example/web@sha256:" + "0" * 64, "web").words
'pulling the image of web'
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.wire.order import Config, Network, Secret, Volume


@dataclass(frozen=True, slots=True)
class Pull:
    """Have the image of a service."""

    reference: str
    service: str

    @property
    def words(self) -> str:
        return f"pulling the image of {self.service}"


@dataclass(frozen=True, slots=True)
class RemoveImage:
    """Let go of an image that lacks a layer, with whatever was made of it."""

    reference: str

    @property
    def words(self) -> str:
        return f"removing {self.reference.partition('@')[0]}, which lacks a layer"


@dataclass(frozen=True, slots=True)
class CreateNetwork:
    """Make a network."""

    network: Network

    @property
    def words(self) -> str:
        return f"making the network {self.network.name}"


@dataclass(frozen=True, slots=True)
class CreateVolume:
    """Make a volume."""

    volume: Volume

    @property
    def words(self) -> str:
        return f"making the volume {self.volume.name}"


@dataclass(frozen=True, slots=True)
class CreateSecret:
    """Unseal a secret, or take a config, and give it to Podman as ``name``."""

    name: str
    source: Secret | Config

    @property
    def words(self) -> str:
        return f"making {self.source.name}"


@dataclass(frozen=True, slots=True)
class Create:
    """Make a container, not started.  ``bare``: others serve, so it has no aliases yet."""

    name: str
    service: str
    slot: int
    bare: bool = False

    @property
    def words(self) -> str:
        return f"making {self.name}"


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container."""

    name: str
    service: str

    @property
    def words(self) -> str:
        return f"starting {self.name}"


@dataclass(frozen=True, slots=True)
class Switch:
    """Let a container that was made bare serve: give it the aliases of its service."""

    name: str
    service: str

    @property
    def words(self) -> str:
        return f"switching {self.service} to {self.name}"


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a container; ``drain``: when its connections have ended, or ``grace_ms`` have passed.

    ``leave``: the networks on which others of its service answer, so that it gives up its names there
    first.  ``unwell``: because its healthcheck fails, which counts as an end of its own.
    """

    name: str
    service: str
    grace_ms: int
    drain: bool = False
    unwell: bool = False
    leave: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return f"stopping {self.name}"


@dataclass(frozen=True, slots=True)
class StopAll:
    """Stop several containers at the same time: none of them needs another."""

    stops: tuple[Stop, ...]

    @property
    def words(self) -> str:
        return f"stopping {', '.join(stop.name for stop in self.stops)}"


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a container; its volumes stay."""

    name: str

    @property
    def words(self) -> str:
        return f"removing {self.name}"


@dataclass(frozen=True, slots=True)
class RemoveNetwork:
    """Remove a network that nobody needs any more."""

    name: str

    @property
    def words(self) -> str:
        return f"removing the network {self.name}"


@dataclass(frozen=True, slots=True)
class RemoveSecret:
    """Remove a secret or config that nobody needs any more."""

    name: str

    @property
    def words(self) -> str:
        return f"removing the secret {self.name}"


@dataclass(frozen=True, slots=True)
class RemoveVolume:
    """Remove a volume and what is in it: somebody asked for that."""

    name: str

    @property
    def words(self) -> str:
        return f"removing the volume {self.name}"


@dataclass(frozen=True, slots=True)
class Accept:
    """The revision is good: it is what to go back to from now on."""

    revision: int

    @property
    def words(self) -> str:
        return f"accepting revision {self.revision}"


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The revision is not good: ``reason`` says why, ``name`` is the container that shows it."""

    step: str
    reason: str
    code: str
    service: str = ""
    name: str = ""
    hint: str = ""

    @property
    def words(self) -> str:
        return self.step


@dataclass(frozen=True, slots=True)
class Await:
    """Nothing to be done until something changes; at the latest at ``until_ms`` of the monotonic clock."""

    reason: str
    until_ms: int | None = None

    @property
    def words(self) -> str:
        return self.reason


Step = (
    Pull
    | RemoveImage
    | CreateNetwork
    | CreateVolume
    | CreateSecret
    | Create
    | Start
    | Switch
    | Stop
    | StopAll
    | Remove
    | RemoveNetwork
    | RemoveSecret
    | RemoveVolume
    | Accept
    | GiveUp
    | Await
)


def together(stops: Sequence[Stop]) -> Iterator[Stop | StopAll]:
    """One step that does all of them, if there are any."""
    if len(stops) > 1:
        yield StopAll(tuple(stops))
    else:
        yield from stops


def concerned(step: Step | None) -> frozenset[str]:
    """The names of the containers that a step is about."""
    if isinstance(step, StopAll):
        return frozenset(stop.name for stop in step.stops)
    return frozenset({getattr(step, "name", "")})
