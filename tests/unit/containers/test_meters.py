"""The counters of containers, from before they begin until after they have ended."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.cgroups import Counters, File
from agent.containers.deaths import Deaths
from agent.containers.engine import Container
from agent.containers.meters import Meters

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
        assert not scene.look(pid=one.pid)  # it is listed for a moment still, and not opened again
    assert scene.opened == 1
    assert scene.look("exited")
    assert not scene.look(pid=one.pid, started_ms=2)  # the kernel has given the number again
    assert scene.opened == 2
    scene.meters.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


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
