"""What each kind of sensor does beyond the common contract (tests/contract/test_sensors.py)."""

from __future__ import annotations

import asyncio
import doctest
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.sensors import driver, sysfs
from agent.sensors.blocking import Threads
from agent.sensors.conditioning import condition
from agent.sensors.driver import KINDS, Answer, Environment, load_kind, read_sensor
from agent.wire.errors import Refused
from support.sysfs import Sysfs


@pytest.mark.parametrize("module", [driver, sysfs])
def test_the_examples_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


async def read(tmp_path: Path, **table: Any) -> Mapping[str, Answer]:
    """Open a sensor on the tree in ``tmp_path``, read it once and close it."""
    threads = Threads()
    sensor = read_sensor({"name": "s", **table}, "sensors[0]")
    env = Environment(tmp_path, tmp_path, threads.lane())
    opened = await load_kind(sensor.kind).open(sensor, env)
    try:
        async with asyncio.timeout(5):
            answers = await opened.read()
        return {name: condition(answer, sensor.conditioning(name), "") for name, answer in answers.items()}
    finally:
        await opened.close()
        threads.close()


async def refusal(tmp_path: Path, **table: Any) -> str:
    with pytest.raises(Refused) as raised:
        await read(tmp_path, **table)
    return str(raised.value).removeprefix(f"{tmp_path}/")


def test_each_kind_has_the_shape_of_a_kind() -> None:
    for kind in KINDS:
        module = load_kind(kind)
        assert issubclass(module.Options, driver.SensorConfig)
        assert callable(module.open)
        assert isinstance(module.scan(Path("/nowhere")), list)


# --- thermal -----------------------------------------------------------------------------------


async def test_thermal_reads_millidegrees_by_type_or_by_zone(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.thermal_zone(0, "cpu-thermal", 48312)
    tree.thermal_zone(10, "gpu-thermal", -500)
    assert await read(tmp_path, kind="thermal", type="cpu-thermal") == {"s": 48.312}
    assert await read(tmp_path, kind="thermal", zone="thermal_zone10") == {"s": -0.5}


async def test_a_type_of_several_zones_is_not_guessed(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.thermal_zone(2, "acpitz", 1)
    tree.thermal_zone(10, "acpitz", 1)
    assert await refusal(tmp_path, kind="thermal", type="acpitz") == (
        "class/thermal: thermal_zone2, thermal_zone10 are each zone of type 'acpitz'"
    )
    assert (
        await refusal(tmp_path, kind="thermal", type="cpu") == "class/thermal: there is no zone of type 'cpu'"
    )
    assert (
        await refusal(tmp_path, kind="thermal", zone="thermal_zone1")
        == "class/thermal: there is no thermal_zone1"
    )


# --- hwmon -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "content", "value", "unit", "quantity"),
    [
        ("temp1", 35850, 35.85, "Cel", "temperature"),
        ("fan2", 1234, 1234, "/min", "speed"),
        ("in0", 11968, 11.968, "V", "voltage"),
        ("curr1", 950, 0.95, "A", "current"),
        ("power1", 4_560_000, 4.56, "W", "power"),
        ("humidity1", 45_250, 45.25, "%", "humidity"),
    ],
)
async def test_hwmon_reads_in_the_kernels_steps(
    tmp_path: Path, feature: str, content: int, value: float, unit: str, quantity: str
) -> None:
    Sysfs(tmp_path).hwmon(0, "chip", {f"{feature}_input": content})
    table = {"kind": "hwmon", "chip": "chip", "feature": feature}
    assert await read(tmp_path, **table) == {"s": value}
    (channel,) = read_sensor({"name": "s", **table}, "").list_channels()
    assert (channel.unit, channel.quantity) == (unit, quantity)


@pytest.mark.parametrize("feature", ["in0_lcrit_alarm", "temp1_alarm", "fan2_fault"])
async def test_hwmon_tells_an_alarm_as_0_or_1(tmp_path: Path, feature: str) -> None:
    Sysfs(tmp_path).hwmon(0, "rpi_volt", {feature: 1})
    table = {"kind": "hwmon", "chip": "rpi_volt", "feature": feature}
    assert await read(tmp_path, **table) == {"s": 1.0}
    (channel,) = read_sensor({"name": "s", **table}, "").list_channels()
    assert (channel.unit, channel.quantity) == ("", "alarm")


async def test_hwmon_follows_a_chip_through_renumbering(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    first = tree.hwmon(0, "nvme", {"temp1_input": 1000})
    second = tree.hwmon(1, "coretemp", {"temp1_input": 2000})
    threads = Threads()
    table = {"name": "s", "kind": "hwmon", "chip": "nvme", "feature": "temp1"}
    sensor = read_sensor(table, "")
    opened = await load_kind("hwmon").open(sensor, Environment(tmp_path, tmp_path, threads.lane()))
    assert await opened.read() == {"s": 1.0}
    # The numbers change places: the old path is now another chip's, and readable.
    spare = first.rename(first.with_name("spare"))
    second.rename(first)
    spare.rename(second)
    assert await opened.read() == {"s": 1.0}
    threads.close()


async def test_chips_of_one_name_are_told_apart_by_their_device(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.hwmon(0, "nvme", {"temp1_input": 1000}, device="nvme0")
    tree.hwmon(1, "nvme", {"temp1_input": 2000}, device="nvme1")
    table = {"kind": "hwmon", "chip": "nvme", "feature": "temp1"}
    assert await refusal(tmp_path, **table) == "class/hwmon: hwmon0, hwmon1 are each chip 'nvme'"
    assert await read(tmp_path, **table, device="nvme1") == {"s": 2.0}
    assert await refusal(tmp_path, **table, device="nvme2") == (
        "class/hwmon: there is no chip 'nvme' of device 'nvme2'"
    )


# --- file --------------------------------------------------------------------------------------


async def test_file_finds_scales_and_shifts_a_number(tmp_path: Path) -> None:
    path = tmp_path / "level"
    path.write_text("pump on\nlevel=1500 mm\n")
    table = {"kind": "file", "path": str(path), "pattern": "level=([0-9]+) mm", "scale": 0.001, "offset": -1}
    assert await read(tmp_path, **table) == {"s": 0.5}
    path.write_text("pump off\n")
    assert await refusal(tmp_path, **table) == "level: nothing matches 'level=([0-9]+) mm'"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "'' is not a number"),
        (b"nan", "'nan' is not a finite number"),
        (b"1e999", "'1e999' is not a finite number"),
        (b"\xff\xfe", "'\ufffd\ufffd' is not a number"),
        (b"1 2", "'1 2' is not a number"),
        (b"7" * 70_000, "over 65536 bytes"),
    ],
)
async def test_file_refuses_what_is_no_number(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "level"
    path.write_bytes(content)
    assert await refusal(tmp_path, kind="file", path=str(path)) == f"level: {reason}"


def test_a_file_of_proc_is_read_to_its_end() -> None:
    maps = Path("/proc/self/maps")  # the kernel gives a page at a time
    text = sysfs.read_text(maps, 10**7)
    assert len(text) > 4096
    assert text.splitlines()[-1] == maps.read_text().splitlines()[-1]


async def test_file_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert await refusal(tmp_path, kind="file", path=str(tmp_path / "pipe")) == "pipe: '' is not a number"
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        reason = await refusal(tmp_path, kind="file", path=str(tmp_path / "pipe"))
        assert reason == "pipe: Resource temporarily unavailable"
    finally:
        os.close(writer)


# --- command -----------------------------------------------------------------------------------


async def run(script: str, **table: Any) -> Mapping[str, Answer]:
    return await read(Path("/nowhere"), kind="command", command=["sh", "-c", script], **table)


async def complaint(script: str, **table: Any) -> str:
    return await refusal(Path("/nowhere"), kind="command", command=["sh", "-c", script], **table)


async def test_command_has_a_minimal_environment_and_no_input() -> None:
    assert await run("env | cut -d= -f1 | grep -vc -e PATH -e LANG -e PWD -e SHLVL -e _; true") == {"s": 0.0}
    assert await run("wc -c") == {"s": 0.0}
    assert await run('test "$(pwd)" = / && echo 1') == {"s": 1.0}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "sh: exit status 3"),
        ("echo 5; echo one >&2; echo no bus >&2; exit 1", "sh: exit status 1: no bus"),
        ("kill -9 $$", "sh: killed by signal 9"),
        ("echo warm", "sh: 'warm' is not a number"),
        ("true", "sh: '' is not a number"),
        ("while :; do echo 0123456789; done", "sh: it printed over 65536 bytes"),
        ("head -c 200000 /dev/zero >&2; exit 1", "sh: exit status 1: " + "\0" * 128),
    ],
)
async def test_command_tells_why_there_is_no_value(script: str, reason: str) -> None:
    assert await complaint(script) == reason


