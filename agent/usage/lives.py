"""A container from its making to its removal, and what it has used that is not written down yet.

`agent.usage.meter` has one `Life` for each container, tells it what happens, and takes records out of it.
Nothing here waits, or writes to a disk.

**Runs.**  A run is one start of a container, to its end.  Its name begins with what stands for the cgroup in
which it is counted (`stem`), so that no two of a board are alike; a later start that is counted in the same
cgroup, and a counter that went back, put ``.2``, ``.3`` ... behind it.

**Counting.**  What a counter stands at is taken with each look; a record covers what it counted since the one
before.  When it stands lower than it stood it has begun anew, and what it says now is all new.  But of an
interface that was made anew while nobody looked it is not known what it said before: it counts from what it
says now on, for nobody pays for what was not measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.cgroups import Figures
from agent.parents import Parent
from agent.runs import Run
from agent.wire.usage import ContainerRecord, Counters

QUIET_MS = 10_000
"""How long conmon may take to clean up behind a container before its counters are read all the same."""
JITTER_US = 50_000
"""By how much processor time may seem to go back: conmon's is subtracted, which is read a moment later."""
COUNTED = {
    "cpu_us": "cpu_us",
    "io_r": "read_bytes",
    "io_w": "written_bytes",
    "net_rx": "received_bytes",
    "net_tx": "sent_bytes",
}
"""What a record calls a counter, and what it is in `Figures`."""
NET = ("net_rx", "net_tx")


class Amount:
    """What has been counted in all, and how much of it is written down; None: nothing was ever counted."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.written = 0

    @property
    def unwritten(self) -> int | None:
        """What a record would say now."""
        return None if self.total is None else self.total - self.written

    def add(self, more: int) -> None:
        """So much more was counted."""
        self.total = (self.total or 0) + more


class Tally(Amount):
    """A counter of the kernel's."""

    def __init__(self, stood: int | None = None) -> None:
        """``stood``: where it stood in the last record; None: it begins with the run."""
        super().__init__()
        self.stands = stood
        if stood is not None:
            self.total = 0

    def take(self, value: int | None, jitter: int = 0) -> bool:
        """It says ``value`` now.  Whether it has begun anew."""
        before = self.stands or 0
        if value is None or before - jitter <= value < before:
            return False
        self.add(value - before if value >= before else value)
        self.stands = value
        return value < before

    def begin_anew(self) -> None:
        """It counts from 0 again."""
        self.stands = None if self.stands is None else 0

    def go_on_from(self, value: int | None) -> bool:
        """It was opened anew, and says ``value``.  Whether it has begun anew, nobody knows when."""
        if value is None or self.stands is None or value >= self.stands:
            return False
        self.stands = value
        return True


class Held(Amount):
    """Memory times time, in byte-milliseconds: what a sample finds is held until the next."""

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[int, int] | None = None  # bytes, and since when

    def sample(self, held: int | None, now_ms: int) -> None:
        """So many bytes are held now; None: it has ended, or it cannot be told."""
        if self._last is not None:
            held_before, since_ms = self._last
            self.add(held_before * max(0, now_ms - since_ms))
        self._last = None
        if held is not None:
            self.add(0)
            self._last = held, now_ms


