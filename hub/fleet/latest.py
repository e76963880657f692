"""The newest value of every sensor, and who is online: a picture in memory of what is stored.

Ingest changes it after each commit, pages read it, and browsers that stay watch it.  It is a
cache: `load` makes it from the store, ingest saves it there now and then, and what was not
saved comes again from the batches.  It never speaks to the network.

    latest = Latest()
    await latest.load(store)
    with latest.watch("k3yd5q7c2n4xw6ba") as changes:
        async for change in changes:
            print(change.values)

A watcher that reads slowly misses intermediate values, never the newest, and costs no more
memory than the picture itself: what changes meanwhile is merged into one `Change` per board.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from agent.wire.decode import decode
from agent.wire.messages import About, Block, ClockState, Problem, Reading
from hub.store.batches import Saved, load_latest
from hub.store.boards import PresenceState, list_abouts
from hub.store.database import Store


class Value(NamedTuple):
    """A sensor's newest value (None: it could not tell), by the board's clock and by the hub's."""

    value: float | None
    wall_ms: int
    received_ms: int


@dataclass(slots=True)
class BoardLatest:
    """What is known of a board now.  Callers read it and never change it."""

    values: dict[str, Value] = field(default_factory=dict)
    heard_ms: int | None = None
    presence: PresenceState = "offline"
    waiting: int | None = None  # readings that it holds and we lack, as its last report said
    # Of what it said of itself: how often it reports, its clock, what is wrong with it.
    every_ms: int = 60_000
    clock: ClockState = "unsynced"
    said: tuple[Problem, ...] = ()
    seen: tuple[Problem, ...] = ()  # and what the hub finds wrong with it (`hub.fleet.alerts`)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All that is wrong with it."""
        return self.said + self.seen


@dataclass(frozen=True, slots=True)
class Change:
    """What is new about a board; ``values``: of each sensor that changed, (value, wall_ms)."""

    board: str
    heard_ms: int | None
    presence: PresenceState
    values: dict[str, tuple[float | None, int]]


