"""Thermometers on a 1-wire bus: what the bus gets wrong, and that it carries one at a time."""

from __future__ import annotations

import asyncio
import doctest
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agent.sensors import w1
from agent.sensors.blocking import Threads
from agent.sensors.driver import Environment, Turns, read_sensor
from agent.wire.errors import Refused
from support.sysfs import Sysfs, w1_slave

T = TypeVar("T")

DEVICE = "28-0316a27983fd"
OTHER = "28-3c01d6074a11"


def options(device: str = DEVICE) -> w1.Options:
    sensor = read_sensor({"name": "s", "kind": "w1", "device": device}, "sensors[0]")
    assert isinstance(sensor, w1.Options)
    return sensor


async def at_once(function: Callable[[], T], /) -> T:
    return function()


def thermometer(root: Path, device: str = DEVICE) -> w1.Thermometer:
    return w1.Thermometer(options(device), Environment(root, root, at_once))


async def refusal(sensor: w1.Thermometer) -> Refused:
    with pytest.raises(Refused) as raised:
        await sensor.read()
    return raised.value


def test_the_examples_hold() -> None:
    assert doctest.testmod(w1).failed == 0


def test_it_has_time_to_wait_for_others() -> None:
    assert options().timeout_s == 30
    assert options().fastest_s == 5


@pytest.mark.parametrize("millicelsius", [21437, -5062, -55000, 0, 125000])
async def test_a_temperature_is_read(tmp_path: Path, millicelsius: int) -> None:
    Sysfs(tmp_path).w1(DEVICE, millicelsius)
    assert await thermometer(tmp_path).read() == {"s": millicelsius / 1000}


async def test_a_kernel_that_shows_it_elsewhere_will_do(tmp_path: Path) -> None:
    device = Sysfs(tmp_path).w1(DEVICE, 21437, slave=False)
    assert await thermometer(tmp_path).read() == {"s": 21.437}
    (device / "temperature").unlink()
    (device / "hwmon/hwmon3").mkdir(parents=True)
    (device / "hwmon/hwmon3/temp1_input").write_text("22000\n")
    assert await thermometer(tmp_path).read() == {"s": 22.0}


@pytest.mark.parametrize(
    ("text", "reason", "code"),
    [
        (w1_slave(21000, verdict="NO"), "w1_slave: the checksum does not hold", "corrupt"),
        (
            f"{'00 ' * 9}: crc=00 YES\n{'00 ' * 9}t=0\n",
            "it sent only zeros: a short circuit on the bus",
            "corrupt",
        ),
        ("", "w1_slave: '' is no temperature", "invalid"),
        (w1_slave(21000).splitlines()[0], "is no temperature", "invalid"),
        (w1_slave(21000).replace("t=", "t=x"), "is no temperature", "invalid"),
        (w1_slave(85000, seventh=0x0C), "85 °C is what it says when it has lost its power", "implausible"),
        (w1_slave(127937, seventh=0x0C), "127.937 °C is what it says when it has lost", "implausible"),
    ],
)
async def test_what_the_bus_gets_wrong_is_no_temperature(
    tmp_path: Path, text: str, reason: str, code: str
) -> None:
    (Sysfs(tmp_path).w1(DEVICE, 0) / "w1_slave").write_text(text)
    error = await refusal(thermometer(tmp_path))
    assert reason in str(error)
    assert error.code == code


