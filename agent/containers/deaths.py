"""The end of a container, heard at once and without asking: a pidfd of its first process.

`agent.containers.reconcile` says which processes are to be watched.  A pidfd becomes readable when its
process ends (pidfd_open(2)), for root and for everybody else, and costs nothing until then.  What a
death means is for whoever looks then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Hashable, Mapping


class Deaths:
    """The watched processes; ``died`` is called when one of them has ended."""

    def __init__(self, died: Callable[[], None]) -> None:
        self._died = died
        self._watched: dict[Hashable, int] = {}  # the descriptor of each run, -1 where it had ended before

    def watch(self, pids: Mapping[Hashable, int]) -> None:
        """Watch these processes and no others, each by what is run: the kernel gives a number twice."""
        for run in self._watched.keys() - pids.keys():
            self._release(self._watched.pop(run))
        for run in pids.keys() - self._watched.keys():
            self._watched[run] = self._open(run, pids[run])

    def close(self) -> None:
        """Watch nothing any more."""
        self.watch({})

    def _open(self, run: Hashable, pid: int) -> int:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:  # it has ended since somebody saw it
            asyncio.get_running_loop().call_soon(self._died)
            return -1
        asyncio.get_running_loop().add_reader(descriptor, self._ended, run)
        return descriptor

    def _ended(self, run: Hashable) -> None:
        # Readable for ever from now on: it is kept in mind as one that has ended, and not asked again.
        self._release(self._watched[run])
        self._watched[run] = -1
        self._died()

    def _release(self, descriptor: int) -> None:
        if descriptor >= 0:
            asyncio.get_running_loop().remove_reader(descriptor)
            with contextlib.suppress(OSError):
                os.close(descriptor)
