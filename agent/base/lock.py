"""One process per directory: a lock file that the kernel opens again when its holder dies.

Held by whatever must not run twice on the same state.  The file names the holder's process id
for people; only the lock counts (flock(2)), so a file that a power cut left behind hinders nobody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.base.files import understood
from agent.wire.errors import Busy


def holder(path: Path) -> int | None:
    """The id of the process that holds the lock at ``path``; None when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        return int(pid) if pid.isdigit() else None
    finally:
        os.close(descriptor)
    return None


@contextmanager
def held(path: Path, holder: str) -> Iterator[None]:
    """Hold the lock at ``path`` for the block.  ``holder`` says what would run twice ("a hub").

    Raises Busy naming the process that holds it, ConfigError when the file cannot be opened, and Refused
    (codes "disk-full", "disk-read-only") when it cannot be made.
    """
    try:
        descriptor = _open(path)
    except OSError as error:
        raise understood(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise Busy(
                f"{holder} is running in {path.parent} already, as process {pid}",
                hint=f"stop it first: kill {pid}",
            ) from error
        with contextlib.suppress(OSError):  # the disk is full or read-only: only the name is missing
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, flags | os.O_RDONLY)  # flock(2) asks for no more
