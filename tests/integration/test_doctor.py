"""`lichen-agent doctor` and the problems of a running agent, on days when something is wrong.

Real processes throughout.  A full disk is a tmpfs of the agent's own, in a mount namespace; a user
without rights is `nobody`, or whoever runs the tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import tempfile
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w

from agent import doctor
from agent.clock import Clock, boot_id, mono_ms, wall_ms
from agent.doctor.line import Line
from agent.history import Episode, History, write_history
from agent.wire.messages import ClockState
from support.homehub import HomeHub
from support.lab import Board, Lab, Process, script
from support.sysfs import Sysfs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FAST = {
    "report": {"every_s": 0.2, "commit_every_s": 0.1},
    "link": {"backoff_low_s": 0.05, "backoff_high_s": 0.5},
    "sensors": [
        {"name": "load", "kind": "file", "path": "/proc/loadavg", "pattern": r"^(\S+)", "interval_s": 0.1},
    ],
}
NOBODY = 65534
MAY_LACK = {"podman", "clock", "memory-cgroup-off", "route", "problems"}
"""What the machine that runs the tests may lack: doctor then says so, and what to do."""


async def run(*argv: str) -> tuple[int, str]:
    """Exit status and all that a command said."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(45):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def examine(config: Path, *prefix: str) -> dict[str, dict[str, str]]:
    """What doctor says, by check; the last line of each."""
    code, text = await run(*prefix, script("lichen-agent"), "doctor", "--json", "--config", str(config))
    report = json.loads(text)
    assert code == (0 if report["well"] else 1)
    assert report["well"] == all(line["level"] in ("ok", "notice") for line in report["checks"])
    for line in report["checks"]:
        assert line["sentence"], line
        assert line["level"] == "ok" or line["hint"], line
    return {line["check"]: line for line in report["checks"]}


def levels(found: dict[str, dict[str, str]]) -> dict[str, str]:
    """What is not well, the machine's own lacks apart."""
    bad = {name: line["level"] for name, line in found.items() if line["level"] in ("warn", "fail")}
    return {name: level for name, level in bad.items() if name not in MAY_LACK}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path) as lab:
        await lab.start_hub()
        yield lab


@pytest.fixture
async def board(lab: Lab) -> Board:
    """A board that has joined and is heard."""
    board = await lab.add_board("pump", **FAST)
    await board.start()
    await lab.until(lambda: board.joined and board.stored() > 0, "the first reading is stored")
    return board


async def problems(board: Board) -> dict[str, dict[str, Any]]:
    """What the running agent says is wrong, by code."""
    return {problem["code"]: problem for problem in (await status(board))["problems"]}


async def status(board: Board) -> dict[str, Any]:
    """What `lichen-agent status` says beside a board."""
    agent = script("lichen-agent")
    _, text = await run(*inside(board), agent, "status", "--json", "--config", str(board.config_file))
    found: dict[str, Any] = json.loads(text)
    return found


def inside(board: Board) -> list[str]:
    """What to put before a command that is to see a board's own mounts."""
    if board.argv[0] != "unshare":
        return []
    return ["nsenter", "--target", str(board.pid), "--user", "--mount", "--preserve-credentials"]


# --- all is well ---------------------------------------------------------------------------------


async def test_a_board_that_is_well(lab: Lab, board: Board) -> None:
    found = await examine(board.config_file)
    assert levels(found) == {}
    for check in ("configuration", "agent", "identity", "state", "network", "name", "hub", "broker"):
        assert found[check]["level"] == "ok", found[check]
    assert found["sensors"]["sentence"] == "1 of 1 channels answer"
    assert str(board.pid) in found["agent"]["sentence"]
    assert "its key fits" in found["certificate"]["sentence"]
    assert board.running  # it did not take the session over
    assert "link is down" not in board.tail(100)


async def test_a_line_for_each_check(lab: Lab, board: Board) -> None:
    _, text = await run(script("lichen-agent"), "doctor", "--config", str(board.config_file))
    for line in text.splitlines():
        is_hint = line.startswith(" " * 23)
        assert is_hint or line.split()[0] in ("ok", "notice", "warn", "fail"), line
    assert f"https://127.0.0.1:{lab.board_port} answers" in text


async def test_a_board_that_is_stopped(lab: Lab, board: Board) -> None:
    await board.stop()
    found = await examine(board.config_file)
    assert levels(found) == {"agent": "warn"}
    assert found["hub"]["level"] == found["broker"]["level"] == "ok"
    assert found["sensors"]["sentence"] == "1 of 1 channels answer"
    assert found["state"]["level"] == "ok"
    assert not list(board.state.glob(".doctor*"))


# --- the hub and the way there ---------------------------------------------------------------------


