"""What a container takes of the board, as the kernel counts it: processor, memory, disk, network, and deaths
for lack of memory.

Read from the files of its cgroup (cgroups(7)) and of its network namespace, and not asked of Podman: that
would wake 35 MB of it each time.  `agent.containers.meters` opens one `Counters` for each container, before
its process does anything, and reads them once more in the moment of its death; `agent.usage.meter` is told
of them (`agent.runs`), and reads them, too.  Nothing here knows an app, or writes anything down.

There are two versions of cgroups, and machines that have both: a controller is in one of them.
``/proc/PID/cgroup`` says where a process is; one that is in the root is not counted, for those figures are
of the whole machine.  What the platform does not count is None, never 0.

>>> paths_of("12:memory:/lichen/web\\n1:name=systemd:/\\n0::/\\n")
{'memory': ('memory', '/lichen/web')}

What the cgroup of a container has counted goes with it, some 50 ms after its death; that of the cgroup
above it stays (`agent.parents`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

from agent.wire.errors import Refused

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
MAX_FILE = 16 * 1024
"""Bytes of the largest file that is read here; most have some hundred."""
V2 = ""
"""What stands for the controllers of version 2, which are all in one tree."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of counters: one number, or lines of which ``key`` begins the one that counts.

    A key that ends in "=" may be in several lines, and is added up.
    """

    name: str
    key: str = ""
    divisor: int = 1

    def raw(self, text: str) -> int | None:
        """The number in it; None where this kernel does not count it."""
        if self.key.endswith("="):
            words = (word.removeprefix(self.key) for word in text.split() if word.startswith(self.key))
            return sum(int(word) for word in words if word.isdecimal())
        if self.key:
            fields = (line.partition(" ") for line in text.splitlines())
            text = next((number for key, _, number in fields if key == self.key), "")
        return int(text) if text.strip().isdecimal() else None

    def value(self, text: str) -> int | None:
        """The same in the unit of its counter."""
        raw = self.raw(text)
        return None if raw is None else raw // self.divisor


# counter: (its controller in version 1, its file there, its file in version 2)
COUNTERS: Mapping[str, tuple[str, File | None, File]] = MappingProxyType(
    {
        "cpu_us": ("cpuacct", File("cpuacct.usage", divisor=1000), File("cpu.stat", "usage_usec")),
        "memory_bytes": ("memory", File("memory.usage_in_bytes"), File("memory.current")),
        # memory.peak is there since Linux 5.19.
        "memory_peak_bytes": ("memory", File("memory.max_usage_in_bytes"), File("memory.peak")),
        "oom_kills": ("memory", File("memory.oom_control", "oom_kill"), File("memory.events", "oom_kill")),
        # Version 1 counts what the block layer throttles, which is nothing where it throttles nothing.
        "read_bytes": ("blkio", None, File("io.stat", "rbytes=")),
        "written_bytes": ("blkio", None, File("io.stat", "wbytes=")),
    }
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What has been counted since the container began; ``memory_bytes`` is what it has now, and
    as its limit counts it: with what it holds of files."""

    cpu_us: int | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    oom_kills: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None


def cpu_milli(before: Figures, now: Figures, span_s: float) -> int | None:
    """Thousandths of a processor between two looks that are ``span_s`` apart."""
    if before.cpu_us is None or now.cpu_us is None or span_s <= 0:
        return None
    return max(0, round((now.cpu_us - before.cpu_us) / span_s / 1000))


