"""What a machine offers, and how it gets into the file."""

from __future__ import annotations

import doctest
import tomllib
from pathlib import Path

import pytest

from agent.config import parse
from agent.sensors import scan as module
from agent.sensors.driver import KINDS
from agent.sensors.scan import add, scan, to_toml
from agent.sensors.sysfs import slug
from agent.wire.errors import ConfigError
from support.sysfs import Sysfs

CAPACITY = {"name": "capacity", "kind": "capacity"}
CPU = {"name": "cpu-thermal", "kind": "thermal", "type": "cpu-thermal"}


def test_the_examples_hold() -> None:
    assert doctest.testmod(module).failed == 0


def test_a_machine_without_sensors_has_its_capacity(tmp_path: Path) -> None:
    assert scan(tmp_path) == ([CAPACITY], [])


def test_what_answers_is_found_under_names_of_their_own(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.thermal_zone(0, "cpu-thermal", 48312)
    tree.thermal_zone(1, "acpitz", 20000)
    tree.thermal_zone(2, "acpitz", 21000)
    tree.thermal_zone(3, "iwlwifi_1", "")  # is off
    tree.hwmon(0, "nvme", {"temp1_input": 1, "temp1_label": "Composite"}, device="nvme0")
    tree.hwmon(1, "nvme", {"temp1_input": 1, "temp1_label": "Composite"}, device="nvme1")
    tree.hwmon(2, "cpu_thermal", {"temp1_input": 1}, device="thermal_zone0")  # a zone in another dress
    tree.hwmon(10, "chip", {"in10_input": 1, "in2_input": 1, "in3_input": "?", "fan1_input": 1, "pwm1": 1})
    assert scan(tmp_path)[0] == [
        CAPACITY,
        {"name": "nvme-composite", "kind": "hwmon", "chip": "nvme", "feature": "temp1", "device": "nvme0"},
        {"name": "nvme-composite-2", "kind": "hwmon", "chip": "nvme", "feature": "temp1", "device": "nvme1"},
        {"name": "chip-fan1", "kind": "hwmon", "chip": "chip", "feature": "fan1"},
        {"name": "chip-in2", "kind": "hwmon", "chip": "chip", "feature": "in2"},
        {"name": "chip-in10", "kind": "hwmon", "chip": "chip", "feature": "in10"},
        CPU,
        {"name": "acpitz", "kind": "thermal", "zone": "thermal_zone1"},
        {"name": "acpitz-2", "kind": "thermal", "zone": "thermal_zone2"},
    ]
    parse(to_toml(scan(tmp_path)[0]))


def test_a_raspberry_pi_is_found_once_in_all_its_dresses(tmp_path: Path) -> None:
    Sysfs(tmp_path).raspberry_pi()
    tables, failures = scan(tmp_path, KINDS)
    assert failures == []
    assert [(table["kind"], table["name"]) for table in tables if table["kind"] != "gpio"] == [
        ("capacity", "capacity"),
        ("hwmon", "rpi_volt-in0_lcrit_alarm"),
        ("iio", "bme280-humidityrelative"),
        ("iio", "bme280-pressure"),
        ("iio", "bme280-temp"),
        ("thermal", "cpu-thermal"),
        ("w1", "w1-28-0316a27983fd"),
        ("w1", "w1-28-3c01d6074a11"),
    ]
    parse(to_toml(tables))


def test_a_small_pc_is_found_with_its_chips_apart(tmp_path: Path) -> None:
    Sysfs(tmp_path).mini_pc()
    tables, _ = scan(tmp_path, ("hwmon", "thermal"))
    assert [(table["name"], table.get("device", "")) for table in tables] == [
        ("coretemp-package-id-0", ""),
        ("coretemp-core-0", ""),
        ("nvme-composite", "nvme0"),
        ("nvme-composite-2", "nvme1"),
        ("nct6798-fan1", ""),
        ("nct6798-fan2", ""),
        ("nct6798-in0", ""),
        ("nct6798-in1", ""),
        ("acpitz", ""),
        ("x86_pkg_temp", ""),
    ]
    parse(to_toml(tables))


def test_a_new_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    assert add(path, [CAPACITY, CPU]) == [CAPACITY, CPU]
    assert [sensor.name for sensor in parse(path.read_text()).sensors] == ["capacity", "cpu-thermal"]
    assert path.stat().st_mode & 0o777 == 0o644


KEPT = """\
# the greenhouse
state_dir = "state"

[report]
every_s = 30    # they like it fresh

[[sensors]]
name = "board"
kind = "capacity"
disk = "/srv"
"""


def test_what_is_in_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(KEPT)
    path.chmod(0o640)
    assert add(path, [CAPACITY, CPU]) == [CPU]
    assert (
        path.read_text()
        == KEPT + '\n[[sensors]]\nname = "cpu-thermal"\nkind = "thermal"\ntype = "cpu-thermal"\n'
    )
    assert path.stat().st_mode & 0o777 == 0o640
    before = path.stat().st_ino
    assert add(path, [CAPACITY, CPU]) == []
    assert path.stat().st_ino == before, "nothing to add, nothing written"


@pytest.mark.parametrize(
    "text",
    [
        'sensors = [{ name = "a", kind = "capacity" }]\n[report]\nevery_s = 30\n',
        '[report]\nevery_s = 30\n[[sensors]]\nname = "a"\nkind = "capacity"',
    ],
)
def test_every_way_to_write_sensors_is_continued(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    add(path, [CPU])
    after = tomllib.loads(path.read_text())
    assert after["report"] == {"every_s": 30}
    assert after["sensors"] == [{"name": "a", "kind": "capacity"}, CPU]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    real, link = tmp_path / "etc/agent.toml", tmp_path / "agent.toml"
    real.write_text(KEPT)
    link.symlink_to("etc/agent.toml")
    assert add(link, [CPU]) == [CPU]
    assert link.is_symlink()
    assert "cpu-thermal" in real.read_text()
    dangling = tmp_path / "later.toml"
    dangling.symlink_to("etc/later.toml")
    add(dangling, [CPU])
    assert dangling.is_symlink()
    assert "cpu-thermal" in (tmp_path / "etc/later.toml").read_text()


def test_a_nested_table_is_written(tmp_path: Path) -> None:
    nested = {"name": "soil", "kind": "command", "command": ["x"], "channels": {"a": {"unit": "%"}}}
    path = tmp_path / "agent.toml"
    path.write_text(KEPT)
    add(path, [nested])
    assert tomllib.loads(path.read_text())["sensors"][1] == nested


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(to_toml([{"name": "cpu-thermal", "kind": "file", "path": "/x"}]))
    assert add(path, [CPU]) == [CPU | {"name": "cpu-thermal-2"}]


@pytest.mark.parametrize(
    ("text", "reason"), [("x =", "not TOML"), ("sensors = 5", "sensors: expected a list of tables")]
)
def test_a_broken_file_is_left_alone(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"agent\.toml: {reason}"):
        add(path, [CPU])
    assert path.read_text() == text


@pytest.mark.parametrize("words", [("_Température/CPU°",), ("é",), ("x" * 99, "y"), ("..", "A  B")])
def test_a_slug_is_a_name_that_a_configuration_accepts(words: tuple[str, ...]) -> None:
    parse(to_toml([CPU | {"name": slug(*words)}]))
