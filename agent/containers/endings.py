"""How often containers ended by themselves, and when each may be started again.

In memory only: an agent that starts anew gives every container a new chance.  The pause doubles with
each end, up to five minutes, and begins anew for a container that had been running well for a while:
for ``window_ms`` of its restart policy, or for five minutes where that says nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from agent.containers.engine import Container
from agent.wire.order import Restart

HIGH_MS = 300_000
"""The longest pause."""
STABLE_MS = 300_000
"""Who ran for so long was well, unless its policy says otherwise."""
TRIAL_MS = 1_000
"""The longest first pause while a revision is on trial: somebody waits for the verdict."""
LOOP = 5
"""So many ends in a row are a loop."""


@dataclass(slots=True)
class _Tally:
    last: tuple[str, int | None, int | None] = ("", None, None)
    count: int = 0
    back_ms: int = 0


class Endings:
    """The tally of each container that has ended."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}

    def saw(self, container: Container, now_ms: int, *, up_ms: int, policy: Restart, trial: bool) -> None:
        """A container has ended by itself, after ``up_ms``; each end counts once."""
        tally = self._tallies.setdefault(container.name, _Tally())
        end = (container.id, container.started_ms, container.finished_ms)
        if tally.last != end:
            tally.last = end
            delay_ms = min(policy.delay_ms, TRIAL_MS) if trial else policy.delay_ms
            self._count(tally, now_ms, delay_ms, was_well=_is_well(up_ms, policy))

    def cured(self, name: str, now_ms: int, *, up_ms: int, policy: Restart) -> None:
        """A container was stopped because it was ill, which counts as an end of its own."""
        tally = self._tallies.setdefault(name, _Tally())
        self._count(tally, now_ms, policy.delay_ms, was_well=_is_well(up_ms, policy))

    def runs(self, name: str, *, up_ms: int, policy: Restart) -> None:
        """A container has been running for ``up_ms``: long enough, and its ends are forgotten."""
        if _is_well(up_ms, policy):
            self._tallies.pop(name, None)

    def _count(self, tally: _Tally, now_ms: int, delay_ms: int, *, was_well: bool) -> None:
        tally.count = 1 if was_well else tally.count + 1
        tally.back_ms = now_ms + min(HIGH_MS, delay_ms * 2 ** min(tally.count - 1, 20))

    def keep(self, names: Collection[str]) -> None:
        """Forget all others."""
        for name in self._tallies.keys() - set(names):
            del self._tallies[name]

    def forgive(self, names: Collection[str]) -> None:
        """Begin anew with these."""
        for name in names:
            self._tallies.pop(name, None)

    def count(self, name: str) -> int:
        """How often it ended in a row."""
        tally = self._tallies.get(name)
        return 0 if tally is None else tally.count

    def back_ms(self, name: str) -> int:
        """When it may be started again."""
        tally = self._tallies.get(name)
        return 0 if tally is None else tally.back_ms


def _is_well(up_ms: int, policy: Restart) -> bool:
    return up_ms >= (policy.window_ms or STABLE_MS)
