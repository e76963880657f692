"""`lichen-agent` as a process: how it starts and ends, and what it says to a technician.

With a real mosquitto over mutual TLS and no hub behind it; what agent and hub do together is in
test_bad_days.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from agent.base.broker import Address, connect
from agent.identity import open_identity
from agent.outbox import Outbox
from agent.wire.errors import EXIT_CODES, Busy, ConfigError
from agent.wire.messages import Reading
from support.broker import free_port, mosquitto
from support.homehub import Ear, HomeHub
from support.lab import Process, script

pytestmark = pytest.mark.slow

SENSORS = [
    {"name": "load", "kind": "file", "path": "/proc/loadavg", "pattern": r"^(\S+)", "interval_s": 0.1},
]


@dataclass
class Machine:
    """A board with its configuration; ``ear`` hears what it tells its hub."""

    folder: Path
    keys: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.write()

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "agent.toml"

    def write(self, **keys: Any) -> None:
        fast = {
            "report": {"every_s": 0.2, "commit_every_s": 0.2},
            "link": {"backoff_low_s": 0.05, "backoff_high_s": 0.2},
        }
        settings = {"state_dir": "state", "sensors": SENSORS, **fast, **self.keys, **keys}
        self.config.write_text(tomli_w.dumps(settings))

    async def say(self, *words: str, status: int = 0) -> str:
        """Run a command; returns what it printed, errors too."""
        process = await asyncio.create_subprocess_exec(
            script("lichen-agent"), *words, "--config", str(self.config),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await process.communicate()
        assert process.returncode == status, out.decode()
        return out.decode()

    def agent(self, **env: str) -> Process:
        argv = [script("lichen-agent"), "run", "--config", str(self.config)]
        return Process("agent", argv, self.folder / "agent.log", env)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def until(condition: Any, within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


# --- before it has joined ------------------------------------------------------------------------


async def test_a_typo_in_the_configuration_is_named(machine: Machine) -> None:
    machine.write(report={"evry_s": 5})
    for words in (["config", "check"], ["run"]):
        said = await machine.say(*words, status=EXIT_CODES[ConfigError])
        assert f"{machine.config}: report.evry_s" in said
        assert "every_s" in said


async def test_without_a_join_file_it_says_where_to_put_one(machine: Machine) -> None:
    said = await machine.say("run", status=EXIT_CODES[ConfigError])
    assert "has not joined a hub" in said
    assert str(machine.state / "join.toml") in said


async def test_a_join_file_with_garbage_is_named(machine: Machine) -> None:
    machine.state.mkdir()
    (machine.state / "join.toml").write_text("hub_url = 5")
    said = await machine.say("run", status=EXIT_CODES[ConfigError])
    assert f"{machine.state}/join.toml cannot be used: hub_url" in said


async def test_the_status_of_a_board_that_never_ran(machine: Machine) -> None:
    said = await machine.say("status", status=1)
    assert "not joined" in said
    assert json.loads(await machine.say("status", "--json", status=1))["running"] is False


async def test_sensors_are_found_listed_and_read(machine: Machine) -> None:
    found = await machine.say("sensors", "scan", "--write", str(machine.config))
    assert "added" in found
    assert "capacity.cpu" in await machine.say("sensors", "ls")
    read = json.loads(await machine.say("sensors", "read", "load", "--json"))
    assert read["load"]["value"] >= 0
    assert re.search(
        r"^capacity.disk_used: [0-9.]+ [kMGT]?B$", await machine.say("sensors", "read"), re.MULTILINE
    )
    assert "there are: load" in await machine.say("sensors", "read", "lod", status=EXIT_CODES[ConfigError])


async def test_a_reader_that_leaves_early_is_no_fault(machine: Machine) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = (script("lichen-agent"), "sensors", "ls", "--config", str(machine.config))
    process = await asyncio.create_subprocess_exec(*command, stdout=writing, stderr=asyncio.subprocess.PIPE)
    os.close(writing)
    _, complaint = await process.communicate()
    assert (process.returncode, complaint) == (0, b"")


async def test_a_sensor_that_fails_is_told_by_the_exit_status(machine: Machine) -> None:
    machine.write(sensors=[{"name": "gone", "kind": "file", "path": "/nowhere"}])
    assert "gone: " in await machine.say("sensors", "read", status=1)


async def test_a_board_that_waits_for_its_hub_says_so(machine: Machine, tmp_path: Path) -> None:
    machine.state.mkdir()
    file = HomeHub(tmp_path / "hub").join_file("https://127.0.0.1:9")
    (machine.state / "join.toml").write_text(tomli_w.dumps(file))
    agent = machine.agent()
    await agent.start()
    await until(lambda: "hub not reached" in agent.tail())
    said = await machine.say("status", status=1)
    assert f"as process {agent.pid}" in said
    assert "not joined" in said
    assert await agent.stop(within_s=2) == 0


# --- with a broker ---------------------------------------------------------------------------------


@dataclass
class Joined:
    """A machine that has joined, the ear of its hub, and the agent, not started."""

    machine: Machine
    ear: Ear
    agent: Process


@pytest.fixture
async def joined(tmp_path: Path, machine: Machine) -> AsyncIterator[Joined]:
    """The board joined a hub whose broker runs, with mutual TLS, and somebody listens there."""
    port = free_port()
    hub = HomeHub(tmp_path / "hub", port)
    identity = open_identity(machine.state)
    hub.admit(identity)
    files = tmp_path / "hub"
    secure = f"""listener {port} 127.0.0.1
