"""What goes on with one app: what it is to be, what was seen of it, and the step that is being done.

In memory only; `agent.containers.reconcile` keeps one for each app, `agent.containers.report` shows it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from agent.containers.actual import Seen
from agent.containers.aim import Aim, Past
from agent.containers.steps import Await, GiveUp, Step
from agent.wire.apps import Failure, Progress
from agent.wire.order import App

LOW_MS, HIGH_MS = 2_000, 300_000
"""The first and the longest pause before a step that failed is tried again."""


@dataclass(slots=True)
class Errand:
    """One app.  ``ordered`` is what the order says of it, None when that does not name it.

    ``hold``: why nothing may be changed now; ``waits``: what the board lacks now.  ``refusal``: why the
    board's policy does not take the ordered manifest.  ``deferred``: volumes are to go, and do not yet.
    ``again_ms``: when to go on after ``error``.  ``stuck``: steps that must come after others.
    ``planned``: what the steps lead to, None before anybody has looked.  ``is_unwritten``: what a step ended
    in could not be written down.
    """

    name: str
    aim: Aim
    ordered: App | None = None
    past: Past = field(default_factory=Past)
    seen: Seen = field(default_factory=lambda: Seen(0))
    steps: list[Step] = field(default_factory=list)
    planned: Aim | None = None
    hold: str = ""
    waits: str = ""
    refusal: Failure | None = None
    deferred: bool = False
    doing: Step | None = None
    task: asyncio.Task[None] | None = None
    progress: Progress | None = None
    error: str = ""
    tries: int = 0
    again_ms: int = 0
    is_unwritten: bool = False
    stuck: list[Step] = field(default_factory=list)
    pruned: bool = False

    @property
    def next_step(self) -> Step | None:
        """The first step that has not just been refused because something else must go first."""
        return next((step for step in self.steps if step not in self.stuck), None)

    @property
    def is_settled(self) -> bool:
        """Whether it was looked at, and nothing is to be done for it."""
        is_planned = self.planned is not None and self.is_for(self.planned)
        return is_planned and self.task is None and not self.steps

    def is_for(self, aim: Aim) -> bool:
        """Whether it is still what an aim was about."""
        return self.aim.key == aim.key

    def is_resting(self, now_ms: int) -> bool:
        """Whether it waits after an error; the verdict on a revision waits only to be written down."""
        is_verdict = self.aim.mode == "update" and isinstance(self.next_step, GiveUp)
        return self.again_ms > now_ms and (self.is_unwritten or not is_verdict)

    def due_ms(self, now_ms: int) -> int | None:
        """When time alone changes something."""
        step = self.next_step
        wait = step.until_ms if isinstance(step, Await) else None
        times = [at_ms for at_ms in (wait, self.again_ms) if at_ms is not None and at_ms > now_ms]
        return min(times, default=None)

    def did_well(self) -> None:
        """A step was done."""
        self.error, self.tries, self.again_ms, self.stuck = "", 0, 0, []
        self.is_unwritten = False

    def try_later(self, error: str, now_ms: int, *, unwritten: bool = False) -> None:
        """A step was not done, and may be later."""
        self.error, self.tries, self.is_unwritten = error, self.tries + 1, unwritten
        self.again_ms = now_ms + min(HIGH_MS, LOW_MS * 2 ** min(self.tries - 1, 20))
