"""A container engine in memory: the fake of the Podman edge, deterministic and on the loop's time.

`FakePodman` is an `agent.containers.engine.Engine`.  It keeps images, networks, volumes, secrets and
containers as Podman does, reads the libpod specification that `create` gets, and has a registry to pull
from.  What a container does once it runs is said by its image (`Behaviour`).  Everything that can go
wrong is an attribute that a test sets.  Both it and Podman pass tests/contract/test_podman.py.

    podman = FakePodman()
    web = podman.publish("registry.example/web", Behaviour(healthy_after=2))
    await podman.pull(web)
    id = await podman.create({"name": "web", "image": web, "labels": {"lichen.app": "demo"}})

`calls` are all calls that change something, in order, as "create web"; `after_call` is called with each
once it has taken effect, and may raise: so an agent dies between two steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.containers.answers import pull_failure
from agent.containers.engine import LABEL_APP, Check, Container, Image, Info, Login, Thing
from agent.wire.apps import LogLine, Progress
from agent.wire.errors import LinkDown, Refused

WALL_MS = 1_700_000_000_000
KILLED = 137
CHECK_S = 30.0
FIRST_PID = 5_000_000
"""Beyond what Linux gives to a process: a test that takes one for real finds none."""


@dataclass(frozen=True)
class Behaviour:
    """What a container of an image does once it runs."""

    exits: int | None = None
    """It ends by itself with this code, ``after_s`` after its start; None: it goes on."""
    after_s: float = 0.0
    oom: bool = False
    """It is killed for its memory, ``after_s`` after its start."""
    healthy_after: int | None = 0
    """How many checks fail before they succeed; None: they never do."""
    check_s: float = 0.0
    """How long a check takes."""
    ignores_stop: bool = False
    """It ends by KILL only."""
    stop_code: int = 0
    says: tuple[str, ...] = ()
    """Its lines on stdout, at each start."""
    has_health: bool = False
    """Its image brings a healthcheck."""


@dataclass
class _Offered:
    """An image in the registry."""

    name: str
    digest: str
    behaviour: Behaviour
    architecture: str
    size_bytes: int
    layers: int
    login: Login | None
    index: bool

    @property
    def id(self) -> str:
        return hashlib.sha256(b"id" + self.digest.encode()).hexdigest()


@dataclass
class _Stored:
    image: Image
    behaviour: Behaviour


@dataclass
class FakeContainer:
    """A container, and everything that a test may want to know of it."""

    id: str
    name: str
    body: dict[str, Any]
    labels: dict[str, str]
    image_id: str
    behaviour: Behaviour
    aliases: dict[str, tuple[str, ...]]  # by network
    addresses: dict[str, str]
    files: dict[str, bytes]  # secrets by target
    phase: Literal["created", "running", "paused", "exited", "removing", "broken"] = "created"
    pid: int = 0
    waiting_pid: int = 0
    """Of its process, while that waits to be started."""
    last_pid: int = 0
    exit_code: int | None = None
    oom: bool = False
    started_ms: int | None = None
    finished_ms: int | None = None
    starts: int = 0
    begun: int = 0
    """When it was started last, by a clock that nobody sets."""
    checks: int = 0
    log: list[LogLine] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None

    @property
    def ports(self) -> Iterator[tuple[str, int, str]]:
        """What it publishes: protocol, port of the board, address of the board."""
        for each in self.body.get("portmappings") or ():
            for number in range(each.get("range") or 1):
                if each.get("host_port"):
                    yield each.get("protocol") or "tcp", each["host_port"] + number, each.get("host_ip") or ""


class FakePodman:
    """A container engine; what it runs dies with the test."""

    def __init__(self, *, architecture: str = "arm64", memory_bytes: int = 1 << 30) -> None:
        self.architecture = architecture
        self.memory_bytes = memory_bytes
        self.memory_limits = True
        self.cgroup_manager = "systemd"
        self.version = "4.3.1"
        self.storage = "/var/lib/containers/storage"
        self.free_bytes = 1 << 40
        """How much room images may still take."""
        self.call_s = 0.0
        """How long each call takes."""
        self.pull_s = 0.0
        """How long a pull takes, in steps of a layer."""
        self.tells_bytes = False
        """Whether progress of a pull is in bytes, as with Podman 5."""
        self.missing = False
        """Podman is not installed."""
        self.down = False
        """Its service does not answer."""
        self.unanswered = 0
        """How many calls it has not answered."""
        self.unaware_s = 0.0
        """How long Podman says of a container that has ended that it runs."""
        self.ending_s = 0.0
        """How long Podman takes to clean up behind a container that has ended."""
        self.greeted: list[set[str]] = []
        """To which addresses a word was sent, each time."""
        self.drops = 0
        """How many of the next calls take effect and are answered with LinkDown."""
        self.registry: Literal["up", "down", "hangs"] = "up"
        self.stall_s = 120.0
        self.pull_error = ""
        """What the next pull is told in the middle, in Podman's words (such as "unexpected EOF")."""
        self.taken: set[tuple[str, int]] = set()
        """Ports that other programs have, as ("tcp", 8080)."""
        self.on_death: Callable[[int], None] | None = None
        """Called with the pid of each container that ends."""
        self.after_call: Callable[[str], None] | None = None
        self.calls: list[str] = []
        self.by_name: dict[str, FakeContainer] = {}
        self._offered: dict[str, _Offered] = {}
        self._stored: dict[str, _Stored] = {}
        self._networks: dict[str, Thing] = {}
        self._volumes: dict[str, Thing] = {}
        self._secrets: dict[str, tuple[Thing, bytes]] = {}
        self._pulling: list[_Offered] = []
        self._numbers = itertools.count(1)
        self._killed = asyncio.Event()

    # --- for tests -----------------------------------------------------------------------------

    def publish(
        self,
        name: str,
        behaviour: Behaviour | None = None,
        *,
        tag: str = "1",
        architecture: str = "",
        size_bytes: int = 10_000_000,
        layers: int = 3,
        login: Login | None = None,
        index: bool = False,
        same_as: str = "",
    ) -> str:
        """Put an image into the registry; returns its pinned reference.

        ``index``: the digest is that of a list, in which the architecture has to be found.  ``same_as``: it
        is the image of this reference, under another name.
        """
        digest = (
            same_as.rpartition("@")[2]
            or "sha256:" + hashlib.sha256(f"{name}:{tag}:{behaviour}".encode()).hexdigest()
        )
        reference = f"{name}@{digest}"
        self._offered[reference] = _Offered(
            name,
            digest,
            behaviour or Behaviour(),
            architecture or self.architecture,
            size_bytes,
            layers,
            login,
            index,
        )
        return reference

    @property
    def pulling(self) -> list[str]:
        """What is being pulled now."""
        return [f"{offered.name}@{offered.digest}" for offered in self._pulling]

    def store(self, reference: str) -> None:
        """Have an image that was published in the store already."""
        self._store(self._offered[reference])

    def begun(self, pid: int) -> int | None:
        """When a process began, as `agent.cgroups.begun` says it."""
        return next((each.begun for each in self.by_name.values() if each.pid == pid), None)

    def lives(self, pid: int) -> bool:
        """Whether there is such a process."""
        return any(pid in (each.pid, each.waiting_pid) for each in self.by_name.values())

    def end(self, name: str, code: int = 0, *, oom: bool = False) -> None:
        """Let a container that runs end."""
        self._end(self.by_name[name], KILLED if oom else code, oom=oom)

    def say(self, name: str, text: str, stream: Literal["stdout", "stderr"] = "stdout") -> None:
        """Let a container write a line."""
        self.by_name[name].log.append(LogLine("", self._now_ms(), stream, text))

    def resolve(self, network: str, alias: str) -> list[str]:
        """The addresses that a name has on a network now."""
        return sorted(
            each.addresses[network]
            for each in self.by_name.values()
            if each.phase == "running" and alias in (*each.aliases.get(network, ()), each.name)
        )

    def kill_service(self) -> None:
        """Kill Podman's service: what it was asked fails, the next call starts it again."""
        self._killed.set()
        self._killed = asyncio.Event()

    def break_container(self, name: str) -> None:
        """Leave a container half removed, as a power cut does."""
        self._end(self.by_name[name], KILLED)
        self.by_name[name].phase = "broken"

    def break_image(self, reference: str) -> None:
        """Lose a layer of an image."""
        stored = self._find(reference)
        assert stored is not None, f"{reference} is not in the store"
        stored.image = replace(stored.image, broken=True)

    def cut_power(self) -> None:
        """End everything at once; what was being pulled stays as a broken image."""
        for offered in self._pulling:
            self._store(offered)
            self.break_image(f"{offered.name}@{offered.digest}")
        for each in self.by_name.values():
            self._end(each, KILLED, told=False)

    # --- looking -------------------------------------------------------------------------------

    async def info(self) -> Info:
        async with self._call():
            return Info(
                self.version,
                self.architecture,
                "",
                self.storage,
                self.memory_bytes,
                memory_limits=self.memory_limits,
                cgroup_manager=self.cgroup_manager,
            )

    async def containers(self) -> Sequence[Container]:
        async with self._call():
            return [self._show(each) for each in self.by_name.values() if LABEL_APP in each.labels]

    async def find_image(self, reference: str) -> Image | None:
        async with self._call():
            stored = self._find(reference)
            return None if stored is None else stored.image

    async def images(self) -> Sequence[Image]:
        async with self._call():
            return [each.image for each in self._stored.values()]

    async def networks(self) -> Sequence[Thing]:
        async with self._call():
            return list(self._networks.values())

    async def volumes(self) -> Sequence[Thing]:
        async with self._call():
            return list(self._volumes.values())

    async def secrets(self) -> Sequence[Thing]:
        async with self._call():
            return [thing for thing, _ in self._secrets.values() if LABEL_APP in thing.labels]

    # --- images --------------------------------------------------------------------------------

    async def pull(
        self,
        reference: str,
        *,
        login: Login | None = None,
        plain_http: bool = False,
        told: Callable[[Progress], None] = lambda progress: None,
    ) -> Image:
        async with self._call(f"pull {reference}"):
            if self.registry == "down":
                raise LinkDown("the registry cannot be reached: connection refused", code="registry")
            if self.registry == "hangs":
                await self._pass(self.stall_s)
                raise LinkDown(f"nothing came from the registry for {self.stall_s:g} s", code="registry")
            offered = self._offered.get(reference)
            if offered is None:
                raise Refused(f"{reference} cannot be had: manifest unknown", code="image")
            if offered.login is not None and login != offered.login:
                raise Refused(f"{reference} cannot be had: authentication required", code="denied")
            if offered.index and offered.architecture != self.architecture:
                raise Refused(
                    f"{reference} cannot be had: no image found for {self.architecture}", code="image"
                )
            await self._load(offered, told)
            stored = self._find(reference)
            assert stored is not None
            if stored.image.broken:
                raise Refused(f"{reference} lacks a layer", code="image")
            return stored.image

    async def remove_image(self, id: str, *, force: bool = False) -> None:
        async with self._call(f"remove_image {id}"):
            stored = self._find(id)
            if stored is None:
                return
            name, id = id, stored.image.id
            if name in stored.image.names and len(stored.image.names) > 1:
                names = tuple(each for each in stored.image.names if each != name)
                stored.image = replace(stored.image, names=names)
                return
            users = [each for each in self.by_name.values() if each.image_id == id]
            theirs = [each for each in users if not force or LABEL_APP not in each.labels]
            if theirs:
                raise Refused(f"the image is used by {theirs[0].name}", code="in-use")
            for each in users:
                self._forget(each)
            self.free_bytes += self._stored.pop(id).image.size_bytes

    # --- what containers need ------------------------------------------------------------------

    async def create_network(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        internal: bool = False,
        ipv6: bool = False,
        subnet: str = "",
        gateway: str = "",
    ) -> None:
        async with self._call(f"create_network {name}"):
            _refuse_taken("network", name, self._networks)
            self._networks[name] = Thing(name, dict(labels))

    async def create_volume(
        self, name: str, labels: Mapping[str, str], options: Mapping[str, str] | None = None
    ) -> None:
        async with self._call(f"create_volume {name}"):
            _refuse_taken("volume", name, self._volumes)
            self._volumes[name] = Thing(name, dict(labels))

    async def create_secret(self, name: str, content: bytes, labels: Mapping[str, str]) -> None:
        async with self._call(f"create_secret {name}"):
            _refuse_taken("secret", name, self._secrets)
            self._secrets[name] = Thing(name, dict(labels)), content

    async def remove_network(self, name: str) -> None:
        async with self._call(f"remove_network {name}"):
            for each in self.by_name.values():
                if name in each.addresses:
                    raise Refused(f"the network {name} is used by {each.name}", code="in-use")
            self._networks.pop(name, None)

    async def remove_volume(self, name: str) -> None:
        async with self._call(f"remove_volume {name}"):
            for each in self.by_name.values():
                if name in _volumes_of(each.body):
                    raise Refused(f"the volume {name} is used by {each.name}", code="in-use")
            self._volumes.pop(name, None)

    async def remove_secret(self, name: str) -> None:
        async with self._call(f"remove_secret {name}"):
            self._secrets.pop(name, None)

    # --- containers ----------------------------------------------------------------------------

    async def create(self, body: Mapping[str, Any]) -> str:
        spec = {key.lower(): value for key, value in body.items()}
        name = spec["name"]
        async with self._call(f"create {name}"):
            _refuse_taken("container", name, self.by_name)
            stored = self._find(spec["image"])
            if stored is None:
                raise Refused(f"there is no image {spec['image']}", code="not-found")
            if stored.image.broken:
                raise Refused(f"the image {spec['image']} lacks a layer", code="image")
            networks = spec.get("networks") or {}
            for network in networks:
                self._need_network(network)
            files = {}
            for given in spec.get("secrets") or ():
                secret = {key.lower(): value for key, value in given.items()}
                if secret["source"] not in self._secrets:
                    raise Refused(f"there is no secret {secret['source']}", code="not-found")
                files[secret.get("target") or secret["source"]] = self._secrets[secret["source"]][1]
            for volume in _volumes_of(spec):
                self._volumes.setdefault(volume, Thing(volume))
            number = next(self._numbers)
            container = FakeContainer(
                id=hashlib.sha256(f"{name} {number}".encode()).hexdigest(),
                name=name,
                body=spec,
                labels=dict(spec.get("labels") or {}),
                image_id=stored.image.id,
                behaviour=stored.behaviour,
                aliases={key: tuple((value or {}).get("aliases") or ()) for key, value in networks.items()},
                addresses={key: self._address(key) for key in networks},
                files=files,
            )
            self.by_name[name] = container
        return container.id

    async def init(self, id: str) -> int:
        container = self._get(id)
        async with self._call(f"init {container.name if container else id}"):
            container = self._get(id)
            if container is None or container.phase not in ("created", "exited") or container.waiting_pid:
                return 0 if container is None else container.pid or container.waiting_pid
            with contextlib.suppress(Refused):
                self._need_ports(container)
                container.waiting_pid = FIRST_PID + next(self._numbers)
            container.phase = "created" if container.waiting_pid else container.phase
            return container.waiting_pid

    async def start(self, id: str) -> None:
        container = self._get(id)
        async with self._call(f"start {container.name if container else id}"):
            container = self._need(id)
            if container.phase == "running":
                return
            if container.phase == "broken":
                self._forget(container)
                raise Refused(f"the container {container.name} is broken", code="broken")
            self._need_ports(container)
            container.phase = "running"
            container.pid = container.waiting_pid or FIRST_PID + next(self._numbers)
            container.waiting_pid = 0
            container.exit_code, container.oom, container.checks = None, False, 0
            container.started_ms, container.finished_ms = self._now_ms(), None
            container.starts += 1
            container.begun = int(asyncio.get_running_loop().time() * 1000)
            behaviour = container.behaviour
            for text in behaviour.says:
                self.say(container.name, text)
            if behaviour.exits is not None or behaviour.oom:
                code = KILLED if behaviour.oom else behaviour.exits
                container.timer = asyncio.get_running_loop().call_later(
                    behaviour.after_s, lambda: self._end(container, code, oom=behaviour.oom)
                )

    async def stop(self, id: str, grace_s: float) -> None:
        container = self._get(id)
        async with self._call(f"stop {container.name if container else id}"):
            container = self._need(id)
            if container.phase != "running":
                return
            code = container.behaviour.stop_code
            if container.behaviour.ignores_stop:
                await self._pass(grace_s)
                code = KILLED
            self._end(container, code)

    async def remove(self, id: str) -> None:
        container = self._get(id)
        async with self._call(f"remove {container.name if container else id}"):
            container = self._get(id)
            if container is not None:
                self._forget(container)

    async def check(self, id: str) -> Check:
        async with self._call():
            container = self._need(id)
            test = _test_of(container.body)
            if test == "NONE" or not (test or container.behaviour.has_health):
                raise Refused(f"{container.name} has no healthcheck", code="no-check")
            if container.phase != "running":
                raise Refused(f"{container.name} does not run", code="not-running")
            limit_s = _health_of(container.body).get("timeout", 0) / 1e9 or CHECK_S
            await self._pass(min(container.behaviour.check_s, limit_s))
            if container.behaviour.check_s > limit_s:
                return Check(False, f"it did not end within {limit_s:g} s")
            container.checks += 1
            after = container.behaviour.healthy_after
            healthy = after is not None and container.checks > after
            return Check(healthy, "" if healthy else "not yet")

    async def connect(self, network: str, id: str, aliases: Sequence[str]) -> None:
        container = self._get(id)
        async with self._call(f"connect {network} {container.name if container else id}"):
            container = self._need(id)
            self._need_network(network)
            if network in container.addresses:
                raise Refused(f"{container.name} is on the network {network}", code="exists")
            container.addresses[network] = self._address(network)
            container.aliases[network] = tuple(aliases)

    async def disconnect(self, network: str, id: str) -> None:
        container = self._get(id)
        async with self._call(f"disconnect {network} {container.name if container else id}"):
            container = self._need(id)
            self._need_network(network)
            container.addresses.pop(network, None)
            container.aliases.pop(network, None)

    async def greet(self, addresses: Collection[str]) -> None:
        self.greeted.append(set(addresses))

    async def leave(self, network: str, id: str) -> None:
        container = self._get(id)
        async with self._call(f"leave {network} {container.name if container else id}"):
            container = self._need(id)
            self._need_network(network)
            if network in container.aliases:
                container.aliases[network] = ()

    async def logs(
        self, id: str, *, tail: int | None = None, since_ms: int | None = None
    ) -> Sequence[LogLine]:
        async with self._call():
            lines = self._need(id).log
            if since_ms is not None:
                lines = [line for line in lines if (line.at_ms or 0) >= since_ms]
            return lines[len(lines) - tail if tail is not None and tail < len(lines) else 0 :]

    # --- inside --------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _call(self, changes: str = "") -> AsyncIterator[None]:
        """One call: its time, whether it is answered at all, and that it is told."""
        if self.missing:
            raise LinkDown(
                "Podman is not installed", code="podman-missing", hint="run: apt-get install podman"
            )
        self._be_up()
        await self._pass(self.call_s)
        self._be_up()
        if changes:
            self.calls.append(changes)
        yield
        if self.drops:
            self.drops -= 1
            raise LinkDown("Podman closed the connection", code="podman-down")
        if changes and self.after_call is not None:
            self.after_call(changes)

    def _be_up(self) -> None:
        if self.down:
            self.unanswered += 1
            raise LinkDown("Podman does not answer", code="podman-down")

    async def _pass(self, seconds: float) -> None:
        """Let time pass, in which the service may be killed."""
        if seconds <= 0:
            return await asyncio.sleep(0)
        killed = self._killed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await killed.wait()
        if killed.is_set():
            raise LinkDown("Podman closed the connection", code="podman-down")

    async def _load(self, offered: _Offered, told: Callable[[Progress], None]) -> None:
        unit: Literal["By", "layers"] = "By" if self.tells_bytes else "layers"
        total = offered.size_bytes if self.tells_bytes else offered.layers
        self._pulling.append(offered)
        try:
            for layer in range(offered.layers):
                await self._pass(self.pull_s / offered.layers)
                self._be_up()
                told(Progress(total * (layer + 1) // offered.layers, total, unit))
                if self.pull_error and layer == offered.layers // 2:
                    reason, self.pull_error = self.pull_error, ""
                    raise pull_failure(f"{offered.name}@{offered.digest}", reason)
                if offered.size_bytes > self.free_bytes and offered.id not in self._stored:
                    raise Refused(f"no room for {offered.name}: no space left on device", code="no-space")
        finally:
            self._pulling.remove(offered)
        self._store(offered)

    def _store(self, offered: _Offered) -> None:
        name = f"{offered.name}@{offered.digest}"
        if (stored := self._stored.get(offered.id)) is not None:
            if name not in stored.image.names:
                stored.image = replace(stored.image, names=(*stored.image.names, name))
            return
        image = Image(
            id=offered.id,
            names=(name,),
            size_bytes=offered.size_bytes,
            architecture=offered.architecture,
            has_health=offered.behaviour.has_health,
        )
        self._stored[offered.id] = _Stored(image, offered.behaviour)
        self.free_bytes -= offered.size_bytes

    def _find(self, reference: str) -> _Stored | None:
        for id, stored in self._stored.items():
            if reference in stored.image.names or reference == id:
                return stored
        return None

    def _get(self, id: str) -> FakeContainer | None:
        return next((each for each in self.by_name.values() if id in (each.id, each.name)), None)

    def _need(self, id: str) -> FakeContainer:
        container = self._get(id)
        if container is None:
            raise Refused(f"there is no container {id}", code="not-found")
        return container

    def _need_network(self, name: str) -> None:
        if name not in self._networks:
            raise Refused(f"there is no network {name}", code="not-found")

    def _need_ports(self, container: FakeContainer) -> None:
        others = {
            (protocol, port)
            for each in self.by_name.values()
            if each is not container and (each.phase == "running" or each.waiting_pid)
            for protocol, port, _ in each.ports
        }
        for protocol, port, _ in container.ports:
            if (protocol, port) in others | self.taken:
                raise Refused(f"port {port}/{protocol} is taken", code="port-taken")

    def _address(self, network: str) -> str:
        place = sorted(self._networks).index(network)
        return f"10.89.{place}.{next(self._numbers) % 250 + 2}"

    def _end(
        self, container: FakeContainer, code: int | None, *, oom: bool = False, told: bool = True
    ) -> None:
        if container.timer is not None:
            container.timer.cancel()
            container.timer = None
        container.waiting_pid = 0
        if container.phase != "running":
            return
        pid, container.pid = container.pid, 0
        container.last_pid = pid
        container.phase, container.exit_code, container.oom = "exited", code, oom
        container.finished_ms = self._now_ms()
        if told and self.on_death is not None:
            self.on_death(pid)

    def _forget(self, container: FakeContainer) -> None:
        self._end(container, KILLED)
        self.by_name.pop(container.name, None)

    def _show(self, container: FakeContainer) -> Container:
        ended_ms = container.finished_ms if container.phase == "exited" else None
        if ended_ms is not None and self._now_ms() < ended_ms + self.unaware_s * 1000:
            shown = replace(container, phase="running", pid=container.last_pid, exit_code=None, oom=False)
            return self._show(replace(shown, finished_ms=None))
        is_ending = ended_ms is not None and self._now_ms() < ended_ms + self.ending_s * 1000
        return Container(
            id=container.id,
            name=container.name,
            labels=dict(container.labels),
            phase="ending" if is_ending else container.phase,
            image_id=container.image_id,
            image=container.body["image"],
            pid=container.pid,
            exit_code=container.exit_code,
            oom=container.oom,
            started_ms=container.started_ms,
            finished_ms=container.finished_ms,
            networks=dict(container.addresses)
            if container.phase == "running"
            else dict.fromkeys(container.addresses, ""),
        )

    def _now_ms(self) -> int:
        return WALL_MS + int(asyncio.get_running_loop().time() * 1000)


def _refuse_taken(kind: str, name: str, there: Mapping[str, object]) -> None:
    if name in there:
        raise Refused(f"there is a {kind} {name} already", code="exists")


def _volumes_of(body: Mapping[str, Any]) -> list[str]:
    """The names of the volumes in a specification."""
    named = [{key.lower(): value for key, value in each.items()} for each in body.get("volumes") or ()]
    return [each["name"] for each in named]


def _health_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The healthcheck of a specification, its keys in small letters."""
    return {key.lower(): value for key, value in (body.get("healthconfig") or {}).items()}


def _test_of(body: Mapping[str, Any]) -> str:
    """The first word of a specification's healthcheck."""
    test = _health_of(body).get("test") or [""]
    return str(test[0])
