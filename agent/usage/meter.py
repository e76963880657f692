"""What the containers of a board used, from their counters to records of the usage log.

Made by `agent.usage.usage`, which tells it of the containers (`see`), says when memory is sampled (`sample`)
and when records are due (`draft`), and writes them.  Nothing here waits, or writes to a disk.

Where the counters stood is in the record (``abs``): after a crash it goes on from there, and processor time,
which the cgroup above a container keeps whoever looks (`agent.parents`), is neither lost nor counted twice.
What went through the network, and what memory was held, is known to the last look.  A record that could not
be written is covered by the next.

From and to are milliseconds of the clock that counts through sleep, of one boot: what a former boot left
unwritten nobody knows, and no record says it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from agent.clock import Clock
from agent.parents import Parent, Parents
from agent.runs import Run
from agent.usage.lives import Life
from agent.wire.usage import ContainerRecord

log = logging.getLogger(__name__)

TEXT = 256
"""Characters of a name in a record."""
MOST_CLOSED = 256
"""How many ends of runs may wait for a disk that is full; beyond, they are one with the next run's."""


class Draft(NamedTuple):
    """A record that is to be written, and what to call when it has been."""

    record: ContainerRecord
    written: Callable[[], None]


class Meter:
    """The containers of one board."""

    def __init__(
        self,
        clock: Clock,
        board: str,
        *,
        payer: str,
        sample_ms: int,
        workspace: str = "default",
        last: Mapping[str, ContainerRecord] | None = None,
        parents: Parents | None = None,
        most_closed: int = MOST_CLOSED,
    ) -> None:
        """``last``: the last record of each run of this boot, which are gone on with."""
        self._clock, self._board = clock, board
        self._payer, self._workspace, self._sample_ms = payer, workspace, sample_ms
        self._last = dict(last or {})
        self._parents, self._most_closed = parents or Parents(), most_closed
        self._runs: dict[str, Run] | None = None  # as they were seen last
        self._lives: dict[str, Life] = {}
        self._closed: list[ContainerRecord] = []
        self._leaving: list[Parent] = []

    @property
    def has_work(self) -> bool:
        """Whether anything is counted, or is to be written."""
        return bool(self._lives or self._closed)

    @property
    def is_urgent(self) -> bool:
        """Whether a container is gone, and its cgroup waits until that is written."""
        return any(life.is_gone for life in self._lives.values())

    def see(self, runs: Sequence[Run]) -> None:
        """These containers are there, and no others."""
        now_ms, before = self._clock.mono_ms(), self._runs
        self._runs = {run.id: run for run in runs}
        for run in runs:
            if run.state != "waiting":
                self._see(run, now_ms)
        for id in (before or {}).keys() - self._runs.keys():
            self._lose((before or {})[id], now_ms)
        if before is None:
            self._find_left(now_ms)
            self._last.clear()
        self.tidy()

    def sample(self) -> None:
        """Look at all that run."""
        now_ms = self._clock.mono_ms()
        for life in self._lives.values():
            life.sample(now_ms)

    def draft(self, *, urgent: bool = False) -> list[Draft]:
        """The records that are due now; ``urgent``: of containers that are gone, and no others."""
        now_ms = self._clock.mono_ms()
        drafts = [Draft(record, partial(self._closed.remove, record)) for record in self._closed]
        for _, life in sorted(self._lives.items()):
            is_due = life.ended_ms is None or life.is_ready(now_ms)
            if is_due and not life.is_final and (life.is_gone or not urgent):
                life.look(now_ms)
                drafts.append(self._draft(life, now_ms))
        return drafts

    def tidy(self) -> None:
        """Let go of the containers that are gone and written down, with their cgroups."""
        for id, life in list(self._lives.items()):
            if life.is_final and life.is_gone:
                del self._lives[id]
                if life.parent is not None:
                    self._leaving.append(life.parent)
        if self._leaving:
            self._leaving = [parent for parent in self._leaving if not self._parents.remove(parent)]
            # Whatever is about to be started is seen before.
            if not self._runs and not self._lives and not self._leaving:
                self._parents.remove_house()

    # --- what happens to containers ----------------------------------------------------------------

    def _see(self, run: Run, now_ms: int) -> None:
        life = self._lives.get(run.id)
        if life is not None and _is_started_again(life, run):
            self._close(life, now_ms)
            if life.parent is None:
                life = None  # what a start is counted in is its own
            else:
                life.begin_anew(run, now_ms)
        if life is None:
            life = self._begin(run, now_ms)
            if life is None:
                return
            if run.state == "alive":
                life.look(now_ms)
        else:
            life.follow(run)
        if run.state == "dead" and life.ended_ms is None:
            self._end(life, now_ms)
            life.is_final = _was_never(life)

    def _begin(self, run: Run, now_ms: int) -> Life | None:
        """A container that was not known; None where nothing of it can be read."""
        parent = self._parents.find(run.parent)
        if parent is None and run.counters is None:
            return None
        stem = self._stem(run, parent)
        begun_ms = self._then_ms(run.started_ms, now_ms) if run.begun_ms is None else run.begun_ms
        life = self._lives[run.id] = Life(run, stem, parent, min(max(0, begun_ms), now_ms))
        if (last := self._find_last(stem)) is not None:
            life.adopt(last)
            if run.is_fresh or (run.state == "alive" and life.is_final):
                life.begin_anew(run, now_ms)
        return life

    def _lose(self, run: Run, now_ms: int) -> None:
        """A container is not there any more."""
        life = self._lives.get(run.id) or self._begin(run, now_ms)
        if life is None:
            return
        life.is_gone = True
        if life.ended_ms is None:
            self._end(life, now_ms)
        life.is_final = life.is_final or _was_never(life)

    def _end(self, life: Life, now_ms: int) -> None:
        counters = life.run.counters
        ended_ms = None if counters is None else counters.ended_ms
        if ended_ms is None:  # nobody heard it
            ended_ms = self._then_ms(life.run.finished_ms, now_ms)
        life.end(min(ended_ms, now_ms))

    def _close(self, life: Life, now_ms: int) -> None:
        """Keep what is to be said of a run after which another has begun already."""
        if life.is_final or len(self._closed) >= self._most_closed:
            return
        if life.ended_ms is None:
            self._end(life, now_ms)
        draft = self._draft(life, now_ms)
        self._closed.append(draft.record)
        draft.written()

    def _find_left(self, now_ms: int) -> None:
        """The cgroups of containers that went while no agent looked."""
        known = {run.parent for run in (self._runs or {}).values()}
        for name in sorted(self._parents.names() - known):
            parent = self._parents.find(name) if name.startswith(f"{self._board}_") else None
            if parent is None:
                continue
            stem = self._stem(Run(name, "", "", "", "", "dead", name), parent)
            last = self._find_last(stem)
            run = Run(name, "", "", "", "", "dead", name)
            if last is not None:
                run = Run(
                    name, last.container, last.app, last.service, last.image, "dead", name, last.order,
                    last.exit_code,
                )  # fmt: skip
            life = self._lives[name] = Life(run, stem, parent, now_ms)
            if last is not None:
                life.adopt(last)
            life.is_gone = True
            if life.ended_ms is None:
                life.end(now_ms)
            else:
                life.look(now_ms)
            life.is_final = not life.has_used and (life.is_final or last is None)

    # --- what they are called, and when it was -----------------------------------------------------

    def _stem(self, run: Run, parent: Parent | None) -> str:
        """What the names of its runs begin with."""
        if parent is not None:
            label, what = f"{run.parent.rpartition('_')[2]}-", f"{parent.inode}"
        else:
            label, what = f"{run.id[:16]}:", f"{run.id} {run.started_ms}"
        return label + hashlib.sha256(f"{self._clock.boot} {what}".encode()).hexdigest()[:8]

    def _find_last(self, stem: str) -> ContainerRecord | None:
        """The last record of any run that begins with it."""
        found = [
            record
            for name, record in self._last.items()
            if (name == stem or name.startswith(f"{stem}.")) and record.boot == self._clock.boot
        ]
        return max(found, key=lambda record: (record.mono1_ms, record.seq), default=None)

    def _then_ms(self, wall_ms: int | None, now_ms: int) -> int:
        """A time of the wall clock on the monotonic one, as far as that can be told."""
        return now_ms if wall_ms is None else wall_ms - self._clock.wall_ms() + now_ms

    # --- records -----------------------------------------------------------------------------------

    def _draft(self, life: Life, now_ms: int) -> Draft:
        run, totals = life.run, tuple(amount.total for amount in life.amounts)
        to_ms = max(life.from_ms, now_ms if life.ended_ms is None else life.ended_ms)
        boot_ms = self._clock.wall_ms() - now_ms  # when the boot began, as the wall clock says now
        record = ContainerRecord(
            boot=self._clock.boot,
            mono0_ms=life.from_ms,
            mono1_ms=to_ms,
            wall0_ms=boot_ms + life.from_ms,
            wall1_ms=boot_ms + to_ms,
            clock=self._clock.state(),
            order=run.order,
            payer=self._payer,
            workspace=self._workspace,
            app=run.app[:TEXT],
            service=run.service[:TEXT],
            image=run.image[: 2 * TEXT],
            container=run.name[:TEXT],
            mem_sample_ms=self._sample_ms,
            **life.say(),
        )
        return Draft(record, lambda: life.written(record, totals))


def _was_never(life: Life) -> bool:
    """Whether it was made, and never began: there is nothing to be said of it."""
    return life.run.counters is None and not life.has_used and not life.is_told


def _is_started_again(life: Life, run: Run) -> bool:
    """Whether this is another start of the container than the one that is counted."""
    if run.is_fresh and run.counters is not life.run.counters:
        return True
    is_other = life.run.started_ms not in (None, run.started_ms)
    return run.state == "alive" and (life.ended_ms is not None or is_other)
