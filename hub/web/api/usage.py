"""What was used, in the API: single records of the usage logs, and sums of them over time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from agent.wire.decode import Length, Range
from agent.wire.errors import Refused
from hub.store import boards, usage
from hub.store.database import Tx
from hub.store.ledgers import RecordRow
from hub.store.usage import Group, Sums
from hub.web.api import table
from hub.web.api.paging import SAYS, After
from hub.web.api.route import Call
from hub.web.api.table import Table

DAY_MS = 86_400_000
STEPS_MS = tuple(
    60_000 * minutes for minutes in (1, 5, 10, 30, 60, 120, 180, 360, 720, 1440, 7 * 1440, 30 * 1440)
)
"""How wide a point may be: what people count time in."""
SMOOTH = 4
"""Records of a run that a point is made of at least: one more or less of them must not look like a peak."""
LATEST = 2**53

Time = Annotated[int, Range(0, LATEST)]
Name = Annotated[str, Length(0, 256)]
Kind = Literal["container", "board", "sensor", "order", "clock", "epoch", "hole"]
Uses = tuple[int, int, int | None, int | None, int | None, int | None, int | None, int | None, int | None]


@dataclass(frozen=True, slots=True)
class RecordQuery:
    """Which records: those that ended from ``from_ms`` up to, but without, ``to_ms``."""

    board: Name = field(default="", metadata={"says": "Only of this board, by id or name"})
    app: Name = field(default="", metadata={"says": "Only of this app"})
    workspace: Name = field(default="", metadata={"says": "Only of this workspace"})
    payer: Name = field(default="", metadata={"says": "Only of this payer"})
    type: tuple[Kind, ...] = field(default=(), metadata={"says": "Only of this kind; may be repeated"})
    from_ms: Time = field(default=0, metadata={"says": "Default: the first"})
    to_ms: Time = field(default=LATEST, metadata={"says": "Default: the last"})
    newest: Annotated[int, Range(0, 1)] = field(
        default=0,
        metadata={"says": "1: the newest first, and one page of them; else in the order of the logs"},
    )
    limit: Annotated[int, Range(1, 1000)] = field(
        default=200, metadata={"says": "Most records in one answer"}
    )
    after: After = field(default="", metadata=SAYS)


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """A record: number ``seq`` of the log ``origin``, about the ``length_ms`` up to ``at_ms``.

    ``is_certain`` is false while no clock that was right tells its time.  What its kind does not say is
    empty, or null; a count of a container is null where its platform has none.
    """

    origin: str
    seq: int
    board: str
    type: str
    at_ms: int
    length_ms: int
    is_certain: bool
    payer: str
    workspace: str
    app: str
    service: str
    image: str
    container: str
    run: str
    cpu_us: int | None
    mem_byte_ms: int | None
    mem_peak: int | None
    io_r: int | None
    io_w: int | None
    net_rx: int | None
    net_tx: int | None
    reset: bool
    oom_kills: int | None
    ended: bool
    exit_code: int | None
    cpus: int | None
    memory_bytes: int | None
    disk_bytes: int | None
    sensor: str
    unit: str
    readings: int | None
    day: int | None


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Records in the order of logs and indexes, or the newest first."""

    records: tuple[UsageRecord, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class SumsQuery:
    """Which uses, and by what they are told apart."""

    by: Group = field(default="app", metadata={"says": "What there is a series for"})
    board: Name = field(default="", metadata={"says": "Only of this board, by id or name"})
    app: Name = field(default="", metadata={"says": "Only of this app"})
    workspace: Name = field(default="", metadata={"says": "Only of this workspace"})
    payer: Name = field(default="", metadata={"says": "Only of this payer"})
    from_ms: Time | None = field(default=None, metadata={"says": "Default: a day before `to_ms`"})
    to_ms: Time | None = field(default=None, metadata={"says": "Default: now"})
    points: Annotated[int, Range(1, 1000)] = field(default=200, metadata={"says": "Most points per series"})


@dataclass(frozen=True, slots=True)
class UsesOfOne:
    """The uses of one app, board, ...: each point is the time it begins at, how many records it is made of,
    cpu_us, mem_byte_ms, io_r, io_w, net_rx, net_tx, and mem_peak; null where nothing was counted."""

    key: str
    name: str
    points: tuple[Uses, ...]


@dataclass(frozen=True, slots=True)
class UsageSums:
    """What containers used; ``step_ms`` is the width of a point, which is made of several records of each.

    A record counts where it ended.
    """

    by: str
    from_ms: int
    to_ms: int
    step_ms: int
    series: tuple[UsesOfOne, ...]


# --- records ---------------------------------------------------------------------------------------

COLUMNS = (
    "origin", "seq", "board", "type", "at_ms", "length_ms", "is_certain", "payer", "workspace", "app",
    "service", "cpu_us", "mem_byte_ms", "mem_peak", "io_r", "io_w", "net_rx", "net_tx", "sensor", "readings",
)  # fmt: skip


def table_of(page: RecordPage) -> Table:
    """Records as CSV."""
    return Table(COLUMNS, ([_cell(getattr(each, column)) for column in COLUMNS] for each in page.records))


def _cell(value: str | int | None) -> str | int | None:
    return table.text(value) if isinstance(value, str) else value if value is None else int(value)


async def list_records(call: Call, query: RecordQuery) -> RecordPage:
    """List records of the usage logs."""
    async with call.parts.store.read() as tx:
        logs = await logs_of(tx, query.board)
        rows = await usage.records_between(
            tx,
            query.from_ms,
            query.to_ms,
            logs=list(logs) if query.board else None,
            types=query.type,
            payer=query.payer or None,
            workspace=query.workspace or None,
            app=query.app or None,
            limit=query.limit + 1,
            after=_after(query.after),
            newest=bool(query.newest),
        )
    page = rows[: query.limit]
    found = tuple(_shown(row, *logs[row.log]) for row in page)
    more = len(rows) > len(page) and not query.newest
    return RecordPage(found, f"{page[-1].log}-{page[-1].seq}" if more else None)


async def logs_of(tx: Tx, board: str) -> dict[int, tuple[str, str]]:
    """Origin and board of each log, by its id in the store; of one board, or of all.  Raises Refused."""
    of = [(await boards.get_board(tx, board)).id] if board else None
    return await usage.origins(tx, of)


def _after(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    log, dash, seq = text.partition("-")
    if not dash or not all(part.isascii() and part.isdecimal() and len(part) < 17 for part in (log, seq)):
        raise Refused(f"after: {text[:40]!r} is not the next of a page", hint="leave it out to begin anew")
    return int(log), int(seq)


def _shown(row: RecordRow, origin: str, board: str) -> UsageRecord:
    return UsageRecord(
        origin=origin,
        seq=row.seq,
        board=board,
        type=row.type,
        at_ms=row.at_ms,
        length_ms=row.mono1_ms - row.mono0_ms,
        is_certain=bool(row.certain),
        payer=row.payer or "",
        workspace=row.workspace or "",
        app=row.app or "",
        service=row.service or "",
        image=row.image or "",
        container=row.container or "",
        run=row.run or "",
        cpu_us=row.cpu_us,
        mem_byte_ms=row.mem_byte_ms,
        mem_peak=row.mem_peak,
        io_r=row.io_r,
        io_w=row.io_w,
        net_rx=row.net_rx,
        net_tx=row.net_tx,
        reset=bool(row.reset),
        oom_kills=row.oom_kills,
        ended=bool(row.ended),
        exit_code=row.exit_code,
        cpus=row.cpus,
        memory_bytes=row.memory_bytes,
        disk_bytes=row.disk_bytes,
        sensor=row.sensor or "",
        unit=row.unit or "",
        readings=row.readings,
        day=row.day,
    )


# --- sums ------------------------------------------------------------------------------------------


async def sum_usage(call: Call, query: SumsQuery) -> UsageSums:
    """Add up what containers used over time."""
    to_ms = call.parts.now_ms() if query.to_ms is None else query.to_ms
    from_ms = to_ms - DAY_MS if query.from_ms is None else query.from_ms
    if from_ms >= to_ms:
        raise Refused(f"from_ms: {from_ms} is not before to_ms, {to_ms}")
    async with call.parts.store.read() as tx:
        logs = list(await logs_of(tx, query.board)) if query.board else None
        each_ms = await usage.mean_length_ms(tx, from_ms, to_ms, logs=logs, app=query.app or None)
        step_ms = step_of(max((to_ms - from_ms) // query.points, SMOOTH * each_ms))
        found = await usage.sums(
            tx,
            from_ms,
            to_ms,
            bucket_ms=step_ms,
            by=query.by,
            logs=logs,
            payer=query.payer or None,
            workspace=query.workspace or None,
            app=query.app or None,
        )
        keys = {each.key for each in found}
        names = await usage.names_of(tx, keys) if query.by == "board" else {}
    series: dict[str, list[Uses]] = {}
    for each in found:
        series.setdefault(each.key, []).append(_point(each))
    shown = (UsesOfOne(key, names.get(key, key), tuple(points)) for key, points in sorted(series.items()))
    return UsageSums(query.by, from_ms, to_ms, step_ms, tuple(shown))


def step_of(least_ms: int) -> int:
    """The width of a point that is no less than this.

    >>> step_of(432_000), step_of(4 * DAY_MS), step_of(10), step_of(31 * DAY_MS)
    (600000, 604800000, 60000, 2678400000)
    """
    return next((step for step in STEPS_MS if step >= least_ms), -(-least_ms // DAY_MS) * DAY_MS)


def _point(each: Sums) -> Uses:
    return (
        each.bucket_ms,
        each.records,
        each.cpu_us,
        each.mem_byte_ms,
        each.io_r,
        each.io_w,
        each.net_rx,
        each.net_tx,
        each.mem_peak,
    )