async def test_a_hub_that_is_stopped(lab: Lab, board: Board) -> None:
    await lab.hub.stop()
    found = await examine(board.config_file)
    assert levels(found) == {"hub": "fail", "broker": "fail"}
    assert "nothing listens there" in found["hub"]["sentence"]
    assert str(lab.mqtt_port) in found["broker"]["sentence"]
    assert "running" in found["hub"]["hint"]
    await lab.until(lambda: told(board, "hub-unreachable"), "the agent tells", within_s=90, every_s=2)
    problem = (await problems(board))["hub-unreachable"]
    assert "nothing listens" in problem["sentence"]
    assert problem["severity"] == "warn"
    await lab.start_hub()
    await lab.until(lambda: gone(board, "hub-unreachable"), "it clears by itself", within_s=30, every_s=1)
    await board.stop()
    _, text = await run(script("lichen-agent"), "doctor", "--history", "--config", str(board.config_file))
    assert "hub-unreachable: The hub is not reached" in text


async def told(board: Board, code: str) -> bool:
    return code in await problems(board)


async def gone(board: Board, code: str) -> bool:
    return code not in await problems(board)


async def test_a_broker_that_is_unplugged_says_nothing(lab: Lab, board: Board) -> None:
    """A frozen process is what a pulled cable looks like: connections are made and never answered."""
    children = psutil.Process(lab.hub.pid).children(recursive=True)
    broker = next(child for child in children if child.name() == "mosquitto")
    broker.suspend()
    try:
        found = await examine(board.config_file)
        assert found["broker"]["level"] == "fail"
        assert "no answer within 5 s" in found["broker"]["sentence"]
        assert found["hub"]["level"] == "ok"
    finally:
        broker.resume()


async def test_a_hub_whose_name_has_no_address(tmp_path: Path) -> None:
    board = Machine(tmp_path)
    board.join(hub_url="https://hub.invalid:8421")
    found = await examine(board.config)
    assert found["name"]["level"] == "fail"
    assert "hub.invalid has no address" in found["name"]["sentence"]
    assert "hub" not in found


async def test_a_board_that_the_hub_has_put_out(lab: Lab, board: Board) -> None:
    await lab.api("POST", f"/boards/{board.id}/revoke")
    found = await examine(board.config_file)
    assert found["broker"]["level"] == "fail"
    assert "revoked" in found["broker"]["sentence"]
    assert "join file" in found["broker"]["hint"]


@pytest.mark.parametrize(
    ("off_s", "state", "level", "said"),
    [
        (0, "synced", "ok", "synchronised"),
        (86_400, "synced", "warn", "1 d ahead of the hub's: one of them is wrong"),
        (-30 * 365 * 86_400, "unsynced", "warn", "behind the hub's"),
        (0, "unsynced", "notice", "agrees with the hub's"),
    ],
    ids=["right", "a day ahead", "thirty years behind", "not synchronised"],
)
async def test_a_clock_against_the_hubs(
    lab: Lab, off_s: int, state: ClockState, level: str, said: str
) -> None:
    board = await lab.add_board("pump", **FAST)
    clock = Clock(boot_id(), mono_ms, lambda: wall_ms() + 1000 * off_s, lambda: state)
    report, _ = await doctor.examine(board.config_file, clock)
    (line,) = (line for line in report.lines if line.check == "clock")
    assert (line.level, said in line.sentence.replace("\u00a0", " ")) == (level, True), line
    (hub,) = (line for line in report.lines if line.check == "hub")
    assert hub.level == "ok", hub  # the join file's authority is enough


# --- before joining ----------------------------------------------------------------------------------


