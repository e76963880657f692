"""What the modules that every agent loads cost, before it has done anything.

`make bench` measures the agent at work; this holds the part that an import can ruin unseen.  Some are
loaded late, where they are used: so the defaults are read, their sensors opened, and a session is made.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.source import ROOT

BUDGET_MB = 30
"""Measured: 29.2 MB with Python 3.11 on x86-64; 19.3 MB of them are Python, asyncio and ssl, and 1.9 MB are
aiomqtt and psutil, which did not count while `agent.app` alone was imported (28 MB)."""

LAZY = {
    "podman": "10 MB, and only boards with apps use it",
    "gpiozero": "4 MB, and only boards with GPIO sensors use it",
    "gpiod": "only boards with GPIO sensors use it",
    "shutil": "0.3 MB, and what imports it in an agent only wants the width of a terminal",
    "tomli_w": "only used to write configuration",
    "http.client": "only used to join and to renew",
    "urllib.request": "1.8 MB, and what imports it does not use it",
    "importlib.metadata": "only used for kinds of sensors from other packages",
    "argparse": "0.4 MB with the commands of the agent, and a service types one of them",
    "ipaddress": "0.3 MB, and what imports it looks at what is in brackets in a URL",
    "agent.join": "only used to join",
    "agent.doctor": "only used when somebody asks",
    "multiprocessing": "nothing here starts processes that way",
    "hub": "it is not on the board",
}

OF_APPS = ("agent.containers", "agent.wire.apps", "agent.wire.order", "agent.runs", "agent.parents")
"""What only boards with apps need, but for `agent.containers.apps`, which waits for the first order: 2 MB."""

SCRIPT = """
import sys
from agent.__main__ import is_run, spare
spare()
import asyncio
from pathlib import Path
import agent.service
from agent.base.broker import Address, connect
from agent.config import parse
from agent.sensors.driver import Environment, load_kind
assert is_run(["run", "--config", "agent.toml"])
for sensor in parse("").sensors:
    asyncio.run(load_kind(sensor.kind).open(sensor, Environment(Path("/sys"), Path("/"), asyncio.to_thread)))
connect(Address("board", host="127.0.0.1"))
status = open("/proc/self/status").read()
print(status.split("VmRSS:")[1].split()[0], *sys.modules)
"""


@pytest.fixture(scope="module")
def imported() -> tuple[float, set[str]]:
    """RSS in MB of 2**20 bytes of a fresh process that has loaded what every agent does, and its modules."""
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
        f"what every agent loads takes {measured:.1f} MB, over {BUDGET_MB} MB: on a board with 512 MB that"
        " is somebody's app; import what is rarely used where it is used"
    )


def test_what_few_boards_need_is_not_imported_by_all(imported: tuple[float, set[str]]) -> None:
    _, names = imported
    for name, reason in LAZY.items():
        assert name not in names, f"every agent loads {name} at its start: {reason}"


def test_of_apps_every_agent_loads_only_what_waits_for_an_order(imported: tuple[float, set[str]]) -> None:
    _, names = imported
    loaded = {name for name in names if name.startswith(OF_APPS)}
    assert loaded == {"agent.containers", "agent.containers.apps"}, (
        "import under TYPE_CHECKING, or where it is used: a board without apps has 33 MB"
    )


def test_what_every_agent_uses_is_counted(imported: tuple[float, set[str]]) -> None:
    _, names = imported
    assert {"aiomqtt", "psutil", "nacl", "sqlite3", "agent.base.mqtt"} <= names
