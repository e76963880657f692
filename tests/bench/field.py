"""What a board costs in the field: bytes on the link, and sectors on the card.

Real agents, joined to a real hub, each in a network of its own, with ten sensors whose values move and
the capacity of the machine; nothing of the configuration is set but the profile (and, of two of them,
the sensors' interval).  They run side by side for some minutes, counted from one report to a later one,
and the state of the first lies on an ext4 file system.  A month is 30 days; MB are of 10**6 bytes.
"""

from __future__ import annotations

import asyncio
import math
import random
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from agent.base.sqlite import PAGE_BYTES, WAL_PAGES
from agent.status import read_status
from agent.wire import topics
from bench.board import listener
from bench.budget import Row
from bench.card import OPTIONS, Card, card
from bench.network import HUB, Network, network
from support.lab import Board, Lab

DAY_S = 86_400
MONTH_DAYS = 30
RECONNECTS_PER_DAY = 4
"""What the figures include: a line that is renewed each night, and a few that drop."""
MOVE_S = 1.0
"""How often the values in the files change."""
AFTER_S = 5.0
"""How long after a report everything that belongs to it has come and gone."""
SENSORS = (
    *((f"temperature-{number}", 21.0, 0.0625, 4) for number in range(4)),  # as a DS18B20 tells it
    *((f"humidity-{number}", 48.0, 0.1, 1) for number in range(2)),
    *((f"pressure-{number}", 1013.0, 0.01, 2) for number in range(2)),
    ("voltage", 5.05, 0.001, 3),
    ("flow", 12.0, 0.01, 2),
)
"""Name, first value, smallest step, decimals."""
DEFAULTS_S = {"default": 10, "metered": 60}
CAPACITY_S = {"default": 60, "metered": 300}
MEMORY = Path("/dev/shm")  # where /run is on a board


@dataclass(frozen=True, slots=True)
class Profile:
    """A board: its profile of reports, and its budget in MB a month.

    ``asked_s`` is how often all its sensors are asked, where the configuration says so; None: as often as
    without a word, which is every 10 s by default and every 60 s when metered, capacity every 60 and 300 s.
    """

    name: str
    every_s: int
    budget: float | None = None
    aim: float | None = None
    asked_s: int | None = None

    @property
    def what(self) -> str:
        asked = "" if self.asked_s is None else f", asked every {self.asked_s} s"
        return f"link, IP bytes both ways, {self.name} profile ({self.every_s} s){asked}"


PROFILES = (
    Profile("default", 60, 35, 25),
    Profile("metered", 300, 9, 6),
    Profile("default", 60, asked_s=60),
    Profile("metered", 300, asked_s=10),
)
"""The first one's state lies on the card.  Those without a budget tell what another interval costs."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a board used over ``reports`` of them, and for one new connection.

    ``own_bytes`` is what the board itself counted on the link, from TCP_INFO.
    """

    reports: int
    seconds: float
    link_bytes: int
    own_bytes: int
    reconnect_bytes: int
    card_bytes: int


async def measure(folder: Path, minutes: float) -> list[Row]:
    """The rows; takes ``minutes`` and two more."""
    try:
        with ExitStack() as stack:
            networks = [stack.enter_context(network(number)) for number in range(len(PROFILES))]
            return _rows(await _measure(folder, minutes, networks, stack))
    except PermissionError as error:
        missing = [Used(1, 1, 0, 0, 0, 0) for _ in PROFILES]
        return [_none(row, str(error)) for row in _rows(missing)]


