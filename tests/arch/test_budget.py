"""What importing the agent costs, before it has done anything.

`make bench` measures the agent at work; this holds the part that an import can ruin unseen.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.source import ROOT

BUDGET_MB = 28
"""Measured: 26.0 MB with Python 3.11 on x86-64; 19.3 MB of them are Python, asyncio and ssl."""

LAZY = {
    "podman": "10 MB, and only boards with apps use it",
    "gpiozero": "4 MB, and only boards with GPIO sensors use it",
    "gpiod": "only boards with GPIO sensors use it",
    "tomli_w": "only used to write configuration",
    "http.client": "only used to join and to renew",
    "multiprocessing": "nothing here starts processes that way",
    "hub": "it is not on the board",
}

SCRIPT = """
import sys
import agent.app
status = open("/proc/self/status").read()
print(status.split("VmRSS:")[1].split()[0], *sys.modules)
"""


@pytest.fixture(scope="module")
def imported() -> tuple[float, set[str]]:
    """RSS in MB of 2**20 bytes of a fresh process that has imported agent.app, and its modules."""
    command = [sys.executable, "-c", SCRIPT]
    # Compiling takes memory that a board does not spend: the second start reads what the first wrote.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=True)
    kilobytes, *names = done.stdout.split()
    return int(kilobytes) / 1024, set(names)


def test_importing_the_agent_stays_within_its_budget(imported: tuple[float, set[str]]) -> None:
    measured, _ = imported
    assert measured <= BUDGET_MB, (
        f"importing agent.app takes {measured:.1f} MB, over {BUDGET_MB} MB: on a board with 512 MB that"
        " is somebody's app; import what is rarely used where it is used"
    )


def test_what_few_boards_need_is_not_imported_by_all(imported: tuple[float, set[str]]) -> None:
    _, names = imported
    for name, reason in LAZY.items():
        assert name not in names, f"agent.app imports {name} at the start: {reason}"
