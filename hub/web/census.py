"""The fleet counted: how many boards are fine, silent, or need somebody, and which.

Owns one small cache, because every open fleet page asks for the same numbers; pages, the live
stream and the metrics call it.  It decides nothing: `hub.web.state` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hub.fleet.latest import Latest
from hub.store import boards
from hub.store.database import Store
from hub.web import state
from hub.web.board import problem_of
from hub.web.state import Seen, State

FRESH_MS = 1_000
"""How old the numbers may be."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Boards in all, and by state."""

    boards: int = 0
    attention: int = 0
    silent: int = 0
    fine: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """Who is not fine, by id, and the numbers."""

    counts: Counts
    attention: frozenset[str]
    silent: frozenset[str]

    def ids(self, wanted: State) -> frozenset[str]:
        """The boards in a state other than fine."""
        return self.attention if wanted == "attention" else self.silent


class Census:
    """Counts the fleet, at most once in `FRESH_MS`."""

    def __init__(self, store: Store, latest: Latest, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._latest = latest
        self._now_ms = now_ms
        self._taken_ms: int | None = None
        self._tally = Tally(Counts(), frozenset(), frozenset())

    async def take(self) -> Tally:
        """The fleet as of now, or of a moment ago."""
        now_ms = self._now_ms()
        if self._taken_ms is None or not 0 <= now_ms - self._taken_ms < FRESH_MS:
            self._tally = await self._count(now_ms)
            self._taken_ms = now_ms
        return self._tally

    async def _count(self, now_ms: int) -> Tally:
        async with self._store.read() as tx:
            joined = await boards.joined_times(tx)
        by_state: dict[State, set[str]] = {"fine": set(), "attention": set(), "silent": set()}
        known_boards = self._latest.boards
        for board, joined_ms in joined.items():
            known = known_boards.get(board)
            if known is None:
                seen = Seen(None, joined_ms, "offline", 0)
            else:
                seen = Seen(known.heard_ms, joined_ms, known.presence, known.every_ms, problem_of(known))
            by_state[state.judge(seen, now_ms).state].add(board)
        counts = Counts(len(joined), *(len(by_state[each]) for each in ("attention", "silent", "fine")))
        return Tally(counts, frozenset(by_state["attention"]), frozenset(by_state["silent"]))
