"""The Podman edge: what the rest of the agent asks of a container engine, and what it is told.

`agent.containers.podman` is the real one, tests/fakes/podman.py stands in for it, and both pass
tests/contract/test_podman.py.  Nothing here decides anything: `agent.containers.plan` says what is to
be done, `agent.containers.spec` what a container is made like.

Every call returns within its own time limit.  All of them raise LinkDown when Podman does not answer
(code "podman-down"; "podman-missing" when it is not installed), and Refused with a code when it says
no: "not-found", "exists", "in-use", "port-taken", "no-space", "image" (it cannot be had), "denied",
"not-running", "broken", and "engine" for whatever else.  Making what is there is Refused ("exists"),
removing what is not there is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from agent.wire.apps import LogLine, Progress

LABEL_APP = "lichen.app"
"""Of whatever we made: which app it belongs to.  What does not have it is none of our business."""

ContainerPhase = Literal["created", "running", "paused", "ending", "exited", "removing", "broken"]


@dataclass(frozen=True, slots=True)
class Info:
    """The engine and what it stands on.  ``arch`` as images name it ("arm64"), sizes in bytes."""

    version: str
    arch: str
    variant: str
    storage: str
    memory_bytes: int
    rootless: bool = False
    memory_limits: bool = True  # whether the kernel has a memory controller for containers
    cgroup_manager: str = ""  # who makes the cgroups of containers: "systemd" or "cgroupfs"


@dataclass(frozen=True, slots=True)
class Container:
    """One container with our label.  ``networks``: its address on each; ``pid`` 0 unless it runs.
    ``image``: the reference that it was made from.

    "ending": its process has ended, and Podman has yet to take its network away: whatever is started on
    that network meanwhile may lose it, too.
    "broken": Podman lists it, and cannot say what it is (a power cut does that): only `remove` helps.
    """

    id: str
    name: str
    labels: Mapping[str, str]
    phase: ContainerPhase
    image_id: str = ""
    image: str = ""
    pid: int = 0
    exit_code: int | None = None
    oom: bool = False
    started_ms: int | None = None
    finished_ms: int | None = None
    networks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the store; ``names`` are its references, with tag or digest.

    ``architecture`` as in Info; ``broken``: a layer is missing, it must be removed and pulled again.
    """

    id: str
    names: tuple[str, ...]
    size_bytes: int
    architecture: str = ""
    broken: bool = False
    has_health: bool = False


@dataclass(frozen=True, slots=True)
class Thing:
    """A network, volume or secret: its name and labels."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """What a healthcheck found when it was run now."""

    healthy: bool
    output: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """Who pulls, in the clear: it lives for one call."""

    user: str
    password: str = field(repr=False)


class Engine(Protocol):
    """A container engine.  Safe to be used by several tasks of one loop."""

    # --- looking

    async def info(self) -> Info: ...

    async def containers(self) -> Sequence[Container]:
        """Those with LABEL_APP, in no order."""

    async def find_image(self, reference: str) -> Image | None:
        """The image of a pinned reference, None when it is not in the store."""

    async def images(self) -> Sequence[Image]: ...

    async def networks(self) -> Sequence[Thing]:
        """All of them: a shared network may have been made by hand."""

    async def volumes(self) -> Sequence[Thing]: ...

    async def secrets(self) -> Sequence[Thing]:
        """Those with LABEL_APP."""

    # --- images

    async def pull(
        self,
        reference: str,
        *,
        login: Login | None = None,
        plain_http: bool = False,
        told: Callable[[Progress], None] = lambda progress: None,
    ) -> Image:
        """Pull a pinned image, and verify that it is there and whole.

        ``told`` is called from the loop as it goes on.  Raises Refused (code "image" with what the
        registry said, "denied", "no-space"), LinkDown (code "registry") when nothing came for two
        minutes or the registry cannot be reached.
        """

    async def remove_image(self, id: str, *, force: bool = False) -> None:
        """Remove an image; given one of several names, only that.

        ``force`` (by its id): with the containers that were made of it; Refused (code "in-use") all the same
        when any of them is not ours.
        """

    # --- what containers need

    async def create_network(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        internal: bool = False,
        ipv6: bool = False,
        subnet: str = "",
        gateway: str = "",
    ) -> None: ...

    async def create_volume(
        self, name: str, labels: Mapping[str, str], options: Mapping[str, str] | None = None
    ) -> None: ...

    async def create_secret(self, name: str, content: bytes, labels: Mapping[str, str]) -> None: ...

    async def remove_network(self, name: str) -> None: ...

    async def remove_volume(self, name: str) -> None: ...

    async def remove_secret(self, name: str) -> None: ...

    # --- containers

    async def create(self, body: Mapping[str, Any]) -> str:
        """Make a container from a libpod specification (`agent.containers.spec`).  Returns its id."""

    async def init(self, id: str) -> int:
        """Make its first process, which waits for `start`; returns its pid.

        That of the one that runs already; 0 when there is none, and `start` says why.  It is ended when
        Podman comes late to clean up behind an earlier run: `start` makes another one then.
        """

    async def start(self, id: str) -> None:
        """Start it; no error when it runs already.

        Refused (code "broken") when a crash of Podman has left it so that it never will: it is removed then.
        """

    async def stop(self, id: str, grace_s: float) -> None:
        """Stop it: its signal, then KILL after ``grace_s``.  No error when it does not run."""

    async def remove(self, id: str) -> None:
        """Remove it by force, with its anonymous volumes; no error when it is not there."""

    async def check(self, id: str) -> Check:
        """Run its healthcheck; Refused (code "no-check") when it has none.

        One that takes longer than it says itself has failed.  That time begins when it does: it may have
        to wait for others first.
        """

    async def connect(self, network: str, id: str, aliases: Sequence[str]) -> None:
        """Put it on one more network; Refused (code "exists") when it is on that."""

    async def disconnect(self, network: str, id: str) -> None:
        """Take it off a network; no error when it is not on it."""

    async def greet(self, addresses: Collection[str]) -> None:
        """Let the containers at these addresses learn anew how the board is reached.

        Whenever one comes or goes, those that stay may have lost the way: `agent.containers.greeting`.
        """

    async def leave(self, network: str, id: str) -> None:
        """Take its aliases on a network from a container that runs, and leave it its address.

        Who is connected to it stays so.  The address is bound to it until it is connected anew.
        """

    async def logs(
        self, id: str, *, tail: int | None = None, since_ms: int | None = None
    ) -> Sequence[LogLine]:
        """Lines that are there now; ``container`` of each is empty.  Never follows.

        Podman 4 tells times in whole seconds, and ``since_ms`` counts in those: from its second on.
        """
