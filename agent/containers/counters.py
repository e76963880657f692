"""What a running container takes of the board: processor, memory, and deaths for lack of memory.

Read from the files of its cgroup, which the kernel keeps (cgroups(7)), and not asked of Podman:
that would wake 35 MB of it each time.  `agent.containers.report` opens one `Counters` for each
container while it runs.  The files stay open, so the last figures can still be read when it has died;
when its cgroup is gone too, the figures are those of the last look.

There are two versions of cgroups, and machines that have both: a controller is in one of them.
``/proc/PID/cgroup`` says where a process is; one that is in the root is not counted, for those figures are
of the whole machine.  What the platform does not count is None, never 0.

>>> paths_of("12:memory:/lichen/web\\n1:name=systemd:/\\n0::/\\n")
{'memory': ('memory', '/lichen/web')}
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

from agent.wire.errors import Refused

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
MAX_FILE = 4096
"""Bytes of the largest file that is read here; they have some hundred."""
V2 = ""
"""What stands for the controllers of version 2, which are all in one tree."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of counters: one number, or lines of which ``key`` begins the one that counts."""

    name: str
    key: str = ""
    divisor: int = 1

    def value(self, text: str) -> int | None:
        """The number in it; None where this kernel does not count it."""
        if self.key:
            fields = (line.partition(" ") for line in text.splitlines())
            text = next((number for key, _, number in fields if key == self.key), "")
        return int(text) // self.divisor if text.strip().isdecimal() else None


# counter: (its controller in version 1, its file there, its file in version 2)
COUNTERS: Mapping[str, tuple[str, File, File]] = MappingProxyType(
    {
        "cpu_us": ("cpuacct", File("cpuacct.usage", divisor=1000), File("cpu.stat", "usage_usec")),
        "memory_bytes": ("memory", File("memory.usage_in_bytes"), File("memory.current")),
        # memory.peak is there since Linux 5.19.
        "memory_peak_bytes": ("memory", File("memory.max_usage_in_bytes"), File("memory.peak")),
        "oom_kills": ("memory", File("memory.oom_control", "oom_kill"), File("memory.events", "oom_kill")),
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


def cpu_milli(before: Figures, now: Figures, span_s: float) -> int | None:
    """Thousandths of a processor between two looks that are ``span_s`` apart."""
    if before.cpu_us is None or now.cpu_us is None or span_s <= 0:
        return None
    return max(0, round((now.cpu_us - before.cpu_us) / span_s / 1000))


class Counters:
    """The open files of one container."""

    def __init__(self, files: Mapping[str, tuple[File, int]]) -> None:
        """``files``: of each counter that there is, its file and the number it is open under."""
        self._files = files
        self._last: dict[str, int | None] = {}

    @classmethod
    def open(cls, pid: int, *, proc: Path = PROC, cgroups: Path = CGROUPS) -> Self:
        """Open those of the container whose first process is ``pid``.

        Raises Refused (code "not-found") when there is no such process any more.
        """
        try:
            paths = paths_of((proc / str(pid) / "cgroup").read_text())
        except OSError as error:
            raise Refused(f"there is no process {pid}", code="not-found") from error
        files: dict[str, tuple[File, int]] = {}
        for name, (controller, old, new) in COUNTERS.items():
            file = old if controller in paths else new
            folder = _folder(paths, controller if controller in paths else V2, cgroups)
            if folder is not None:
                with contextlib.suppress(OSError):  # this kernel does not count that
                    files[name] = file, os.open(folder / file.name, os.O_RDONLY | os.O_CLOEXEC)
        return cls(files)

    def look(self) -> Figures:
        """The figures now; of a cgroup that is gone, those of the last look."""
        for name, (file, descriptor) in self._files.items():
            with contextlib.suppress(OSError):  # ENODEV: the cgroup was removed
                self._last[name] = file.value(os.pread(descriptor, MAX_FILE, 0).decode("ascii", "replace"))
        return Figures(**self._last)

    def close(self) -> None:
        """Let the files go."""
        for _, descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}


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


def begun(pid: int, proc: Path = PROC) -> int | None:
    """When a process began, in ticks since the boot (proc(5), field 22 of ``stat``); None if it has ended."""
    try:
        text = (proc / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before that may have spaces
    return int(fields[19]) if len(fields) > 19 and fields[19].isdecimal() else None
