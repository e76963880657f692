"""Small files that are either old or new, never half of both.

Called by whatever keeps state beside a database: identities, the hub document, written
configuration, status for other processes.  It never holds a file open and never reads.

There is one writer per path: the temporary name is fixed, so what a crash left behind is
overwritten by the next write instead of piling up.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from agent.wire.errors import ConfigError, LichenError, Refused

PASSING = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""What a restart or the next attempt may help: a card that fails now and then, and too many open files."""


def write_file(path: Path, data: bytes, mode: int = 0o600, *, sync: bool = True) -> None:
    """Replace ``path`` by ``data`` in one step; after a power cut it is the old or the new file.

    ``mode`` holds whatever the umask is.  ``sync=False`` leaves out both fsyncs, for what may
    be lost at a power cut, such as a status file.  Raises Refused (codes "disk-full" and
    "disk-read-only", and for what may pass), and ConfigError when the directory is missing or may
    not be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        _write_new(temporary, data, mode, sync=sync)
        temporary.replace(path)
        if sync:
            _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise understood(path, error) from error


def exists(path: Path) -> bool:
    """Whether something is at ``path``.  Raises ConfigError when this user may not know."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be looked at: {error.strerror or error}",
            hint="run this with sudo, or as the user whose files these are",
        ) from error
    return True


def make_directory(path: Path, mode: int = 0o700) -> Path:
    """Make ``path`` and its parents, with ``mode`` whatever the umask is.

    One that is there gets the mode only while it is empty and ours: a directory in use may be
    /run or /tmp, which others must still get into.  Raises ConfigError when it cannot be made.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        found = path.stat()
        is_free = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX
        if found.st_mode & 0o7777 != mode and is_free and not any(path.iterdir()):
            path.chmod(mode)
    except OSError as error:
        raise understood(path, error) from error
    return path


def _write_new(path: Path, data: bytes, mode: int, *, sync: bool) -> None:
    # O_NOFOLLOW: nobody turns our write into a write somewhere else by planting a link.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, mode), "wb", buffering=0) as file:
        os.fchmod(file.fileno(), mode)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        if sync:
            os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    # A rename is only on the disk once its directory is (fsync(2), notes).
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def understood(path: Path, error: OSError) -> LichenError:
    """What it means that ``path`` cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused(
            f"{path} cannot be written: the disk is full",
            code="disk-full",
            hint=f"free some space on the file system of {path.parent}",
        )
    if error.errno == errno.EROFS:
        return Refused(
            f"{path} cannot be written: its file system is read-only",
            code="disk-read-only",
            hint="the kernel does that to a card that fails: its log says more; a new card is the usual cure",
        )
    if error.errno in PASSING:
        return Refused(f"{path} cannot be written: {error.strerror}", hint="`dmesg` may say why")
    return ConfigError(
        f"{path} cannot be written: {error.strerror or error}",
        hint="check that the directory exists and belongs to the user who runs this",
    )
