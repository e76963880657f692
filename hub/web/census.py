"""The fleet counted: how many boards are fine, silent, or need somebody, and which.

Owns one small cache, because every open stream asks for the same numbers; pages, the live
stream and the metrics call it.  It decides nothing: `hub.web.state` does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from hub.fleet.latest import Latest
from hub.store import boards
from hub.store.database import Store
from hub.web import state
from hub.web.board import problem_of
from hub.web.state import Seen, State

FRESH_MS = 1_000
"""How old the numbers of a stream may be."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Boards in all, and by state."""

    boards: int = 0
    attention: int = 0
    silent: int = 0
    fine: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """The numbers, and the ids of the boards in each state."""

    counts: Counts
    ids: Mapping[State, Collection[str]]


class Census:
    """Counts the fleet."""

    def __init__(self, store: Store, latest: Latest, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._latest = latest
        self._now_ms = now_ms
        self._taken_ms: int | None = None
        self._tally = Tally(Counts(), {})

    async def take(self) -> Tally:
        """The fleet as of now or of a moment ago: for streams, which ask again and again."""
        if self._taken_ms is None or not 0 <= self._now_ms() - self._taken_ms < FRESH_MS:
            return await self.count()
        return self._tally

    async def count(self) -> Tally:
        """The fleet as of now: for pages, on which a board that has just joined must be."""
        now_ms = self._now_ms()
        async with self._store.read() as tx:
            joined = await boards.joined_times(tx)
        ids: dict[State, list[str]] = {"attention": [], "silent": [], "fine": []}
        known_boards = self._latest.boards
        for board, joined_ms in joined.items():
            known = known_boards.get(board)
            if known is None:
                seen = Seen(None, joined_ms, "offline", 0)
            else:
                seen = Seen(known.heard_ms, joined_ms, known.presence, known.every_ms, problem_of(known))
            ids[state.state_of(seen, now_ms)].append(board)
        counts = {each: len(found) for each, found in ids.items()}
        self._tally = Tally(Counts(boards=len(joined), **counts), ids)
        self._taken_ms = now_ms
        return self._tally