async def _measure(folder: Path, minutes: float, networks: list[Network], stack: ExitStack) -> list[Used]:
    async with Lab(folder, host=HUB) as lab:
        await lab.start_hub()
        files = [folder / name for name, *_ in SENSORS]
        async with _moving(files), _reports(lab) as seen:
            memory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="lichen-bench-", dir=MEMORY))
            )
            boards = [
                await _add_board(lab, profile, place, files, memory)
                for profile, place in zip(PROFILES, networks, strict=True)
            ]
            flash = _put_on_card(boards[0], folder / "card.img", stack)
            async with asyncio.TaskGroup() as group:
                flashes = [flash, *(None for _ in PROFILES[1:])]
                watched = [
                    group.create_task(_watch(lab, *each, minutes, seen), name=f"watch {each[0].name}")
                    for each in zip(boards, PROFILES, networks, flashes, strict=True)
                ]
        await lab.hub.stop(within_s=30)
        return [each.result() for each in watched]


async def _age(lab: Lab, board: Board) -> None:
    """Let the database's log reach the size that it has after some hours, and keeps: then it is written over.

    A young one grows with each commit, which costs the file system about as much again.
    """
    text = board.config_file.read_text()
    hasty = tomllib.loads(text)
    hasty["report"] = {"every_s": 0.2, "commit_every_s": 0.1}  # what does not go at once is written
    hasty["sensors"] = [{**sensor, "interval_s": 0.1} for sensor in hasty["sensors"]]
    board.config_file.write_text(tomli_w.dumps(hasty))
    await board.start()
    log = board.state / "outbox.db-wal"
    full = WAL_PAGES * PAGE_BYTES
    await lab.until(lambda: log.exists() and log.stat().st_size >= full, f"{log} has grown", 120)
    await board.kill()  # a stop in peace would remove it
    board.config_file.write_text(text)


async def _add_board(lab: Lab, profile: Profile, place: Network, files: list[Path], memory: Path) -> Board:
    sensors: list[dict[str, object]] = [{"name": "capacity", "kind": "capacity"}]
    sensors += [{"name": file.name, "kind": "file", "path": str(file)} for file in files]
    if profile.asked_s is not None:
        sensors = [{**sensor, "interval_s": profile.asked_s} for sensor in sensors]
    name = f"{profile.name}-{profile.asked_s}"
    board = await lab.add_board(name, report={"profile": profile.name}, sensors=sensors)
    board.argv = [*place.enter, *board.argv]
    board.env["RUNTIME_DIRECTORY"] = str(memory / name)
    return board


def _put_on_card(board: Board, image: Path, stack: ExitStack) -> Card:
    """Let the board's state lie on a card of its own."""
    join_file = board.state / "join.toml"
    text = join_file.read_bytes()
    mounted = stack.enter_context(card(image, board.state))
    join_file.write_bytes(text)
    return mounted


# --- what happens meanwhile ------------------------------------------------------------------------


@asynccontextmanager
async def _moving(files: list[Path]) -> AsyncIterator[None]:
    """Let the values in the files wander, each in steps of its own."""
    dice = random.Random(7)
    values = [first for _, first, _, _ in SENSORS]

    def move() -> None:
        for number, (_, _, step, decimals) in enumerate(SENSORS):
            values[number] += step * dice.choice((-2, -1, 0, 0, 0, 1, 2))
            beside = files[number].with_suffix(".new")
            beside.write_text(f"{values[number]:.{decimals}f}\n")
            beside.replace(files[number])  # at once, as the kernel's files change

    async def keep_moving() -> None:
        while True:
            await asyncio.sleep(MOVE_S)
            move()

    move()
    async with asyncio.TaskGroup() as group:
        moving = group.create_task(keep_moving(), name="values")
        yield
        moving.cancel()


@asynccontextmanager
async def _reports(lab: Lab) -> AsyncIterator[Counter[str]]:
    """How many reports of each board have come."""
    seen: Counter[str] = Counter()

    async def count() -> None:
        async for message in session.messages():
            topic = topics.parse(message.topic)
            seen[topic.board] += topic.leaf == "readings"

    async with listener(lab) as session, asyncio.TaskGroup() as group:
        counting = group.create_task(count(), name="reports")
        yield seen
        counting.cancel()