class Latest:
    """The picture, and who watches it.  Belongs to one event loop."""

    def __init__(self) -> None:
        self.boards: dict[str, BoardLatest] = {}
        self.problems: tuple[Problem, ...] = ()  # of the hub itself
        self._unsaved: set[str] = set()
        self._watchers: set[_Watcher] = set()

    async def load(self, store: Store) -> None:
        """Take up what the store knows.  Called once, before anything else."""
        async with store.read() as tx:
            rows = await load_latest(tx)
            abouts = await list_abouts(tx)
        for row in rows:
            values = {
                sys.intern(sensor): Value(value, wall_ms, row.heard_ms or wall_ms)
                for sensor, (value, wall_ms) in row.latest.items()
            }
            self.boards[row.board] = BoardLatest(values, row.heard_ms, row.presence)
        for board, about in abouts.items():
            _describe(self.boards[board], decode(About, about))

    # --- what ingest tells -----------------------------------------------------------------------

    def update(
        self, board: str, readings: Iterable[Reading], received_ms: int, *, clocked: bool = True
    ) -> None:
        """Take readings, the last of a sensor counts; ``clocked`` says that their clock was right.

        A reading that was made before the one that is shown is history that arrives late,
        and changes nothing.  Times that cannot be believed do not decide that.
        """
        known = self._heard(board, received_ms)
        changed: list[str] = []
        for reading in readings:
            shown = known.values.get(reading.sensor)
            if shown is None or not clocked or reading.wall_ms >= min(shown.wall_ms, shown.received_ms):
                sensor = sys.intern(reading.sensor)
                known.values[sensor] = Value(reading.value, reading.wall_ms, received_ms)
                changed.append(sensor)
        self._tell(board, changed)

    def presence(self, board: str, state: PresenceState, at_ms: int) -> None:
        """Note that a board came or went."""
        self._heard(board, at_ms).presence = state
        self._tell(board)

    def about(self, board: str, about: About, at_ms: int | None = None) -> None:
        """Note that a board described itself anew; watchers hear of it as a change without values."""
        _describe(self._heard(board, at_ms), about)
        self._tell(board)

    def holds(self, board: str, readings: int) -> None:
        """Note how many readings a board still holds that are not committed here."""
        self._heard(board, None).waiting = readings

    def alert(self, board: str | None, problems: tuple[Problem, ...]) -> None:
        """Note what the hub finds wrong with a board, or with itself (None)."""
        if board is None:
            self.problems = problems
        elif board in self.boards:
            self.boards[board].seen = problems
            self._tell(board)

    def heard(self, board: str, at_ms: int) -> None:
        """Note that a board said something that changes nothing."""
        self._heard(board, at_ms)

    def forget(self, board: str) -> None:
        """Drop a board that was revoked; watchers hear that it is offline, and nothing of it."""
        if self.boards.pop(board, None) is not None:
            self._unsaved.discard(board)
            self._tell(board)

    def take_unsaved(self) -> list[Saved]:
        """The boards that changed since the last call, as the store keeps them."""
        taken, self._unsaved = self._unsaved, set()
        return [
            Saved(
                board,
                self.boards[board].presence,
                self.boards[board].heard_ms,
                {name: (value.value, value.wall_ms) for name, value in self.boards[board].values.items()},
            )
            for board in taken
        ]

    @property
    def unsaved(self) -> bool:
        """Whether `take_unsaved` would return anything."""
        return bool(self._unsaved)

    # --- who watches -----------------------------------------------------------------------------

    @contextmanager
    def watch(self, board: str | None = None) -> Iterator[AsyncIterator[Change]]:
        """Changes of one board, or of all, from now on; they end when the block does."""
        watcher = _Watcher(board)
        self._watchers.add(watcher)
        try:
            yield self._changes(watcher)
        finally:
            self._watchers.discard(watcher)

    async def _changes(self, watcher: _Watcher) -> AsyncIterator[Change]:
        while True:
            await watcher.bell.wait()
            board, sensors = watcher.pending.popitem(last=False)
            if not watcher.pending:
                watcher.bell.clear()
            known = self.boards.get(board)
            if known is None:
                yield Change(board, None, "offline", {})
                continue
            values = {name: (known.values[name].value, known.values[name].wall_ms) for name in sensors}
            yield Change(board, known.heard_ms, known.presence, values)

    def _heard(self, board: str, at_ms: int | None) -> BoardLatest:
        known = self.boards.get(board)
        if known is None:
            known = self.boards[board] = BoardLatest()
        if at_ms is not None:
            known.heard_ms = max(at_ms, known.heard_ms or at_ms)
        self._unsaved.add(board)
        return known

    def _tell(self, board: str, sensors: Sequence[str] = ()) -> None:
        for watcher in self._watchers:
            if watcher.board in (None, board):
                watcher.pending.setdefault(board, set()).update(sensors)
                watcher.bell.set()


def _describe(known: BoardLatest, about: About) -> None:
    known.every_ms, known.clock, known.said = about.report_every_ms, about.clock, about.problems


class _Watcher:
    """What one watcher has still to hear: of which boards, and of which of their sensors."""

    def __init__(self, board: str | None) -> None:
        self.board = board
        self.bell = asyncio.Event()
        self.pending: OrderedDict[str, set[str]] = OrderedDict()


def newest(blocks: Sequence[Block], skip: int = 0) -> list[Reading]:
    """The last reading of each sensor in a batch, but for its first ``skip`` readings."""
    found: dict[str, Reading] = {}
    for block in blocks:
        last = {index: position for position, index in enumerate(block.sensor) if position >= skip}
        mono_ms, wall_ms = list(accumulate(block.mono_ms)), list(accumulate(block.wall_ms))
        for index, at in last.items():
            name = block.sensors[index]
            found[name] = Reading(name, block.value[at], mono_ms[at], wall_ms[at])
        skip = max(skip - len(block.sensor), 0)
    return list(found.values())
