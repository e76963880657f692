"""The counters of real cgroups of this machine, also after the process in them has died."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.cgroups import CGROUPS, Counters

NAME = f"lichen-test-{os.getpid()}"
MIB = 1 << 20
LIMITS = ("memory.limit_in_bytes", "memory.max")
"""What a cgroup may have at most, in versions 1 and 2."""
# It begins when it is told to: what a process takes before it is in its cgroup counts elsewhere.
WORK = """
import time
input()
data = b"x" * (20 << 20)
until = time.process_time() + 0.2
while time.process_time() < until: pass
print("done", flush=True)
input()
"""
EAT = """
input()
data = [b"x" * (1 << 20) for _ in range(200)]
"""


@contextmanager
def own_cgroup() -> Iterator[list[Path]]:
    """A new cgroup in each tree that counts on this machine; none where this user may not make them."""
    whole = (CGROUPS / "cgroup.controllers").exists()
    made = []
    try:
        for tree in [CGROUPS] if whole else [CGROUPS / "cpuacct", CGROUPS / "memory"]:
            with contextlib.suppress(PermissionError):
                (tree / NAME).mkdir()
                made.append(tree / NAME)
        yield made
    finally:
        for folder in made:
            folder.rmdir()


@contextmanager
def process_in(cgroup: list[Path], program: str) -> Iterator[tuple[subprocess.Popen[bytes], Counters]]:
    """A process that waits for a line, and its counters."""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for folder in cgroup:
            (folder / "cgroup.procs").write_text(str(process.pid))
        try:
            yield process, Counters.open(process.pid)
        finally:
            process.kill()


def tell(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def test_a_process_that_works_and_dies() -> None:
    with own_cgroup() as cgroup, process_in(cgroup, WORK) as (process, counters):
        before = counters.look()
        tell(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        after = counters.look()
        process.kill()
        process.wait()
        dead = counters.look()
    assert counters.look() == dead  # its cgroup is gone
    counters.close()
    if not cgroup:
        return  # it was in that of this test, where others count as well
    assert after.cpu_us - before.cpu_us >= 200_000
    assert dead.cpu_us >= after.cpu_us
    if after.memory_bytes is not None:  # this kernel has a controller for memory
        assert after.memory_bytes > 20 * MIB > dead.memory_bytes
        assert dead.oom_kills in (None, 0)


def test_a_process_that_eats_its_limit() -> None:
    with own_cgroup() as cgroup:
        limits = [path for folder in cgroup for path in folder.iterdir() if path.name in LIMITS]
        for limit in limits:
            limit.write_text(str(50 * MIB))
        with process_in(cgroup, EAT) as (process, counters):
            tell(process)
            assert process.wait() == (-signal.SIGKILL if limits else 0)
            dead = counters.look()
    counters.close()
    if limits:
        assert dead.oom_kills == 1
        assert dead.memory_peak_bytes is None or 40 * MIB < dead.memory_peak_bytes <= 50 * MIB
