"""``kind = "psi"``: how long programs wait for the processor, memory or disks.

[[sensors]]
name = "waiting-for-disks"
kind = "psi"
resource = "io"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.sensors.driver import Answer, Channel, Environment, SensorConfig
from agent.sensors.sysfs import read_text
from agent.wire.errors import Refused

PRESSURE = Path("/proc/pressure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SensorConfig):
    """The keys of its table, beside those that every sensor has."""

    resource: Literal["cpu", "memory", "io"]
    folder: Path = PRESSURE

    def list_channels(self) -> tuple[Channel, ...]:
        return (Channel(self.name, "%", "waiting"),)


async def open(options: Options, env: Environment) -> Psi:
    """Get ready to read; what need not be there yet is looked for at each reading."""
    return Psi(options, env)


def scan(sysfs: Path) -> list[dict[str, Any]]:
    """A table for each sensor of this kind that answers now."""
    found = [name for name in ("cpu", "memory", "io") if (PRESSURE / name).exists()]
    return [{"name": f"waiting-for-{name}", "kind": "psi", "resource": name} for name in found]


class Psi:
    """The opened sensor."""

    def __init__(self, options: Options, env: Environment) -> None:
        self._options = options
        self._run_blocking = env.run_blocking

    async def read(self) -> Mapping[str, Answer]:
        return {self._options.name: await self._run_blocking(self._share)}

    async def close(self) -> None:
        """Nothing is held open."""

    def _share(self) -> float:
        path = self._options.folder / self._options.resource
        match = re.search(r"some avg10=([0-9.]+)", read_text(path))
        if match is None:
            raise Refused(f"{path}: it has no average of 10 s")
        return float(match[1])
