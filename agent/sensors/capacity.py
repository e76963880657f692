"""``kind = "capacity"``: how busy and how full the board itself is.

Every board has one, asked once a minute; it needs no configuration.  Channels, each ``<sensor>.<channel>``:

    cpu           %     time not idle since the last reading, over all processors
    memory        %     what programs cannot get any more (total less available)
    memory_used   By
    disk          %     of the file system of the agent's state, as df(1) counts
    disk_used     By
    load               runnable processes, mean of one minute
    net_rx        By/s  received since the last reading, physical interfaces only
    net_tx        By/s  sent

    [[sensors]]
    name = "capacity"
    kind = "capacity"

The first reading has no ``cpu``, ``net_rx`` and ``net_tx``: they are differences, and a made-up
zero would be a lie.  What never blocks is read on the event loop (0.2 ms, 0.6 ms with cold
caches): /proc, and a local disk.  statvfs(2) hangs on a dead network mount, so any other disk
is asked in a thread, and only it fails then.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from agent.sensors.driver import Channel, Environment, SensorConfig
from agent.wire.decode import Range
from agent.wire.errors import LichenError, Refused

CHANNELS = (
    ("cpu", "%", "usage"),
    ("memory", "%", "usage"),
    ("memory_used", "By", "memory"),
    ("disk", "%", "usage"),
    ("disk_used", "By", "disk"),
    ("load", "", "load"),
    ("net_rx", "By/s", "data rate"),
    ("net_tx", "By/s", "data rate"),
)

MIN_SPAN_S = 0.05
"""Differences over less time than this are noise: /proc/stat counts hundredths of a second."""
LOCAL = frozenset({"ext2", "ext3", "ext4", "f2fs", "xfs", "vfat", "tmpfs", "overlay", "squashfs", "erofs"})
"""File systems that keep their free space in memory."""
DISK_TIMEOUT_S = 2.0
"""How long the other values wait for the disk's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SensorConfig):
    """How often the board looks at itself, and which file system counts as the disk."""

    interval_s: Annotated[float, Range(0.1, 86_400)] = 60.0
    """How often it is asked. More often than that a machine's load is of interest only while somebody
    watches, and then it is asked every 2 s; it would be a quarter of what a board sends."""
    disk: Path | None = None
    """A path on the file system to watch. When it is not set: that of the agent's state."""

    def list_channels(self) -> tuple[Channel, ...]:
        return tuple(Channel(f"{self.name}.{name}", unit, quantity) for name, unit, quantity in CHANNELS)


async def open(options: Options, env: Environment) -> Capacity:
    """Take the first look, from which the first differences count."""
    return Capacity(options, env)


def scan(sysfs: Path) -> list[dict[str, Any]]:
    """The one table that fits every board."""
    return [{"name": "capacity", "kind": "capacity"}]


@dataclass(frozen=True, slots=True)
class _Counters:
    """A look at what only grows: seconds of the processors, bytes of each interface (in, out)."""

    at_s: float
    cpu_s: float
    idle_s: float
    net: Mapping[str, tuple[int, int]]


class Capacity:
    """The opened sensor; remembers the last look."""

    def __init__(self, options: Options, env: Environment, *, disk_timeout_s: float = DISK_TIMEOUT_S) -> None:
        self._disk_timeout_s = disk_timeout_s
        self._prefix = options.name
        self._disk = options.disk or _existing(env.state_dir)
        self._disk_is_local = False
        self._net_class = env.sysfs / "class/net"
        self._nics: list[str] = []
        self._counted: list[str] = []
        self._run_blocking = env.run_blocking
        self._before = self._look()

    async def read(self) -> Mapping[str, float | LichenError]:
        values: dict[str, float | LichenError] = dict(self._usage())
        values["load"] = os.getloadavg()[0]
        values["memory"], values["memory_used"] = _memory()
        values["disk"], values["disk_used"] = await self._disk_usage()
        return {f"{self._prefix}.{name}": _rounded(value) for name, value in values.items()}

    async def close(self) -> None:
        """Nothing is held open."""

    def _usage(self) -> Iterator[tuple[str, float]]:
        """The channels that are differences to the last look, once there is a span between."""
        before, now = self._before, self._look()
        span_s = now.at_s - before.at_s
        if span_s < MIN_SPAN_S:
            return
        self._before = now
        if (cpu_s := now.cpu_s - before.cpu_s) > 0:
            idle_s = now.idle_s - before.idle_s
            # The kernel's idle counter may step back a tick (proc(5)).
            yield "cpu", min(100.0, max(0.0, 100 * (1 - idle_s / cpu_s)))
        for index, name in enumerate(("net_rx", "net_tx")):
            # A counter that went back belongs to an interface that was away: it counts as nothing.
            grown = (now.net[nic][index] - seen[index] for nic, seen in before.net.items() if nic in now.net)
            yield name, sum(max(0, count) for count in grown) / span_s

    def _look(self) -> _Counters:
        import psutil  # only where a capacity sensor is read

        times = psutil.cpu_times()
        nics = psutil.net_io_counters(pernic=True, nowrap=False)
        return _Counters(
            at_s=time.monotonic(),
            # Guests' time is contained in user and nice.
            cpu_s=sum(times) - times.guest - times.guest_nice,
            idle_s=times.idle + times.iowait,
            net={nic: (nics[nic].bytes_recv, nics[nic].bytes_sent) for nic in self.interfaces(nics)},
        )

    def interfaces(self, names: Iterable[str]) -> list[str]:
        """Those with hardware behind them; a container's bridge would count the same bytes again."""
        names = [name for name in names if name != "lo"]
        if names != self._nics:
            self._nics = names
            self._counted = [name for name in names if (self._net_class / name / "device").exists()] or names
        return self._counted

    async def _disk_usage(self) -> tuple[float | LichenError, float | LichenError]:
        """Percent and bytes used, as df(1) counts: what is kept for root is not free."""
        try:
            if self._disk_is_local:
                disk = os.statvfs(self._disk)
            else:
                async with asyncio.timeout(self._disk_timeout_s):
                    disk, self._disk_is_local = await self._run_blocking(self._look_at_disk)
        except TimeoutError:
            error = Refused(f"{self._disk}: the file system does not answer", code="timeout")
        except OSError as failure:
            error = Refused(f"{self._disk}: {failure.strerror}")
        except LichenError as failure:
            return failure, failure
        else:
            used = disk.f_blocks - disk.f_bfree
            return 100 * used / max(1, used + disk.f_bavail), float(used * disk.f_frsize)
        return error, error

    def _look_at_disk(self) -> tuple[os.statvfs_result, bool]:
        return os.statvfs(self._disk), is_local(self._disk)


def is_local(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether statvfs(2) of ``path`` is answered from memory."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.read_text().splitlines():
        # proc(5): id, parent, major:minor, root, mount point, options, ... - type, source, options
        mount, _, file_system = line.partition(" - ")
        if mount.split()[2] == wanted:
            return file_system.split()[0] in LOCAL
    return False


def _rounded(value: float | LichenError) -> float | LichenError:
    """Four digits: what is behind them is noise, and half of what a report would cost."""
    return value if isinstance(value, LichenError) else float(f"{value:.4g}")


def _memory() -> tuple[float, float]:
    """Percent and bytes that programs cannot get any more."""
    import psutil

    memory = psutil.virtual_memory()
    used = memory.total - memory.available
    return 100 * used / memory.total, float(used)


def _existing(path: Path) -> Path:
    """``path``, or what it will lie in: before the first start there is no state yet."""
    return next((each for each in (path, *path.parents) if each.exists()), path)
