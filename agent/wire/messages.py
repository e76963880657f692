"""The messages between a board and its hub: what each JSON payload holds.

Every payload is UTF-8 JSON of one frozen dataclass below.  Unknown keys are ignored, so an
older side can read a newer one.  Every time is an integer of milliseconds: ``*_ms`` since
the Unix epoch by the board's own clock, except ``mono_ms``, which counts from the start of
the boot named beside it and is right even when the clock is wrong.

**Readings.**  A board numbers its readings within a *stream*, an id that it draws at each
start of the agent; (board, stream, seq) names one reading for ever.  A commit of the outbox
is one *block*: columns instead of repeated keys, times as differences to the one before.
A *batch* is what one MQTT message carries: the blocks, spliced in as they were stored, what
of each stream the board still *holds*, and the *gaps* it had to make.

>>> block = block_of([Reading("room", 21.5, 900, 1_700_000_000_000),
...                   Reading("room", 21.75, 10_900, 1_700_000_010_000)],
...                  boot="b" * 32, stream="s" * 16, seq0=7, clock="synced")
>>> dumps(block.mono_ms), dumps(block.value)
(b'[900,10000]', b'[21.5,21.75]')
>>> payload = frame({"s" * 16: Held(low=7, next=9)}, (), [dumps(block)])
>>> batch = read_batch(payload)
>>> [reading.mono_ms for reading in readings_of(batch.blocks[0])]
[900, 10900]

The hub answers with an *ack*: for each stream named in ``held``, the highest seq up to which
it has committed everything, declared gaps included.  Only then may the board delete.

**Signed texts.**  What a party signs begins with a line that says what it is, so that no
signature can be taken for another (`lichen/<kind>/v1`), and goes on with one line of JSON;
`agent.wire.note` wraps it.

>>> compose("time", {"at_ms": 5})
'lichen/time/v1\\n{"at_ms":5}\\n'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from agent.wire.decode import Length, Match, Range, decode, decode_json, dumps, loads
from agent.wire.envelope import MAX_INFLATED
from agent.wire.errors import Refused

T = TypeVar("T")

ClockState = Literal["synced", "hub", "unsynced"]
Quality = Literal["good", "stale", "failed"]
MAX_MS = 2**53
"""Largest time or count: what every reader of JSON can hold exactly (RFC 8259, section 6)."""
Count = Annotated[int, Range(0, MAX_MS)]
Millis = Annotated[int, Range(-MAX_MS, MAX_MS)]
StreamId = Annotated[str, Match(r"[a-z2-7]{16}", "16 characters of a-z and 2-7")]
BootId = Annotated[str, Match(r"[0-9a-f]{32}", "32 hexadecimal digits")]
SensorName = Annotated[
    str, Match(r"[a-z0-9][a-z0-9_.-]{0,63}", "lower-case letters, digits, '_', '.' or '-', at most 64")
]
Text = Annotated[str, Length(0, 256)]


# --- presence and about: what a board says of itself (retained) ------------------------------


@dataclass(frozen=True, slots=True)
class Presence:
    """``up/presence``: the birth of a session, and its will with the same nonce."""

    state: Literal["online", "offline"]
    nonce: Annotated[str, Length(1, 64)]
    boot: BootId
    at_ms: Millis
    version: Text = ""


@dataclass(frozen=True, slots=True)
class Sensor:
    """One named source of values.  ``unit`` as in UCUM or empty; ``quantity`` such as "temperature".

    ``interval_ms``: how long no reading may come while all is well.  ``error``: why it could not
    tell when it was last asked.
    """

    name: SensorName
    kind: Text
    unit: Text = ""
    quantity: Text = ""
    interval_ms: Count = 0
    error: Text = ""
    quality: Quality = "good"
    tags: Annotated[dict[str, Text], Length(0, 16)] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """A known fault: stable code, one sentence, a hint, and since when."""

    code: Annotated[str, Match(r"[a-z0-9-]{1,64}", "a slug")]
    sentence: Text
    hint: Text = ""
    severity: Literal["notice", "warn", "fail"] = "warn"
    since_ms: Millis = 0
    count: Count = 1


@dataclass(frozen=True, slots=True)
class OutboxState:
    """How much a board still holds that its hub has not acknowledged."""

    readings: Count = 0
    bytes: Count = 0
    max_bytes: Count = 0
    oldest_ms: Millis | None = None
    dropped: Count = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of IP packets that the link has used, by days of the board's clock (UTC).

    ``day``: days since 1970; ``sent`` and ``received`` on it so far, ``before`` both ways on the
    day before.
    """

    day: Count = 0
    sent: Count = 0
    received: Count = 0
    before: Count = 0


