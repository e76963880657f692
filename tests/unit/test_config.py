"""agent.toml: defaults, derived values, where the file is found, and what is said about mistakes."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from agent import config as module
from agent.config import Config, find, load, parse, show
from agent.wire.errors import ConfigError

ALONE: dict[str, str] = {}
"""An environment without any of our variables."""


def test_the_examples_hold() -> None:
    assert doctest.testmod(module).failed == 0


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        parse(text, "/x/agent.toml", ALONE)
    return str(raised.value)


# --- values ------------------------------------------------------------------------------------


def test_an_empty_file_is_a_configuration() -> None:
    config = parse("", "/etc/lichen/agent.toml", ALONE)
    assert config == Config()
    assert config.state_dir == Path("/var/lib/lichen")
    assert config.runtime_dir == Path("/var/lib/lichen/run")
    assert (config.report.every_s, config.report.commit_every_s, config.link.keepalive_s) == (60, 60, 90)
    assert [(sensor.name, sensor.kind) for sensor in config.sensors] == [("capacity", "capacity")]


def test_no_sensors_are_possible() -> None:
    assert parse("sensors = []", "agent.toml", ALONE).sensors == ()


def test_relative_paths_start_at_the_file_and_at_the_state() -> None:
    config = parse(
        'state_dir = "state"\njoin_file = "join.json"\nruntime_dir = "tmp"', "/home/x/agent.toml", ALONE
    )
    assert config.state_dir == Path("/home/x/state")
    assert config.runtime_dir == Path("/home/x/state/tmp")
    assert config.join_files == (Path("/home/x/state/join.json"),)


def test_a_join_file_is_looked_for_in_two_places() -> None:
    assert parse("", "/x/a.toml", ALONE).join_files == (
        Path("/var/lib/lichen/join.toml"),
        Path("/boot/firmware/lichen-join.toml"),
    )


def test_the_runtime_directory_is_the_one_of_systemd() -> None:
    environment = {"RUNTIME_DIRECTORY": "/run/lichen:/run/other"}
    assert parse("", "/x/a.toml", environment).runtime_dir == Path("/run/lichen")
    assert parse('runtime_dir = "/tmp/r"', "/x/a.toml", environment).runtime_dir == Path("/tmp/r")


@pytest.mark.parametrize(
    ("every_s", "commit_every_s", "keepalive_s"),
    [(2, 2, 32), (0.5, 0.5, 30), (300, 60, 330), (43_200, 60, 43_230)],
)
def test_commits_and_keepalive_follow_the_report(
    every_s: float, commit_every_s: float, keepalive_s: int
) -> None:
    config = parse(f"[report]\nevery_s = {every_s}", "/x/a.toml", ALONE)
    assert (config.report.commit_every_s, config.link.keepalive_s) == (commit_every_s, keepalive_s)


def test_podman_is_found_unless_it_is_named() -> None:
    containers = parse("", "/x/a.toml", ALONE).containers
    assert (containers.socket, containers.storage) == (None, None)
    assert containers.policy == Path("/etc/lichen/policy.toml")
    text = 'state_dir = "s"\n[containers]\nstorage = "c"\npolicy = "p.toml"'
    containers = parse(text, "/x/a.toml", ALONE).containers
    assert (containers.storage, containers.policy) == (Path("/x/s/c"), Path("/x/p.toml"))


# --- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stat_dir = 'x'", "stat_dir: unknown key; did you mean 'state_dir'?"),
        ("[report]\ncommit_evry_s = 1", "report.commit_evry_s: unknown key; did you mean 'commit_every_s'?"),
        ("[report]\nevery_s = true", "report.every_s: expected a number, not true"),
        ("[report]\nevery_s = nan", "report.every_s: expected a number, not nan"),
        ("[report]\nevery_s = 43201", "report.every_s: 43201.0 is not within 0.1 to 43200"),
        (
            "[report]\nevery_s = 5\ncommit_every_s = 6",
            "report.commit_every_s: 6.0 is longer than report.every_s (5.0)",
        ),
        ("[outbox]\nmax_bytes = 1", "outbox.max_bytes: 1 is not within 65536 to 1099511627776"),
        ("[link]\nwindow = 17", "link.window: 17 is not within 1 to 16"),
        ("[link]\nkeepalive_s = 60", "link.keepalive_s: 60 is not longer than report.every_s (60.0)"),
        (
            "[link]\nbackoff_low_s = 400",
            "link.backoff_low_s: 400.0 is longer than link.backoff_high_s (300.0)",
        ),
        (
            "[log]\nlevel = 'warn'",
            "log.level: 'warn' is not one of 'debug', 'info', 'warning', 'error'; did you mean 'warning'?",
        ),
        (
            "[containers]\nsocket = '/run/p.sock'\nstorage = 's'",
            "containers.storage: whoever serves containers.socket says where that is",
        ),
        ("report = 5", "report: expected a table of names and values, not 5"),
        ("sensors = 5", "sensors: expected a list, not 5"),
        ("sensors = [5]", "sensors[0]: expected a table of names and values, not 5"),
        ("state_dir = ''", "state_dir: '' is not a path"),
        ("state_dir = 1970-01-01", "state_dir: expected a string, not a date"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, expected: str) -> None:
    assert complaint(text) == f"/x/agent.toml: {expected}"


def test_what_is_not_toml_is_named_with_its_line() -> None:
    assert complaint("state_dir = \n").startswith(
        "/x/agent.toml: not TOML: Invalid value (at line 1, column 13)"
    )


def sensors(*tables: dict[str, Any]) -> str:
    return tomli_w.dumps({"sensors": list(tables)})


ROOM = {"name": "room", "kind": "file", "path": "/run/room"}


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ([{"name": "a"}], "sensors[0].kind: missing"),
        ([{"name": "a", "kind": 5}], "sensors[0].kind: '5' is not one of "),
        ([{"kind": "capacity"}], "sensors[0].name: missing"),
        ([ROOM | {"name": "Room"}], "sensors[0].name: 'Room' is not lower-case letters, digits"),
        ([ROOM | {"pth": "/x"}], "sensors[0].pth: unknown key; did you mean 'path'?"),
        ([ROOM | {"interval_s": 0.05}], "sensors[0].interval_s: 0.05 is not within 0.1 to 86400"),
        ([ROOM | {"timeout_s": 601}], "sensors[0].timeout_s: 601.0 is not within 0.05 to 600"),
        ([ROOM | {"path": "run/room"}], "sensors[0].path: 'run/room' is not an absolute path"),
        ([ROOM | {"pattern": "("}], "sensors[0].pattern: '(' is not a pattern: "),
        ([ROOM | {"pattern": "x"}], "sensors[0].pattern: 'x' has 0 groups where one must hold the number"),
        ([ROOM, ROOM], "sensors[1].name: 'room' is taken by sensors[0]"),
        (
            [{"name": "board", "kind": "capacity"}, ROOM | {"name": "board.cpu"}],
            "sensors[1].name: 'board.cpu' is taken by sensors[0]",
        ),
        (
            [ROOM | {"name": "board.load"}, {"name": "board", "kind": "capacity"}],
            "sensors[1].name: 'board.load' is taken by sensors[0]",
        ),
        (
            [{"name": "x" * 60, "kind": "capacity"}],
            f"sensors[0].name: its channel '{'x' * 60}.memory' is over 64",
        ),
        ([{"name": "t", "kind": "thermal"}], "sensors[0]: give either type or zone"),
        (
            [{"name": "t", "kind": "thermal", "type": "a", "zone": "thermal_zone0"}],
            "sensors[0]: give either type or zone",
        ),
        (
            [{"name": "t", "kind": "thermal", "zone": "../x"}],
            "sensors[0].zone: '../x' is not the name of a zone",
        ),
        (
            [{"name": "h", "kind": "hwmon", "chip": "nvme", "feature": "pwm1"}],
            "sensors[0].feature: 'pwm1' is not one of temp, fan, in, curr, power, humidity and a number",
        ),
        ([{"name": "c", "kind": "command", "command": []}], "sensors[0].command: 0 entries where 1 to 64"),
        (
            [{"name": "c", "kind": "command", "command": ["a\0"]}],
            "sensors[0].command[0]: 'a\\x00' is not an argument",
        ),
        (
            [{"name": "c", "kind": "command", "command": [""]}],
            "sensors[0].command: it begins with the program",
        ),
        (
            [{"name": "c", "kind": "command", "command": ["a"], "channels": {"x": {"unti": ""}}}],
            "sensors[0].channels.x.unti: unknown key; did you mean 'unit'?",
        ),
        (
            [{"name": "c", "kind": "command", "command": ["a"], "channels": {"a b": {}}}],
            "sensors[0].channels['a b']: 'a b' is not lower-case letters",
        ),
        (
            [{"name": "c", "kind": "command", "command": ["a"], "unit": "V", "channels": {"x": {}}}],
            "sensors[0].unit: it has several channels: say of which",
        ),
        ([ROOM | {"name": f"r{n}"} for n in range(513)], "sensors: 513 entries where 0 to 512 are allowed"),
        (
            [{"name": f"c{n}", "kind": "capacity"} for n in range(65)],
            "sensors: 520 channels are over the limit of 512",
        ),
    ],
)
def test_a_mistake_in_a_sensor_is_named_with_its_place(tables: list[dict[str, Any]], expected: str) -> None:
    assert complaint(sensors(*tables)).startswith(f"/x/agent.toml: {expected}")


# --- showing -----------------------------------------------------------------------------------


def test_what_is_shown_is_the_same_configuration() -> None:
    text = """
        join_file = "/boot/join.toml"
        [report]
        every_s = 300
        [[sensors]]
        name = "soil"
        kind = "command"
        command = ["/bin/read", ""]
        channels = { moisture = { unit = "%" }, warmth = {} }
        [[sensors]]
        name = "cpu"
        kind = "thermal"
        type = "cpu-thermal"
    """
    config = parse(text, "/x/agent.toml", ALONE)
    assert parse(show(config), "/elsewhere/agent.toml", ALONE) == config


def test_every_key_is_shown() -> None:
    shown = show(Config())
    for key in ("state_dir", "sysfs", "every_s", "max_bytes", "window", "level", "timeout_s"):
        assert f"{key} = " in shown


# --- the file ----------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no configuration at /.*agent.toml") as raised:
        load(tmp_path / "agent.toml")
    assert "--config" in raised.value.hint


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: .*Is a directory"):
        load(tmp_path)
    (tmp_path / "agent.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"agent.toml cannot be read: .*utf-8"):
        load(tmp_path / "agent.toml")


def test_the_option_goes_before_the_environment(tmp_path: Path) -> None:
    environment = {"LICHEN_AGENT_CONFIG": "/two/agent.toml"}
    assert find("/one/agent.toml", environment) == Path("/one/agent.toml")
    assert find(None, environment) == Path("/two/agent.toml")


def test_a_checkout_is_found_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find(None, ALONE) == Path("/etc/lichen/agent.toml")
    ours = tmp_path / ".run/agent/agent.toml"
    ours.parent.mkdir(parents=True)
    ours.touch()
    assert find(None, ALONE) == ours


def test_somebody_elses_checkout_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / ".run/agent/agent.toml"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    assert find(None, ALONE, user=os.getuid() + 1) == Path("/etc/lichen/agent.toml")


def test_a_working_directory_that_is_gone_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert find(None, ALONE) == Path("/etc/lichen/agent.toml")
    assert find("/one/agent.toml", ALONE) == Path("/one/agent.toml")


def test_a_place_that_cannot_be_looked_into_has_no_join_file(tmp_path: Path) -> None:
    # Too long for any file system: as with a closed folder, asking for it is an error.
    config = Config(join_file=tmp_path / ("x" * 300))
    assert config.find_join_file() is None
    assert Config(join_file=Path(__file__)).find_join_file() == Path(__file__)


def test_only_the_kinds_in_use_are_imported() -> None:
    script = (
        "import sys; from agent.config import parse; parse('')\n"
        "WATCHED = ('agent.sensors.', 'psutil', 'ctypes')\n"
        "print(*sorted(name for name in sys.modules if name.startswith(WATCHED)))"
    )
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=True)
    assert done.stdout.split() == ["agent.sensors.capacity", "agent.sensors.driver"]


def test_a_metered_link_reports_every_five_minutes_unless_told_otherwise() -> None:
    config = parse('[report]\nprofile = "metered"')
    assert (config.report.every_s, config.report.commit_every_s, config.link.keepalive_s) == (300, 60, 330)
    assert parse('[report]\nprofile = "metered"\nevery_s = 900').report.every_s == 900
    with pytest.raises(ConfigError, match=r"report\.profile"):
        parse('[report]\nprofile = "satellite"')


def test_a_metered_board_asks_its_sensors_each_minute_unless_told_otherwise() -> None:
    tables = """
        sensors = [
            {kind = "capacity", name = "board"},
            {kind = "thermal", zone = "thermal_zone0", name = "a"},
            {kind = "thermal", zone = "thermal_zone1", name = "b", interval_s = 5},
        ]
    """
    asked = [sensor.interval_s for sensor in parse(f'{tables}\nreport.profile = "metered"').sensors]
    assert asked == [300, 60, 5]
    assert [sensor.interval_s for sensor in parse(tables).sensors] == [60, 10, 5]
    assert parse('[report]\nprofile = "metered"').sensors[0].interval_s == 300