class Life:
    """One container.

    ``from_ms``: up to where it is written down; ``ended_ms``: when the run ended, None while it goes on;
    ``is_final``: that is written down; ``is_gone``: the container was removed; ``is_told``: something of the
    run is written down.
    """

    def __init__(self, run: Run, stem: str, parent: Parent | None, from_ms: int) -> None:
        self.run, self.stem, self.parent = run, stem, parent
        self.from_ms = from_ms
        self.ended_ms: int | None = None
        self.is_final = self.is_gone = self.is_told = False
        self.tallies = {name: Tally() for name in COUNTED}
        self.kills = Tally()
        self.held = Held()
        self._number = 1
        self._has_reset = False  # since the last record
        self._peak: int | None = None

    def adopt(self, last: ContainerRecord) -> None:
        """Go on where the last record of it ended, which another agent may have written."""
        number = last.run.removeprefix(self.stem).removeprefix(".")
        self._number = int(number) if number.isdecimal() else 1
        self.from_ms = last.mono1_ms
        self.is_told = True
        self.tallies = {name: Tally(getattr(last.abs, name)) for name in COUNTED}
        self.is_final, self.ended_ms = last.ended, last.mono1_ms if last.ended else None
        if not self.run.is_fresh:
            figures = self._figures()
            # Those that there were are written down, but for that which may have been its end.
            self.kills = Tally(0 if self.run.state == "dead" and not last.ended else figures.oom_kills)
            self._go_on(figures)

    def begin_anew(self, run: Run, now_ms: int) -> None:
        """It was started again, and is counted in the same cgroup above."""
        self.run = run
        self._number += 1
        self._has_reset = True
        if self.is_final:
            self.from_ms = max(self.from_ms, now_ms if run.begun_ms is None else run.begun_ms)
        self.ended_ms, self._peak = None, None
        self.is_final = self.is_told = False
        for name in NET:
            self.tallies[name].begin_anew()
        if self._kills_of_parent() is None:
            self.kills.begin_anew()

    def follow(self, run: Run) -> None:
        """This is known of it now; its counters may have been opened anew."""
        before, self.run = self.run.counters, run
        if run.counters is not None and run.counters is not before and not run.is_fresh:
            self._go_on(run.counters.look())

    def sample(self, now_ms: int) -> None:
        """Look at what nobody keeps: what memory is held, and what went through the network."""
        if self.ended_ms is None and self.run.counters is not None:
            self._take(self.run.counters.look(), NET, now_ms)

    def look(self, now_ms: int) -> None:
        """Take all figures of now; of one that has ended, those that it left."""
        figures = self._figures()
        self._take(figures, COUNTED, now_ms)
        self.kills.take(figures.oom_kills)

    def end(self, at_ms: int) -> None:
        """It ended then."""
        self.ended_ms = max(self.from_ms, at_ms)
        self.held.sample(None, self.ended_ms)
        self.look(self.ended_ms)

    def is_ready(self, now_ms: int) -> bool:
        """Whether the last figures of one that has ended can be had."""
        if self.ended_ms is None:
            return False
        return self.parent is None or now_ms - self.ended_ms >= QUIET_MS or self.parent.is_quiet()

    @property
    def has_used(self) -> bool:
        """Whether there is anything to write down."""
        return any(amount.unwritten for amount in self.amounts)

    @property
    def amounts(self) -> tuple[Amount, ...]:
        """What is counted."""
        return (*self.tallies.values(), self.kills, self.held)

    def say(self) -> dict[str, Any]:
        """What a record says of the run and of what it used."""
        run, has_ended = self.run, self.ended_ms is not None
        return {
            **{name: tally.unwritten for name, tally in self.tallies.items()},
            "run": self.stem if self._number == 1 else f"{self.stem}.{self._number}",
            "mem_byte_ms": self.held.unwritten,
            "mem_peak": self._peak,
            "oom_kills": self.kills.unwritten,
            "reset": self._has_reset,
            "ended": has_ended,
            "exit_code": run.exit_code if has_ended else None,
            "abs": Counters(**{name: tally.stands for name, tally in self.tallies.items()}),
        }

    def written(self, record: ContainerRecord, totals: tuple[int | None, ...]) -> None:
        """That was written down, when `amounts` had these totals."""
        for amount, total in zip(self.amounts, totals, strict=True):
            amount.written = total or 0
        self.from_ms, self.is_final, self._has_reset = record.mono1_ms, record.ended, False
        self.is_told = True

    def _take(self, figures: Figures, names: Iterable[str], now_ms: int) -> None:
        for name in names:
            jitter = JITTER_US if name == "cpu_us" and self.parent is not None else 0
            self._note_reset(self.tallies[name].take(getattr(figures, COUNTED[name]), jitter))
        if figures.memory_peak_bytes is not None:
            self._peak = max(self._peak or 0, figures.memory_peak_bytes)
        if self.ended_ms is None:
            self.held.sample(figures.memory_bytes, now_ms)

    def _figures(self) -> Figures:
        """Those of its counters; what the cgroup above counts, too, is taken from there."""
        counters = self.run.counters
        own = Figures() if counters is None else counters.look()
        if self.parent is None:
            return own
        above = self.parent.look()
        return Figures(
            above.cpu_us,
            own.memory_bytes,
            own.memory_peak_bytes,
            own.oom_kills if above.oom_kills is None else above.oom_kills,
            above.read_bytes,
            above.written_bytes,
            own.received_bytes,
            own.sent_bytes,
        )

    def _kills_of_parent(self) -> int | None:
        return None if self.parent is None else self.parent.look().oom_kills

    def _go_on(self, figures: Figures) -> None:
        for name in NET:
            self._note_reset(self.tallies[name].go_on_from(getattr(figures, COUNTED[name])))

    def _note_reset(self, has_begun_anew: bool) -> None:
        if has_begun_anew and not self._has_reset:
            self._number += 1
            self._has_reset = True
