"""What becomes of files: a process that is killed leaves them as they are, and a disk gets full.

A full disk is SQLite's own limit of pages (PRAGMA max_page_count), which ends a transaction with the same
error as the kernel's ENOSPC.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from sqlite3 import Connection

from support.virtual import VirtualLoop


class Folders:
    """The folder that a process lives in, and after each death a new one with what it left."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name
        self._lives = 0
        self.file.parent.mkdir(parents=True)

    @property
    def file(self) -> Path:
        """The database of the process that lives now."""
        return self._root / f"life-{self._lives}" / self._name

    def leave(self) -> Path:
        """Copy the files for the next life, without waiting for anything; returns its folder."""
        old = self.file.parent
        self._lives += 1
        new = self.file.parent
        new.mkdir()
        for file in old.iterdir():
            if not file.name.endswith("-shm"):  # memory of the processes that have the file open
                shutil.copy(file, new)
        return new

    def forget(self, new: Path) -> None:
        """Remove the folders before ``new``."""
        for folder in self._root.glob("life-*"):
            if folder != new:
                shutil.rmtree(folder)


async def quiet() -> None:
    """Wait until no thread writes: files that are copied then are what a power cut leaves."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    while loop.working:
        await asyncio.sleep(0)


FULL = "PRAGMA max_page_count = 1"  # no fewer than there are
ROOMY = "PRAGMA max_page_count = 1073741823"


def fill(connection: Connection) -> None:
    """Let a database grow no more."""
    connection.execute(FULL)


def leave_room(connection: Connection) -> None:
    """Let it grow again."""
    connection.execute(ROOMY)
