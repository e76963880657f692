"""Choosing the aim of each app: from the order, from what came up last, and from what may be done now.

Called by `agent.containers.reconcile` at the start of each turn.  Owns the board's policy file, which it
reads anew each time: what its owner changes counts at once.  A manifest that the policy does not take is
reported as a failure of its revision, and nothing changes.  That is not remembered: once the policy
allows it, the order, which still says so, is followed.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from agent.clock import Clock
from agent.containers import look, policy
from agent.containers.aim import choose
from agent.containers.endings import Endings
from agent.containers.errand import Errand
from agent.containers.memory import Memory
from agent.containers.orders import Orders
from agent.containers.policy import Policy
from agent.wire.apps import Failure
from agent.wire.errors import ConfigError, Refused
from agent.wire.order import App


class Aims:
    """What each app is to be now.  ``errands`` is the reconciler's, and is brought up to date."""

    def __init__(
        self,
        errands: dict[str, Errand],
        orders: Orders,
        memory: Memory,
        endings: Endings,
        clock: Clock,
        policy_file: Path,
    ) -> None:
        self.policy = Policy()
        self._errands, self._orders, self._memory, self._endings = errands, orders, memory, endings
        self._clock = clock
        self._file = policy_file
        self.fault: ConfigError | None = None
        """Why the policy file cannot be used; None when it can."""

    def read_policy(self) -> None:
        """Read the file; one that cannot be used lets nothing new in."""
        try:
            self.policy, self.fault = policy.load(self._file), None
        except ConfigError as error:
            self.fault = error

    def choose(self, found: Collection[str]) -> None:
        """Choose for every app that the order names, that is remembered, or of which something is there."""
        order = self._orders.order
        if order is None:
            # Nobody has said that anything should go, so everything stays as it came up.
            for name in self._memory.apps:
                if (good := self._memory.past(name).good) is not None:
                    self._aim(name, good)
            return
        ordered = {app.name: app for app in order.apps}
        names = ordered.keys() | set(self._memory.apps) | set(found)
        for name in self._errands.keys() - names:
            if self._errands[name].task is None:
                del self._errands[name]
        for name in sorted(names):
            self._aim(name, ordered.get(name))

    def is_new(self, app: App | None) -> bool:
        """Whether a manifest has neither come up nor begun to."""
        if app is None:
            return False
        past = self._memory.past(app.name)
        return (past.good is None or past.good.revision != app.revision) and past.begun != app.revision

    def _aim(self, name: str, ordered: App | None) -> None:
        past, errand = self._memory.past(name), self._errands.get(name)
        hold = self._hold(ordered)
        refused = self._ask_policy(ordered) if self.is_new(ordered) else None
        refusal = None if refused is None else self._failure(name, ordered, refused, errand)
        # Volumes go only by a clock that can be relied on.
        deferred = ordered is not None and ordered.purge and self._clock.state() == "unsynced"
        aim = choose(
            name,
            None if deferred else ordered,
            past if refusal is None else replace(past, failure=refusal, kept=""),
            hold=hold,
            error="" if errand is None else errand.error,
        )
        if errand is None:
            errand = self._errands[name] = Errand(name, aim)
        elif errand.aim.key != aim.key:
            # What went wrong on the way to something else says nothing here.
            errand.did_well()
            errand.waits, errand.pruned = "", False
            self._endings.forgive([sight.name for sight in errand.seen.containers])
        errand.hold = hold if aim.mode in ("wait", "rest") and not past.kept else ""
        errand.aim, errand.ordered, errand.past = aim, ordered, past
        errand.refusal, errand.deferred = refusal, deferred

    def _hold(self, ordered: App | None) -> str:
        """Why nothing may be changed now."""
        if self.fault is not None:
            return f"waits for a policy that can be used: {self.fault}"
        minute = None
        if (known_ms := self._clock.known_ms()) is not None:
            local = time.localtime(known_ms / 1000)
            minute = local.tm_hour * 60 + local.tm_min
        return policy.hold(self.policy, ordered, minute, locked=look.is_locked(self.policy))

    def _ask_policy(self, ordered: App | None) -> Refused | None:
        return None if ordered is None else policy.refusal(self.policy, ordered)

    def _failure(self, name: str, ordered: App | None, refused: Refused, errand: Errand | None) -> Failure:
        """What the policy said, since when."""
        revision = 0 if ordered is None else ordered.revision
        before = None if errand is None else errand.refusal
        is_same = before is not None and (before.revision, before.reason) == (revision, str(refused))
        good = self._memory.past(name).good
        return Failure(
            revision=revision,
            at_ms=before.at_ms if before is not None and is_same else self._clock.wall_ms(),
            step="asking the board's policy",
            reason=str(refused),
            hint=refused.hint,
            code=refused.code,
            rolled_back_to=0 if good is None else good.revision,
        )
