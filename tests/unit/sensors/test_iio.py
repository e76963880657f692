"""Chips of industrial I/O: units of the kernel's ABI, raw channels, and which file belongs to which."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.sensors import iio
from agent.sensors.blocking import Threads
from agent.sensors.driver import Environment, channels_of, read_sensor
from agent.sensors.probe import Probe
from agent.wire import words
from agent.wire.errors import Refused
from support.sysfs import ADS1115, BME280, Sysfs


async def ask(root: Path, channel: str, **keys: str) -> object:
    """What one channel of the chip "chip" answers, a float or an error."""
    threads = Threads()
    sensor = read_sensor(
        {"name": "s", "kind": "iio", "chip": "chip", "channel": channel, **keys}, "sensors[0]"
    )
    probe = Probe(sensor, Environment(root, root, threads.lane()))
    try:
        async with asyncio.timeout(5):
            return (await probe.ask())["s"]
    finally:
        await probe.close()
        threads.close()


@pytest.mark.parametrize(
    ("channel", "files", "value", "unit"),
    [
        ("temp", BME280, 21.64, "Cel"),
        ("pressure", BME280, 987.5634375, "hPa"),
        ("humidityrelative", BME280, 47.123, "%"),
        ("voltage0", ADS1115, 1.65, "V"),
        ("voltage0-voltage1", ADS1115, -0.1, "V"),
        # shared by type, and the offset comes before the scale
        ("temp0", {"in_temp0_raw": 100, "in_temp_offset": -50, "in_temp_scale": "62.5"}, 3.125, "Cel"),
        (
            "temp_object",
            {"in_temp_object_raw": 14950, "in_temp_offset": "-13657.5", "in_temp_scale": 20},
            25.85,
            "Cel",
        ),
        ("accel_x", {"in_accel_x_raw": 512, "in_accel_scale": "0.019163"}, 9.811456, "m/s2"),
        ("voltage2_i", {"in_voltage2_i_raw": 4, "in_voltage_i_scale": 500}, 2.0, "V"),
        ("voltage3-voltage4", {"in_voltage3-voltage4_raw": 4, "in_voltage-voltage_scale": 250}, 1.0, "V"),
        ("voltage5", {"in_voltage5_raw": 4, "in_scale": 250, "scale": 1}, 1.0, "V"),
        ("voltage6", {"in_voltage6_raw": 4, "scale": 250}, 1.0, "V"),
        # its own before the one that is shared
        ("current1", {"in_current1_raw": 4, "in_current1_scale": 500, "in_current_scale": 1}, 2.0, "A"),
        # processed before raw
        ("power", {"in_power_input": 1500, "in_power_raw": 7, "in_power_scale": 1}, 1.5, "W"),
        ("illuminance", {"in_illuminance_input": "312.500"}, 312.5, "lx"),
        ("concentration_co2", {"in_concentration_co2_raw": "0.041200"}, 412.0, "[ppm]"),
        ("concentration_o2", {"in_concentration_o2_raw": "20.9"}, 20.9, "%"),
        ("massconcentration_pm2p5", {"in_massconcentration_pm2p5_input": "8.25"}, 8.25, "ug/m3"),
        ("ph", {"in_ph_raw": 7}, 7.0, "[pH]"),
        ("phase", {"in_phase_raw": 1}, 1.0, "rad"),
        ("proximity0", {"in_proximity0_raw": 5}, 5.0, ""),
        ("newfangled", {"in_newfangled_raw": 5}, 5.0, ""),
    ],
)
async def test_a_channel_is_read_in_a_unit_that_people_use(
    tmp_path: Path, channel: str, files: Mapping[str, int | str], value: float, unit: str
) -> None:
    Sysfs(tmp_path).iio(0, "chip", files, device="1-0048")
    assert await ask(tmp_path, channel) == pytest.approx(value)
    sensor = read_sensor({"name": "s", "kind": "iio", "chip": "chip", "channel": channel}, "")
    assert channels_of(sensor)[0].unit == unit


def test_every_unit_has_a_form_to_be_shown_in() -> None:
    assert {measure.unit for measure in (*iio.MEASURES.values(), iio.GAS)} <= words.UNITS.keys()


async def test_chips_of_one_name_are_told_apart_by_their_address(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.iio(0, "chip", {"in_temp_input": 1000}, device="1-0076")
    tree.iio(1, "chip", {"in_temp_input": 2000}, device="1-0077")
    assert await ask(tmp_path, "temp", device="1-0077") == 2.0
    answer = await ask(tmp_path, "temp")
    assert isinstance(answer, Refused)
    assert (answer.code, "iio:device0, iio:device1 are each chip 'chip'" in str(answer)) == ("conflict", True)
    # Another boot numbers them the other way round.
    bus = tmp_path / "bus/iio/devices"
    first, second = (bus / f"iio:device{number}" for number in (0, 1))
    first.rename(bus / "spare")
    second.rename(first)
    (bus / "spare").rename(second)
    assert await ask(tmp_path, "temp", device="1-0077") == 2.0


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "in_temp_raw: No such file or directory"),
        ({"in_temp_input": ""}, "in_temp_input: '' is not a number"),
        ({"in_temp_input": "21 22"}, "in_temp_input: '21 22' is not a number"),
        ({"in_temp_raw": 5, "in_temp_scale": "fast"}, "in_temp_scale: 'fast' is not a number"),
        ({"in_temp_raw": "nan"}, "in_temp_raw: 'nan' is not a finite number"),
    ],
)
async def test_garbage_is_told_with_its_file(
    tmp_path: Path, files: Mapping[str, int | str], reason: str
) -> None:
    Sysfs(tmp_path).iio(0, "chip", files, device="1-0076")
    assert str(await ask(tmp_path, "temp")).endswith(reason)


def test_a_scan_lists_what_answers(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.iio(0, "bme280", BME280, device="1-0076")
    tree.iio(1, "ads1115", ADS1115, device="1-0048")
    tree.iio(2, "mystery", {"in_temp_input": "?", "in_temp_peak_raw": 5, "out_voltage0_raw": 5}, device="x")
    labelled = tree.iio(3, "tsl2591", {"in_illuminance_input": 5}, device="1-0029")
    (labelled / "label").write_text("roof\n")
    assert iio.scan(tmp_path) == [
        {"name": f"bme280-{channel}", "kind": "iio", "chip": "bme280", "channel": channel}
        for channel in ("humidityrelative", "pressure", "temp")
    ] + [
        {"name": f"ads1115-{channel}", "kind": "iio", "chip": "ads1115", "channel": channel}
        for channel in ("voltage0", "voltage0-voltage1", "voltage1")
    ] + [
        {"name": "roof-illuminance", "kind": "iio", "chip": "tsl2591", "channel": "illuminance"},
    ]  # fmt: skip
