"""`lichen-agent sensors ...` as a technician types it, on boards of our own making.

The kernel's files are a tree in a directory; drivers of others are packages that pip has installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from support.lab import script
from support.source import ROOT
from support.sysfs import Sysfs, w1_slave

pytestmark = pytest.mark.slow

FLOW = {"name": "flow", "kind": "w1", "device": "28-0316a27983fd", "interval_s": 0.2}
AIR = {"name": "air", "kind": "iio", "chip": "bme280", "channel": "pressure", "interval_s": 0.2}


@dataclass
class Machine:
    """A Raspberry Pi in a directory, its configuration and what is installed on it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Sysfs(self.folder / "sys").raspberry_pi()

    @property
    def config(self) -> Path:
        return self.folder / "agent.toml"

    def write(self, *sensors: dict[str, Any]) -> None:
        self.config.write_text(
            tomli_w.dumps({"sysfs": "sys", "state_dir": "state", "sensors": list(sensors)})
        )

    async def start(self, *words: str, stdout: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            script("lichen-agent"), "sensors", *words, "--config", str(self.config), cwd=self.folder,
            stdout=stdout, stderr=asyncio.subprocess.PIPE, env=os.environ | self.environment,
        )  # fmt: skip

    async def say(self, *words: str, status: int = 0) -> str:
        """Run a command to its end; what it printed, complaints too."""
        process = await self.start(*words)
        out, err = await process.communicate()
        assert process.returncode == status, (out + err).decode()
        return (out + err).decode()

    @asynccontextmanager
    async def watching(self, *words: str) -> AsyncIterator[asyncio.StreamReader]:
        """The lines of ``sensors watch``, ended as by Ctrl-C."""
        process = await self.start("watch", *words, "--every", "0.2")
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.timeout(20):
                yield process.stdout
        finally:
            process.send_signal(signal.SIGINT)
            _, complaint = await process.communicate()
        assert (process.returncode, complaint) == (0, b"")

    @property
    def slave(self) -> Path:
        return self.folder / "sys/bus/w1/devices/28-0316a27983fd/w1_slave"


def put(path: Path, text: str) -> None:
    """Change a file in one step, as the kernel does."""
    new = path.with_name("new")
    new.write_text(text)
    new.rename(path)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- scan, ls, read ----------------------------------------------------------------------------


async def test_from_a_scan_to_readings(machine: Machine) -> None:
    machine.write()
    printed = await machine.say("scan")
    assert 'device = "28-0316a27983fd"' in printed
    shutil.move(machine.config, machine.folder / "real.toml")
    machine.config.symlink_to("real.toml")
    assert "were added to" in await machine.say("scan", "--write", str(machine.config))
    assert machine.config.is_symlink()
    listed = await machine.say("ls")
    assert re.search(r"^bme280-pressure +iio, every 10 s  pressure  hPa$", listed, re.MULTILINE)
    read = json.loads(await machine.say("read", "w1-28-0316a27983fd", "bme280-pressure", "--json"))
    assert read == {"w1-28-0316a27983fd": {"value": 21.437}, "bme280-pressure": {"value": 987.5634375}}
    assert "bme280-pressure: 988 hPa" in await machine.say("read", "bme280-pressure")


async def test_every_failure_is_told_with_its_reason(machine: Machine) -> None:
    pipe = machine.folder / "pipe"
    os.mkfifo(pipe)
    machine.write(
        FLOW | {"maximum": 20},
        FLOW | {"name": "gone", "device": "28-000000000000"},
        {"name": "pipe", "kind": "file", "path": str(pipe)},
        {"name": "odd", "kind": "file", "path": str(machine.config)},
        {"name": "slow", "kind": "command", "command": ["sleep", "60"], "timeout_s": 0.2},
    )
    said = json.loads(await machine.say("read", "--json", status=1))
    assert {name: each["code"] for name, each in said.items()} == {
        "flow": "implausible",
        "gone": "not-found",
        "pipe": "invalid",
        "odd": "invalid",
        "slow": "timeout",
    }
    assert said["flow"]["error"] == "it says 21.437 °C, and only up to 20 °C is plausible"


# --- watch ---------------------------------------------------------------------------------------


