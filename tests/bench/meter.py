"""What a running process costs, as the kernel counts it (proc(5)); nothing is attached to it.

CPU is the time on a processor of all threads that live, from `schedstat`, in nanoseconds:
`stat` counts in ticks of 10 ms, which an idle agent seldom fills.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

PROC = Path("/proc")


def rss_mb(pid: int) -> float:
    """Resident memory of the whole process, in MB of 2**20 bytes, as ps and top count."""
    return _status(PROC / str(pid) / "status", "VmRSS") / 1024


def cpu_s(pid: int) -> float:
    """Seconds on a processor since the start, of all threads that still live."""
    return _schedstat_s(pid, 0)


def children_cpu_s(pid: int) -> float:
    """Seconds on a processor of its children that have ended, and of theirs that they waited for.

    In ticks of 10 ms: for children that do something.
    """
    times = psutil.Process(pid).cpu_times()
    return float(times.children_user + times.children_system)


def waited_s(pid: int) -> float:
    """Seconds that its threads were ready to run and had no core: others kept the machine busy."""
    return _schedstat_s(pid, 1)


def wake_ups(pid: int) -> int:
    """How often a thread that had gone to sleep was woken: voluntary switches, of all threads."""
    return sum(_status(task / "status", "voluntary_ctxt_switches") for task in _threads(pid))


def child(pid: int, name: str) -> int:
    """The pid of the process's child of that name."""
    return int(next(found.pid for found in psutil.Process(pid).children() if found.name() == name))


def _schedstat_s(pid: int, column: int) -> float:
    return sum(int((task / "schedstat").read_text().split()[column]) for task in _threads(pid)) / 1e9


def _threads(pid: int) -> Iterator[Path]:
    return (PROC / str(pid) / "task").iterdir()


def _status(file: Path, key: str) -> int:
    line = next(line for line in file.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1])
