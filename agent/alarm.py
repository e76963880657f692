"""Word from the kernel that an attribute of sysfs has changed, without looking at it all the time.

Attributes that say so (sysfs_notify in the kernel, such as the alarms of hwmon) can be polled for
POLLPRI.  asyncio's loop knows only readable and writable, but an epoll that waits for POLLPRI is
itself readable.  `agent.health` watches the supply voltage so: a dip of two seconds is seen, and
a quiet month costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def watching(path: Path | None, ring: Callable[[], None]) -> Iterator[None]:
    """Call ``ring`` on the loop at each change while the block lasts.

    A file that does not announce its changes, or cannot be opened, is not watched.
    """
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        try:
            poll, file = _open(path, stack)
        except OSError:
            yield
            return

        def changed() -> None:
            poll.poll(0)  # takes the event, which is told once (EPOLLET)
            _read(file)
            ring()

        loop.add_reader(poll.fileno(), changed)
        stack.callback(loop.remove_reader, poll.fileno())
        yield


def _open(path: Path | None, stack: contextlib.ExitStack) -> tuple[select.epoll, int]:
    """An epoll that becomes readable when ``path`` changes, and the open file.  Raises OSError."""
    if path is None:
        raise FileNotFoundError
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    stack.callback(os.close, file)
    poll = stack.enter_context(select.epoll())
    # On a file that is no attribute of the kernel this raises PermissionError.
    poll.register(file, select.EPOLLPRI | select.EPOLLERR | select.EPOLLET)
    _read(file)
    return poll, file


def _read(file: int) -> None:
    """Only what was read is told anew (kernel, fs/kernfs/file.c: kernfs_generic_poll)."""
    with contextlib.suppress(OSError):
        os.pread(file, 64, 0)
