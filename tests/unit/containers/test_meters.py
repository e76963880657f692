"""The counters of containers, from before they begin until after they have ended."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.cgroups import Counters, File
from agent.clock import mono_ms
from agent.containers.deaths import Deaths
from agent.containers.engine import Container
from agent.containers.meters import UNAWARE_MS, Meters
from agent.runs import Run

NOBODY = 2**22 + 5
"""A pid that the kernel never gives."""


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    """One that lives until it is killed."""
    with subprocess.Popen(["sleep", "100"]) as made:
        try:
            yield made
        finally:
            made.kill()


class Scene:
    """The meters of a board, on which a file says how often the kernel has killed for memory."""

    def __init__(self, folder: Path) -> None:
        self.died, self.opened = asyncio.Event(), 0
        self._file = folder / "memory.events"
        self.meters = Meters(lambda: 0, self.died.set, self._open)
        self.kills(0)

    def _open(self, pid: int, *, net: bool = False) -> Counters:
        self.opened += 1
        descriptor = os.open(self._file, os.O_RDONLY)
        return Counters({"oom_kills": (File("memory.events", "oom_kill"), descriptor)})

    def kills(self, number: int) -> None:
        self._file.write_text(f"oom_kill {number}\n")

    def look(self, phase: str = "running", pid: int = 0, *, busy: bool = False, started_ms: int = 1) -> bool:
        """Look at the one container; whether it was killed for its memory."""
        container = Container("id", "x", {}, phase, pid=pid, started_ms=started_ms)  # type: ignore[arg-type]
        self.meters.follow({"x": container}, {"x"} if busy else ())
        return self.meters.told(container).oom

    async def hear(self, process: subprocess.Popen[bytes]) -> None:
        """Until it is known that a process has ended that is killed now."""
        self.died.clear()
        process.kill()
        async with asyncio.timeout(5):
            await self.died.wait()


async def test_one_that_dies_before_it_is_seen_to_run_is_told_from_one_that_ends(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with process() as first:
        scene.meters.meet("x", "id", first.pid)
        scene.look("created", busy=True)  # as it was before
        scene.kills(1)
        await scene.hear(first)
    scene.kills(0)  # its cgroup has gone, and that with its number is another one
    assert scene.look("exited")
    with process() as second:
        scene.meters.meet("x", "id", second.pid)
        assert not scene.look("exited", busy=True)
        await scene.hear(second)
    assert not scene.look("exited")
    scene.meters.close()


async def test_one_that_was_there_before_the_agent_is_followed_too(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with process() as one:
        assert not scene.look(pid=one.pid)
        scene.kills(2)
        await scene.hear(one)
        assert scene.meters.next_ms() is None
        assert not scene.look(pid=one.pid)  # it is listed for a moment still, and not opened again
        assert scene.meters.next_ms() == UNAWARE_MS
    assert scene.opened == 1
    assert scene.look("exited")
    assert scene.meters.next_ms() is None
    assert not scene.look(pid=one.pid, started_ms=2)  # the kernel has given the number again
    assert scene.opened == 2
    scene.meters.close()


async def test_who_counts_what_it_uses_is_told_of_each_start(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    labels = {"lichen.app": "shop", "lichen.service": "web", "lichen.parent": "board_x"}

    def run(phase: str, pid: int = 0, code: int | None = None) -> Run:
        made = Container("id", "x", labels, phase, image="i", pid=pid, exit_code=code, started_ms=1)  # type: ignore[arg-type]
        scene.meters.follow({"x": made}, {"x"} if phase == "created" else ())
        [found] = scene.meters.runs([made], 7)
        return found

    never = run("created")
    assert (never.state, never.counters, never.is_fresh) == ("dead", None, False)
    with process() as first:
        scene.meters.meet("x", "id", first.pid)
        waits = run("created")
        assert (waits.state, waits.is_fresh, waits.begun_ms, waits.order) == ("waiting", True, 0, 7)
        runs = run("running", first.pid)
        assert (runs.state, runs.app, runs.service, runs.parent, runs.image) == (
            "alive", "shop", "web", "board_x", "i",
        )  # fmt: skip
        assert runs.counters is waits.counters
        await scene.hear(first)
        assert run("running", first.pid).state == "dead"  # it is listed for a moment still
    dead = run("exited", code=137)
    assert (dead.state, dead.exit_code) == ("dead", 137)
    assert dead.counters is runs.counters
    assert dead.counters is not None
    assert dead.counters.ended_ms == 0
    scene.meters.close()


async def test_one_that_was_there_before_says_when_its_process_began(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with process() as one:
        there = Container("id", "x", {}, "running", pid=one.pid, started_ms=1)
        scene.meters.follow({"x": there})
        [run] = scene.meters.runs([there], 0)
        assert (run.state, run.is_fresh) == ("alive", False)
        assert run.begun_ms is not None
        assert 0 <= mono_ms() - run.begun_ms < 60_000
        scene.meters.close()
        assert run.counters is not None
        assert run.counters.ended_ms is None, "nobody heard it die: the agent stops"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_one_that_was_taken_for_one_that_does_not_run_is_followed_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with process() as one:
        scene.meters.meet("x", "id", one.pid)
        scene.look("created")
        scene.look(pid=one.pid)
        assert scene.opened == 2
        await scene.hear(one)
    scene.meters.close()


async def test_nothing_stays_open(tmp_path: Path) -> None:
    before = open_files()
    scene = Scene(tmp_path)
    with process() as one, process() as two:
        scene.look(pid=one.pid)
        scene.look(pid=two.pid)
        scene.meters.meet("y", "other", one.pid)
        scene.meters.close()
    assert open_files() == before


async def test_the_death_of_a_process_is_heard_once() -> None:
    died: asyncio.Queue[str] = asyncio.Queue()
    deaths = Deaths(died.put_nowait)
    with process() as one:
        deaths.watch("one", one.pid)
        await asyncio.sleep(0)
        assert died.empty()
        one.kill()
        async with asyncio.timeout(5):
            assert await died.get() == "one"
        await asyncio.sleep(0.01)
        assert died.empty()
    deaths.watch("two", NOBODY)
    async with asyncio.timeout(5):
        assert await died.get() == "two"  # it had ended before anybody watched
