"""The status says in plain words how a board is, and is well only when nobody has to look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.status import LinkState, SensorState, Status, describe, read_status, remove_status, write_status
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
