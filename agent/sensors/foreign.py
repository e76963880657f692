"""Kinds of sensors that other packages bring: the entry points of the group ``lichen.sensors``.

Owns the search for them and the judgement of what is found; called by `agent.sensors.driver` for
a kind that is not built in, and by `agent.sensors.scan`.  A package says in its pyproject.toml

    [project.entry-points."lichen.sensors"]
    psi = "lichen_psi"

where ``psi`` is the kind and ``lichen_psi`` a module in the shape of `agent.sensors.driver.Kind`
(docs/sensors.md tells how to write one).  Built-in kinds come first: no package replaces one.

Code of somebody else may fail in any way.  What it costs is its sensor, never the board: the
reason stands where the sensor's value would, and the fault is looked at again at the next start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from agent.sensors.driver import (
    KINDS,
    Kind,
    SensorConfig,
    Unloadable,
    read_options,
    unknown_kind,
)
from agent.wire.decode import decode
from agent.wire.errors import ConfigError, LichenError, Refused
from agent.wire.messages import Sensor

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "lichen.sensors"
COMMON = ("name", "kind", "interval_s", "timeout_s", "unit", "quantity", "tags")
"""The keys that are checked even though the kind that they belong to cannot be asked."""


def kinds() -> list[str]:
    """The kinds that installed packages bring, in order."""
    return sorted({entry.name for entry in _entries()} - KINDS.keys())


def read_sensor(table: Mapping[str, Any], where: str) -> SensorConfig:
    """Check a table of a kind that is not built in.

    Raises ConfigError for what the table says wrong.  A driver that cannot be used is none of the
    table's faults: then the answer is an `Unloadable`.
    """
    kind = table["kind"]
    if not isinstance(kind, str) or kind not in kinds():
        raise unknown_kind(kind, [*KINDS, *kinds()], where)
    try:
        options = read_options(load_kind(kind), table, where)
        complaint = _complaint(options)
    except ConfigError:
        raise
    except Refused as error:
        return _stand_in(table, where, str(error))
    except Exception as error:  # noqa: BLE001  a package of somebody else costs its own sensor
        return _stand_in(table, where, _reason(kind, "cannot read its configuration", error))
    return _stand_in(table, where, f"the driver of {kind!r} {complaint}") if complaint else options


def _complaint(options: SensorConfig) -> str:
    """What no message could carry, or one sensor alone may not have; empty when all is well.

    The hub refuses a whole batch for one bad name in it.
    """
    float(options.fastest_s)
    names = []
    for channel in options.list_channels():
        try:
            decode(Sensor, {"kind": "", **asdict(channel)})
        except Refused as error:
            return f"has a bad channel: {error}"
        names.append(channel.name)
    if not names:
        return "has no channel"
    if len(set(names)) < len(names):
        return f"has channels of one name: {', '.join(sorted(names))[:128]}"
    if names != [options.name] and not all(name.startswith(f"{options.name}.") for name in names):
        return f"has channels that are not of {options.name!r}: {', '.join(sorted(names))[:128]}"
    return ""


def load_kind(kind: str) -> Kind:
    """The module behind a kind.  Raises Refused when it is not there, or cannot be used."""
    found = [entry for entry in _entries() if entry.name == kind]
    if not found:
        raise Refused(f"no installed package brings the kind {kind!r}", code="driver")
    if len(found) > 1:
        listed = ", ".join(sorted(_package(entry) for entry in found))
        raise Refused(
            f"several packages bring the kind {kind!r}: {listed}", code="driver", hint="uninstall all but one"
        )
    entry = found[0]
    try:
        module = entry.load()
    # A module that ends the process when it is imported must not end the agent.
    except (Exception, SystemExit) as error:
        raise Refused(
            _reason(kind, f"({_package(entry)}) cannot be imported", error),
            code="driver",
            hint=f"python3 -c 'import {entry.module}' shows where it fails",
        ) from error
    options = getattr(module, "Options", None)
    if not (isinstance(options, type) and issubclass(options, SensorConfig)):
        raise Refused(_lacks(kind, entry, "Options, a subclass of SensorConfig"), code="driver")
    for name in ("open", "scan"):
        if not callable(getattr(module, name, None)):
            raise Refused(_lacks(kind, entry, f"{name}()"), code="driver")
    return cast("Kind", module)


def _entries() -> list[EntryPoint]:
    # 1.5 MB of memory, so only for whoever has such a kind.
    from importlib.metadata import entry_points

    return list(entry_points(group=GROUP))


def _stand_in(table: Mapping[str, Any], where: str, reason: str) -> Unloadable:
    """A sensor that says why it cannot be one; its common keys must be right all the same."""
    common = {key: table[key] for key in COMMON if key in table}
    known = decode(SensorConfig, common, strict=True, where=where)
    return Unloadable(**{key: getattr(known, key) for key in common}, reason=reason, table=dict(table))


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _reason(kind: str, what: str, error: BaseException) -> str:
    told = str(error) if isinstance(error, LichenError) else f"{type(error).__name__}: {error}"
    return f"the driver of {kind!r} {what}: {told}"


def _lacks(kind: str, entry: EntryPoint, what: str) -> str:
    return f"the driver of {kind!r} ({_package(entry)}) has no {what}"