class Machine:
    """A board that has not joined."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        self.folder, self.config, self.state = folder, folder / "agent.toml", folder / "state"
        self.config.write_text(tomli_w.dumps({"state_dir": str(self.state), **FAST, **keys}))
        self.state.mkdir(mode=0o700)

    def join(self, **lies: str) -> None:
        hub = HomeHub(self.folder / "hub")
        (self.state / "join.toml").write_text(tomli_w.dumps(hub.join_file("https://127.0.0.1:9", **lies)))


async def test_a_board_that_has_not_joined(tmp_path: Path) -> None:
    board = Machine(tmp_path)
    found = await examine(board.config)
    assert levels(found) == {"agent": "warn", "identity": "warn"}
    assert str(board.state / "join.toml") in found["identity"]["hint"]


async def test_a_join_file_whose_hub_is_away(tmp_path: Path) -> None:
    board = Machine(tmp_path)
    board.join()
    found = await examine(board.config)
    assert found["identity"]["level"] == "notice"
    assert found["hub"]["sentence"] == "127.0.0.1:9: nothing listens there"


async def test_a_join_file_of_another_hub(lab: Lab) -> None:
    board = await lab.add_board("pump", **FAST)
    path = board.state / "join.toml"
    path.write_text(tomli_w.dumps({**tomllib.loads(path.read_text()), "ca_sha256": "0" * 64}))
    found = await examine(board.config_file)
    assert found["hub"]["level"] == "fail"
    assert "another hub than the join file says" in found["hub"]["sentence"]


async def test_a_join_file_with_garbage(tmp_path: Path) -> None:
    board = Machine(tmp_path)
    (board.state / "join.toml").write_text("hub_url = 5")
    found = await examine(board.config)
    assert found["hub"]["level"] == "fail"
    assert "hub_url" in found["hub"]["sentence"]


# --- the configuration -------------------------------------------------------------------------------


async def test_no_configuration_at_all(tmp_path: Path) -> None:
    found = await examine(tmp_path / "none.toml")
    assert found["configuration"]["level"] == "fail"
    assert "there is no configuration" in found["configuration"]["sentence"]


@pytest.mark.parametrize(
    ("extra", "said"),
    [("[report]\nevry_s = 5", "report.evry_s"), ('[[sensors]]\nname = "x"', "sensors[0].kind")],
    ids=["a typo", "a sensor"],
)
async def test_a_broken_configuration_is_named_and_the_rest_looked_at(
    lab: Lab, board: Board, extra: str, said: str
) -> None:
    board.config_file.write_text(tomli_w.dumps({"state_dir": str(board.state)}) + extra)
    found = await examine(board.config_file)
    assert levels(found) == {"configuration": "fail"}
    assert said in found["configuration"]["sentence"]
    assert found["hub"]["level"] == found["broker"]["level"] == found["agent"]["level"] == "ok"


async def test_a_configuration_that_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_bytes(b"\xff\xfe[[[")
    found = await examine(tmp_path / "agent.toml")
    assert found["configuration"]["level"] == "fail"
    assert found["network"]["level"] == "ok"


# --- files and rights --------------------------------------------------------------------------------


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that everybody can enter; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="lichen-doctor-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_stranger() -> list[str]:
    """What makes a command run as somebody without rights, if we have any."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