@dataclass(frozen=True, slots=True)
class About:
    """``up/about``: identity, hardware, versions, totals, sensors, problems."""

    board: str
    version: Text
    log_key: Text
    seal_key: Text
    boot: BootId
    started_ms: Millis
    hostname: Text = ""
    model: Text = ""
    system: Text = ""
    kernel: Text = ""
    arch: Text = ""
    cpus: Count = 0
    memory_bytes: Count = 0
    disk_bytes: Count = 0
    clock: ClockState = "unsynced"
    report_every_ms: Count = 60_000
    outbox: OutboxState = field(default_factory=OutboxState)
    traffic: Traffic = field(default_factory=Traffic)
    certificate_until_ms: Millis | None = None
    sensors: Annotated[tuple[Sensor, ...], Length(0, 512)] = ()
    problems: Annotated[tuple[Problem, ...], Length(0, 128)] = ()


# --- readings --------------------------------------------------------------------------------


class Reading(NamedTuple):
    """One value of one sensor; ``None`` when the sensor was asked and could not tell.

    ``stale``: the sensor answered, but with a value that is older than it should be.
    A tuple, for a hub makes many thousand of them in a second.
    """

    sensor: str
    value: float | None
    mono_ms: int
    wall_ms: int
    stale: bool = False

    @property
    def quality(self) -> Quality:
        """How far the value can be relied on."""
        return "failed" if self.value is None else "stale" if self.stale else "good"


@dataclass(frozen=True, slots=True)
class Block:
    """Readings of one commit, as columns of equal length.

    ``sensor`` indexes ``sensors``; ``mono_ms`` and ``wall_ms`` hold the first time and then
    the difference to the one before.  ``stale`` lists the rows whose value is, in order; it is
    left out when there are none.
    """

    boot: BootId
    stream: StreamId
    seq0: Annotated[int, Range(1, 2**53)]
    clock: ClockState
    sensors: Annotated[tuple[SensorName, ...], Length(1, 512)]
    sensor: Annotated[tuple[int, ...], Length(1, 65536)]
    mono_ms: Annotated[tuple[int, ...], Length(1, 65536)]
    wall_ms: Annotated[tuple[int, ...], Length(1, 65536)]
    value: Annotated[tuple[float | None, ...], Length(1, 65536)]
    stale: Annotated[tuple[int, ...], Length(1, 65536)] | None = None

    @property
    def next(self) -> int:
        """The seq after this block's last reading."""
        return self.seq0 + len(self.sensor)


@dataclass(frozen=True, slots=True)
class Held:
    """What a board still holds of one stream: readings ``low`` to ``next - 1``."""

    low: Annotated[int, Range(1, 2**53)]
    next: Annotated[int, Range(1, 2**53)]


@dataclass(frozen=True, slots=True)
class Gap:
    """Readings ``seq0 .. seq0 + count - 1`` of a stream that nobody will see again, and why."""

    stream: StreamId
    seq0: Annotated[int, Range(1, 2**53)]
    count: Annotated[int, Range(1, 2**53)]
    from_ms: Millis
    to_ms: Millis
    reason: Literal["outbox-full", "lost"] = "outbox-full"


@dataclass(frozen=True, slots=True)
class Batch:
    """``up/readings``: one message; blocks of one stream, in order and without holes."""

    held: Annotated[dict[StreamId, Held], Length(0, 128)]
    gaps: Annotated[tuple[Gap, ...], Length(0, 64)] = ()
    blocks: Annotated[tuple[Block, ...], Length(0, 64)] = ()


@dataclass(frozen=True, slots=True)
class Ack:
    """``down/ack``: for each stream the highest seq up to which all is committed (0: nothing)."""

    streams: Annotated[dict[StreamId, Count], Length(0, 128)]


def block_of(readings: Sequence[Reading], *, boot: str, stream: str, seq0: int, clock: ClockState) -> Block:
    """Turn readings (at least one) into the columns that are stored and sent."""
    names = tuple(dict.fromkeys(reading.sensor for reading in readings))
    index = {name: position for position, name in enumerate(names)}
    return Block(
        boot=boot,
        stream=stream,
        seq0=seq0,
        clock=clock,
        sensors=names,
        sensor=tuple(index[reading.sensor] for reading in readings),
        mono_ms=_differences([reading.mono_ms for reading in readings]),
        wall_ms=_differences([reading.wall_ms for reading in readings]),
        value=tuple(_short(reading.value) for reading in readings),
        stale=tuple(row for row, reading in enumerate(readings) if reading.stale) or None,
    )


