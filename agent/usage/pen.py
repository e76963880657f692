"""What writes at the end of a file of frames: a whole batch, or nothing.

Where the disk refuses in the midst of a batch the file is cut back to where it was; where even that fails,
it is done before the next batch begins.  Used by `agent.usage.volume`; it knows no frames.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.usage.frames import Disk, writing


class Pen:
    """An open file whose first ``end`` bytes count."""

    def __init__(self, disk: Disk, path: Path, end: int) -> None:
        self.end = end
        self._disk = disk
        self._path = path
        self._is_torn = False  # behind ``end`` is what must not stay
        self._file = disk.open(path)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What is written in the block stays if the block ends well, and only then.

        Raises Refused (codes "disk-full", "disk-read-only") in place of OSError.
        """
        begin = self.end
        try:
            with writing(self._path):
                self._mend()
                self._is_torn = True
                yield
                self._is_torn = False
        except BaseException:
            self.end = begin
            with contextlib.suppress(OSError):
                self._mend()
            raise

    def write(self, data: bytes) -> None:
        """Write, and wait until it is on the disk.  Raises OSError."""
        self._disk.write(self._file, data, self.end)
        self.end += len(data)
        self._disk.sync(self._file)

    def cut(self, end: int) -> None:
        """Cut the file to ``end`` bytes, and wait until it is.  Raises OSError."""
        self._disk.cut(self._file, end)
        self._disk.sync(self._file)
        self.end, self._is_torn = end, False

    def _mend(self) -> None:
        if self._is_torn:
            self._disk.cut(self._file, self.end)
            self._is_torn = False
