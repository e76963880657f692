"""Inputs on gpiozero's mock pins, in virtual time; what their configuration may say; the processor's heat."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from gpiozero.pins.mock import MockFactory

from agent.sensors.blocking import Threads
from agent.sensors.driver import Answer, Channel, Driver, Environment, load_kind, read_sensor
from agent.sensors.gpio import Options
from agent.sensors.gpio.devices import WAKES, opened
from agent.wire.errors import ConfigError, Refused
from support.source import ROOT
from support.sysfs import Sysfs
from support.virtual import virtual


def configure(**keys: Any) -> Options:
    table = {"name": "x", "kind": "gpio", "interval_s": 10} | keys
    options = read_sensor(table, "sensors[0]")
    assert isinstance(options, Options)
    return options


async def run_here(function: Any) -> Any:
    return function()


class Board:
    """A board with mock pins and one sensor on them; ``woken`` counts how often it asked to be read."""

    def __init__(self, **keys: Any) -> None:
        self.factory = MockFactory()
        self.woken = 0
        env = Environment(Path("/sys"), Path("/state"), run_here, wake=self._wake)
        self.sensor = opened(configure(**keys), env, lambda: self.factory)
        self.pin = self.factory.pin(keys.get("line", 17))

    def _wake(self) -> None:
        self.woken += 1

    def press(self, times: int = 1) -> None:
        """The line falls and rises."""
        for _ in range(times):
            self.pin.drive_low()
            self.pin.drive_high()

    async def read(self) -> Mapping[str, Answer]:
        return await self.sensor.read()


@virtual
async def test_a_button_tells_whether_it_is_pressed_and_how_often() -> None:
    board = Board(device="button", line=17)
    assert await board.read() == {"x.state": 0.0, "x.count": 0.0}
    board.pin.drive_low()
    assert await board.read() == {"x.state": 1.0, "x.count": 1.0}
    board.pin.drive_high()
    board.pin.drive_low()
    assert (await board.read())["x.count"] == 2.0


@virtual
async def test_a_change_asks_to_be_read_at_once() -> None:
    board = Board(device="button", line=17)
    await board.read()
    board.pin.drive_low()
    assert board.woken == 1
    board.pin.drive_high()
    assert board.woken == 2


@virtual
async def test_a_press_that_was_over_before_it_was_read_is_told() -> None:
    board = Board(device="button", line=17)
    await board.read()
    board.press()
    assert board.woken == 2
    assert await board.read() == {"x.state": 1.0, "x.count": 1.0}
    assert board.woken == 3, "the state as it is now has to be told, too"
    assert await board.read() == {"x.state": 0.0, "x.count": 1.0}
    assert await board.read() == {"x.state": 0.0, "x.count": 1.0}
    assert board.woken == 3


@virtual
async def test_a_gap_that_was_over_before_it_was_read_is_told() -> None:
    board = Board(device="motion", line=4)
    await board.read()
    board.pin.drive_high()
    assert (await board.read())["x.state"] == 1.0
    board.pin.drive_low()
    board.pin.drive_high()
    assert [(await board.read())["x.state"] for _ in range(3)] == [0.0, 1.0, 1.0]


@virtual
async def test_an_edge_that_is_still_on_its_way_is_counted_once() -> None:
    board = Board(device="button", line=17)
    await board.read()
    board.pin.edges = "none"  # the level changes, and nobody is told yet
    board.pin.drive_low()
    assert await board.read() == {"x.state": 1.0, "x.count": 1.0}
    board.pin._call_when_changed()  # now it arrives
    assert await board.read() == {"x.state": 1.0, "x.count": 1.0}


@virtual
async def test_a_line_that_never_rests_does_not_keep_the_board_busy() -> None:
    board = Board(device="button", line=17)
    await board.read()
    board.press(1000)
    assert board.woken == WAKES
    await asyncio.sleep(5)
    board.press(1000)
    assert board.woken == WAKES + 5
    assert (await board.read())["x.count"] == 2000.0


@virtual
async def test_a_rate_is_an_average_over_the_time_since_it_was_told() -> None:
    board = Board(device="input", line=27, tells=["rate", "count"])
    assert await board.read() == {"x.count": 0.0}, "a rate needs two looks"
    await asyncio.sleep(10)
    board.press(45)
    assert await board.read() == {"x.count": 45.0, "x.rate": 4.5}
    await asyncio.sleep(0.1)
    board.press()
    assert await board.read() == {"x.count": 46.0}, "no guess from a moment"
    await asyncio.sleep(9.9)
    assert await board.read() == {"x.count": 46.0, "x.rate": pytest.approx(0.1)}
    assert board.woken == 0, "nobody asked for the state, so no pulse is worth a reading of its own"


@virtual
async def test_a_rate_per_minute() -> None:
    board = Board(device="input", line=27, tells=["rate"], per="min")
    await board.read()
    await asyncio.sleep(10)
    board.press(3)
    assert await board.read() == {"x": 18.0}


@pytest.mark.parametrize(
    ("keys", "low_means"),
    [
        ({"device": "input"}, 0.0),
        ({"device": "input", "active": "low"}, 1.0),
        ({"device": "input", "pull": "down"}, 0.0),
        ({"device": "input", "pull": "down", "active": "low"}, 1.0),
        ({"device": "input", "pull": "up", "active": "high"}, 0.0),
        ({"device": "button"}, 1.0),
        ({"device": "button", "active": "high"}, 0.0),
        ({"device": "line"}, 1.0),
        ({"device": "motion"}, 0.0),
    ],
)
def test_which_level_counts(keys: dict[str, Any], low_means: float) -> None:
    @virtual
    async def run() -> None:
        board = Board(line=17, tells=["state", "count"], **keys)
        first = await board.read()
        board.pin.drive_low()
        assert (await board.read())["x.state"] == low_means
        board.pin.drive_high()
        last = await board.read()
        assert last["x.state"] == 1 - low_means
        begun_inactive = first["x.state"] == 0.0
        assert last["x.count"] == (1.0 if begun_inactive else 1.0 - low_means)

    run()


def channels(**keys: Any) -> tuple[Channel, ...]:
    return configure(**keys).list_channels()


def test_channels_follow_from_the_device() -> None:
    assert channels(device="input", line=1) == (
        Channel("x.state", "", "state"),
        Channel("x.count", "{count}", "count"),
        Channel("x.rate", "Hz", "rate"),
    )
    assert [each.name for each in channels(device="motion", line=1)] == ["x.state", "x.count"]
    assert channels(device="input", line=1, tells=["rate"], per="min") == (Channel("x", "/min", "rate"),)
    assert channels(device="distance", trigger=23, echo=24) == (Channel("x", "m", "distance"),)
    assert channels(device="mcp3008") == (Channel("x", "V", "voltage"),)
    assert channels(device="cpu") == (Channel("x", "Cel", "temperature"),)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"device": "buton", "line": 1},
            "sensors[0].device: 'buton' is not one of .* mean 'button'?",
        ),
        ({"device": "button"}, "sensors[0].line: missing"),
        ({"device": "button", "line": -1}, "sensors[0].line: -1 is not the number or the name of a line, .*"),
        ({"device": "button", "line": ""}, "sensors[0].line: '' is not the number or the name of a line, .*"),
        ({"device": "button", "line": 1, "echo": 2}, "sensors[0].echo: device = 'button' has no such key"),
        ({"device": "cpu", "line": 1}, "sensors[0].line: device = 'cpu' has no such key"),
        ({"device": "distance", "trigger": 1}, "sensors[0].echo: missing"),
        ({"device": "distance", "trigger": 1, "echo": 1}, "sensors[0].echo: 1 is the trigger, too; .*"),
        ({"device": "input", "line": 1, "tells": ["count", "count"]}, "sensors[0].tells: each value once"),
        ({"device": "mcp3004", "channel": 4}, "sensors[0].channel: mcp3004 has 4, counted from 0"),
        ({"device": "mcp3008", "spi": "/dev/spidev0.0"}, "sensors[0].spi: .* is not a bus and a device, .*"),
        ({"device": "mcp3008", "reference_v": 0}, "sensors[0].reference_v: 0.0 is not within .*"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configure(**keys)
    pattern = message.replace("[", r"\[").replace("]", r"\]").replace("?", r"\?")
    assert raised.match(pattern)


async def test_the_processors_temperature(tmp_path: Path) -> None:
    sysfs, threads = Sysfs(tmp_path), Threads()
    zone = sysfs.thermal_zone(0, "cpu-thermal", 48312)
    options = configure(device="cpu")
    sensor: Driver = await load_kind("gpio").open(options, Environment(tmp_path, tmp_path, threads.lane()))
    assert await sensor.read() == {"x": 48.312}
    (zone / "temp").write_text("hot\n")
    with pytest.raises(Refused, match="thermal_zone0/temp: "):
        await sensor.read()
    (zone / "temp").write_text("50000\n")
    assert await sensor.read() == {"x": 50.0}
    await sensor.close()
    await sensor.close()
    threads.close()


def test_the_guides_examples_are_right() -> None:
    guide = (ROOT / "docs/sensors.md").read_text()
    _, _, section = guide.partition("wired to a pin\n")
    found = [
        read_sensor(table, "sensors[0]")
        for block in re.findall(r"```toml\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
        for table in tomllib.loads(textwrap.dedent(block))["sensors"]
    ]
    devices = {options.device for options in found if isinstance(options, Options)}
    assert {"button", "line", "motion", "input", "distance", "mcp3008"} <= devices


def test_a_scan_finds_nothing(tmp_path: Path) -> None:
    assert load_kind("gpio").scan(tmp_path) == []


def test_only_who_opens_a_sensor_pays_for_gpiozero() -> None:
    code = (
        "import sys\n"
        "from agent.sensors.driver import read_sensor\n"
        "read_sensor({'name': 'x', 'kind': 'gpio', 'device': 'button', 'line': 1}, '')\n"
        "assert not {'gpiozero', 'gpiod'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_board_without_gpiozero_is_told_what_to_install() -> None:
    code = (
        "import asyncio, sys\n"
        "sys.modules['gpiozero'] = None\n"
        "from agent.sensors.driver import read_sensor\n"
        "from agent.sensors import gpio\n"
        "options = read_sensor({'name': 'x', 'kind': 'gpio', 'device': 'button', 'line': 1}, '')\n"
        "try:\n    asyncio.run(gpio.open(options, None))\n"
        "except Exception as error:\n    print(type(error).__name__, error, error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Refused gpio: import of gpiozero halted" in done.stdout
    assert "pip install gpiozero gpiod" in done.stdout
