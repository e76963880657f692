"""`lichen-agent doctor`: what is wrong with this board, step by step, in plain words.

`examine` looks at everything from the configuration to the hub and says one line for each thing:
ok, notice (worth knowing), warn or fail, and what to do.  It is for the worst of days: it works
without a network, before joining, with a broken configuration, as root and not, beside a
running agent and without one.  Each check has its own timeout, and all run side by side, so that
the whole takes as long as the slowest.  It changes nothing: what it writes to prove that it can,
it removes.

Only its command imports it, so that it costs a running agent nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.clock import Clock
from agent.doctor import board, hub
from agent.doctor.line import Line, looked
from agent.doctor.patient import Patient, meet
from agent.history import Episode, dated, read_history
from agent.sensors.blocking import Threads
from agent.wire import words
from agent.wire.plain import dumps, plain

QUICK_S = 5.0
SENSORS_S = 30.0
HUB_S = 20.0


@dataclass(frozen=True, slots=True)
class Report:
    """All lines, in the order in which one would look for oneself."""

    lines: tuple[Line, ...]

    @property
    def well(self) -> bool:
        """Whether nobody needs to do anything."""
        return all(line.well for line in self.lines)


async def examine(path: Path, clock: Clock) -> tuple[Report, Patient]:
    """Look at the board whose configuration is at ``path``."""
    patient = await meet(path, clock)
    threads = Threads()
    checks = (
        ("state", QUICK_S, lambda: board.state(patient, threads)),
        ("runtime", QUICK_S, lambda: board.runtime(patient)),
        ("programs", QUICK_S, lambda: board.programs()),
        ("problems", QUICK_S, lambda: board.problems(patient, clock, threads)),
        ("sensors", SENSORS_S, lambda: board.sensors(patient)),
        ("network", QUICK_S, lambda: hub.network(threads)),
        ("hub", HUB_S, lambda: hub.hub(patient, clock, threads)),
        ("broker", HUB_S, lambda: hub.broker(patient, clock, threads)),
    )
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(looked(*check), name=f"check {check[0]}") for check in checks]
    finally:
        threads.close()
    lines = [*patient.lines, *(line for task in tasks for line in task.result())]
    return Report(tuple(lines)), patient


def describe(report: Report) -> Iterator[str]:
    """A line for each check: "warn   clock      it is not set.  What to do." """
    for line in report.lines:
        yield words.plain(f"{line.level:6}  {line.check:13}  {line.sentence}")
        if line.hint:
            yield words.plain(f"{'':6}  {'':13}  {line.hint}")


def as_json(report: Report, history: Sequence[Episode] | None) -> str:
    """The same for programs."""
    told: dict[str, object] = {"well": report.well, "checks": [plain(line) for line in report.lines]}
    if history is not None:
        told["history"] = [each._asdict() for each in history]
    return dumps(told).decode()


def episodes(patient: Patient, clock: Clock) -> list[Episode]:
    """The problems that the board has had, oldest first."""
    return [dated(each, clock) for each in read_history(patient.config.state_dir).episodes]


def describe_history(history: Sequence[Episode]) -> Iterator[str]:
    """A line for each problem that there was."""
    for each in history:
        lasted = "and goes on" if each.to_ms is None else f"for {words.duration(each.to_ms - each.from_ms)}"
        times = f", {each.times} times" if each.times > 1 else ""
        yield words.plain(f"{words.utc(each.from_ms)}  {lasted}{times}  {each.code}: {each.sentence}")
    if not history:
        yield "no problem is on record"