async def test_watch_shows_each_reading_until_it_is_ended(machine: Machine) -> None:
    machine.write(FLOW, AIR)
    async with machine.watching("flow") as lines:
        assert re.fullmatch(r"20\S+Z flow: 21.4 °C\n", (await lines.readline()).decode())
        put(machine.slave, w1_slave(30000, verdict="NO"))
        while b"the checksum does not hold" not in (line := await lines.readline()):
            assert b"21.4" in line
        machine.slave.unlink()
        while b"there is no such thermometer" not in await lines.readline():
            pass
        put(machine.slave, w1_slave(-5000))
        while b"flow: -5.0 " not in await lines.readline():
            pass


async def test_watch_tells_programs_in_json(machine: Machine) -> None:
    machine.write(AIR | {"deadband": 0.5})
    async with machine.watching("--json") as lines:
        line = json.loads(await lines.readline())
        assert (line["name"], line["unit"], line["quality"]) == ("air", "hPa", "good")
        # What stays within the deadband has no line, but for the last one before it is left.
        put(machine.folder / "sys/bus/iio/devices/iio:device0/in_pressure_input", "99.9\n")
        values = [json.loads(await lines.readline())["value"]]
        while values[-1] != 999.0:
            values.append(json.loads(await lines.readline())["value"])
        assert values in ([987.5634375, 999.0], [999.0])


async def test_watch_on_a_terminal_is_a_table(machine: Machine) -> None:
    machine.write(FLOW, AIR)
    ours, theirs = pty.openpty()
    process = await machine.start("watch", stdout=theirs)
    os.close(theirs)
    shown = b""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        while b"Ctrl-C ends it" not in shown:
            shown += await loop.run_in_executor(None, os.read, ours, 4096)
    process.send_signal(signal.SIGINT)
    await process.communicate()
    os.close(ours)
    assert process.returncode == 0
    assert re.search(r"\x1b\[H\x1b\[2Jflow  good +21\.4 °C\r\nair   good +988 hPa\r\n", shown.decode())


async def test_watch_refuses_a_pace_that_it_cannot_keep(machine: Machine) -> None:
    machine.write(FLOW)
    assert "0 is not within 0.1 to 3600" in await machine.say("watch", "--every", "0", status=2)


# --- packages of others --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put the example package."""
    site = tmp_path_factory.mktemp("site")
    source = shutil.copytree(ROOT / "tests/packages/lichen_psi", site / "source")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    status = os.spawnv(os.P_WAIT, sys.executable, [*pip, "--target", str(site / "packages"), str(source)])
    assert status == 0
    return site / "packages"


async def test_an_installed_package_brings_its_kind(machine: Machine, installed: Path) -> None:
    machine.environment["PYTHONPATH"] = str(installed)
    (machine.folder / "pressure").mkdir()
    (machine.folder / "pressure/io").write_text("some avg10=12.70 avg60=8.01 avg300=9.98 total=1\n")
    psi = {"name": "disks", "kind": "psi", "resource": "io", "folder": str(machine.folder / "pressure")}
    machine.write(psi)
    assert json.loads(await machine.say("read", "--json")) == {"disks": {"value": 12.7}}
    assert "psi, every 10 s  waiting  %" in await machine.say("ls")


async def test_a_package_that_fails_to_import_costs_its_sensor_only(
    machine: Machine, installed: Path
) -> None:
    broken = machine.folder / "broken"
    shutil.copytree(installed, broken)
    (broken / "lichen_psi.py").write_text("import a_library_that_was_removed\n")
    machine.environment["PYTHONPATH"] = str(broken)
    machine.write({"name": "disks", "kind": "psi", "resource": "io"}, FLOW)
    said = await machine.say("read", status=1)
    assert "flow: 21.4 °C" in said
    assert (
        "disks: the driver of 'psi' (lichen-psi) cannot be imported: "
        "ModuleNotFoundError: No module named 'a_library_that_was_removed'" in said
    )
    scanned = await machine.say("scan")
    assert "cannot be imported" in scanned
    assert 'kind = "w1"' in scanned


async def test_only_a_kind_that_is_not_built_in_costs_a_look_at_packages(machine: Machine) -> None:
    machine.write(FLOW, AIR, {"name": "capacity", "kind": "capacity"})
    code = (
        "import sys; from pathlib import Path; from agent import app, config;"
        f" config.load(Path({str(machine.config)!r})); print('importlib.metadata' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    out, _ = await process.communicate()
    assert out == b"False\n"
