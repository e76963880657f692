"""``kind = "thermal"``: the temperatures that the kernel itself watches.

Reads ``/sys/class/thermal/thermal_zone*/temp`` (millidegrees Celsius; the kernel's
``Documentation/driver-api/thermal/sysfs-api.rst``).  A zone is named by its type, which
survives renumbering, or by its directory where several zones share a type:

    [[sensors]]
    name = "cpu-temperature"
    kind = "thermal"
    type = "cpu-thermal"        # or: zone = "thermal_zone0"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from agent.sensors.driver import Channel, Environment, SensorConfig
from agent.sensors.sysfs import Search, numbered, read_number, read_text, says, slug
from agent.wire.decode import Length, Match
from agent.wire.errors import ConfigError, LichenError, Refused

CLASS = "class/thermal"
ZONE = "thermal_zone"
Zone = Annotated[str, Match(r"thermal_zone[0-9]{1,4}", "the name of a zone, such as 'thermal_zone0'")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SensorConfig):
    """Exactly one of ``type`` and ``zone``."""

    type: Annotated[str, Length(1, 64)] | None = None
    """The zone's type, which survives renumbering; either this or ``zone``."""
    zone: Zone | None = None
    """The zone's directory, where several zones share a type."""

    def list_channels(self) -> tuple[Channel, ...]:
        return (Channel(self.name, "Cel", "temperature"),)

    def check(self, where: str) -> None:
        if (self.type is None) == (self.zone is None):
            raise ConfigError(f"{where}: give either type or zone, to say which temperature")


async def open(options: Options, env: Environment) -> Thermal:
    """Ready at once: the zone is looked for at each read, so it may come and go."""
    return Thermal(options, env)


def scan(sysfs: Path) -> list[dict[str, Any]]:
    """A table for each zone that tells its temperature now."""
    zones = {path: read_text(path / "type") for path in numbered(sysfs / CLASS, ZONE) if _answers(path)}
    shared = Counter(zones.values())
    return [
        {"name": slug(type_), "kind": "thermal"}
        | ({"type": type_} if shared[type_] == 1 else {"zone": path.name})
        for path, type_ in zones.items()
    ]


class Thermal:
    """The opened sensor."""

    def __init__(self, options: Options, env: Environment) -> None:
        self._name = options.name
        self._run_blocking = env.run_blocking
        type_, zone = options.type, options.zone
        if type_ is not None:
            what, matches = f"zone of type {type_!r}", lambda path: says(path / "type", type_)
        else:
            what, matches = f"{zone}", lambda path: path.name == zone
        self._search = Search(env.sysfs / CLASS, ZONE, what, matches)

    async def read(self) -> Mapping[str, float | LichenError]:
        return {self._name: await self._run_blocking(self._celsius)}

    async def close(self) -> None:
        """Nothing is held open."""

    def _celsius(self) -> float:
        return read_number(self._search.directory() / "temp") / 1000


def _answers(zone: Path) -> bool:
    """Whether the zone has a type and a temperature; a disabled one refuses to be read."""
    try:
        read_text(zone / "type")
        read_number(zone / "temp")
    except Refused:
        return False
    return True