async def test_command_that_is_not_there() -> None:
    assert await refusal(Path("/nowhere"), kind="command", command=["/bin/no-such"]) == (
        "/bin/no-such: cannot be started: No such file or directory"
    )


CHANNELS = {"a": {"unit": "V"}, "b": {}}


async def test_command_prints_several_values() -> None:
    values = await run("""echo '{"a": 1, "b": null, "more": 3}'""", channels=CHANNELS)
    assert values["s.a"] == 1.0
    assert str(values["s.b"]) == "sh: its 'b' is not a number"
    values = await run("""echo '{"b": true}'""", channels=CHANNELS)
    assert str(values["s.a"]) == "sh: its answer has no 'a'"
    assert str(values["s.b"]) == "sh: its 'b' is not a number"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 5", "sh: it printed '5' instead of a JSON object"),
        ("echo nonsense", "sh: not acceptable JSON: "),
        ("""echo '{"a": NaN}'""", "sh: not acceptable JSON: NaN is not a JSON number"),
    ],
)
async def test_command_prints_no_object(script: str, reason: str) -> None:
    assert (await complaint(script, channels=CHANNELS)).startswith(reason)


async def alive(pid: int) -> bool:
    """Whether a process is still there, given a moment to be buried by init."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        await asyncio.sleep(0.005)
    return True


@pytest.mark.parametrize("trap", ["", "trap '' TERM INT HUP;"])
async def test_command_that_is_given_up_leaves_no_process(tmp_path: Path, trap: str) -> None:
    pids = tmp_path / "pids"
    script = f"{trap} sleep 1000 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait"
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(script), name="read")
        while not pids.exists():
            await asyncio.sleep(0.005)
        task.cancel()
    for pid in pids.read_text().split():
        assert not await alive(int(pid))


async def test_command_that_ends_leaves_no_process(tmp_path: Path) -> None:
    script = f"sleep 1000 >/dev/null 2>&1 & echo $! > {tmp_path}/pid; echo 5"
    assert await run(script) == {"s": 5.0}
    assert not await alive(int((tmp_path / "pid").read_text()))


async def test_command_whose_child_keeps_the_pipe_is_waited_for(tmp_path: Path) -> None:
    """Its output is complete only when nobody can write any more."""
    assert await run("(sleep 0.05; echo 5) &") == {"s": 5.0}