class Counters:
    """The open files of one container.  ``ended_ms``: when it died (monotonic), where that was heard."""

    def __init__(self, files: Mapping[str, tuple[File, int]], net: Interfaces | None = None) -> None:
        """``files``: of each counter that there is, its file and the number it is open under."""
        self.ended_ms: int | None = None
        self._files = files
        self._net = net
        self._last: dict[str, int | None] = {}

    @classmethod
    def open(cls, pid: int, *, net: bool = False, proc: Path = PROC, cgroups: Path = CGROUPS) -> Self:
        """Open those of the container whose first process is ``pid``; ``net``: its network is its own.

        Raises Refused (code "not-found") when there is no such process any more.
        """
        try:
            paths = paths_of((proc / str(pid) / "cgroup").read_text())
        except OSError as error:
            raise Refused(f"there is no process {pid}", code="not-found") from error
        files: dict[str, tuple[File, int]] = {}
        opened: dict[Path, int] = {}
        for name, (controller, old, new) in COUNTERS.items():
            file = old if controller in paths else new
            folder = _folder(paths, controller if controller in paths else V2, cgroups)
            if folder is None or file is None:
                continue
            path = folder / file.name
            with contextlib.suppress(OSError):  # this kernel does not count that
                if path not in opened:
                    opened[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                files[name] = file, opened[path]
        interfaces = None
        if net:
            with contextlib.suppress(OSError):  # it has ended just now
                interfaces = Interfaces.open(proc / str(pid) / "net/dev")
        return cls(files, interfaces)

    def look(self) -> Figures:
        """The figures now; of a cgroup that is gone, those of the last look."""
        texts: dict[int, str] = {}
        for name, (file, descriptor) in self._files.items():
            with contextlib.suppress(OSError):  # ENODEV: the cgroup was removed
                if descriptor not in texts:
                    texts[descriptor] = os.pread(descriptor, MAX_FILE, 0).decode("ascii", "replace")
                self._last[name] = file.value(texts[descriptor])
        if self._net is not None:
            self._last["received_bytes"], self._last["sent_bytes"] = self._net.look()
        return Figures(**self._last)

    def close(self) -> None:
        """Let the files go; the last figures stay."""
        for descriptor in {descriptor for _, descriptor in self._files.values()}:
            os.close(descriptor)
        if self._net is not None:
            self._net.close()
        self._files, self._net = {}, None


class Interfaces:
    """What went through the interfaces of a network namespace, but for its loopback (proc(5), ``net/dev``).

    An interface that is taken away and made anew, as for new names of a container, counts from nothing
    again: what it had counted stays in the sum.  As long as the file is open the namespace lives on.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._last: dict[str, tuple[int, int]] = {}
        self._received = self._sent = 0

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file.  Raises OSError."""
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def look(self) -> tuple[int, int]:
        """Bytes received and sent; those of the last look when it cannot be read any more."""
        try:
            text = os.pread(self._descriptor, MAX_FILE, 0).decode("ascii", "replace")
        except OSError:
            return self._received, self._sent
        now = dict(_interfaces(text))
        for name, (received, sent) in now.items():
            before = self._last.get(name, (0, 0))
            is_same = received >= before[0] and sent >= before[1]
            self._received += received - before[0] if is_same else received
            self._sent += sent - before[1] if is_same else sent
        self._last = now
        return self._received, self._sent

    def close(self) -> None:
        """Let the namespace go."""
        os.close(self._descriptor)


def _interfaces(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        columns = numbers.split()
        if name.strip() != "lo" and len(columns) > 8:
            yield name.strip(), (int(columns[0]), int(columns[8]))


def paths_of(text: str) -> dict[str, tuple[str, str]]:
    """Of each controller the name of its hierarchy and the path in it, from ``/proc/PID/cgroup``.

    Left out is where the process is in the root, or outside of what this process can see.
    """
    found: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        # cgroups(7): number of the hierarchy, its controllers, path; 0 and none for version 2
        _, controllers, path = line.split(":", 2)
        if path.strip("/") and ".." not in path.split("/"):
            found |= dict.fromkeys(controllers.split(","), (controllers, path))
    return found


def _folder(paths: Mapping[str, tuple[str, str]], controller: str, cgroups: Path) -> Path | None:
    """The cgroup of a controller; None when it counts nothing for us."""
    if controller not in paths:
        return None
    hierarchy, path = paths[controller]
    if controller != V2:
        # Controllers that share a hierarchy have a folder of all their names, or links to it.
        mounts = [cgroups / hierarchy, cgroups / controller]
    else:
        mounts = [cgroups / "unified"] if (cgroups / "unified").is_dir() else [cgroups]
    return next((mount / path.lstrip("/") for mount in mounts if mount.is_dir()), None)


def begun_ms(pid: int, proc: Path = PROC) -> int | None:
    """When a process began, on the clock that counts from the boot, to the hundredth of a second."""
    ticks = begun(pid, proc)
    return None if ticks is None else ticks * 1000 // os.sysconf("SC_CLK_TCK")


def begun(pid: int, proc: Path = PROC) -> int | None:
    """When a process began, in ticks since the boot (proc(5), field 22 of ``stat``); None if it has ended."""
    try:
        text = (proc / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before that may have spaces
    return int(fields[19]) if len(fields) > 19 and fields[19].isdecimal() else None
