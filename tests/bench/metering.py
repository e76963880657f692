"""What measuring three apps costs a board: an hour of looks, samples and batches, all of them done at once.

In this process, over real cgroups that are made for it (as root), each with a process and one beside it that
stands for conmon; the log is a real one.  Left out is waiting.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agent.cgroups import CGROUPS, Counters
from agent.clock import Clock
from agent.parents import HOUSE, Parents, draw
from agent.runs import Run
from agent.usage.ledger import Ledger
from agent.usage.meter import Meter
from agent.wire.note import generate
from bench.budget import Row

APPS = 3
HOUR_MS, LOOK_MS, SAMPLE_MS, PERIOD_MS = 3_600_000, 60_000, 30_000, 600_000
BOARD = "benchbenchbench2"
WHAT, UNIT = "usage: meter CPU per hour, three apps", "s"


async def measure(folder: Path) -> list[Row]:
    """The row; none where nobody may make cgroups."""
    made = Made()
    with ExitStack() as stack:
        try:
            runs = [stack.enter_context(_container(number)) for number in range(APPS)]
        except OSError:
            return []
        async with Ledger.open(folder / "usage", log_key=generate(BOARD), clock=made.clock) as ledger:
            used_s = await _hour(
                made, Meter(made.clock, BOARD, payer="hub", sample_ms=SAMPLE_MS), ledger, runs
            )
    note = "looks each minute, memory each 30 s, a batch each 10 minutes, sealed and on the disk; on one core"
    return [Row(WHAT, used_s, UNIT, 1.0, note=note)]


class Made:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.mono_ms = 0
        self.clock = Clock("b" * 32, lambda: self.mono_ms, lambda: self.mono_ms, lambda: "synced")


async def _hour(made: Made, meter: Meter, ledger: Ledger, runs: list[Run]) -> float:
    began_s = time.process_time()
    for made.mono_ms in range(0, HOUR_MS, SAMPLE_MS):
        if made.mono_ms % LOOK_MS == 0:
            meter.see(runs)
        meter.sample()
        if made.mono_ms % PERIOD_MS == 0:
            drafts = meter.draft()
            assert len(drafts) == APPS
            await ledger.append([draft.record for draft in drafts])
            for draft in drafts:
                draft.written()
    return time.process_time() - began_s


@contextmanager
def _container(number: int) -> Iterator[Run]:
    """A process in a cgroup of its own, below one that has conmon's beside it.  Raises OSError."""
    name, parents = draw(BOARD), Parents()
    whole = (CGROUPS / "cgroup.controllers").exists()
    trees = [CGROUPS] if whole else [CGROUPS / "cpuacct", CGROUPS / "memory"]
    with ExitStack() as stack:
        stack.callback(_remove, parents, name)
        for tree in trees:
            (tree / HOUSE / name / "conmon").mkdir(parents=True)
            (tree / HOUSE / name / "libpod-it").mkdir()
        process = subprocess.Popen(["sleep", "1000"])
        stack.callback(process.wait)
        stack.callback(process.kill)
        for tree in trees:
            (tree / HOUSE / name / "libpod-it/cgroup.procs").write_text(str(process.pid))
        counters = Counters.open(process.pid, net=True)
        stack.callback(counters.close)
        image = "registry.example/web@sha256:" + "0" * 64
        app, id = f"app{number}", os.urandom(32).hex()
        yield Run(
            id, f"{app}_web.0.0a1b2c3d", app, "web", image, "alive", name, 1,
            counters=counters, begun_ms=0, is_fresh=True,
        )  # fmt: skip


def _remove(parents: Parents, name: str) -> None:
    with contextlib.suppress(OSError):
        if (parent := parents.find(name)) is not None:
            parents.remove(parent)
    parents.remove_house()
