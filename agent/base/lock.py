"""One process per directory: a lock file that the kernel opens again when its holder dies.

Held by whatever must not run twice on the same state.  The file names the holder's process id
for people; only the lock counts (flock(2)), so a file that a power cut left behind hinders nobody.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.wire.errors import Busy, ConfigError


@contextmanager
def held(path: Path, holder: str) -> Iterator[None]:
    """Hold the lock at ``path`` for the block.  ``holder`` says what would run twice ("a hub").

    Raises Busy naming the process that holds it, ConfigError when the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise Busy(
                f"{holder} is running in {path.parent} already, as process {pid}",
                hint=f"stop it first: kill {pid}",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
