"""The Sensor edge: what every kind of driver promises the sampler, the fake one included.

Each kind is set up on input of our own making: a tree in the shape of /sys, a file, a script.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.sensors.blocking import Threads
from agent.sensors.driver import Answer, Driver, Environment, Kind, SensorConfig, load_kind, read_sensor
from agent.wire.decode import decode
from agent.wire.errors import Busy, ConfigError, LichenError, Refused
from agent.wire.messages import SensorName
from fakes.sensor import FakeSensors
from support.sysfs import ADS1115, BME280, Sysfs, w1_slave


class Rig:
    """One sensor of a kind, and its far end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sysfs = Sysfs(folder / "sys")
        self.table: dict[str, Any] = {}

    def set(self, value: float) -> None:
        """Let the far end say ``value``, there again if it was away."""
        raise NotImplementedError

    def spoil(self) -> None:
        """Let the far end say what is no value."""
        raise NotImplementedError

    def remove(self) -> None:
        """Take the far end away."""
        raise NotImplementedError

    @property
    def kind(self) -> Kind:
        return load_kind(self.table["kind"])

    def configure(self, **keys: Any) -> SensorConfig:
        return read_sensor(self.table | keys, "sensors[0]")


class CapacityRig(Rig):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.table = {"name": "capacity", "kind": "capacity"}


class FileBacked(Rig):
    """A rig whose far end is one file with a number in it, ``scale`` of them to the unit."""

    scale = 1
    path: Path

    def set(self, value: float) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(f"{round(value * self.scale)}\n")

    def spoil(self) -> None:
        self.path.write_text("4\x00 2\n")

    def remove(self) -> None:
        self.path.unlink()


class ThermalRig(FileBacked):
    scale = 1000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.table = {"name": "cpu", "kind": "thermal", "type": "cpu-thermal"}
        self.sysfs.thermal_zone(0, "gpu-thermal", 1)
        self.path = self.sysfs.thermal_zone(1, "cpu-thermal", 2) / "temp"


class HwmonRig(FileBacked):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.table = {"name": "fan", "kind": "hwmon", "chip": "pwmfan", "feature": "fan1"}
        self.sysfs.hwmon(0, "cpu_thermal", {"temp1_input": 1})
        self.path = self.sysfs.hwmon(1, "pwmfan", {"fan1_input": 2}) / "fan1_input"


class IioRig(FileBacked):
    scale = 1000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.table = {"name": "air", "kind": "iio", "chip": "bme280", "channel": "temp"}
        self.sysfs.iio(0, "ads1115", ADS1115, device="1-0048")
        self.path = self.sysfs.iio(1, "bme280", BME280, device="1-0076") / "in_temp_input"


class IioRawRig(FileBacked):
    """1600 steps of 0.625 mV to the volt."""

    scale = 1600

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.table = {"name": "battery", "kind": "iio", "chip": "adc", "channel": "voltage3"}
        files = {"in_voltage3_raw": 0, "in_voltage_scale": "0.625"}
        self.path = self.sysfs.iio(0, "adc", files, device="spi0.0") / "in_voltage3_raw"


class W1Rig(FileBacked):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.table = {"name": "flow", "kind": "w1", "device": "28-0316a27983fd"}
        self.sysfs.w1("28-3c01d6074a11", 1000)
        self.path = self.sysfs.w1("28-0316a27983fd", 1000) / "w1_slave"

    def set(self, value: float) -> None:
        self.path.write_text(w1_slave(round(value * 1000)))

    def spoil(self) -> None:
        self.path.write_text(w1_slave(21000, verdict="NO"))


class W1TemperatureRig(FileBacked):
    """As kernels show it that have no ``w1_slave``."""

    scale = 1000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.table = {"name": "flow", "kind": "w1", "device": "10-0008032d5a3c"}
        self.path = self.sysfs.w1("10-0008032d5a3c", 1000, slave=False) / "temperature"


class GpioRig(FileBacked):
    """The one device of the kind that needs no pins; tests/contract/test_pins.py has those."""

    scale = 1000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.table = {"name": "cpu", "kind": "gpio", "device": "cpu"}
        self.path = self.sysfs.thermal_zone(0, "cpu-thermal", 1) / "temp"


class FileRig(FileBacked):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "level"
        self.table = {"name": "level", "kind": "file", "path": str(self.path)}


class CommandRig(FileBacked):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "soil"
        self.table = {"name": "soil", "kind": "command", "command": ["cat", str(self.path)]}


class CommandChannelsRig(CommandRig):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.table["channels"] = {"moisture": {"unit": "%"}, "warmth": {"unit": "Cel"}}

    def set(self, value: float) -> None:
        self.path.write_text(json.dumps({"moisture": value, "warmth": value, "more": "text"}))


class FakeRig(Rig):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.table = {"name": "fake", "kind": "fake"}
        self.world = FakeSensors()

    def set(self, value: float) -> None:
        self.world.says["fake"] = value

    def spoil(self) -> None:
        self.world.says["fake"] = Refused("fake: garbage")

    def remove(self) -> None:
        del self.world.says["fake"]

    @property
    def kind(self) -> Kind:
        return self.world

    def configure(self, **keys: Any) -> SensorConfig:
        return decode(self.world.Options, self.table | keys, strict=True, where="sensors[0]")


