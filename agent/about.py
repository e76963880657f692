"""What a board says of its machine beside its readings.

`agent.app` looks at the machine once and composes the about message whenever the link or the
status asks.  It reads /proc, /sys and /etc, and writes nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MAX_TEXT = 256
"""Characters of a text in the about message."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change while the agent runs.  Sizes in bytes; unknown texts are empty."""

    hostname: str
    model: str
    system: str
    kernel: str
    arch: str
    cpus: int
    memory_bytes: int
    disk_bytes: int


def look(state_dir: Path, sysfs: Path = Path("/sys"), etc: Path = Path("/etc")) -> Machine:
    """Describe this machine; ``disk_bytes`` of the file system of ``state_dir``."""
    names = os.uname()
    disk = os.statvfs(state_dir)
    return Machine(
        hostname=names.nodename[:MAX_TEXT],
        model=_first_text(
            sysfs / "firmware/devicetree/base/model",  # boards
            sysfs / "class/dmi/id/product_name",  # PCs and virtual machines
        ),
        system=_system(etc / "os-release"),
        kernel=names.release[:MAX_TEXT],
        arch=names.machine,
        cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        disk_bytes=disk.f_blocks * disk.f_frsize,
    )


def _first_text(*paths: Path) -> str:
    for path in paths:
        try:
            # The device tree ends its strings with a NUL.
            text = path.read_text("utf-8", errors="replace").strip("\0\n ")
        except OSError:
            continue
        if text:
            return text[:MAX_TEXT]
    return ""


def _system(path: Path) -> str:
    """The system's name as it calls itself (os-release(5))."""
    for line in _first_text(path).splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return ""