async def test_a_key_that_cannot_be_read(open_path: Path) -> None:
    async with Lab(open_path) as lab:
        await lab.start_hub()
        board = await lab.add_board("pump", **FAST)
        await board.start()
        await lab.until(lambda: board.joined and board.stored() > 0, "the first reading is stored")
        await board.stop()
        for path in (board.state, *board.state.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (board.state / "tls.key").chmod(0)
        found = await examine(board.config_file, *as_stranger())
        assert found["certificate"]["level"] == "fail"
        assert "cannot be read: Permission denied" in found["certificate"]["sentence"]
        assert "sudo" in found["certificate"]["hint"]
        assert found["state"]["level"] == "warn"  # and the others can
        assert "chmod 700" in found["state"]["hint"]
        (board.state / "tls.key").chmod(0o600)
        (board.state / "tls.key").write_text("garbage")
        found = await examine(board.config_file)
        assert "do not fit" in found["certificate"]["sentence"]


async def test_whoever_may_not_look_is_told_so(open_path: Path) -> None:
    """Beside a running agent the status is enough: it says who the board is."""
    async with Lab(open_path) as lab:
        await lab.start_hub()
        runtime = open_path / "run"
        board = await lab.add_board("pump", runtime_dir=str(runtime), **FAST)
        await board.start()
        await lab.until(lambda: board.joined and board.stored() > 0, "the first reading is stored")
        board.config_file.chmod(0o644)
        if os.geteuid() != 0:
            board.state.chmod(0)
        found = await examine(board.config_file, *as_stranger())
        board.state.chmod(0o700)
        assert found["agent"]["level"] == "ok"
        assert found["identity"]["level"] == "notice"
        assert "pump" in found["identity"]["sentence"]
        assert "sudo" in found["identity"]["hint"]


async def test_a_state_that_belongs_to_others_too(tmp_path: Path) -> None:
    board = Machine(tmp_path)
    board.state.chmod(0o755)
    found = await examine(board.config)
    assert found["state"]["level"] == "warn"
    assert "mode 755" in found["state"]["sentence"]


# --- the disk ----------------------------------------------------------------------------------------


async def on_a_small_disk(lab: Lab) -> Board:
    """A running board whose state lies on a tmpfs of 4 MB that only it sees."""
    board = await lab.add_board("pump", **FAST, outbox={"max_bytes": 64 * 1024 * 1024})
    join = board.dir / "join.toml"
    (board.state / "join.toml").rename(join)
    keys = {"state_dir": str(board.state), "join_file": str(join), "runtime_dir": str(board.dir / "run")}
    board.config_file.write_text(tomli_w.dumps({**keys, **FAST}))
    mounted = f'mount -t tmpfs -o size=4m,mode=700 none {board.state} && exec "$@"'
    board.argv = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh", *board.argv]
    await board.start()
    await lab.until(lambda: (board.dir / "run" / "status.json").exists(), "the agent runs")
    return board


async def test_a_full_disk_is_a_problem_that_clears_by_itself(lab: Lab) -> None:
    board = await on_a_small_disk(lab)
    filler = Path(f"/proc/{board.pid}/root{board.state}/filler")
    await lab.until(lambda: online(board), "the board is online")
    fill(filler)
    await lab.until(lambda: told(board, "disk-full"), "the agent tells", within_s=30)
    problem = (await problems(board))["disk-full"]
    assert problem["severity"] == "fail"
    assert "readings cannot be stored" in problem["sentence"]
    found = await examine(board.config_file, *inside(board))
    assert found["disk-full"]["level"] == "fail"
    assert found["state"]["level"] == "fail"
    assert "No space left on device" in found["state"]["sentence"]
    await lab.until(lambda: heard_at_the_hub(lab, "disk-full"), "the hub hears of it", within_s=90, every_s=1)
    filler.unlink()
    await lab.until(lambda: gone(board, "disk-full"), "it clears by itself", within_s=100, every_s=2)
    assert board.running


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


async def online(board: Board) -> bool:
    return bool((await status(board))["link"]["state"] == "online")


async def heard_at_the_hub(lab: Lab, code: str) -> bool:
    rows = lab.ask(lab.hub_dir / "hub.db", "SELECT code FROM problems WHERE cleared_ms IS NULL")
    return (code,) in rows


# --- other checks ------------------------------------------------------------------------------------


async def test_a_sensor_that_hangs_and_one_that_fails_are_named(tmp_path: Path) -> None:
    sensors = [
        {"name": "gone", "kind": "file", "path": "/nowhere"},
        {"name": "slow", "kind": "command", "command": ["sleep", "60"], "timeout_s": 0.2},
        {"name": "load", "kind": "file", "path": "/proc/loadavg", "pattern": r"^(\S+)"},
    ]
    board = Machine(tmp_path, sensors=sensors)
    report, _ = await doctor.examine(board.config, Clock.system())
    failing = [line for line in report.lines if line.check == "sensor"]
    assert [line.sentence.partition(":")[0] for line in failing] == ["gone", "slow"]
    assert Line("sensors", "ok", "1 of 3 channels answer") in report.lines


async def test_a_machine_without_openssl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report, _ = await doctor.examine(Machine(tmp_path).config, Clock.system())
    (line,) = (line for line in report.lines if line.check == "openssl")
    assert line.level == "fail"
    assert line.hint == "sudo apt install openssl"


async def test_the_history_is_told(tmp_path: Path) -> None:
    board = Machine(tmp_path)
    dip = Episode("under-voltage", "", "warn", "The supply voltage is too low.", "b" * 32,
                  1_700_000_000_000, 5, to_ms=1_700_000_180_000, times=4)  # fmt: skip
    write_history(board.state, History((dip,)))
    _, text = await run(script("lichen-agent"), "doctor", "--history", "--config", str(board.config))
    assert "2023-11-14 22:13 UTC  for 3 min, 4 times  under-voltage: The supply voltage is too low." in text
    _, text = await run(
        script("lichen-agent"), "doctor", "--history", "--json", "--config", str(board.config)
    )
    assert json.loads(text)["history"][0]["times"] == 4


async def test_systemd_and_the_hub_are_told_of_a_weak_supply(lab: Lab, short_path: Path) -> None:
    sysfs = Sysfs(lab.dir / "sys")
    sysfs.hwmon(0, "rpi_volt", {"in0_lcrit_alarm": 1})
    board = await lab.add_board("pump", sysfs=str(sysfs.root), **FAST)
    notifications = short_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(notifications))
        listener.setblocking(False)
        board.env["NOTIFY_SOCKET"] = str(notifications)
        await board.start()
        heard = b""
        async with asyncio.timeout(20):
            while not re.search(rb"STATUS=online, [^\n]+; The supply voltage is too low\.", heard):
                heard += await asyncio.get_running_loop().sock_recv(listener, 4096) + b"\n"
    await lab.until(lambda: heard_at_the_hub(lab, "under-voltage"), "the hub hears of it")
    _, text = await run(script("lichen-agent"), "status", "--config", str(board.config_file))
    assert "problem  The supply voltage is too low. (for " in text


async def test_this_machine_is_well_or_named(tmp_path: Path) -> None:
    """Without a configuration, a hub or a network: it ends, and each line says what to do."""
    process = Process("doctor", [script("lichen-agent"), "doctor"], tmp_path / "log")
    await process.start()
    assert process.child is not None
    async with asyncio.timeout(40):
        assert await process.child.wait() in (0, 1)
    lines = process.tail().splitlines()
    assert {"configuration", "agent", "network", "openssl", "clock"} <= {line.split()[1] for line in lines}
