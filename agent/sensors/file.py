"""``kind = "file"``: a number that somebody else keeps in a file.

    [[sensors]]
    name = "water-level"
    kind = "file"
    path = "/run/pump/level"
    pattern = "level=([0-9.]+) mm"  # one group; without it the whole file is the number
    scale = 0.001
    unit = "m"
    quantity = "level"

The file is opened anew at each reading, so it may be replaced; at most 64 KiB of it are read.
A named pipe is refused rather than waited for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from agent.sensors.driver import Environment, SensorConfig
from agent.sensors.sysfs import number, read_text
from agent.wire.decode import Length
from agent.wire.errors import ConfigError, LichenError, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SensorConfig):
    """Which file, and where in it the number is."""

    path: Path
    """The file, as an absolute path."""
    pattern: Annotated[str, Length(1, 512)] | None = None
    """A regular expression whose group is the number. When it is not set: the whole file is."""

    def check(self, where: str) -> None:
        if not self.path.is_absolute():
            raise ConfigError(f"{where}.path: '{self.path}' is not an absolute path")
        try:
            groups = re.compile(self.pattern or "()").groups
        except re.error as error:
            raise ConfigError(f"{where}.pattern: {self.pattern!r} is not a pattern: {error}") from error
        if groups != 1:
            raise ConfigError(
                f"{where}.pattern: {self.pattern!r} has {groups} groups where one must hold the number",
                hint="(...) holds the number; write (?:...) for brackets that only hold together",
            )


async def open(options: Options, env: Environment) -> File:
    """Ready at once: the file may come later."""
    return File(options, env)


def scan(sysfs: Path) -> list[dict[str, Any]]:
    """Nothing: no file says of itself that it is a sensor."""
    return []


class File:
    """The opened sensor."""

    def __init__(self, options: Options, env: Environment) -> None:
        self._options = options
        self._run_blocking = env.run_blocking
        self._pattern = re.compile(options.pattern) if options.pattern else None

    async def read(self) -> Mapping[str, float | LichenError]:
        return {self._options.name: await self._run_blocking(self._value)}

    async def close(self) -> None:
        """Nothing is held open."""

    def _value(self) -> float:
        options = self._options
        text = read_text(options.path)
        if self._pattern is not None:
            match = self._pattern.search(text)
            if match is None or match[1] is None:
                raise Refused(f"{options.path}: nothing matches {options.pattern!r}")
            text = match[1]
        return number(text, str(options.path))
