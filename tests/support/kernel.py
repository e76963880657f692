"""Containers as the kernel counts them, in made-up trees of files: cgroups, with one above each container.

`Kernel` has version 1 or 2, makes containers (`create`), starts them, lets them use something, and ends
them, as Podman and the kernel do: the cgroup of a container is gone when it dies, the one above it stays.

    kernel = Kernel(tmp_path)
    web = kernel.create("web")
    web.start()
    web.burn(cpu_us=1500)
    meter.see(kernel.runs())
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from agent.cgroups import Counters
from agent.parents import Parents
from agent.runs import Run

BOARD = "boardboardboard2"
PID = 4_000_000


class Box:
    """One container."""

    def __init__(self, kernel: Kernel, name: str, *, parent: bool, net: bool) -> None:
        self.name, self.id = name, os.urandom(32).hex()
        self.parent = f"{kernel.board}_{os.urandom(5).hex()}aaaaaa" if parent else ""
        self.order = 3
        self.state: Literal["waiting", "alive", "dead"] = "dead"
        self.exit_code: int | None = None
        self.started_ms: int | None = None
        self.finished_ms: int | None = None
        self.counters: Counters | None = None
        self.begun_ms: int | None = None
        self.is_fresh = False
        self.cpu_us = self.conmon_us = self.memory = self.peak = self.kills = 0
        self.read = self.written = 0
        self.net: tuple[int, int] | None = (0, 0) if net else None
        self._before = (0, 0, 0, 0)  # what earlier starts used, in the cgroup above
        self._kernel = kernel

    # --- what happens to it

    def start(self, *, seen: bool = True, watched: bool = True) -> None:
        """Begin.  ``watched``: an agent opened its counters before; ``seen``: it is told that it runs."""
        self.cpu_us = self.memory = self.peak = self.kills = self.read = self.written = 0
        self.net = None if self.net is None else (0, 0)
        self.state, self.exit_code = "alive" if seen else "waiting", None
        self.started_ms, self.finished_ms = self._kernel.wall_ms(), None
        self._kernel.write(self)
        self.counters, self.begun_ms, self.is_fresh = None, None, False
        if watched:
            self.open(fresh=True)

    def open(self, *, fresh: bool = False) -> None:
        """An agent opens its counters."""
        self.counters = self._kernel.open(self)
        self.counters.look()
        self.begun_ms, self.is_fresh = self._kernel.mono_ms(), fresh

    def burn(
        self, cpu_us: int = 0, *, conmon_us: int = 0, memory: int | None = None,
        net: tuple[int, int] = (0, 0), io: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        """Use something."""
        self.cpu_us += cpu_us
        self.conmon_us += conmon_us
        self.memory = self.memory if memory is None else memory
        self.peak = max(self.peak, self.memory)
        self.net = None if self.net is None else (self.net[0] + net[0], self.net[1] + net[1])
        self.read, self.written = self.read + io[0], self.written + io[1]
        self._kernel.write(self)

    def kill_for_memory(self) -> None:
        """The kernel ends it."""
        self.kills += 1
        self._kernel.write(self)
        self.die(137)

    def die(self, code: int = 0, *, heard: bool = True, conmon_us: int = 0) -> None:
        """End.  ``heard``: the agent that has its counters is told at once."""
        self.state, self.exit_code, self.finished_ms = "dead", code, self._kernel.wall_ms()
        if self.counters is not None and heard:
            self.counters.look()
            self.counters.ended_ms = self._kernel.mono_ms()
            self.counters.close()
        cpu, read, written, kills = self._before
        self._before = (cpu + self.cpu_us, read + self.read, written + self.written, kills + self.kills)
        self.cpu_us = self.memory = self.read = self.written = self.kills = 0
        self.conmon_us += conmon_us
        self._kernel.write(self)

    def forget(self) -> None:
        """The agent dies, and with it what it had opened."""
        if self.counters is not None:
            self.counters.close()
        self.counters, self.begun_ms, self.is_fresh = None, None, False

    # --- what is counted

    @property
    def total_us(self) -> int:
        """Processor time of all its starts, as the cgroup above has it."""
        return self._before[0] + self.cpu_us

    @property
    def above(self) -> tuple[int, int, int, int]:
        """Of the cgroup above, without conmon: processor, read, written, kills."""
        cpu, read, written, kills = self._before
        return cpu + self.cpu_us, read + self.read, written + self.written, kills + self.kills

    def run(self) -> Run:
        return Run(
            self.id, self.name, "shop", self.name, f"registry.example/{self.name}@sha256:{'0' * 64}",
            self.state, self.parent, self.order, self.exit_code, self.started_ms, self.finished_ms,
            self.counters, self.begun_ms, self.is_fresh,
        )  # fmt: skip


class Kernel:
    """The trees, and what is in them."""

    def __init__(
        self, folder: Path, version: Literal[1, 2] = 1,
        mono_ms: Callable[[], int] = lambda: 0, wall_ms: Callable[[], int] = lambda: 0, board: str = BOARD,
    ) -> None:  # fmt: skip
        self.cgroups, self.proc, self.version = folder / "cgroup", folder / "proc", version
        self.mono_ms, self.wall_ms = mono_ms, wall_ms
        self.board = board
        self.boxes: list[Box] = []
        self.processes: dict[str, int] = {}
        self._pids = itertools.count(PID)
        self._texts: dict[Path, str] = {}  # of the files that are there
        self.cgroups.mkdir()
        if version == 2:
            (self.cgroups / "cgroup.controllers").write_text("cpu io memory\n")
        self.parents = Parents(self.cgroups, self.rmdir)

    def create(self, name: str = "web", *, parent: bool = True, net: bool = True) -> Box:
        box = Box(self, name, parent=parent, net=net)
        self.boxes.append(box)
        self.processes[box.id] = next(self._pids)
        return box

    def remove(self, box: Box) -> None:
        """Podman removes it, and not the cgroup above."""
        if box.state != "dead":
            box.die(137)
        self.boxes.remove(box)

    def runs(self) -> list[Run]:
        return [box.run() for box in self.boxes]

    def reboot(self) -> None:
        """All cgroups are gone, and nothing runs."""
        for box in self.boxes:
            box.forget()
            box.state = "dead"
            box._before = (0, 0, 0, 0)
            box.cpu_us = box.conmon_us = 0
        for tree in self._trees():
            shutil.rmtree(tree / "lichen", ignore_errors=True)

    def there(self) -> set[str]:
        """The cgroups above that there are."""
        return self.parents.names()

    def house(self) -> bool:
        """Whether the one above those is there."""
        return any((tree / "lichen").exists() for tree in self._trees())

    # --- files

    def write(self, box: Box) -> None:
        place = f"lichen/{box.parent}" if box.parent else "machine.slice"
        own = f"{place}/libpod-{box.id}"
        cpu, read, written, kills = box.above
        if box.parent:
            self._write(place, cpu + box.conmon_us, 1 << 30, 1 << 30, read, written, kills, "")
            alive = "1\n" if box.state != "dead" else ""
            self._write(f"{place}/conmon", box.conmon_us, 3 << 20, 3 << 20, 0, 0, 0, alive)
        folders = [tree / own for tree in self._trees()]
        if box.state == "dead":
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(self.proc / str(self.processes[box.id]), ignore_errors=True)
            return
        pid = self.processes[box.id]
        self._write(own, box.cpu_us, box.memory, box.peak, box.read, box.written, box.kills, f"{pid}\n")
        lines = (
            [f"0::/{own}"]
            if self.version == 2
            else [f"2:cpuacct:/{own}", f"4:memory:/{own}", f"7:blkio:/{own}"]
        )
        file = self.proc / str(pid) / "cgroup"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))
        if box.net is not None:
            rest = "0 0 0 0 0 0 0"
            (file.parent / "net").mkdir(exist_ok=True)
            text = f"a\nb\n    lo: 5 {rest} 5 {rest}\n  eth0: {box.net[0]} {rest} {box.net[1]} {rest}\n"
            (file.parent / "net/dev").write_text(text)

    def open(self, box: Box) -> Counters:
        pid = self.processes[box.id]
        return Counters.open(pid, net=box.net is not None, proc=self.proc, cgroups=self.cgroups)

    def _trees(self) -> list[Path]:
        if self.version == 2:
            return [self.cgroups]
        return [self.cgroups / name for name in ("blkio", "cpuacct", "memory")]

    def _write(
        self, folder: str, cpu_us: int, memory: int, peak: int, read: int, written: int, kills: int,
        procs: str,
    ) -> None:  # fmt: skip
        if self.version == 2:
            files = {
                "cpu.stat": f"usage_usec {cpu_us}\nuser_usec 0\n",
                "memory.current": f"{memory}\n",
                "memory.peak": f"{peak}\n",
                "memory.events": f"low 0\noom 0\noom_kill {kills}\n",
                "io.stat": f"8:0 rbytes={read} wbytes={written} rios=1\n",
                "cgroup.procs": procs,
            }
            self._put(self.cgroups / folder, files)
            return
        for tree in self._trees():
            self._put(tree / folder, {"cgroup.procs": procs})
        self._put(self.cgroups / "cpuacct" / folder, {"cpuacct.usage": f"{cpu_us * 1000 + 999}\n"})
        self._put(
            self.cgroups / "memory" / folder,
            {
                "memory.usage_in_bytes": f"{memory}\n",
                "memory.max_usage_in_bytes": f"{peak}\n",
                # Version 1 does not count them in the cgroups above.
                "memory.oom_control": f"oom_kill_disable 0\noom_kill {kills if 'libpod' in folder else 0}\n",
            },
        )

    def _put(self, folder: Path, files: dict[str, str]) -> None:
        if not folder.exists():
            folder.mkdir(parents=True)
            self._texts = {path: text for path, text in self._texts.items() if path.parent != folder}
        for name, text in files.items():
            if self._texts.get(folder / name) != text:
                self._texts[folder / name] = text
                (folder / name).write_text(text)

    def rmdir(self, folder: Path) -> None:
        """As rmdir(2) does it to a cgroup, whose files are no obstacle."""
        procs = folder / "cgroup.procs"
        if any(each.is_dir() for each in folder.iterdir()) or (procs.exists() and procs.read_text()):
            raise OSError(errno.EBUSY, "Device or resource busy")
        shutil.rmtree(folder)
