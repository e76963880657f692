"""The problems that the hub sees now, in memory: what was raised, how often, and until when it counts.

`hub.fleet.alerts` alone raises and clears; it is told by `dirty` which boards differ from what is
stored.  Pure: times are given, seconds of any one clock for the ends, ms of the hub's for people.

>>> seen = Sightings()
>>> seen.raised("a", Problem("limits-exceeded", "too much", since_ms=5), now_s=0, quiet_s=300)
True
>>> seen.raised("a", Problem("limits-exceeded", "far too much", since_ms=9), now_s=60, quiet_s=300)
False
>>> [(each.sentence, each.since_ms, each.count) for each in seen.of("a")]
[('far too much', 5, 2)]
>>> seen.expire(now_s=359), seen.expire(now_s=360), seen.of("a")
([], [('a', 'limits-exceeded')], ())
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from agent.wire.messages import Problem

Owner = str | None
"""A board's id, or None for the hub itself."""


@dataclass(slots=True)
class _Sight:
    """One problem; ``until_s``: when it is over unless it is raised again."""

    problem: Problem
    sentence: str
    count: int
    until_s: float
    stored: bool = False

    def shown(self) -> Problem:
        first = self.problem
        return Problem(first.code, self.sentence, first.hint, first.severity, first.since_ms, self.count)


class Sightings:
    """What is open.  ``dirty``: whose problems are not stored as they are; ``fresh``: the same, but
    only how often or in what words, which can wait."""

    def __init__(self) -> None:
        self.dirty: set[Owner] = set()
        self.fresh: set[Owner] = set()
        self._open: dict[Owner, dict[str, _Sight]] = {}
        self._ending: dict[tuple[Owner, str], _Sight] = {}

    def raised(
        self, owner: Owner, problem: Problem, *, now_s: float, quiet_s: float = math.inf, times: int = 1
    ) -> bool:
        """A problem was seen; it counts until nothing was seen of it for ``quiet_s``.  True when it is new.

        ``times``: how many more make it of one that is known; 0 for a state that only goes on.
        """
        mine = self._open.setdefault(owner, {})
        sight = mine.get(problem.code)
        if sight is not None:
            sight.until_s = max(sight.until_s, now_s + quiet_s)
            if times or sight.sentence != problem.sentence:
                sight.count += times
                sight.sentence = problem.sentence
                self.fresh.add(owner)
            return False
        sight = mine[problem.code] = _Sight(problem, problem.sentence, problem.count, now_s + quiet_s)
        if quiet_s != math.inf:
            self._ending[owner, problem.code] = sight
        self.dirty.add(owner)
        return True

    def cleared(self, owner: Owner, code: str) -> Problem | None:
        """A problem is over.  Returns it when there was one, and no row tells of it."""
        mine = self._open.get(owner, {})
        sight = mine.pop(code, None)
        if sight is None:
            return None
        if not mine:
            del self._open[owner]
        self._ending.pop((owner, code), None)
        self.dirty.add(owner)
        return None if sight.stored else sight.shown()

    def expire(self, now_s: float) -> list[tuple[Owner, str]]:
        """End what has been quiet for long enough; returns it."""
        over = [key for key, sight in self._ending.items() if sight.until_s <= now_s]
        for owner, code in over:
            self.cleared(owner, code)
        return over

    def forget(self, owner: Owner) -> None:
        """Drop all of a board that is no more; nothing is to be written about it."""
        for code in self._open.pop(owner, {}):
            self._ending.pop((owner, code), None)
        self.dirty.discard(owner)
        self.fresh.discard(owner)

    @property
    def next_end_s(self) -> float:
        """When `expire` has something to do, if nothing is raised again."""
        return min((sight.until_s for sight in self._ending.values()), default=math.inf)

    def has(self, owner: Owner, code: str) -> bool:
        """Whether there is such a problem."""
        return code in self._open.get(owner, ())

    def of(self, owner: Owner) -> tuple[Problem, ...]:
        """The problems of a board, or of the hub."""
        return tuple(sight.shown() for sight in self._open.get(owner, {}).values())

    def owners(self) -> Collection[Owner]:
        """Who has any."""
        return tuple(self._open)

    def unsaved(self) -> Iterator[tuple[Owner, Problem]]:
        """What no row tells of yet."""
        for owner, mine in self._open.items():
            for sight in mine.values():
                if not sight.stored:
                    yield owner, sight.shown()

    def note_stored(self, owner: Owner, written: Sequence[Problem]) -> None:
        """These problems of it have a row now."""
        for problem in written:
            sight = self._open.get(owner, {}).get(problem.code)
            if sight is not None and sight.problem.since_ms == problem.since_ms:
                sight.stored = True
