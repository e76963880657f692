"""A record of a usage log in words: what was used, as a row of a table.  Pure.

Called by ``lichen-agent usage show`` and ``lichen usage show``, whose tables have the same columns.  What a
platform does not count is a dash, never 0.

>>> cells({"type": "container", "app": "demo", "service": "web", "run": "k3yd-1", "mono0_ms": 0,
...     "mono1_ms": 60_000, "cpu_us": 1_500_000, "mem_byte_ms": 60_000 * 20_000_000, "io_r": None,
...     "io_w": 4096, "net_rx": 1500, "net_tx": 2_000_000, "ended": True, "exit_code": 9})
('demo/web', '1 min', '1.50 s', '20.0 MB', '– / 4.10 kB', '1.50 kB / 2.00 MB', 'ended with 9')
>>> delivered = {"type": "sensor", "sensor": "room", "readings": 1440, "day": 20_000}
>>> cells({**delivered, "mono0_ms": 0, "mono1_ms": 0})[0::6]
('readings of room', '1440 on 2024-10-04')
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.wire import words

COLUMNS = ("what", "for", "processor", "memory", "disk in / out", "network in / out", "")
"""What `cells` returns."""

Cells = tuple[str, str, str, str, str, str, str]


def cells(record: Mapping[str, Any]) -> Cells:
    """The cells of a record; ``record`` has the keys of `agent.wire.usage`, as far as its type has them."""
    length_ms = record["mono1_ms"] - record["mono0_ms"]
    if record["type"] != "container":
        what, said = _other(record)
        return what, words.plain(words.duration(length_ms)) if length_ms else "", "", "", "", "", said
    memory = record["mem_byte_ms"]
    return (
        f"{record['app']}/{record['service']}",
        words.plain(words.duration(length_ms)),
        seconds(record["cpu_us"]),
        _bytes(None if memory is None or not length_ms else memory // length_ms),
        f"{_bytes(record['io_r'])} / {_bytes(record['io_w'])}",
        f"{_bytes(record['net_rx'])} / {_bytes(record['net_tx'])}",
        _notes(record),
    )


def seconds(cpu_us: int | None) -> str:
    """Processor time.

    >>> seconds(1_234), seconds(90_000_000), seconds(None), seconds(0)
    ('0.001 s', '90.00 s', '–', '0 s')
    """
    if cpu_us is None:
        return words.NONE
    if not cpu_us:
        return "0 s"
    return f"{cpu_us / 1e6:.3f} s" if cpu_us < 1_000_000 else f"{cpu_us / 1e6:.2f} s"


def _bytes(amount: int | None) -> str:
    return words.plain(words.value(amount, "By"))


def _notes(record: Mapping[str, Any]) -> str:
    notes = []
    if record.get("ended"):
        code = record.get("exit_code")
        notes.append("ended" if code is None else f"ended with {code}")
    if kills := record.get("oom_kills"):
        notes.append("out of memory once" if kills == 1 else f"out of memory {kills} times")
    if record.get("reset"):
        notes.append("counted anew")
    return ", ".join(notes)


def _other(record: Mapping[str, Any]) -> tuple[str, str]:
    """What a record of another kind is about, and what it says, as far as that is known."""
    get = record.get
    match record["type"]:
        case "board" if get("cpus") is not None:
            memory, disk = _bytes(get("memory_bytes")), _bytes(get("disk_bytes"))
            return "offered", f"{get('cpus')} processors, {memory} of memory, {disk} of disk"
        case "sensor" if get("day") is not None:
            day = words.utc(get("day", 0) * words.DAY_MS).partition(" ")[0]
            return f"readings of {get('sensor')}", f"{get('readings')} on {day}"
        case "order" if get("accepted") is not None:
            taken = "taken" if get("accepted") else f"refused: {get('reason')}"
            return "order", f"generation {get('generation')} {taken}"
        case "clock" if get("to_state"):
            step = f", moved by {get('step_ms')} ms" if get("step_ms") else ""
            return "clock", f"from {get('from_state')} to {get('to_state')}{step}"
        case "epoch" if get("reason") is not None:
            return "log begins", str(get("reason"))
        case "hole" if get("count") is not None:
            return "hole", f"{get('count')} records from {get('first')} on: {get('reason')}"
    return str(record["type"]), ""
