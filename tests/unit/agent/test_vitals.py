"""The vitals are what the kernel's files say; what it does not tell is nothing, garbage included."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.vitals import HOT, LOW, Card, Gauges, Heat, Vitals, look_at_disk, supply_alarm
from support.sysfs import Sysfs

CGROUPS = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t0\t1\t{}\n"
THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path / "sys")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    return tmp_path / "proc"


@pytest.fixture
def gauges(tmp_path: Path, sysfs: Sysfs, proc: Path) -> Gauges:
    return Gauges(tmp_path, sysfs.root, proc)


def put(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return path


def test_a_machine_that_tells_nothing(gauges: Gauges, tmp_path: Path) -> None:
    assert gauges.read()._replace(disk=None) == Vitals()


def test_the_disk_counts_what_is_free_for_us(tmp_path: Path) -> None:
    disk, told = look_at_disk(tmp_path), os.statvfs(tmp_path)
    assert disk.path == str(tmp_path)
    assert disk.total_bytes == told.f_blocks * told.f_frsize
    assert 0 < disk.free_bytes <= told.f_bfree * told.f_frsize
    assert not disk.read_only


@pytest.mark.parametrize(("options", "failed"), [("rw,emergency_ro", True), ("rw,errors=remount-ro", False)])
def test_a_file_system_that_the_kernel_gave_up_is_read_only(
    tmp_path: Path, proc: Path, gauges: Gauges, options: str, failed: bool
) -> None:
    """After an error ext4 says so in its options alone (seen with Linux 6.18)."""
    device = tmp_path.stat().st_dev
    ours = f"30 1 {os.major(device)}:{os.minor(device)} / / rw,relatime shared:1 - ext4 /dev/root {options}"
    other = "31 1 0:4095 / /mnt rw,relatime - ext4 /dev/loop0 rw,emergency_ro"
    put(proc, "self/mountinfo", f"{other}\n{ours}")
    assert gauges.read().disk.read_only is failed


def test_a_disk_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        look_at_disk(tmp_path / "gone")


def test_a_pi_tells_its_supply_by_hwmon(gauges: Gauges, sysfs: Sysfs) -> None:
    sysfs.hwmon(0, "cpu_thermal", {"temp1_input": 48_312})
    chip = sysfs.hwmon(1, "rpi_volt", {"in0_lcrit_alarm": 0})
    assert supply_alarm(sysfs.root) == chip / "in0_lcrit_alarm"
    assert gauges.read().power == 0
    put(chip, "in0_lcrit_alarm", "1")
    assert gauges.read().power == LOW


@pytest.mark.parametrize("text", ["80008", "0x80008"])
def test_the_firmware_tells_what_is_and_what_was(gauges: Gauges, sysfs: Sysfs, text: str) -> None:
    put(sysfs.root, THROTTLED, text)
    assert gauges.read().power == HOT | HOT << 16


def test_without_a_file_the_firmware_is_asked_by_its_command(
    gauges: Gauges, sysfs: Sysfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(sysfs.root, "firmware/devicetree/base/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    calls = tmp_path / "calls"
    command = put(tmp_path / "bin", "vcgencmd", f"#!/bin/sh\necho $1 >> {calls}\necho throttled=0x50000")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    assert [gauges.read().power for _ in range(11)] == [0x50000] * 11
    assert calls.read_text().split() == ["get_throttled"] * 2  # a process each ten looks is enough


def test_a_command_that_is_missing_is_not_asked_for_again(
    gauges: Gauges, sysfs: Sysfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(sysfs.root, "firmware/devicetree/base/model", "Raspberry Pi 5\0")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert gauges.read().power == 0
    monkeypatch.setenv("PATH", str(tmp_path))
    command = put(tmp_path, "vcgencmd", "#!/bin/sh\necho throttled=0x1")
    command.chmod(0o755)
    assert [gauges.read().power for _ in range(11)] == [0] * 11


def test_heat_and_where_the_kernel_switches_off(gauges: Gauges, sysfs: Sysfs) -> None:
    zone = sysfs.thermal_zone(0, "cpu-thermal", 48_312)
    for number, (type_, temp) in enumerate([("passive", 80_000), ("critical", 110_000), ("hot", 105_000)]):
        put(zone, f"trip_point_{number}_type", type_)
        put(zone, f"trip_point_{number}_temp", str(temp))
    sysfs.thermal_zone(1, "gpu-thermal", 51_000)
    assert gauges.read().heat == (Heat("cpu-thermal", 48.312, 105.0), Heat("gpu-thermal", 51.0))


@pytest.mark.parametrize("text", ["-274000", "200000", "N/A", ""])
def test_a_zone_that_says_nonsense_is_not_hot(gauges: Gauges, sysfs: Sysfs, text: str) -> None:
    sysfs.thermal_zone(0, "broken", text)
    assert gauges.read().heat == ()


def test_a_zone_that_vanishes_is_nothing(gauges: Gauges, sysfs: Sysfs) -> None:
    zone = sysfs.thermal_zone(0, "usb-thermal", 40_000)
    assert gauges.read().heat
    (zone / "temp").unlink()
    assert gauges.read().heat == ()


def test_only_what_slows_a_processor_down_counts(gauges: Gauges, sysfs: Sysfs) -> None:
    for number, (type_, state) in enumerate([("cpufreq-cpu0", 2), ("cpufreq-cpu4", 0), ("gpio-fan", 1)]):
        put(sysfs.root, f"class/thermal/cooling_device{number}/type", type_)
        put(sysfs.root, f"class/thermal/cooling_device{number}/cur_state", str(state))
    assert gauges.read().slowed == ("cpufreq-cpu0",)


@pytest.mark.parametrize(
    ("life", "reserve", "cards"),
    [
        ("0x02 0x09", "0x01", (Card("mmcblk0", 90, 1),)),
        ("0x0b 0x01", "0x03", (Card("mmcblk0", 110, 3),)),
        ("0xff 0x03", "0x01", (Card("mmcblk0", 30, 1),)),  # no such tenth
        ("0x00 0x00", "0x00", ()),  # it does not say
        ("", "", ()),
    ],
)
def test_an_emmc_tells_its_life(
    gauges: Gauges, sysfs: Sysfs, life: str, reserve: str, cards: tuple[Card, ...]
) -> None:
    put(sysfs.root, "block/mmcblk0/device/life_time", life)
    put(sysfs.root, "block/mmcblk0/device/pre_eol_info", reserve)
    put(sysfs.root, "block/mmcblk1/device/name", "SD32G")  # a card that cannot tell
    assert gauges.read().cards == cards


@pytest.mark.parametrize(
    ("controllers", "enabled", "counted"),
    [
        ("cpuset cpu io memory pids", "1", True),
        ("cpuset cpu io pids", "0", False),
        ("", "1", True),
        ("", "0", False),
        ("cpuset cpu io pids", "1", True),
        ("cpuset cpu io pids", "", False),
        ("", "", None),
    ],
    ids=["v2", "v2, off", "v1", "v1, off", "within a group", "no table", "nothing"],
)
def test_memory_counting(
    gauges: Gauges, sysfs: Sysfs, proc: Path, controllers: str, enabled: str, counted: bool | None
) -> None:
    if controllers:
        put(sysfs.root, "fs/cgroup/cgroup.controllers", controllers)
    if enabled:
        put(proc, "cgroups", CGROUPS.format(enabled))
    assert gauges.read().memory_cgroup is counted
