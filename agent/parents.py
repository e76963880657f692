"""The cgroup above that of a container: what it has counted stays when the container is gone.

The cgroup of a container goes some 50 ms after its death, and what it has counted goes with it.  So each
container has a cgroup of its own above (`path_of`), in which only conmon is besides: what that counts without
conmon is the container's, to the nanosecond, however short its life was, and even when nobody looked.  Not
across a reboot, which begins all of them anew.

`agent.containers.worker` lets Podman make them, `agent.usage.meter` reads them, and removes them when what
they say is written down.  An agent that may not do that leaves them: they are in memory, and cost little.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.cgroups import CGROUPS, COUNTERS, Figures, File

HOUSE = "lichen"
"""The cgroup in which all parents of a machine are: together they have the share of one."""
SETTLED = 4
"""How often conmon is read before it is believed that it will not stand still."""


def draw(board: str) -> str:
    """A name for the parent of a container that is to be made: nobody else on this machine takes it."""
    return f"{board}_{base64.b32encode(secrets.token_bytes(10)).decode().lower()}"


def path_of(name: str) -> str:
    """Where a parent is, as Podman is told it (``cgroup_parent``)."""
    return f"/{HOUSE}/{name}"


class Parents:
    """Those of this machine, in all its trees of cgroups."""

    def __init__(self, cgroups: Path = CGROUPS, rmdir: Callable[[Path], None] = os.rmdir) -> None:
        self._cgroups = cgroups
        self._rmdir = rmdir

    def names(self) -> set[str]:
        """The names of all."""
        found: set[str] = set()
        for tree in self._trees():
            with contextlib.suppress(OSError), os.scandir(tree / HOUSE) as entries:
                found |= {entry.name for entry in entries if entry.is_dir()}
        return found

    def find(self, name: str) -> Parent | None:
        """The one of that name, if it is there."""
        if not name or "/" in name or name.startswith("."):
            return None
        try:
            there = [folder for tree in self._trees() if (folder := tree / HOUSE / name).is_dir()]
            return Parent(there) if there else None
        except OSError:  # it goes in this moment
            return None

    def remove(self, parent: Parent) -> bool:
        """Remove one with what is below it.  False where it is used, or is not ours to remove."""
        gone = True
        for folder in parent.folders:
            for below, _, _ in os.walk(folder, topdown=False):
                gone = self._remove(Path(below)) and gone
        return gone

    def remove_house(self) -> None:
        """Remove the cgroup of all, where it is empty.  Only while nothing is about to be started."""
        for tree in self._trees():
            self._remove(tree / HOUSE)

    def _remove(self, folder: Path) -> bool:
        try:
            self._rmdir(folder)
        except FileNotFoundError:
            return True
        except OSError:  # EBUSY, EACCES
            return False
        return True

    def _trees(self) -> list[Path]:
        """The roots of the hierarchies; links are other names of the same ones."""
        if (self._cgroups / "cgroup.controllers").exists():
            return [self._cgroups]
        try:
            with os.scandir(self._cgroups) as entries:
                return sorted(Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:
            return []


class Parent:
    """One of them, in each tree in which it is.  ``inode`` tells it from one that had its name before.

    Raises OSError when it is not there.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        counting = self._counting("cpu_us")
        self._first = folders[0] if counting is None else counting[0]
        self.inode = self._first.stat().st_ino

    def look(self) -> Figures:
        """What was counted in it, without what is conmon's.  Not memory, of which conmon has some, too."""
        counted = {
            name: self._without_conmon(*found)
            for name in ("cpu_us", "read_bytes", "written_bytes")
            if (found := self._counting(name)) is not None
        }
        return Figures(**counted, oom_kills=self._kills())

    def is_quiet(self) -> bool:
        """Whether no process is in it or below it, so that nothing is counted any more."""
        return not any(_read(Path(folder) / "cgroup.procs").strip() for folder, _, _ in os.walk(self._first))

    def _counting(self, name: str) -> tuple[Path, File] | None:
        """The folder and the file of a counter, in the version that has it here."""
        controller, old, new = COUNTERS[name]
        for folder in self.folders:
            if old is not None and (folder / old.name).exists():
                return folder, old
        if any(controller in folder.parent.parent.name.split(",") for folder in self.folders):
            return None  # version 1 has the controller, and does not count that
        return next(((folder, new) for folder in self.folders if (folder / new.name).exists()), None)

    def _without_conmon(self, folder: Path, file: File) -> int | None:
        """Read while conmon stands still, or as good as it can be had."""
        whole, of_conmon = None, _of_conmon(folder, file)
        for _ in range(SETTLED):
            whole, before = file.raw(_read(folder / file.name)), of_conmon
            of_conmon = _of_conmon(folder, file)
            if before == of_conmon:
                break
        return None if whole is None else max(0, whole - of_conmon) // file.divisor

    def _kills(self) -> int | None:
        """Version 2 counts them in the cgroups above, too (memory.events)."""
        _, _, file = COUNTERS["oom_kills"]
        texts = [_read(folder / file.name) for folder in self.folders]
        return next((found for text in texts if (found := file.value(text)) is not None), None)


def _of_conmon(folder: Path, file: File) -> int:
    """What is conmon's; Podman names its cgroup after it, whoever manages them."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [Path(entry) for entry in entries if "conmon" in entry.name and entry.is_dir()]
        return sum(file.raw(_read(each / file.name)) or 0 for each in found)
    return 0


def _read(path: Path) -> str:
    """What is in a file; nothing where that is gone."""
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