def readings_of(block: Block) -> Iterator[Reading]:
    """The readings of a block that `read_batch` has checked, in the order of their seq."""
    names = map(block.sensors.__getitem__, block.sensor)
    columns = (names, block.value, accumulate(block.mono_ms), accumulate(block.wall_ms))
    if block.stale is None:
        return map(Reading, *columns)
    stale = set(block.stale)
    return map(Reading, *columns, (row in stale for row in range(len(block.sensor))))


def frame(held: Mapping[str, Held], gaps: Sequence[Gap], blocks: Sequence[bytes]) -> bytes:
    """The payload of a batch around blocks that were encoded when they were committed."""
    return b'{"held":%s,"gaps":%s,"blocks":[%s]}' % (
        dumps(dict(held)),
        dumps(tuple(gaps)),
        b",".join(blocks),
    )


def read_batch(payload: bytes) -> Batch:
    """Decode and check a batch.  Raises Refused with the path of what is wrong."""
    batch = decode_json(Batch, payload, max_bytes=MAX_INFLATED)
    for position, block in enumerate(batch.blocks):
        _check_columns(block, f"blocks[{position}]")
    for before, after in pairwise(batch.blocks):
        if (before.stream, before.next) != (after.stream, after.seq0):
            raise Refused(
                f"blocks: {after.stream}/{after.seq0} does not follow {before.stream}/{before.next - 1}"
            )
    return batch


def _check_columns(block: Block, where: str) -> None:
    rows = len(block.sensor)
    for name in ("mono_ms", "wall_ms", "value"):
        if len(getattr(block, name)) != rows:
            raise Refused(f"{where}.{name}: {len(getattr(block, name))} entries where sensor has {rows}")
    for name in ("mono_ms", "wall_ms"):
        # No time on the way can be further from zero than this sum.
        if sum(map(abs, getattr(block, name))) > MAX_MS:
            raise Refused(f"{where}.{name}: the differences add up to more than {MAX_MS} ms")
    if not 0 <= min(block.sensor) <= max(block.sensor) < len(block.sensors):
        raise Refused(f"{where}.sensor: an index is outside of sensors (0 to {len(block.sensors) - 1})")
    stale = block.stale or ()
    if any(before >= after for before, after in pairwise((-1, *stale, rows))):
        raise Refused(f"{where}.stale: not rows of the block (0 to {rows - 1}) in order")


def _short(value: float | None) -> float | None:
    """The same number as few characters as it can be: 0 and not 0.0."""
    return int(value) if value is not None and value.is_integer() and abs(value) <= MAX_MS else value


def _differences(times: Sequence[int]) -> tuple[int, ...]:
    return (times[0], *(after - before for before, after in pairwise(times)))


# --- commands --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """``down/command``, signed: do ``name`` once, in the session whose birth had ``nonce``."""

    id: Annotated[str, Match(r"[A-Za-z0-9_-]{1,64}", "a message id")]
    board: str
    nonce: Annotated[str, Length(1, 64)]
    name: Annotated[str, Match(r"[a-z0-9-]{1,64}", "a slug")]
    issued_ms: Millis
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Live:
    """The arguments of the command "live": report every ``every_s``, for ``for_s`` from now."""

    for_s: Annotated[int, Range(1, 300)] = 60
    every_s: Annotated[int, Range(1, 60)] = 2


@dataclass(frozen=True, slots=True)
class HubTime:
    """``down/time``, signed: the hub's clock, in the session whose birth had ``nonce``."""

    board: str
    nonce: Annotated[str, Length(1, 64)]
    at_ms: Annotated[int, Range(0, MAX_MS)]


@dataclass(frozen=True, slots=True)
class Reply:
    """``up/reply/<id>``: what became of a command."""

    id: Annotated[str, Match(r"[A-Za-z0-9_-]{1,64}", "a message id")]
    status: Literal["running", "done", "failed", "refused"]
    data: dict[str, Any] = field(default_factory=dict)
    error: Annotated[str, Length(0, 4096)] = ""


# --- signed texts ------------------------------------------------------------------------------

Kind = Literal["seal", "join", "renew", "hub", "order", "command", "time", "release"]


def compose(kind: Kind, message: object) -> str:
    """The text that is signed for ``message``: the kind's own line, then one line of JSON."""
    return f"lichen/{kind}/v1\n{dumps(message).decode()}\n"


def read_text(kind: Kind, cls: type[T], text: str) -> T:
    """The message inside a signed text of exactly this kind.  Raises Refused."""
    head, _, body = text.partition("\n")
    if head != f"lichen/{kind}/v1":
        raise Refused(f"the signed text begins with {head[:64]!r}, not with 'lichen/{kind}/v1'")
    return decode(cls, loads(body.encode(), max_bytes=MAX_INFLATED))
