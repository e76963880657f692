"""The status says in plain words how a board is, and is well only when nobody has to look."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.commands import running_status
from agent.config import Config
from agent.status import (
    AppLine,
    LinkState,
    SensorState,
    Status,
    describe,
    read_status,
    remove_status,
    write_status,
)
from agent.wire.messages import OutboxState, Problem

NOW_MS = 1_700_000_000_000
MINUTE_MS = 60_000
FINE = Status(
    board="k3yd5q7c2n4xw6ba",
    name="pump",
    hub="north",
    hub_url="https://hub:8421",
    version="1.2",
    running=True,
    pid=812,
    started_ms=NOW_MS - 192 * MINUTE_MS,
    clock="synced",
    link=LinkState("online", NOW_MS - 5 * MINUTE_MS, "hub:8422", acknowledged_ms=NOW_MS - 12_000),
    sensors=(SensorState("room", "Cel", 21.5, NOW_MS - 4000, 10_000),),
)
DOWN = LinkState(
    "offline", NOW_MS - 14 * MINUTE_MS, "hub:8422", error="nothing listens at hub:8422", attempts=7
)


def test_all_is_well() -> None:
    assert FINE.well
    assert list(describe(FINE, NOW_MS)) == [
        "board    pump (k3yd5q7c2n4xw6ba)",
        "hub      north, https://hub:8421",
        "agent    version 1.2, running for 3 h 12 min as process 812",
        "link     up for 5 min with hub:8422; the hub answered 12 s ago",
        "outbox   empty: the hub has everything",
        "clock    right",
        "sensor   room: 21.5 °C, 4 s ago",
    ]


def test_apps_are_counted_and_those_that_do_not_run_say_why() -> None:
    apps = (
        AppLine("blog", "running"),
        AppLine("diary", "running", failed=3, reason="web is not healthy"),
        AppLine("meter", "degraded", "starting web again"),
        AppLine("wiki", "stopped"),
    )
    assert [line for line in describe(replace(FINE, apps=apps), NOW_MS) if line[0] in "a "][1:] == [
        "apps     2 of 4 run",
        "         revision 3 of diary failed: web is not healthy",
        "         meter is degraded: starting web again",
        "         wiki is stopped",
    ]
    assert "apps     1 of 1 runs" in describe(replace(FINE, apps=apps[:1]), NOW_MS)


def test_a_link_that_is_down_says_since_when_and_why() -> None:
    held = OutboxState(120, 12_345, 64 * 2**20, NOW_MS - 14 * MINUTE_MS, 0)
    lines = list(describe(replace(FINE, link=DOWN, outbox=held), NOW_MS))
    assert "link     down for 14 min, 7 attempts: nothing listens at hub:8422" in lines
    assert "         readings are kept until it is back" in lines
    assert "outbox   120 readings wait for the hub (12.3 kB), the oldest for 14 min" in lines


def test_a_board_that_is_stopped_tells_what_its_files_say() -> None:
    assert list(describe(Status(), NOW_MS)) == [
        "board    no identity yet",
        "hub      not joined",
        "agent    not running",
        "outbox   empty: the hub has everything",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        replace(FINE, running=False),
        replace(FINE, link=DOWN),
        replace(FINE, link=replace(FINE.link, refused="Not authorized")),
        replace(FINE, sensors=(SensorState("room", error="unplugged"),)),
        replace(FINE, problems=(Problem("disk-full", "The disk is full.", "Free some space."),)),
    ],
    ids=["stopped", "offline", "refused", "sensor", "problem"],
)
def test_a_person_should_look(wrong: Status) -> None:
    assert not wrong.well
    assert list(describe(wrong, NOW_MS)) != list(describe(FINE, NOW_MS))


def test_a_failing_sensor_says_why_and_what_it_said_last() -> None:
    failing = replace(FINE.sensors[0], error="no answer within 5 s")
    told = list(describe(replace(FINE, sensors=(failing, SensorState("new"))), NOW_MS))[-2:]
    assert told == [
        "sensor   room: no answer within 5 s (last: 21.5 °C, 4 s ago)",
        "sensor   new: nothing yet",
    ]


def test_the_file_is_read_back_and_removed(tmp_path: Path) -> None:
    write_status(tmp_path, FINE)
    assert read_status(tmp_path) == FINE
    remove_status(tmp_path)
    assert read_status(tmp_path) is None


def test_a_file_that_is_no_status_is_none(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{")
    assert read_status(tmp_path) is None


def test_a_problem_says_since_when_how_often_and_what_to_do() -> None:
    dip = Problem(
        "under-voltage", "The supply voltage is too low.", "Use another.", "warn", NOW_MS - 90 * MINUTE_MS, 12
    )
    told = list(describe(replace(FINE, problems=(dip,)), NOW_MS))[-2:]
    assert told == [
        "problem  The supply voltage is too low. (for 1 h 30 min, 12 times)",
        "         Use another.",
    ]


def test_a_notice_is_worth_knowing_and_no_more() -> None:
    notice = Problem("memory-cgroup-off", "No memory is counted.", "", "notice", NOW_MS - MINUTE_MS)
    status = replace(FINE, problems=(notice,))
    assert status.well
    assert list(describe(status, NOW_MS))[-1] == "notice   No memory is counted. (for 1 min)"


def test_the_clock_may_be_right_by_the_hubs_word() -> None:
    told = list(describe(replace(FINE, clock="hub"), NOW_MS))
    assert "clock    right by the hub's word: the machine's own is not set" in told


# --- where it is found -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["own", "state/run", "run/lichen"])
def test_a_running_agent_is_found_wherever_it_keeps_its_status(tmp_path: Path, place: str) -> None:
    """Under systemd only the agent is told where; a technician's shell is not."""
    config = Config(state_dir=tmp_path / "state", runtime_dir=tmp_path / "own")
    with agent_process() as pid:
        folder = tmp_path / place
        folder.mkdir(parents=True)
        write_status(folder, replace(FINE, pid=pid, state_dir=str(config.state_dir)))
        found = running_status(config, run=tmp_path / "run/lichen")
        assert found is not None
        assert found.pid == pid


@pytest.mark.parametrize("lie", [{"state_dir": "/elsewhere"}, {"pid": 1}], ids=["another state", "no agent"])
def test_another_agent_is_not_taken_for_this_one(tmp_path: Path, lie: dict[str, Any]) -> None:
    config = Config(state_dir=tmp_path / "state", runtime_dir=tmp_path / "own")
    with agent_process() as pid:
        (tmp_path / "lichen").mkdir()
        ours = replace(FINE, pid=pid, state_dir=str(config.state_dir))
        write_status(tmp_path / "lichen", replace(ours, **lie))
        assert running_status(config, run=tmp_path / "lichen") is None


@contextmanager
def agent_process() -> Iterator[int]:
    """A process that is called like an agent."""
    script = "print(flush=True); input()"
    command = [sys.executable, "-c", script, "lichen-agent"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # until then the kernel may still say that it is called nothing
        yield process.pid
    finally:
        process.communicate()
