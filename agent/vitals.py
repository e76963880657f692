"""What the machine under the agent says of its health: disk, supply, heat, card, memory counters.

Owns where the kernel and the firmware tell it, in /sys, /proc and by ``vcgencmd``.  `agent.health`
takes them once a minute, `agent.doctor` once.  They are facts without a judgement; that is
`agent.checks`.  Everything here may block, so it runs in a thread; nothing is written.

These and the records of `agent.checks` are tuples: a dataclass takes 9 kB more, in each agent.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from agent.sensors.sysfs import numbered, read_number, read_text
from agent.wire.errors import Refused

SLOW_LOOKS = 60
"""Each how many looks those facts are read anew that change within days, if ever."""
COMMAND_LOOKS = 10
"""Each how many looks ``vcgencmd`` is run: a process costs more than all the rest."""
COMMAND_TIMEOUT_S = 2.0

# Bits of the firmware's get_throttled, as now; the same, since the board has power, 16 bits further
# left (raspberrypi.com/documentation/computers/os.html, "get_throttled").
LOW, CAPPED, THROTTLED, HOT = 1, 2, 4, 8
BEFORE = 16

SPENT = 11
"""Of a card's life in tenths: more than all of it.  Higher numbers have no meaning."""
CREDIBLE_C = (-60.0, 150.0)
"""A zone that says anything else is broken, not hot."""


class Disk(NamedTuple):
    """The file system of the agent's state.  ``free_*``: for us, without what is kept for root."""

    path: str
    total_bytes: int
    free_bytes: int
    free_files: int | None = None
    """None where files need no table of their own."""
    read_only: bool = False


class Heat(NamedTuple):
    """A zone of the kernel, how warm it is, and where the kernel would switch the machine off."""

    zone: str
    celsius: float
    critical: float | None = None


class Card(NamedTuple):
    """An eMMC: how much of its life is used up (at most, in percent), and what is left in reserve.

    ``reserve``: 1 normal, 2 warning (80 % used), 3 urgent (90 %), as JEDEC JESD84-B51 counts.
    """

    name: str
    used: int = 0
    reserve: int = 1


class Vitals(NamedTuple):
    """One look.  None, 0 or empty: this machine does not tell."""

    disk: Disk | None = None
    power: int = 0
    """Bits of get_throttled; LOW also from the kernel's own watch over the supply."""
    slowed: tuple[str, ...] = ()
    """Cooling devices that slow a processor down now."""
    heat: tuple[Heat, ...] = ()
    cards: tuple[Card, ...] = ()
    memory_cgroup: bool | None = None