cafile {files}/ca.pem
certfile {hub.authority.server_certificate}
keyfile {hub.authority.server_key}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
"""
    ear = Ear(identity.board)
    agent = machine.agent()
    async with mosquitto(tmp_path, secure) as broker, asyncio.TaskGroup() as group:
        address = Address("hub", host="127.0.0.1", port=broker.port, username="hub")
        listening = group.create_task(ear.listen(connect, address), name="ear")
        await until(lambda: ear.session)
        yield Joined(machine, ear, agent)
        if agent.running:
            await agent.kill()
        listening.cancel()


async def test_it_reports_and_all_is_well(joined: Joined) -> None:
    await joined.agent.start()
    await until(lambda: len(joined.ear.values) > 3)
    said = await joined.machine.say("status")
    assert "the hub answered" in said
    assert f"process {joined.agent.pid}" in said
    assert "sensor   load: " in said
    assert joined.ear.abouts[0].sensors[0].name == "load"


async def test_a_stop_says_goodbye_within_a_second(joined: Joined) -> None:
    await joined.agent.start()
    await until(lambda: joined.ear.abouts)
    assert await joined.agent.stop(within_s=1.5) == 0
    await until(lambda: [presence.state for presence in joined.ear.presences] == ["online", "offline"])
    assert "not running" in await joined.machine.say("status", status=1)


async def test_a_killed_agent_is_not_taken_for_running(joined: Joined) -> None:
    await joined.agent.start()
    await until(lambda: joined.ear.values)
    await joined.agent.kill()
    status = json.loads(await joined.machine.say("status", "--json", status=1))
    assert status["running"] is False
    assert status["name"] == "pump"
    assert status["hub"] == "north"


async def test_two_agents_on_one_state_are_refused(joined: Joined) -> None:
    await joined.agent.start()
    await until(lambda: joined.ear.abouts)
    said = await joined.machine.say("run", status=EXIT_CODES[Busy])
    assert f"process {joined.agent.pid}" in said
    assert joined.agent.running


async def test_what_waits_is_told_while_the_agent_is_stopped(joined: Joined) -> None:
    file = joined.machine.state / "outbox.db"
    async with Outbox.open(file, boot="b" * 32, max_bytes=10**6) as outbox:
        await outbox.append([Reading("room", 21.5, 5, 1_700_000_000_000)], "synced")
    assert "1 reading waits for the hub" in await joined.machine.say("status", status=1)


async def test_systemd_hears_ready_without_a_broker(joined: Joined, short_path: Path) -> None:
    notifications = short_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(notifications))
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        agent = joined.machine.agent(NOTIFY_SOCKET=str(notifications))
        heard = b""
        await agent.start()
        async with asyncio.timeout(10):
            while b"STATUS=online" not in heard:
                heard += await loop.sock_recv(listener, 4096) + b"\n"
        assert heard.index(b"READY=1") < heard.index(b"STATUS=online")
        await agent.stop()
