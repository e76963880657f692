"""What this machine offers to measure, as tables for ``agent.toml``.

Called by ``lichen-agent sensors scan``; the running agent never is.  Everything here reads
sysfs and may block.

    tables, failures = scan(config.sysfs)
    print(to_toml(tables))              # ready to paste
    added = add(path, tables)           # or written: what the file does not have yet
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from agent.base.files import write_file
from agent.sensors.driver import KINDS, Kind, load_kind
from agent.wire.errors import ConfigError, LichenError

Table = dict[str, Any]

# Keys that say how a sensor is called and asked, not which one it is.
MANNER = frozenset({"name", "interval_s", "timeout_s"})


def scan(
    sysfs: Path, kinds: Iterable[str] | None = None, load: Callable[[str], Kind] = load_kind
) -> tuple[list[Table], list[str]]:
    """A table for each sensor that answers now, each with a name of its own; and which kinds could
    not look, and why.  Without ``kinds``: all that are built in or installed."""
    if kinds is None:
        from agent.sensors import foreign  # 1.5 MB, which only a scan may cost every board

        kinds = (*KINDS, *foreign.kinds())
    taken: set[str] = set()
    tables: list[Table] = []
    failures: list[str] = []
    for kind in kinds:
        try:
            tables += [_renamed(table, taken) for table in load(kind).scan(sysfs)]
        except LichenError as error:
            failures.append(str(error))
        except Exception as error:
            if kind in KINDS:
                raise
            failures.append(f"the driver of {kind!r} cannot look: {type(error).__name__}: {error}")
    return tables, failures


def to_toml(tables: Sequence[Table]) -> str:
    """The tables as TOML, each under its own ``[[sensors]]``.

    >>> print(to_toml([{"name": "cpu", "kind": "thermal", "type": "cpu-thermal"}]), end="")
    [[sensors]]
    name = "cpu"
    kind = "thermal"
    type = "cpu-thermal"
    """
    import tomli_w  # only to write

    return "\n".join("[[sensors]]\n" + tomli_w.dumps(table) for table in tables)


def add(path: Path, tables: Sequence[Table]) -> list[Table]:
    """Write to the file those that it does not have yet, and return them.

    What is in the file stays, comments too unless its sensors are written as an inline list.
    A name that is taken gets a number.  A symbolic link stays one: what it leads to is written.
    Raises ConfigError.
    """
    path = path.resolve()
    text, before = _read(path)
    present = before.get("sensors", [])
    taken = {table.get("name") for table in present}
    added = [_renamed(table, taken) for table in tables if not any(_is(table, known) for known in present)]
    if not added:
        return []
    after = {**before, "sensors": [*present, *added]}
    longer = (text.rstrip("\n") + "\n\n" + to_toml(added)).lstrip("\n")
    write_file(path, (longer if _parses_to(longer, after) else _dumps(after)).encode(), mode=_mode(path))
    return added


def _read(path: Path) -> tuple[str, Table]:
    """The file's text and what it says; nothing when there is none."""
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        return "", {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    sensors = table.get("sensors", [])
    if not isinstance(sensors, list) or not all(isinstance(entry, dict) for entry in sensors):
        raise ConfigError(f"{path}: sensors: expected a list of tables")
    return text, table


def _is(found: Table, known: Table) -> bool:
    """Whether a table of the file reads what was found; it may say more, such as another disk."""
    return all(known.get(key) == value for key, value in found.items() if key not in MANNER)


def _renamed(table: Table, taken: set[Any]) -> Table:
    """The table with the first of name, name-2, name-3 ... that is free; takes it."""
    name, number = table["name"], 1
    while (free := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    taken.add(free)
    return {**table, "name": free}


def _parses_to(text: str, expected: Table) -> bool:
    """Whether appending has worked: an inline list of sensors, for one, cannot be continued."""
    try:
        return tomllib.loads(text) == expected
    except tomllib.TOMLDecodeError:
        return False


def _dumps(table: Table) -> str:
    import tomli_w

    return tomli_w.dumps(table)


def _mode(path: Path) -> int:
    """The file's own permissions, or those of a new one."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return 0o644
