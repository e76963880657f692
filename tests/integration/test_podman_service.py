"""Podman's service as the agent's child, and what a power cut leaves: real processes throughout."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import podman
import pytest

from agent.config import Containers
from agent.containers import daemon
from agent.containers.client import Client
from agent.containers.engine import Engine, Login
from agent.containers.podman import SLOW_THREADS, Podman, open_engine
from agent.wire.errors import LinkDown, Refused
from support.podman import Stand, stand, until
from support.registry import PASSWORD, USER, Door, registry


@pytest.fixture(scope="module")
def place() -> Iterator[Stand]:
    with stand() as made:
        yield made


def service_of(engine: Podman) -> daemon.Service:
    assert engine.service is not None
    return engine.service


async def running(place: Stand, engine: Engine, reference: str = "") -> str:
    """A container that runs until somebody ends it."""
    reference = reference or place.registry.push("runs", command=["sleep", "1000"])
    name = place.app("c")
    await engine.pull(reference, plain_http=True)
    body = {"name": name, "image": reference, "labels": {"lichen.app": name}, "netns": {"nsmode": "none"}}
    await engine.create(body)
    await engine.start(name)
    return name


def open_files() -> set[str]:
    """What this process has open."""
    found = set()
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add(str(number.readlink()))
    return found


# --- the child ---------------------------------------------------------------------------------


@pytest.mark.slow
async def test_an_idle_service_ends_and_the_next_call_starts_another(place: Stand) -> None:
    async with place.engine() as engine:
        service = service_of(engine)
        assert service.pid == 0, "nobody has asked yet"
        before = open_files()
        await engine.info()
        first = service.pid
        assert first > 0

        async def gone() -> bool:
            return service.pid == 0

        await until(gone, within_s=daemon.IDLE_S + 5)
        assert not Path(f"/proc/{first}").exists(), "and it was waited for"
        assert open_files() == before, "nothing is held open"
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(engine.containers(), name=f"call {number}")
        assert service.pid not in (0, first)


async def test_containers_outlive_the_service_and_the_agent(place: Stand) -> None:
    async with place.engine() as engine:
        name = await running(place, engine)
        pid = service_of(engine).pid
        socket_path = service_of(engine).path
    assert not Path(f"/proc/{pid}").exists()
    assert not socket_path.exists()
    async with place.engine() as engine:
        [container] = await engine.containers()
        assert (container.name, container.phase) == (name, "running")
        await engine.remove(name)


async def test_the_socket_is_for_this_user_alone(place: Stand) -> None:
    async with place.engine() as engine:
        assert service_of(engine).path.stat().st_mode & 0o777 == 0o600


async def test_a_long_path_is_no_obstacle(place: Stand, tmp_path: Path) -> None:
    runtime_dir = tmp_path / ("long" * 30)
    async with open_engine(place.config, runtime_dir) as engine:
        assert (await engine.info()).version
        path = service_of(engine).path
        assert len(str(path)) <= daemon.MAX_SOCKET_PATH
    assert not path.parent.exists()


async def test_without_podman_it_is_said_how_to_install_it_and_noticed_when_it_is(
    place: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.environ["PATH"]
    async with place.engine() as engine:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(LinkDown) as caught:
            await engine.info()
        assert caught.value.code == "podman-missing"
        assert "apt-get install" in caught.value.hint
        monkeypatch.setenv("PATH", path)
        assert (await engine.info()).version


async def test_a_service_that_cannot_start_says_why_at_once(place: Stand, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    async with (
        asyncio.timeout(5),
        open_engine(Containers(storage=tmp_path / "file/storage"), tmp_path / "run") as engine,
    ):
        for _ in range(2):
            with pytest.raises(
                LinkDown, match=r"does not start: it ended with 125: Error: .*not a directory"
            ) as caught:
                await engine.info()
            assert caught.value.code == "podman-down"


async def test_a_service_that_hangs_is_given_up(place: Stand) -> None:
    async with place.engine() as engine:
        await engine.info()
        service = service_of(engine)
        api = podman.PodmanClient(base_url=f"unix://{service.path}", version="4.0.0").api
        client = Client(api, service.path)
        os.kill(service.pid, signal.SIGSTOP)
        try:
            with pytest.raises(LinkDown, match=r"did not answer within 0\.2 s"):
                await asyncio.to_thread(client.ask, "GET", "asking", "/info", limit_s=0.2)
        finally:
            os.kill(service.pid, signal.SIGCONT)
        assert await engine.containers() == []


async def test_pulls_that_are_given_up_before_podman_answers_leave_no_thread_behind(place: Stand) -> None:
    reference = place.registry.push("noise", files={"noise": os.urandom(300_000)})
    with Door(place.registry) as door:
        door.fault = "hang"
        async with place.engine(stall_s=60) as engine:
            await engine.info()
            pid = service_of(engine).pid
            os.kill(pid, signal.SIGSTOP)
            try:
                for _ in range(SLOW_THREADS):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await engine.pull(door.through(reference), plain_http=True)
            finally:
                os.kill(pid, signal.SIGCONT)
            async with asyncio.timeout(5):
                await engine.remove_volume("nothing")


# --- somebody else's socket --------------------------------------------------------------------


async def test_a_socket_that_is_configured_is_used(place: Stand, tmp_path: Path) -> None:
    async with (
        daemon.serve(place.folder / "other", place.storage) as service,
        open_engine(Containers(socket=service.path), tmp_path) as engine,
    ):
        assert engine.service is None
        assert (await engine.info()).storage == str(place.storage)
    async with open_engine(Containers(socket=service.path), tmp_path) as engine:
        with pytest.raises(LinkDown, match=f"there is no Podman at {service.path}") as caught:
            await engine.info()
        assert caught.value.code == "podman-down"


async def test_a_socket_of_systemd_comes_before_a_service_of_our_own(place: Stand, short_path: Path) -> None:
    stale = short_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    async with daemon.serve(place.folder / "other", place.storage) as service:
        sockets = (short_path / "none.sock", stale, service.path)
        async with open_engine(Containers(), short_path / "run", sockets=sockets) as engine:
            assert engine.service is None
            assert (await engine.info()).storage == str(place.storage)
        async with open_engine(Containers(), short_path / "run", sockets=sockets[:2]) as engine:
            assert engine.service is not None


# --- bad days ----------------------------------------------------------------------------------


async def test_storage_that_a_power_cut_left_does_not_hold_a_name(place: Stand) -> None:
    reference = place.registry.push("left", command=["sleep", "1000"])
    name = place.app("c")
    body: dict[str, Any] = {"name": name, "image": reference, "labels": {"lichen.app": name}}
    body["netns"] = {"nsmode": "none"}
    database = place.storage / "libpod/bolt_state.db"
    async with place.engine() as engine:
        await engine.pull(reference, plain_http=True)
        shutil.copy(database, place.folder / "before.db")
        await engine.create(body)
    # The storage has the container, and what Podman knows of it was not written yet.
    shutil.copy(place.folder / "before.db", database)
    async with place.engine() as engine:
        assert await engine.containers() == []
        await engine.create(body)
        assert [each.name for each in await engine.containers()] == [name]
        with pytest.raises(Refused) as caught:
            await engine.create(body)
        assert caught.value.code == "exists"
        await engine.remove(name)


HALFWAY = (["removing"], ["stopping"], ["stopped"], ["exited"])
"""What one is that was being removed."""


@pytest.mark.slow
async def test_a_service_killed_at_any_moment_leaves_nothing_that_cannot_be_removed(place: Stand) -> None:
    reference = place.registry.push("runs", command=["sleep", "1000"])
    async with place.engine() as engine:
        await engine.pull(reference, plain_http=True)
        for number in range(16):
            name = place.app("c")
            labels = {"lichen.app": name}
            body = {"name": name, "image": reference, "labels": labels, "netns": {"nsmode": "none"}}

            async def live(name: str = name, body: dict[str, Any] = body) -> None:
                with contextlib.suppress(LinkDown):
                    await engine.create(body)
                    await engine.start(name)
                    await engine.remove(name)

            await engine.info()
            async with asyncio.TaskGroup() as group:
                group.create_task(live(), name="live")
                await asyncio.sleep(0.015 * number)  # a moment of its life, another one each time
                place.kill_service(engine)
            if number % 2 and await engine.containers():
                started = await _code_of(engine.start(name))
                states = [each["State"] for each in json.loads(place.podman("ps", "--all", "--format=json"))]
                assert states in {"": (["running"],), "broken": ([],), "not-running": HALFWAY}[started]
            await engine.remove(name)
            assert await engine.containers() == []
            await until(lambda: _nothing_is_left(place))


@pytest.mark.parametrize("again", ["remove", "stop"])
async def test_one_that_was_being_stopped_when_the_service_was_killed_is_ended(
    place: Stand, again: str
) -> None:
    reference = place.registry.push("stubborn", command=["sh", "-c", "trap '' TERM; sleep 1000"])
    async with place.engine() as engine:
        await engine.pull(reference, plain_http=True)
        name = await running(place, engine, reference)

        async def stop() -> None:
            with pytest.raises(LinkDown):
                await engine.stop(name, 60)

        async def stopping() -> bool:
            [said] = json.loads(place.podman("ps", "--all", "--format=json"))
            return bool(said["State"] == "stopping")

        async with asyncio.TaskGroup() as group:
            group.create_task(stop(), name="stop")
            await until(stopping)
            place.kill_service(engine)
        assert [each.phase for each in await engine.containers()] == ["running"]
        if again == "stop":
            await engine.stop(name, 0)
            assert [each.phase for each in await engine.containers()] == ["exited"]
        await engine.remove(name)
        await until(lambda: _nothing_is_left(place))


async def _code_of(call: Awaitable[None]) -> str:
    """The code of a refusal, "" when there is none."""
    try:
        await call
    except Refused as error:
        return error.code
    return ""


async def _nothing_is_left(place: Stand) -> bool:
    """Whether no process is left of any container."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = process.read_bytes().split(b"\0")
            if words[0].endswith(b"conmon") and os.fsencode(place.storage) in b" ".join(words):
                return False
    return True


async def test_a_secret_of_a_size_that_podman_does_not_take_is_refused_in_words(place: Stand) -> None:
    async with place.engine() as engine:
        for content in (b"", b"x" * 512_000):
            with pytest.raises(Refused, match=f"{len(content)} bytes, Podman takes 1 to 511999"):
                await engine.create_secret("odd", content, {})


async def test_a_login_is_nowhere_but_in_its_request(place: Stand) -> None:
    with registry(place.folder / "private", login=True) as private:
        reference = private.push("private", files={"noise": os.urandom(1000)})
        async with place.engine() as engine:
            await engine.pull(reference, plain_http=True, login=Login(USER, PASSWORD))
            state = [Path(each.partition("=")[2]) for each in daemon.place(place.storage)]
            environment = Path(f"/proc/{service_of(engine).pid}/environ").read_bytes()
            assert PASSWORD.encode() not in environment
            folders = [str(each) for each in (*state, place.folder / "run")]
            found = subprocess.run(
                ["grep", "-rlsF", "-e", PASSWORD, *folders], text=True, capture_output=True, check=False
            )
            assert found.stdout == ""
            await engine.remove_image(
                (await engine.pull(reference, plain_http=True, login=Login(USER, PASSWORD))).id
            )
