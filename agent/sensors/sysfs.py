"""Finding and reading small kernel files: what ``thermal``, ``hwmon``, ``iio`` and ``file`` have in common.

Owns the turning of a file's text into a number, of file errors into Refused with the path in
it, and of a device's own words into its directory.  Called by the drivers, inside
`RunBlocking`: everything here may block.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.wire.errors import Refused

MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Measure:
    """What a family of files tells: its unit, and how the kernel's number becomes one of it."""

    unit: str
    quantity: str
    steps: int = 1
    """How many of the kernel's steps make one unit."""
    times: int = 1
    """How many units make one of the kernel's steps."""

    def value(self, number: float) -> float:
        return number * self.times / self.steps


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The file's text without white space around it.  Raises Refused.

    Never waits for a writer: a named pipe without data is refused instead.
    """
    data = b""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # Files of /proc come a page at a time, however much is asked for.
            while len(data) <= max_bytes and (more := os.read(descriptor, max_bytes + 1 - len(data))):
                data += more
        except BlockingIOError:
            if not data:
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise Refused(f"{path}: over {max_bytes} bytes", code="too-large")
    return data.decode("utf-8", "replace").strip()


def read_number(path: Path) -> float:
    """The file as one number.  Raises Refused."""
    return number(read_text(path), str(path))


def number(text: str, where: str) -> float:
    """``text`` as a finite number.  Raises Refused beginning with ``where``."""
    try:
        value = float(text)
    except ValueError:
        raise Refused(f"{where}: {text[:64]!r} is not a number") from None
    if not math.isfinite(value):
        raise Refused(f"{where}: {text[:64]!r} is not a finite number")
    return value


class Search:
    """The one directory that ``matches``; found again when the kernel renumbers its devices.

    ``folder`` is a class of sysfs, ``pattern`` the shape of the names in it, ``what`` names the
    wanted one in errors.
    """

    def __init__(self, folder: Path, pattern: str, what: str, matches: Callable[[Path], bool]) -> None:
        self._folder, self._pattern, self._what, self._matches = folder, pattern, what, matches
        self._found: Path | None = None

    def directory(self) -> Path:
        """Where it is now.  Raises Refused when none matches, or more than one."""
        # Asked each time: after a renumbering the old place may be another device's.
        if self._found is None or not self._matches(self._found):
            self._found = self._look()
        return self._found

    def _look(self) -> Path:
        found = [path for path in numbered(self._folder, self._pattern) if self._matches(path)]
        if len(found) == 1:
            return found[0]
        hint = "lichen-agent sensors scan lists what is there, each under a name of its own"
        if not found:
            raise Refused(f"{self._folder}: there is no {self._what}", code="not-found", hint=hint)
        listed = ", ".join(path.name for path in found)
        raise Refused(f"{self._folder}: {listed} are each {self._what}", code="conflict", hint=hint)


def numbered(folder: Path, pattern: str) -> list[Path]:
    """What is in ``folder`` by ``pattern`` and a number, in the order of the numbers."""
    found = ((re.fullmatch(f"{pattern}([0-9]+)", path.name), path) for path in folder.glob(f"{pattern}*"))
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def says(path: Path, text: str) -> bool:
    """Whether the file can be read and holds ``text``."""
    try:
        return read_text(path) == text
    except Refused:
        return False


def slug(*words: str) -> str:
    """A sensor name out of what hardware calls itself.

    >>> slug("coretemp", "Package id 0")
    'coretemp-package-id-0'
    """
    text = re.sub(r"[^a-z0-9_]+", "-", "-".join(words).lower()).strip("-_")
    return text[:48].rstrip("-_") or "sensor"
