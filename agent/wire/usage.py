"""The usage log: what a board writes down of what was used, and how it reaches the hub.

A log is named by its *origin*, ``<board>/usage/<epoch>``; the epoch is drawn when the log begins.  Its
entries are *records*, each the exact bytes of one line of JSON of at most 65,535 bytes, that begins

    {"v":1,"seq":<index of the entry>,"salt":"<32 hexadecimal digits>","type":"<kind>",

so that where an entry belongs can be seen without reading it.  The salt keeps a leaf hash from telling what
its entry says to whoever tries what it might say.  Keys that a reader does not know are ignored; a kind, or
a version, that it does not know is an `Other`.

>>> record = BoardRecord(seq=4, salt="0" * 32, boot="b" * 32, mono0_ms=0, mono1_ms=3_600_000,
...     wall0_ms=1_700_000_000_000, wall1_ms=1_700_003_600_000, clock="synced",
...     cpus=4, memory_bytes=2**30, disk_bytes=2**34)
>>> entry = encode(record)
>>> entry[:62]
b'{"v":1,"seq":4,"salt":"00000000000000000000000000000000","type'
>>> read(entry) == record, head(entry)
(True, Head(version=1, seq=4, type='board'))

Every record says from when to when, on the clock that counts through sleep (CLOCK_BOOTTIME) of one boot,
which no one can set, and beside it what the wall clock said at both ends and how far it was trusted.  Counts
are integers of 63 bit: some readers of JSON must be told not to make floating point numbers of them.  What a
board could not count is ``null``, never 0.

Called by the meter, the ledger, the sync, the witness and the statements.  How records travel is in
`agent.wire.package`.  It does no I/O and signs nothing.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from agent.wire.decode import Length, Match, Range, decode, dumps, loads
from agent.wire.errors import Refused
from agent.wire.messages import BootId, ClockState, Count, Millis, Text

MAX_ENTRY = 65_535
"""Largest entry: its length is two bytes in the bundles of c2sp.org/tlog-tiles."""

Amount = Annotated[int, Range(0, 2**63 - 1)]
Maybe = Amount | None
Long = Annotated[str, Length(0, 4096)]
Salt = Annotated[str, Match(r"[0-9a-f]{32}", "32 hexadecimal digits")]
Epoch = Annotated[str, Match(r"[a-z2-7]{16}", "16 characters of a-z and 2-7")]
Origin = Annotated[str, Match(r"[a-z2-7]{16}/usage/[a-z2-7]{16}", "the origin of a usage log")]
_ORIGIN = re.compile(r"([a-z2-7]{16})/usage/([a-z2-7]{16})", re.ASCII)


def origin_of(board: str, epoch: str) -> str:
    """The name of the log of ``board`` that began with ``epoch``.  Raises Refused."""
    origin = f"{board}/usage/{epoch}"
    split_origin(origin)
    return origin


def split_origin(origin: str) -> tuple[str, str]:
    """Board and epoch of an origin.  Raises Refused."""
    match = _ORIGIN.fullmatch(origin)
    if not match:
        raise Refused(f"{origin[:128]!r} is not the origin of a usage log (<board>/usage/<epoch>)")
    return match[1], match[2]


def draw_epoch() -> str:
    """A new epoch: 16 of the characters a-z and 2-7, 80 bits of chance."""
    return "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(16))


def draw_salt() -> str:
    """16 bytes of chance, as a record has them."""
    return secrets.token_hex(16)


# --- records -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What every record says.  ``seq`` is the index of its entry; the ledger sets it (`numbered`)."""

    v: Literal[1] = 1
    seq: Count = 0
    salt: Salt = field(default_factory=draw_salt)
    type: str
    boot: BootId
    mono0_ms: Count
    mono1_ms: Count
    wall0_ms: Millis
    wall1_ms: Millis
    clock: ClockState


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters of a run as they stood at ``mono1_ms``; None where the platform has none."""

    cpu_us: Maybe = None
    io_r: Maybe = None
    io_w: Maybe = None
    net_rx: Maybe = None
    net_tx: Maybe = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord(Common):
    """What one run of a container used from ``mono0_ms`` to ``mono1_ms``.

    ``run`` is the life of one cgroup; after a counter went back (``reset``) another one begins.  ``order`` is
    the generation, ``image`` pinned.  ``mem_byte_ms`` is memory times time, sampled each ``mem_sample_ms``;
    ``mem_peak`` the most since the run began.  ``abs`` is where the counters stood at the end.
    """

    type: Literal["container"] = "container"
    lease: Text = ""
    order: Count = 0
    payer: Text
    workspace: Text
    app: Text
    service: Text
    image: Annotated[str, Length(0, 512)]
    container: Text
    run: Text
    cpu_us: Maybe
    mem_byte_ms: Maybe
    mem_sample_ms: Count
    mem_peak: Maybe
    io_r: Maybe
    io_w: Maybe
    net_rx: Maybe
    net_tx: Maybe
    reset: bool = False
    oom_kills: Maybe
    ended: bool = False
    exit_code: Annotated[int, Range(-(2**31), 2**31 - 1)] | None
    abs: Counters


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRecord(Common):
    """What the board offered in this time."""

    type: Literal["board"] = "board"
    cpus: Count
    memory_bytes: Amount
    disk_bytes: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorRecord(Common):
    """How many readings of a sensor the hub acknowledged on ``day`` (days since 1970, UTC)."""

    type: Literal["sensor"] = "sensor"
    sensor: Text
    unit: Text
    readings: Count
    day: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRecord(Common):
    """An order that came, and whether the board took it."""

    type: Literal["order"] = "order"
    generation: Count
    sha256: Annotated[str, Match(r"[0-9a-f]{64}", "64 hexadecimal digits")]
    accepted: bool
    reason: Long = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRecord(Common):
    """The wall clock was trusted more, or less, or was stepped (forward when positive)."""

    type: Literal["clock"] = "clock"
    from_state: ClockState
    to_state: ClockState
    step_ms: Millis


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord(Common):
    """The first of a log: why it began, and the last checkpoint note of the one before, if there was one."""

    type: Literal["epoch"] = "epoch"
    reason: Long
    previous: Annotated[str, Length(0, 16_384)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoleRecord(Common):
    """``count`` entries from index ``first`` on that nobody holds any more; their hashes stay in the tree."""

    type: Literal["hole"] = "hole"
    first: Count
    count: Annotated[int, Range(1, 2**53)]
    reason: Long


@dataclass(frozen=True, slots=True)
class Other:
    """A record of a kind, or version, of later days."""

    v: int
    seq: int
    type: str
    data: dict[str, Any]


Known = ContainerRecord | BoardRecord | SensorRecord | OrderRecord | ClockRecord | EpochRecord | HoleRecord
Record = Known | Other
K = TypeVar("K", bound=Common)

_KINDS: dict[str, type[Common]] = {
    "container": ContainerRecord,
    "board": BoardRecord,
    "sensor": SensorRecord,
    "order": OrderRecord,
    "clock": ClockRecord,
    "epoch": EpochRecord,
    "hole": HoleRecord,
}
_NAMES = {kind: tuple(each.name for each in fields(kind)) for kind in (*_KINDS.values(), Counters)}
HEAD = re.compile(
    rb'\{"v":([1-9][0-9]{0,4}),"seq":(0|[1-9][0-9]{0,15}),"salt":"[0-9a-f]{32}","type":"([a-z][a-z-]{0,31})"[,}]'
)


class Head(NamedTuple):
    """What can be seen of an entry without reading it."""

    version: int
    seq: int
    type: str


def head(entry: bytes) -> Head:
    """Version, index and kind of an entry.  Raises Refused when it does not begin as every entry does."""
    match = HEAD.match(entry)
    if not match or len(entry) > MAX_ENTRY:
        raise Refused(f"an entry that begins {entry[:48]!r} is no record of a usage log")
    return Head(int(match[1]), int(match[2]), match[3].decode())


def numbered(record: K, seq: int) -> K:
    """The record as the entry of that index."""
    return replace(record, seq=seq)


def encode(record: Known, seq: int | None = None) -> bytes:
    """The entry of a record, as number ``seq`` if given.  Raises Refused for one too large, or not sound."""
    values = {name: getattr(record, name) for name in _NAMES[type(record)]}
    if seq is not None:
        values["seq"] = seq
    entry = dumps(values)
    if len(entry) > MAX_ENTRY:
        raise Refused(
            f"a record of {len(entry)} bytes is over the limit of {MAX_ENTRY} of an entry", code="too-large"
        )
    _check_span(record)
    return entry


def read(entry: bytes) -> Record:
    """The record of an entry.  Raises Refused with the path of what is wrong."""
    version, seq, kind = head(entry)
    # A line break would be a second way to divide a package.
    if b"\n" in entry:
        raise Refused(f"entry {seq} is not one line")
    data = loads(entry, max_bytes=MAX_ENTRY)
    if type(data) is not dict:
        raise Refused(f"entry {seq} is no record")
    known = _KINDS.get(kind) if version == 1 else None
    if known is None:
        return Other(version, seq, kind, data)
    record = decode(known, data, where=f"entry {seq}")
    _check_span(record)
    return record  # type: ignore[return-value]  # each of _KINDS is one of Known


def _check_span(record: Common) -> None:
    if record.mono1_ms < record.mono0_ms:
        raise Refused(f"entry {record.seq} ends {record.mono0_ms - record.mono1_ms} ms before it begins")