class Gauges:
    """Where the vitals are read; remembers what need not be looked at each time."""

    def __init__(self, state_dir: Path, sysfs: Path = Path("/sys"), proc: Path = Path("/proc")) -> None:
        self._state_dir, self._sysfs, self._proc = state_dir, sysfs, proc
        self._looks = 0
        self._zones: tuple[tuple[Path, str, float | None], ...] = ()
        self._cards: tuple[Card, ...] = ()
        self._memory_cgroup: bool | None = None
        self._commanded = 0
        self._has_command = True

    def read(self) -> Vitals:
        """Look at everything.  Raises OSError when the state directory is not there."""
        if self._looks % SLOW_LOOKS == 0:
            self._zones = tuple(_zones(self._sysfs))
            self._cards = tuple(_cards(self._sysfs))
            self._memory_cgroup = _memory_cgroup(self._sysfs, self._proc)
        vitals = Vitals(
            disk=look_at_disk(self._state_dir, self._proc / "self/mountinfo"),
            power=self._power(),
            slowed=tuple(_slowed(self._sysfs)),
            heat=tuple(_heat(self._zones)),
            cards=self._cards,
            memory_cgroup=self._memory_cgroup,
        )
        self._looks += 1
        return vitals

    def _power(self) -> int:
        told = read_bits(self._sysfs / "devices/platform/soc/soc:firmware/get_throttled")
        if told is None:
            if self._has_command and self._looks % COMMAND_LOOKS == 0:
                self._ask_firmware()
            told = self._commanded
        alarm = supply_alarm(self._sysfs)
        return told | (LOW if alarm is not None and says_yes(alarm) else 0)

    def _ask_firmware(self) -> None:
        """Run ``vcgencmd``, on a Raspberry Pi, unless it has turned out to be missing."""
        if "Raspberry Pi" not in _text(self._sysfs / "firmware/devicetree/base/model"):
            self._has_command = False
            return
        import subprocess  # only where there is such firmware

        command = ["vcgencmd", "get_throttled"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return
        except OSError:
            self._has_command = False
            return
        # "throttled=0x50000"; without the right to ask it says so in other words.
        self._commanded = parse_bits(done.stdout.decode(errors="replace").partition("=")[2]) or 0


def look_at_disk(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> Disk:
    """The file system that ``path`` is on.  Raises OSError."""
    disk, device = os.statvfs(path), path.stat().st_dev
    return Disk(
        path=str(path),
        total_bytes=disk.f_blocks * disk.f_frsize,
        free_bytes=disk.f_bavail * disk.f_frsize,
        free_files=disk.f_favail if disk.f_files else None,
        read_only=bool(disk.f_flag & os.ST_RDONLY) or _has_failed(device, _text(mounts)),
    )


def _has_failed(device: int, mounts: str) -> bool:
    """Whether the kernel has stopped writing to a file system after an error.

    Since Linux 6.15 that is an option of its own, and statvfs(3) goes on to say that it is writable.
    """
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        # proc(5): id, parent, major:minor, root, mount point, options, ... - type, source, options
        mount, _, file_system = line.partition(" - ")
        if mount.split()[2:3] == [wanted]:
            return "emergency_ro" in file_system.rpartition(" ")[2].split(",")
    return False


def supply_alarm(sysfs: Path) -> Path | None:
    """The file in which the kernel says that the supply is too low; it can be polled (POLLPRI)."""
    for chip in numbered(sysfs / "class/hwmon", "hwmon"):
        if _text(chip / "name") == "rpi_volt":
            return chip / "in0_lcrit_alarm"
    return None


def says_yes(path: Path) -> bool:
    """Whether an alarm file says 1."""
    return _text(path) == "1"


def read_bits(path: Path) -> int | None:
    """The bits in a file, None when it does not tell any."""
    return parse_bits(_text(path))


def parse_bits(text: str) -> int | None:
    """Hexadecimal digits, with or without 0x; of more than 32 bits the lower ones."""
    try:
        return int(text, 16) & 0xFFFF_FFFF
    except ValueError:
        return None


def _zones(sysfs: Path) -> list[tuple[Path, str, float | None]]:
    """Each thermal zone: its directory, its type, and its critical temperature in degrees Celsius."""
    return [
        (zone, _text(zone / "type") or zone.name, _critical(zone))
        for zone in numbered(sysfs / "class/thermal", "thermal_zone")
    ]


def _critical(zone: Path) -> float | None:
    """The lowest of a zone's trip points at which the kernel switches off, if it has one."""
    found = []
    for trip in zone.glob("trip_point_*_type"):
        if _text(trip) in ("critical", "hot"):
            number = _number(trip.with_name(trip.name.replace("_type", "_temp")))
            if number is not None and number > 0:
                found.append(number / 1000)
    return min(found, default=None)


def _heat(zones: tuple[tuple[Path, str, float | None], ...]) -> list[Heat]:
    low, high = CREDIBLE_C
    found = []
    for zone, name, critical in zones:
        number = _number(zone / "temp")
        if number is not None and low <= number / 1000 <= high:
            found.append(Heat(name, number / 1000, critical))
    return found


def _slowed(sysfs: Path) -> list[str]:
    """The types of the cooling devices that work by a lower frequency, and do so now."""
    return [
        name
        for device in numbered(sysfs / "class/thermal", "cooling_device")
        if "cpufreq" in (name := _text(device / "type")) and (_number(device / "cur_state") or 0) > 0
    ]


def _cards(sysfs: Path) -> list[Card]:
    """Each eMMC that tells about itself; an SD card has no such files."""
    found = []
    for block in sorted((sysfs / "block").glob("mmcblk*")):
        device = block / "device"
        # Two estimates of tenths, "0x02 0x01": for the memory of either type (JESD84-B51, 7.4).
        told = [parse_bits(word) or 0 for word in _text(device / "life_time").split()]
        lives = [tenths for tenths in told if tenths <= SPENT]
        reserve = read_bits(device / "pre_eol_info") or 0
        if any(lives) or reserve:
            found.append(Card(block.name, 10 * max(lives, default=0), reserve))
    return found


def _memory_cgroup(sysfs: Path, proc: Path) -> bool | None:
    """Whether the kernel counts memory by group of processes; None when it cannot be told."""
    controllers = _text(sysfs / "fs/cgroup/cgroup.controllers").split()
    if "memory" in controllers:
        return True
    for line in _text(proc / "cgroups").splitlines():
        # cgroups(7): subsys_name, hierarchy, num_cgroups, enabled
        words = line.split()
        if words and words[0] == "memory":
            return words[-1] == "1"
    return False if controllers else None


def _text(path: Path) -> str:
    """The file's text; empty when it cannot be read.  The device tree ends its strings with a NUL."""
    try:
        return read_text(path).strip("\0\n ")
    except Refused:
        return ""


def _number(path: Path) -> float | None:
    try:
        return read_number(path)
    except Refused:
        return None
