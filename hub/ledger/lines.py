"""Entries as the columns of the store, read once.  Pure.

`hub.ledger.claims` reads every entry of a package with it, so this is the hot path of the witness.  Nearly
all entries are records of containers as our own encoder writes them, and those are read at a glance: by one
pattern, which lets through only what `agent.wire.usage.read` would let through, and reads the same.  What it
does not match is read word for word.

>>> from agent.wire.usage import BoardRecord, encode
>>> entry = encode(BoardRecord(boot="b" * 32, mono0_ms=0, mono1_ms=5, wall0_ms=0, wall1_ms=5, clock="hub",
...     cpus=4, memory_bytes=2**30, disk_bytes=2**34))
>>> line = read_line(entry)
>>> line.type, line.columns[COLUMNS.index("cpus")], line.columns[COLUMNS.index("app")]
('board', 4, None)
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, NamedTuple

from agent.wire.usage import (
    BoardRecord,
    ContainerRecord,
    Known,
    OrderRecord,
    Other,
    SensorRecord,
    read,
)
from hub.store.ledgers import RecordRow

COLUMNS = [field.name for field in fields(RecordRow)][11:]
"""The columns behind those of time, as `Line.columns` has them."""


class Line(NamedTuple):
    """An entry: what every record says, and the columns of its kind.

    ``record`` is there when it was read word for word: so always for kinds whose columns do not say all.
    """

    seq: int
    type: str
    boot: str
    mono0_ms: int
    mono1_ms: int
    wall0_ms: int
    wall1_ms: int
    clock: str
    columns: tuple[Any, ...]
    record: Known | None = None


def read_line(entry: bytes) -> Line | Other:
    """An entry; one of a later version stays what it is.  Raises Refused as `read` does."""
    match = _CONTAINER.fullmatch(entry)
    if match is not None:
        line = _line(match.groups())
        if line.mono0_ms <= line.mono1_ms:
            return line
    record = read(entry)
    return record if isinstance(record, Other) else line_of(record)


def line_of(record: Known) -> Line:
    """The line of a record."""
    values = _columns(record)
    return Line(
        record.seq,
        record.type,
        record.boot,
        record.mono0_ms,
        record.mono1_ms,
        record.wall0_ms,
        record.wall1_ms,
        record.clock,
        tuple(values.get(name) for name in COLUMNS),
        record,
    )


def _columns(record: Known) -> dict[str, Any]:
    """What a record says in columns, by their names."""
    match record:
        case ContainerRecord():
            values = {name: getattr(record, name) for name in _OF_CONTAINER if name != "generation"}
            counted = {"generation": record.order, "reset": int(record.reset), "ended": int(record.ended)}
            return values | counted
        case BoardRecord():
            names = ("cpus", "memory_bytes", "disk_bytes")
            return {name: getattr(record, name) for name in names}
        case SensorRecord():
            return {name: getattr(record, name) for name in ("sensor", "unit", "readings", "day")}
        case OrderRecord():
            return {"generation": record.generation}
        case _:
            return {}


# --- at a glance ---------------------------------------------------------------------------------------

_OF_CONTAINER = COLUMNS[: COLUMNS.index("exit_code") + 1]
_OTHERS = (None,) * (len(COLUMNS) - len(_OF_CONTAINER))

# Each lets through a part of what its type does.  Numbers of so many digits are within their ranges; text of
# printable ASCII without escapes has as many characters as bytes.
_COUNT = r"(0|[1-9]\d{0,14})"
_TIME = r"(0|-?[1-9]\d{0,14})"
_AMOUNT = r"(null|0|[1-9]\d{0,17})"
_TEXT = r'"([ !#-\[\]-~]{0,256})"'
_FLAG = r"(true|false)"
_PATTERNS = {
    "v": "1",
    "seq": _COUNT,
    "salt": r'"[0-9a-f]{32}"',
    "type": '"container"',
    "boot": r'"([0-9a-f]{32})"',
    "mono0_ms": _COUNT,
    "mono1_ms": _COUNT,
    "wall0_ms": _TIME,
    "wall1_ms": _TIME,
    "clock": '"(synced|hub|unsynced)"',
    "lease": _TEXT,
    "order": _COUNT,
    "payer": _TEXT,
    "workspace": _TEXT,
    "app": _TEXT,
    "service": _TEXT,
    "image": r'"([ !#-\[\]-~]{0,512})"',
    "container": _TEXT,
    "run": _TEXT,
    "cpu_us": _AMOUNT,
    "mem_byte_ms": _AMOUNT,
    "mem_sample_ms": _COUNT,
    "mem_peak": _AMOUNT,
    "io_r": _AMOUNT,
    "io_w": _AMOUNT,
    "net_rx": _AMOUNT,
    "net_tx": _AMOUNT,
    "reset": _FLAG,
    "oom_kills": _AMOUNT,
    "ended": _FLAG,
    "exit_code": r"(null|0|-?[1-9]\d{0,8})",
    # None of these is written where there is none: each may be missing, and a comma has another behind it.
    "abs": r"\{"
    + "".join(
        rf'(?:"{name}":(?:null|0|[1-9]\d{{0,17}})(?:,(?=")|(?=\}})))?'
        for name in ("cpu_us", "io_r", "io_w", "net_rx", "net_tx")
    )
    + r"\}",
}
_CONTAINER = re.compile(
    (r"\{" + ",".join(f'"{name}":{pattern}' for name, pattern in _PATTERNS.items()) + r"\}").encode()
)


def _line(groups: tuple[bytes, ...]) -> Line:
    (
        seq, boot, mono0, mono1, wall0, wall1, clock, lease, order, payer, workspace, app, service, image,
        container, run, cpu, memory, sample, peak, io_r, io_w, net_rx, net_tx, reset, oom, ended, code,
    ) = groups  # fmt: skip
    columns = (
        payer.decode(), workspace.decode(), app.decode(), service.decode(), image.decode(),
        container.decode(), run.decode(), lease.decode(), int(order),
        _maybe(cpu), _maybe(memory), int(sample), _maybe(peak),
        _maybe(io_r), _maybe(io_w), _maybe(net_rx), _maybe(net_tx),
        int(reset == b"true"), _maybe(oom), int(ended == b"true"), _maybe(code), *_OTHERS,
    )  # fmt: skip
    return Line(
        int(seq), "container", boot.decode(), int(mono0), int(mono1), int(wall0), int(wall1),
        clock.decode(), columns,
    )  # fmt: skip


def _maybe(number: bytes) -> int | None:
    return None if number == b"null" else int(number)
