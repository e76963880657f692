"""The end of a container, heard at once and without asking: a pidfd of its first process.

`agent.containers.meters` says which processes are to be watched.  A pidfd becomes readable when its
process ends (pidfd_open(2)), for root and for everybody else, and costs nothing until then.  What a
death means is for whoever is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable


class Deaths:
    """The watched processes by name; ``died`` is called with the name of one that has ended."""

    def __init__(self, died: Callable[[str], None]) -> None:
        self._died = died
        self._watched: dict[str, int | asyncio.Handle] = {}  # a descriptor; of what has ended the word of it

    def watch(self, name: str, pid: int) -> None:
        """Watch a process, until it ends."""
        self.release(name)
        loop = asyncio.get_running_loop()
        try:
            descriptor = self._watched[name] = os.pidfd_open(pid)
        except OSError:  # it has ended since somebody saw it
            self._watched[name] = loop.call_soon(self._ended, name)
            return
        loop.add_reader(descriptor, self._ended, name)

    def release(self, name: str) -> None:
        """Watch it no more, if it was."""
        watched = self._watched.pop(name, None)
        if isinstance(watched, asyncio.Handle):
            watched.cancel()
        elif watched is not None:
            asyncio.get_running_loop().remove_reader(watched)
            with contextlib.suppress(OSError):
                os.close(watched)

    def _ended(self, name: str) -> None:
        self.release(name)  # readable for ever from now on
        self._died(name)