# --- one board -------------------------------------------------------------------------------------


async def _watch(
    lab: Lab,
    board: Board,
    profile: Profile,
    place: Network,
    flash: Card | None,
    minutes: float,
    seen: Counter[str],
) -> Used:
    """From one report of the board to a later one, then its stop and a new connection."""

    async def next_report(count: int = 1) -> None:
        due = seen[board.id] + count
        patience_s = (count + 1) * profile.every_s + 30
        await lab.until(lambda: seen[board.id] >= due, f"{board.name} has reported", patience_s, every_s=0.5)
        await asyncio.sleep(AFTER_S)

    if flash is not None:
        await _age(lab, board)
    await board.start()
    await lab.until(lambda: board.joined and board.stored() > 0, "the first readings are stored")
    await next_report()  # the first one after the start, which comes at once
    began_s, link, own, written = time.monotonic(), place.traffic().both, _own(board), _written(flash)
    reports = max(1, math.floor(minutes * 60 / profile.every_s))
    await next_report(reports)
    seconds, link_bytes = time.monotonic() - began_s, place.traffic().both - link
    own_bytes = _own(board) - own
    card_bytes = _written(flash) - written
    await board.stop()
    before = place.traffic().both
    # A new connection: handshake, announcements, and the first report, which comes at once.
    await board.start()
    await next_report()
    return Used(reports, seconds, link_bytes, own_bytes, place.traffic().both - before, card_bytes)


def _own(board: Board) -> int:
    """Bytes today, as the board tells: its status is written with each acknowledgement."""
    status = read_status(Path(board.env["RUNTIME_DIRECTORY"]))
    assert status is not None, f"{board.name} has written no status"
    used = status.link.traffic
    return used.sent + used.received + used.before


def _written(flash: Card | None) -> int:
    return flash.written_bytes() if flash is not None else 0


# --- rows ------------------------------------------------------------------------------------------


def _rows(found: list[Used]) -> list[Row]:
    rows = [_link(profile, used) for profile, used in zip(PROFILES, found, strict=True)]
    default = found[0]
    per_day = default.card_bytes / default.reports * DAY_S / PROFILES[0].every_s / 1e6
    rows.append(
        Row(
            "agent: device sectors written at the default interval",
            per_day,
            "MB/day",
            30,
            15,
            note=f"{default.card_bytes:,} bytes over {default.reports} reports, extrapolated;"
            f" sectors that a loop device with ext4 ({OPTIONS}) was told to write, journal and"
            " metadata included, synced at both ends, with the database's log as large as it gets; outbox and"
            " state, not the system's own log",
        )
    )
    return rows


def _link(profile: Profile, used: Used) -> Row:
    per_day = used.link_bytes / used.reports * DAY_S / profile.every_s
    reconnects = used.reconnect_bytes * RECONNECTS_PER_DAY
    return Row(
        profile.what,
        (per_day + reconnects) * MONTH_DAYS / 1e6,
        "MB/month",
        profile.budget,
        profile.aim,
        note=f"ten sensors, asked every {profile.asked_s or DEFAULTS_S[profile.name]} s, and capacity, every"
        f" {profile.asked_s or CAPACITY_S[profile.name]} s:"
        f" {used.link_bytes / used.reports:,.0f} bytes a report, over {used.reports} reports in"
        f" {used.seconds:.0f} s, extrapolated to {MONTH_DAYS} days; with"
        f" {RECONNECTS_PER_DAY} new connections a day of {used.reconnect_bytes:,} bytes each (TLS handshake"
        " with both certificates, announcements and a first report);"
        " counted by the kernel in the board's own network namespace; the board's own count (TCP_INFO)"
        f" says {used.own_bytes / max(used.link_bytes, 1):.1%} of that",
    )


def _none(row: Row, why: str) -> Row:
    return Row(row.what, math.nan, row.unit, row.budget, row.aim, row.better, note=f"not measured: {why}")