@given(some.text(max_size=200) | some.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_garbage_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        w1.parse(text, "w1_slave")


async def test_what_is_really_as_hot_is_believed(tmp_path: Path) -> None:
    Sysfs(tmp_path).w1(DEVICE, 85000)  # its seventh byte says that it has measured
    assert await thermometer(tmp_path).read() == {"s": 85.0}


async def test_without_the_bytes_the_value_before_decides(tmp_path: Path) -> None:
    file = Sysfs(tmp_path).w1(DEVICE, 85000, slave=False) / "temperature"
    sensor = thermometer(tmp_path)
    assert (await refusal(sensor)).code == "implausible"
    for millicelsius in (21000, 84000):
        file.write_text(f"{millicelsius}\n")
        await sensor.read()
    file.write_text("85000\n")
    assert await sensor.read() == {"s": 85.0}
    file.write_text("127937\n")
    assert (await refusal(sensor)).code == "implausible"


async def test_one_that_is_pulled_out_says_so_and_comes_back(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    device = tree.w1(DEVICE, 21000)
    sensor = thermometer(tmp_path)
    assert await sensor.read() == {"s": 21.0}
    away = device.rename(device.with_name("away"))
    error = await refusal(sensor)
    assert str(error) == f"{device}: there is no such thermometer"
    assert error.code == "not-found"
    assert "dtoverlay=w1-gpio" in error.hint
    away.rename(device)
    assert await sensor.read() == {"s": 21.0}


async def test_a_pipe_without_a_writer_does_not_hold_it_up(tmp_path: Path) -> None:
    slave = Sysfs(tmp_path).w1(DEVICE, 21000) / "w1_slave"
    slave.unlink()
    os.mkfifo(slave)
    assert "'' is no temperature" in str(await refusal(thermometer(tmp_path)))


class Bus:
    """A way to block that takes as long as the test wants; counts who is on the bus at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.free = asyncio.Event()

    async def __call__(self, function: Callable[[], T], /) -> T:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.free.wait()
            return function()
        finally:
            self.now -= 1


async def test_the_bus_carries_one_at_a_time(tmp_path: Path) -> None:
    tree, bus, turns = Sysfs(tmp_path), Bus(), Turns()
    sensors = []
    for number in range(10):
        tree.w1(f"28-{number:012x}", number * 1000)
        env = Environment(tmp_path, tmp_path, bus, turns=turns)
        sensors.append(w1.Thermometer(options(f"28-{number:012x}"), env))
    async with asyncio.TaskGroup() as group:
        reads = [group.create_task(sensor.read(), name="read") for sensor in sensors]
        await asyncio.sleep(0)
        bus.free.set()
    assert [read.result() for read in reads] == [{"s": float(number)} for number in range(10)]
    assert bus.most == 1


async def test_one_that_hangs_lets_the_next_one_go(tmp_path: Path) -> None:
    tree, bus, turns = Sysfs(tmp_path), Bus(), Turns()
    tree.w1(DEVICE, 1000)
    tree.w1(OTHER, 2000)
    hanging = w1.Thermometer(options(), Environment(tmp_path, tmp_path, bus, turns=turns), read_s=0.05)
    well = w1.Thermometer(options(OTHER), Environment(tmp_path, tmp_path, at_once, turns=turns))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(refusal(hanging), name="hanging")
        await asyncio.sleep(0)
        second = group.create_task(well.read(), name="well")
    assert str(first.result()).endswith("the bus did not answer within 0.05 s")
    assert second.result() == {"s": 2.0}


async def test_thirty_on_one_bus_need_one_thread(tmp_path: Path) -> None:
    tree, threads, turns = Sysfs(tmp_path), Threads(), Turns()
    sensors = []
    for number in range(30):
        tree.w1(f"28-{number:012x}", number)
        env = Environment(tmp_path, tmp_path, threads.lane(), turns=turns)
        sensors.append(w1.Thermometer(options(f"28-{number:012x}"), env))
    before = set(threading.enumerate())
    async with asyncio.TaskGroup() as group:
        for sensor in sensors:
            group.create_task(sensor.read(), name="read")
    started = set(threading.enumerate()) - before
    threads.close()
    assert [thread.name for thread in started] == ["sensors"]


def test_a_scan_lists_thermometers_and_nothing_else_of_the_bus(tmp_path: Path) -> None:
    Sysfs(tmp_path).raspberry_pi()
    (tmp_path / "bus/w1/devices/w1_bus_master1").mkdir()
    assert w1.scan(tmp_path) == [
        {"name": f"w1-{device}", "kind": "w1", "device": device} for device in (DEVICE, OTHER)
    ]