CONTROLLED = [
    GpioRig,
    ThermalRig,
    HwmonRig,
    IioRig,
    IioRawRig,
    W1Rig,
    W1TemperatureRig,
    FileRig,
    CommandRig,
    CommandChannelsRig,
    FakeRig,
]
"""Kinds whose far end a test can move."""

each = pytest.mark.parametrize("make", [CapacityRig, *CONTROLLED])
each_controlled = pytest.mark.parametrize("make", CONTROLLED)


@asynccontextmanager
async def opened(rig: Rig) -> AsyncIterator[Driver]:
    threads = Threads()
    env = Environment(rig.sysfs.root, rig.folder, threads.lane())
    driver = await rig.kind.open(rig.configure(), env)
    try:
        yield driver
    finally:
        await driver.close()
        threads.close()


async def read(driver: Driver) -> Mapping[str, Answer]:
    async with asyncio.timeout(5):
        return await driver.read()


async def failure_or_none(driver: Driver) -> LichenError | None:
    """The first error that a read tells, raised or in place of a value."""
    try:
        values = await read(driver)
    except LichenError as error:
        return error
    return next((value for value in values.values() if isinstance(value, LichenError)), None)


async def all_values(driver: Driver) -> dict[str, float]:
    """What a read tells, all of it values."""
    values = await read(driver)
    told = {name: value for name, value in values.items() if isinstance(value, float)}
    assert told == values
    return told


@each
async def test_channels_follow_from_the_configuration(make: type[Rig], tmp_path: Path) -> None:
    channels = make(tmp_path).configure(name="x-1").list_channels()
    names = [channel.name for channel in channels]
    assert len(set(names)) == len(names) > 0
    for name in names:
        assert name == "x-1" or name.startswith("x-1.")
        assert decode(SensorName, name) == name  # type: ignore[arg-type]
    assert names == ["x-1"] or "x-1" not in names


@each
async def test_a_read_tells_only_declared_channels(make: type[Rig], tmp_path: Path) -> None:
    rig = make(tmp_path)
    if make in CONTROLLED:
        rig.set(21.0)
    declared = {channel.name for channel in rig.configure().list_channels()}
    async with opened(rig) as driver:
        told: set[str] = set()
        while told != declared:
            values = await all_values(driver)
            assert values.keys() <= declared
            told |= values.keys()


@each
async def test_a_read_may_be_given_up(make: type[Rig], tmp_path: Path) -> None:
    rig = make(tmp_path)
    if make in CONTROLLED:
        rig.set(21.0)
    async with opened(rig) as driver:
        with contextlib.suppress(TimeoutError):  # a driver that need not wait is through before
            async with asyncio.timeout(0):
                await driver.read()
        # A thread that was on its way may still be busy; then the sensor says so, and recovers.
        async with asyncio.timeout(5):
            while isinstance(error := await failure_or_none(driver), Busy):
                await asyncio.sleep(0.001)
        assert error is None


@each
async def test_closing_twice_is_harmless(make: type[Rig], tmp_path: Path) -> None:
    async with opened(make(tmp_path)) as driver:
        await driver.close()


@each
def test_a_mistyped_key_is_refused(make: type[Rig], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        make(tmp_path).configure(intervall_s=5)
    assert str(raised.value) == "sensors[0].intervall_s: unknown key; did you mean 'interval_s'?"


@each
async def test_what_a_scan_finds_can_be_read(make: type[Rig], tmp_path: Path) -> None:
    rig = make(tmp_path)
    if make in CONTROLLED:
        rig.set(21.0)
    for table in rig.kind.scan(rig.sysfs.root):
        rig.table = table
        async with opened(rig) as driver:
            assert await all_values(driver)


@each_controlled
async def test_a_read_tells_what_is_there_now(make: type[Rig], tmp_path: Path) -> None:
    rig = make(tmp_path)
    rig.set(21.0)
    async with opened(rig) as driver:
        assert set((await all_values(driver)).values()) == {21.0}
        rig.set(-4.0)
        assert set((await all_values(driver)).values()) == {-4.0}


def _away(rig: Rig) -> None:
    rig.remove()


def _spoilt(rig: Rig) -> None:
    rig.spoil()


@each_controlled
@pytest.mark.parametrize("harm", [_away, _spoilt])
async def test_a_failure_is_told_and_passes(
    make: type[Rig], harm: Callable[[Rig], None], tmp_path: Path
) -> None:
    rig = make(tmp_path)
    rig.set(21.0)
    async with opened(rig) as driver:
        harm(rig)
        error = await failure_or_none(driver)
        assert isinstance(error, Refused)
        assert ":" in str(error), "an error begins with what failed"
        rig.set(22.0)
        assert set((await all_values(driver)).values()) == {22.0}


@each_controlled
async def test_a_sensor_that_comes_later_can_be_opened_now(make: type[Rig], tmp_path: Path) -> None:
    rig = make(tmp_path)
    rig.set(21.0)
    rig.remove()
    async with opened(rig) as driver:
        assert await failure_or_none(driver)
        rig.set(22.0)
        assert set((await all_values(driver)).values()) == {22.0}
