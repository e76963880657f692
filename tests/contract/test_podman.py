"""What the agent relies on of a container engine: run against Podman and against the fake.

Images, and what goes wrong on the way to them, come from a `Kit`: for Podman it has a real registry and
a door to it that misbehaves, for the fake it sets what the fake is to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from agent.containers.engine import LABEL_APP, Container, Engine, Login, Thing
from agent.containers.names import secret_name
from agent.containers.podman import Podman
from agent.wire.apps import Progress
from agent.wire.errors import LichenError, LinkDown, Refused
from fakes.podman import Behaviour, FakePodman
from support.broker import free_port
from support.podman import Stand, stand, until
from support.registry import PASSWORD, USER, Door, Fault, machine, registry

RUNS = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
LATE = "echo x >>/tmp/asked; [ $(wc -l </tmp/asked) -gt 2 ]"

# What the images do: the command, the healthcheck that they bring; and the same for the fake.
KINDS: dict[str, tuple[str, str, Behaviour]] = {
    "runs": (RUNS, "", Behaviour()),
    "ends": ("echo out; echo err >&2; exit 3", "", Behaviour(exits=3, says=("out",))),
    "stubborn": ("trap '' TERM; while :; do sleep 0.05; done", "", Behaviour(ignores_stop=True)),
    "talks": (f"seq 1 20; {RUNS}", "", Behaviour(says=tuple(str(n) for n in range(1, 21)))),
    "well": (RUNS, "true", Behaviour(has_health=True)),
    "sick": (RUNS, "echo bad; false", Behaviour(has_health=True, healthy_after=None)),
    "slow": (RUNS, "", Behaviour(check_s=1.2)),
    "dozes": (RUNS, "", Behaviour(check_s=20)),
    "late": (RUNS, LATE, Behaviour(has_health=True, healthy_after=2)),
}

TROUBLES: dict[str, str] = {"cut": "unexpected EOF", "mangle": "Digest did not match", "fail": "status: 503"}
"""What Podman says of them."""

LOGIN = Login(USER, PASSWORD)


class Kit(Protocol):
    """An engine, images for it, and what a test may do to both."""

    engine: Engine
    architecture: str

    def image(self, kind: str) -> str: ...
    def twins(self) -> tuple[str, str]: ...
    def foreign_image(self) -> str: ...
    def foreign_list(self) -> str: ...
    def private_image(self) -> str: ...
    def troubled(self, fault: str) -> str: ...
    async def until_troubled(self) -> None: ...
    def heal(self) -> None: ...
    def break_image(self, reference: str) -> None: ...
    def kill_service(self) -> None: ...
    def clean_up_late(self, name: str) -> None: ...
    def name(self) -> str: ...
    def resolve(self, name: str, network: str, alias: str) -> list[str]: ...
    def look(self, name: str, target: str) -> tuple[bytes, int, int]: ...
    def small_disk(self) -> contextlib.AbstractAsyncContextManager[Engine]: ...


class Fake:
    def __init__(self) -> None:
        self.podman = FakePodman(architecture="arm64")
        self.podman.stall_s = 1
        self.engine: Engine = self.podman
        self.architecture = "arm64"
        self._named = 0

    def name(self) -> str:
        self._named += 1
        return f"app-{self._named}"

    def image(self, kind: str) -> str:
        return self.podman.publish(f"registry.example/{kind}", KINDS[kind][2])

    def twins(self) -> tuple[str, str]:
        one = self.podman.publish("registry.example/twin")
        return one, self.podman.publish("registry.example/twin2", same_as=one)

    def foreign_image(self) -> str:
        return self.podman.publish("registry.example/foreign", architecture="riscv64")

    def foreign_list(self) -> str:
        return self.podman.publish("registry.example/listed", architecture="riscv64", index=True)

    def private_image(self) -> str:
        return self.podman.publish("registry.example/private", login=LOGIN)

    def troubled(self, fault: str) -> str:
        if fault in ("down", "hang"):
            self.podman.registry = "down" if fault == "down" else "hangs"
        elif fault == "slow":
            self.podman.pull_s = 30
        else:
            self.podman.pull_error = TROUBLES[fault]
        return self.podman.publish("registry.example/troubled")

    async def until_troubled(self) -> None:
        await until(self._is_pulling)

    def heal(self) -> None:
        self.podman.pull_s = 0

    async def _is_pulling(self) -> bool:
        return bool(self.podman.pulling)

    def break_image(self, reference: str) -> None:
        self.podman.break_image(reference)

    def kill_service(self) -> None:
        self.podman.kill_service()

    def clean_up_late(self, name: str) -> None:
        self.podman.by_name[name].waiting_pid = 0

    def resolve(self, name: str, network: str, alias: str) -> list[str]:
        return self.podman.resolve(network, alias)

    def look(self, name: str, target: str) -> tuple[bytes, int, int]:
        container = self.podman.by_name[name]
        [given] = [each for each in container.body["secrets"] if each["target"] == target]
        return container.files[target], given["mode"], given["uid"]

    @asynccontextmanager
    async def small_disk(self) -> AsyncIterator[Engine]:
        self.podman.free_bytes = 1000
        yield self.podman


class Real:
    def __init__(self, stand: Stand, private: Any, door: Door, engine: Podman) -> None:
        self.stand, self.private, self.door = stand, private, door
        self.podman = engine
        self.engine: Engine = engine
        self.architecture = machine()

    def name(self) -> str:
        return self.stand.app("c")

    def image(self, kind: str) -> str:
        command, health, _ = KINDS[kind]
        test = ["CMD-SHELL", health] if health else []
        return self.stand.registry.push(kind, command=["sh", "-c", command], health=test)

    def twins(self) -> tuple[str, str]:
        one, two = (self.stand.registry.push(name, command=["twin"]) for name in ("twin", "twin2"))
        return one, two

    def foreign_image(self) -> str:
        return self.stand.registry.push("foreign", architecture="riscv64")

    def foreign_list(self) -> str:
        return self.stand.registry.push_list("foreign", {"riscv64": self.foreign_image()})

    def private_image(self) -> str:
        reference: str = self.private.push("private")
        return reference

    def troubled(self, fault: str) -> str:
        # A layer that is in the store already would not be asked for.
        reference = self.stand.registry.push("troubled", files={"noise": os.urandom(300_000)})
        if fault == "down":
            return reference.replace(self.stand.registry.address, f"127.0.0.1:{free_port()}")
        faults: dict[str, Fault] = {
            "hang": "hang",
            "slow": "hang",
            "cut": "cut",
            "mangle": "mangle",
            "fail": "fail",
        }
        self.door.fault = faults[fault]
        return self.door.through(reference)

    async def until_troubled(self) -> None:
        await asyncio.to_thread(self.door.reached.wait, 10)

    def heal(self) -> None:
        self.door.fault = ""

    def break_image(self, reference: str) -> None:
        self.stand.lose_layer(reference)

    def kill_service(self) -> None:
        self.stand.kill_service(self.podman)

    def clean_up_late(self, name: str) -> None:
        self.stand.podman("container", "cleanup", name)

    def resolve(self, name: str, network: str, alias: str) -> list[str]:
        said = self.stand.podman("exec", name, "sh", "-c", f"nslookup {alias} || true")
        answers = [line.split()[-1] for line in said.splitlines() if line.startswith("Address")]
        return sorted(set(answers[1:]))  # the first is who answers

    def look(self, name: str, target: str) -> tuple[bytes, int, int]:
        said = self.stand.podman("exec", name, "stat", "-c", "%a %u", target).split()
        content = self.stand.podman("exec", name, "cat", target)
        return content.encode(), int(said[0], 8), int(said[1])

    @asynccontextmanager
    async def small_disk(self) -> AsyncIterator[Engine]:
        small = self.stand.folder / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
        try:
            other = Stand(small, self.stand.registry)
            try:
                async with other.engine() as engine:
                    yield engine
            finally:
                other.close()
        finally:
            subprocess.run(["umount", str(small)], check=True)


@pytest.fixture(scope="module")
def real() -> Iterator[tuple[Stand, Any, Path]]:
    with stand() as made, registry(made.folder / "private", login=True) as private:
        yield made, private, made.folder


@pytest.fixture(params=["fake", "podman"])
async def kit(request: pytest.FixtureRequest) -> AsyncIterator[Kit]:
    if request.param == "fake":
        yield Fake()
        return
    made, private, _ = request.getfixturevalue("real")
    with Door(made.registry) as door:
        async with made.engine(stall_s=1) as engine:
            yield Real(made, private, door, engine)
        made.clear()


def body(name: str, image: str, **more: Any) -> dict[str, Any]:
    """The specification of a container."""
    labels = {"lichen.app": name, "lichen.service": "web"}
    networks = {"netns": {"nsmode": "bridge"}} if "networks" in more else {"netns": {"nsmode": "none"}}
    return {"name": name, "image": image, "labels": labels, **networks, **more}


async def pulled(kit: Kit, kind: str) -> str:
    """An image of a kind, in the store."""
    reference = kit.image(kind)
    await kit.engine.pull(reference, plain_http=True)
    return reference


async def running(kit: Kit, kind: str = "runs", **more: Any) -> str:
    """The name of a container that was started."""
    name = kit.name()
    await kit.engine.create(body(name, await pulled(kit, kind), **more))
    await kit.engine.start(name)
    return name


async def find(kit: Kit, name: str) -> Container:
    [found] = [each for each in await kit.engine.containers() if each.name == name]
    return found


async def ended(kit: Kit, name: str) -> Container:
    """The container once it has ended."""

    async def look() -> Container | None:
        found = await find(kit, name)
        return found if found.phase == "exited" else None

    result: Container = await until(look)
    return result


@contextlib.contextmanager
def refused(code: str, match: str = ".", kind: type[LichenError] = Refused) -> Iterator[None]:
    with pytest.raises(kind, match=match) as caught:
        yield
    assert caught.value.code == code


def names(things: Sequence[Thing]) -> set[str]:
    return {thing.name for thing in things}


# --- the engine ------------------------------------------------------------------------------------


async def test_it_says_what_it_is(kit: Kit) -> None:
    info = await kit.engine.info()
    assert info.version.split(".")[0].isdigit()
    assert info.arch == kit.architecture
    assert info.memory_bytes > 1 << 20
    assert info.storage.startswith("/")
    assert info.memory_limits
    assert not info.rootless


# --- pulls -----------------------------------------------------------------------------------------


async def test_a_pull_brings_the_image_that_was_pinned(kit: Kit) -> None:
    reference = kit.image("well")
    assert await kit.engine.find_image(reference) is None
    image = await kit.engine.pull(reference, plain_http=True)
    assert reference in image.names
    assert (image.architecture, image.has_health, image.broken) == (kit.architecture, True, False)
    assert image.size_bytes > 100_000
    assert await kit.engine.find_image(reference) == image
    assert image in await kit.engine.images()
    assert await kit.engine.pull(reference, plain_http=True) == image
    await kit.engine.remove_image(image.id)
    assert await kit.engine.find_image(reference) is None
    await kit.engine.remove_image(image.id)


async def test_an_image_says_its_architecture(kit: Kit) -> None:
    image = await kit.engine.pull(kit.foreign_image(), plain_http=True)
    assert image.architecture == "riscv64"


async def test_a_list_without_this_architecture_is_refused(kit: Kit) -> None:
    with refused("image", "no image found"):
        await kit.engine.pull(kit.foreign_list(), plain_http=True)


async def test_what_the_registry_does_not_have_is_refused(kit: Kit) -> None:
    reference = kit.image("runs").rpartition("@")[0] + "@sha256:" + "0" * 64
    with refused("image", "manifest unknown"):
        await kit.engine.pull(reference, plain_http=True)
    assert await kit.engine.find_image(reference) is None


async def test_a_private_image_takes_a_login(kit: Kit) -> None:
    reference = kit.private_image()
    for login in (None, Login(USER, "wrong")):
        with refused("denied"):
            await kit.engine.pull(reference, plain_http=True, login=login)
    image = await kit.engine.pull(reference, plain_http=True, login=LOGIN)
    assert reference in image.names


async def test_a_registry_that_is_down_is_told_from_one_that_says_no(kit: Kit) -> None:
    with refused("registry", kind=LinkDown):
        await kit.engine.pull(kit.troubled("down"), plain_http=True)


@pytest.mark.parametrize(
    ("fault", "code", "kind"),
    [("cut", "registry", LinkDown), ("fail", "registry", LinkDown), ("mangle", "image", Refused)],
)
async def test_a_pull_that_goes_wrong_leaves_no_image(
    kit: Kit, fault: str, code: str, kind: type[LichenError]
) -> None:
    reference = kit.troubled(fault)
    with refused(code, kind=kind):
        await kit.engine.pull(reference, plain_http=True)
    assert await kit.engine.find_image(reference) is None


async def test_a_pull_without_a_word_is_given_up(kit: Kit) -> None:
    with refused("registry", "for 1 s", kind=LinkDown):
        await kit.engine.pull(kit.troubled("hang"), plain_http=True)


async def test_a_pull_can_be_cancelled_and_blocks_nobody(kit: Kit) -> None:
    reference = kit.troubled("slow")
    for _ in range(5):  # more than there are threads for pulls
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await kit.engine.pull(reference, plain_http=True)
    async with asyncio.timeout(5):
        await kit.engine.remove_volume("nothing")
    assert await kit.engine.find_image(reference) is None


async def test_a_pull_for_which_there_is_no_room_is_refused(kit: Kit) -> None:
    reference = kit.image("runs")
    async with kit.small_disk() as engine:
        with refused("no-space"):
            await engine.pull(reference, plain_http=True)
        assert await engine.find_image(reference) is None


async def test_how_far_a_pull_is_is_told_from_the_loop(kit: Kit) -> None:
    loop = asyncio.get_running_loop()
    came: list[Progress] = []

    def told(progress: Progress) -> None:
        assert asyncio.get_running_loop() is loop
        came.append(progress)

    await kit.engine.pull(kit.image("runs"), plain_http=True, told=told)
    assert all(progress.unit == "layers" for progress in came)
    assert [progress.done for progress in came] == sorted(progress.done for progress in came)


async def test_an_image_that_lacks_a_layer_is_broken_until_it_is_pulled_again(kit: Kit) -> None:
    reference = await pulled(kit, "late")
    kit.break_image(reference)
    assert any(image.broken for image in await kit.engine.images())
    with refused("image"):
        await kit.engine.create(body(kit.name(), reference))
    image = await kit.engine.find_image(reference)
    assert image is not None
    assert image.broken
    assert await kit.engine.find_image("registry.example/another@sha256:" + "0" * 64) is None
    await kit.engine.remove_image(image.id, force=True)
    assert await kit.engine.find_image(reference) is None
    assert not (await kit.engine.pull(reference, plain_http=True)).broken


async def test_an_image_in_use_stays(kit: Kit) -> None:
    name = await running(kit)
    image = (await find(kit, name)).image_id
    with refused("in-use"):
        await kit.engine.remove_image(image)


async def test_an_image_goes_by_force_with_our_containers_and_with_nobody_elses(kit: Kit) -> None:
    reference, name, theirs = await pulled(kit, "late"), kit.name(), kit.name()
    id = await kit.engine.create(body(name, reference))
    await kit.engine.create(body(theirs, reference) | {"labels": {}})
    image = await kit.engine.find_image(reference)
    assert image is not None
    with refused("in-use"):
        await kit.engine.remove_image(image.id, force=True)
    assert (await find(kit, name)).id == id
    await kit.engine.remove(theirs)
    await kit.engine.remove_image(image.id, force=True)
    assert await kit.engine.find_image(reference) is None


async def test_an_image_of_several_names_loses_the_one_that_is_removed(kit: Kit) -> None:
    one, two = kit.twins()
    for reference in (one, two):
        await kit.engine.pull(reference, plain_http=True)
    await kit.engine.remove_image(one)
    image = await kit.engine.find_image(two)
    assert image is not None
    assert image.names == (two,)


# --- networks, volumes, secrets ----------------------------------------------------------------------


async def test_networks_are_made_once_and_removed_for_certain(kit: Kit) -> None:
    name = kit.name()
    await kit.engine.create_network(name, {"lichen.app": "demo"})
    assert Thing(name, {"lichen.app": "demo"}) in await kit.engine.networks()
    with refused("exists"):
        await kit.engine.create_network(name, {})
    await kit.engine.remove_network(name)
    await kit.engine.remove_network(name)
    assert name not in names(await kit.engine.networks())


async def test_a_network_can_be_internal_and_have_its_own_addresses(kit: Kit) -> None:
    name = kit.name()
    await kit.engine.create_network(
        name, {}, internal=True, ipv6=True, subnet="10.77.5.0/24", gateway="10.77.5.1"
    )
    assert name in names(await kit.engine.networks())


async def test_volumes_are_made_once_and_removed_for_certain(kit: Kit) -> None:
    name = kit.name()
    await kit.engine.create_volume(name, {"lichen.app": "demo"})
    assert Thing(name, {"lichen.app": "demo"}) in await kit.engine.volumes()
    with refused("exists"):
        await kit.engine.create_volume(name, {})
    await kit.engine.remove_volume(name)
    await kit.engine.remove_volume(name)
    assert name not in names(await kit.engine.volumes())


async def test_secrets_are_made_once_and_removed_for_certain(kit: Kit) -> None:
    name = kit.name()
    await kit.engine.create_secret(name, b"hush", {"lichen.app": "demo"})
    assert await kit.engine.secrets() == [Thing(name, {"lichen.app": "demo"})]
    with refused("exists"):
        await kit.engine.create_secret(name, b"hush", {})
    await kit.engine.remove_secret(name)
    await kit.engine.remove_secret(name)
    assert await kit.engine.secrets() == []


async def test_what_a_container_uses_stays(kit: Kit) -> None:
    network, volume = kit.name(), kit.name()
    await kit.engine.create_network(network, {})
    await kit.engine.create_volume(volume, {})
    name = await running(kit, networks={network: {}}, volumes=[{"Name": volume, "Dest": "/data"}])
    with refused("in-use"):
        await kit.engine.remove_network(network)
    with refused("in-use"):
        await kit.engine.remove_volume(volume)
    await kit.engine.remove(name)
    await kit.engine.remove_network(network)
    await kit.engine.remove_volume(volume)


async def test_a_secret_is_a_file_with_mode_and_owner(kit: Kit) -> None:
    secret = kit.name()
    await kit.engine.create_secret(secret, b"hush", {"lichen.app": "demo"})
    given = {"source": secret, "target": "/etc/key", "uid": 5, "gid": 6, "mode": 0o440}
    name = await running(kit, secrets=[given])
    assert kit.look(name, "/etc/key") == (b"hush", 0o440, 5)


# --- containers --------------------------------------------------------------------------------------


async def test_a_container_lives_and_ends(kit: Kit) -> None:
    name = kit.name()
    id = await kit.engine.create(body(name, await pulled(kit, "runs")))
    made = await find(kit, name)
    assert made.image == kit.image("runs")
    assert (made.id, made.phase, made.pid, made.exit_code) == (id, "created", 0, None)
    assert made.labels["lichen.service"] == "web"
    assert made.started_ms is None

    await kit.engine.start(id)
    await kit.engine.start(id)
    runs = await find(kit, name)
    assert (runs.phase, runs.exit_code, runs.finished_ms) == ("running", None, None)
    assert runs.pid > 0
    assert runs.started_ms

    await kit.engine.stop(id, 5)
    await kit.engine.stop(id, 5)
    stopped = await find(kit, name)
    assert (stopped.phase, stopped.pid, stopped.exit_code) == ("exited", 0, 0)
    assert stopped.finished_ms >= runs.started_ms

    await kit.engine.start(id)
    again = await find(kit, name)
    assert (again.phase, again.exit_code) == ("running", None)
    await kit.engine.remove(id)
    await kit.engine.remove(id)
    assert await kit.engine.containers() == []


async def test_its_process_is_there_before_it_is_started(kit: Kit) -> None:
    name = kit.name()
    await kit.engine.create(body(name, await pulled(kit, "runs")))
    pid = await kit.engine.init(name)
    assert pid > 0
    assert await kit.engine.init(name) == pid
    waits = await find(kit, name)
    assert (waits.phase, waits.pid) == ("created", 0)
    await kit.engine.start(name)
    runs = await find(kit, name)
    assert (runs.phase, runs.pid) == ("running", pid)
    assert await kit.engine.init(name) == pid
    await kit.engine.stop(name, 5)
    await kit.engine.init(name)
    kit.clean_up_late(name)
    await kit.engine.start(name)
    again = await find(kit, name)
    assert again.phase == "running"
    assert await kit.engine.init(name) == again.pid
    await kit.engine.stop(name, 5)
    await kit.engine.init(name)
    await kit.engine.remove(name)
    assert await kit.engine.containers() == []
    assert await kit.engine.init("nothing") == 0


async def test_how_a_container_ended_is_known(kit: Kit) -> None:
    name = await running(kit, "ends")
    container = await ended(kit, name)
    assert (container.exit_code, container.pid) == (3, 0)
    assert container.finished_ms


async def test_one_that_does_not_listen_is_killed_after_its_grace(kit: Kit) -> None:
    name = await running(kit, "stubborn")
    async with asyncio.timeout(5):
        await kit.engine.stop(name, 1)
    assert (await find(kit, name)).exit_code == 137


async def test_removing_does_not_wait_for_one_that_does_not_listen(kit: Kit) -> None:
    name = await running(kit, "stubborn")
    async with asyncio.timeout(3):
        await kit.engine.remove(name)


async def test_only_containers_of_ours_are_listed(kit: Kit) -> None:
    other = body(kit.name(), await pulled(kit, "runs")) | {"labels": {"somebody": "else"}}
    await kit.engine.create(other)
    assert await kit.engine.containers() == []
    await kit.engine.remove(other["name"])


async def test_the_longest_name_of_a_secret_is_taken(kit: Kit) -> None:
    name = secret_name("a" * 40, "b" * 128, "c" * 64)
    await kit.engine.create_secret(name, b"x", {LABEL_APP: "demo"})
    assert name in [each.name for each in await kit.engine.secrets()]
    await kit.engine.remove_secret(name)


async def test_a_name_is_taken_once(kit: Kit) -> None:
    name = await running(kit)
    with refused("exists"):
        await kit.engine.create(body(name, kit.image("runs")))
    assert (await find(kit, name)).phase == "running"


async def test_what_is_missing_is_said(kit: Kit) -> None:
    image, network = await pulled(kit, "runs"), kit.name()
    await kit.engine.create_network(network, {})
    member = await running(kit, networks={network: {}})
    for wanted in (
        body(kit.name(), image.rpartition(":")[0] + ":" + "0" * 64),
        body(kit.name(), image, networks={"nothing": {}}),
        body(kit.name(), image, secrets=[{"source": "nothing", "target": "/x"}]),
    ):
        with refused("not-found"):
            await kit.engine.create(wanted)
    for call in (
        kit.engine.start("nothing"),
        kit.engine.stop("nothing", 1),
        kit.engine.check("nothing"),
        kit.engine.logs("nothing"),
        kit.engine.connect("nothing", member, []),
    ):
        with refused("not-found"):
            await call


async def test_a_port_that_is_taken_is_named(kit: Kit) -> None:
    network = kit.name()
    await kit.engine.create_network(network, {})
    port = free_port()
    published = [{"container_port": 80, "host_port": port, "protocol": "tcp"}]
    first = await running(kit, networks={network: {}}, portmappings=published)
    with refused("port-taken", f"{port}/tcp"):
        await running(kit, networks={network: {}}, portmappings=published)
    await kit.engine.remove(first)

    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        taken = other.getsockname()[1]
        if isinstance(kit, Fake):
            kit.podman.taken.add(("tcp", taken))
        published[0]["host_port"] = taken
        with refused("port-taken", f"{taken}/tcp"):
            await running(kit, networks={network: {}}, portmappings=published)


# --- networks of containers --------------------------------------------------------------------------


async def test_containers_find_each_other_by_alias(kit: Kit) -> None:
    network = kit.name()
    await kit.engine.create_network(network, {})
    first = await running(kit, networks={network: {"aliases": ["db", "demo_db"]}})
    second = await running(kit, networks={network: {}})
    address = (await find(kit, first)).networks[network]
    assert kit.resolve(second, network, "db") == [address]
    assert kit.resolve(second, network, "demo_db") == [address]
    await kit.engine.stop(first, 1)
    assert kit.resolve(second, network, "db") == []
    assert (await find(kit, first)).networks == {network: ""}


async def test_an_alias_moves_by_connecting_again(kit: Kit) -> None:
    network = kit.name()
    await kit.engine.create_network(network, {})
    old = await running(kit, networks={network: {"aliases": ["web"]}})
    new = await running(kit, networks={network: {}})
    with refused("exists"):
        await kit.engine.connect(network, new, ["web"])
    await kit.engine.disconnect(network, new)
    await kit.engine.disconnect(network, new)
    assert (await find(kit, new)).networks == {}
    await kit.engine.connect(network, new, ["web"])
    await kit.engine.disconnect(network, old)
    address = (await find(kit, new)).networks[network]
    assert kit.resolve(new, network, "web") == [address]


async def test_one_that_leaves_keeps_its_address_and_loses_its_aliases(kit: Kit) -> None:
    network = kit.name()
    await kit.engine.create_network(network, {})
    old = await running(kit, networks={network: {"aliases": ["web"]}})
    new = await running(kit, networks={network: {"aliases": ["web"]}})
    before = (await find(kit, old)).networks[network]
    await kit.engine.leave(network, old)
    await kit.engine.leave(network, old)
    assert (await find(kit, old)).networks == {network: before}
    assert kit.resolve(new, network, "web") == [(await find(kit, new)).networks[network]]
    await kit.engine.stop(old, 1)
    # Another one may have the address now: it starts anew with any.
    other = await running(kit, networks={network: {"static_ips": [before]}})
    await kit.engine.disconnect(network, old)
    await kit.engine.connect(network, old, [])
    await kit.engine.start(old)
    addresses = {(await find(kit, name)).networks[network] for name in (old, new, other)}
    assert len(addresses) == 3
    await kit.engine.disconnect(network, old)
    await kit.engine.leave(network, old)
    assert (await find(kit, old)).networks == {}


# --- health and logs ---------------------------------------------------------------------------------


async def test_a_check_says_how_it_is_now(kit: Kit) -> None:
    assert (await kit.engine.check(await running(kit, "well"))).healthy
    sick = await kit.engine.check(await running(kit, "sick"))
    assert not sick.healthy
    assert sick.output
    late = await running(kit, "late")
    assert [(await kit.engine.check(late)).healthy for _ in range(3)] == [False, False, True]


async def test_a_check_of_the_specification_comes_before_that_of_the_image(kit: Kit) -> None:
    config = {"Test": ["CMD-SHELL", "exit 0"], "Interval": 30 * 10**9, "Timeout": 5 * 10**9, "Retries": 3}
    name = await running(kit, "runs", healthconfig=config)
    assert (await kit.engine.check(name)).healthy
    none = await running(kit, "well", healthconfig={"Test": ["NONE"]})
    with refused("no-check"):
        await kit.engine.check(none)


@pytest.mark.parametrize("seconds", [1.2, 20])
async def test_a_check_that_takes_too_long_has_failed(kit: Kit, seconds: float) -> None:
    kind = "dozes" if seconds == 20 else "slow"
    config = {"Test": ["CMD-SHELL", f"sleep {seconds}"], "Timeout": 10**9}
    name = await running(kit, kind, healthconfig=config)
    async with asyncio.timeout(5):
        check = await kit.engine.check(name)
    assert not check.healthy
    assert check.output == "it did not end within 1 s"


async def test_without_a_check_or_not_running_there_is_nothing_to_ask(kit: Kit) -> None:
    with refused("no-check"):
        await kit.engine.check(await running(kit))
    name = await running(kit, "well")
    await kit.engine.stop(name, 1)
    with refused("not-running"):
        await kit.engine.check(name)


async def test_logs_come_in_order_and_from_the_end(kit: Kit) -> None:
    name = await running(kit, "talks")
    begun_ms = (await find(kit, name)).started_ms

    async def all_there() -> Any:
        lines = await kit.engine.logs(name)
        return lines if len(lines) == 20 else None

    lines = await until(all_there)
    assert [line.text for line in lines] == [str(number) for number in range(1, 21)]
    assert all(line.stream == "stdout" and line.container == "" for line in lines)
    assert all(abs(line.at_ms - begun_ms) < 5000 for line in lines)
    assert [line.text for line in await kit.engine.logs(name, tail=3)] == ["18", "19", "20"]
    assert await kit.engine.logs(name, tail=0) == []
    assert len(await kit.engine.logs(name, since_ms=begun_ms - 60_000)) == 20
    assert await kit.engine.logs(name, since_ms=begun_ms + 60_000) == []


# --- Podman itself -----------------------------------------------------------------------------------


async def test_a_service_that_is_killed_in_a_call_is_back_for_the_next(kit: Kit) -> None:
    name = await running(kit)
    reference = kit.troubled("slow")

    async def pull() -> None:
        with refused("podman-down", kind=LinkDown):
            await kit.engine.pull(reference, plain_http=True)

    async with asyncio.TaskGroup() as group:
        group.create_task(pull(), name="pull")
        await kit.until_troubled()
        kit.kill_service()
    assert (await find(kit, name)).phase == "running"
    await kit.engine.stop(name, 1)
    assert await kit.engine.find_image(reference) is None
    kit.heal()
    assert not (await kit.engine.pull(reference, plain_http=True)).broken
