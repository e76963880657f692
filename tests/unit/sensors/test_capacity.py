"""The board as a sensor: differences, and a disk that does not answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from agent.sensors import capacity
from agent.sensors.capacity import CHANNELS, Capacity, Options, is_local
from agent.sensors.driver import Environment
from agent.wire.errors import LichenError
from support.sysfs import Sysfs

T = TypeVar("T")
DIFFERENCES = {"capacity.cpu", "capacity.net_rx", "capacity.net_tx"}
ALL = {f"capacity.{name}" for name, _, _ in CHANNELS}


async def inline(function: Callable[[], T]) -> T:
    return function()


async def never(function: Callable[[], T]) -> T:
    await asyncio.Event().wait()
    return function()


def environment(tmp_path: Path, run: Callable[[Callable[[], T]], Awaitable[T]] = inline) -> Environment:
    return Environment(sysfs=tmp_path, state_dir=tmp_path, run_blocking=run)  # type: ignore[arg-type]


async def opened(tmp_path: Path, **keys: Path) -> Capacity:
    return await capacity.open(Options(name="capacity", kind="capacity", **keys), environment(tmp_path))


async def test_differences_wait_for_a_second_look(tmp_path: Path) -> None:
    sensor = await opened(tmp_path)
    assert (await sensor.read()).keys() == ALL - DIFFERENCES
    async with asyncio.timeout(5):
        while (values := await sensor.read()).keys() != ALL:
            await asyncio.sleep(0.01)
    assert 0 <= values["capacity.cpu"] <= 100
    assert values["capacity.net_rx"] >= 0


async def test_a_busy_processor_shows(tmp_path: Path) -> None:
    sensor = await opened(tmp_path)
    end = os.times().user + 0.1
    while os.times().user < end:
        pass
    values = await sensor.read()
    assert values["capacity.cpu"] > 50 / (os.cpu_count() or 1)


async def test_memory_and_disk_agree_with_the_system(tmp_path: Path) -> None:
    values = await (await opened(tmp_path)).read()
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(tmp_path))
    assert abs(values["capacity.memory"] - memory.percent) < 5
    assert values["capacity.memory_used"] <= memory.total
    assert abs(values["capacity.disk"] - disk.percent) < 1
    assert abs(values["capacity.disk_used"] - disk.used) < disk.total / 100


async def test_only_the_disk_fails_with_the_disk(tmp_path: Path) -> None:
    values = await (await opened(tmp_path, disk=tmp_path / "gone")).read()
    failed = {name: str(value) for name, value in values.items() if isinstance(value, LichenError)}
    reason = f"{tmp_path}/gone: No such file or directory"
    assert failed == {"capacity.disk": reason, "capacity.disk_used": reason}


async def test_a_disk_that_does_not_answer_holds_up_nothing_else(tmp_path: Path) -> None:
    options = Options(name="capacity", kind="capacity")
    sensor = Capacity(options, environment(tmp_path, never), disk_timeout_s=0.01)
    values = await sensor.read()
    assert str(values["capacity.disk"]) == f"{tmp_path}: the file system does not answer"
    assert values["capacity.memory"] > 0


@pytest.mark.parametrize(("type_", "expected"), [("ext4", True), ("nfs4", False), ("fuse.sshfs", False)])
def test_only_a_disk_that_answers_from_memory_is_local(tmp_path: Path, type_: str, expected: bool) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:99 / /proc rw,nosuid shared:5 - proc proc rw\n"
        f"36 35 {os.major(device)}:{os.minor(device)} / /var rw,noatime master:1 - {type_} /dev/root rw\n"
    )
    assert is_local(tmp_path, mounts) is expected
    mounts.write_text("")
    assert not is_local(tmp_path, mounts)


async def test_a_local_disk_needs_no_thread(tmp_path: Path) -> None:
    calls = []

    async def counted(function: Callable[[], T]) -> T:
        calls.append(function)
        result = function()
        return (result[0], True) if isinstance(result, tuple) else result  # type: ignore[return-value]

    sensor = Capacity(Options(name="capacity", kind="capacity"), environment(tmp_path, counted))
    first, second = await sensor.read(), await sensor.read()
    assert len(calls) == 1
    assert second["capacity.disk_used"] == pytest.approx(first["capacity.disk_used"], rel=0.1)


async def test_bridges_do_not_count_a_byte_twice(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.nic("eth0", physical=True)
    tree.nic("docker0", physical=False)
    sensor = await opened(tmp_path)
    assert sensor.interfaces(["lo", "docker0", "eth0"]) == ["eth0"]
    # In a container no interface has hardware; then all of them count.
    assert sensor.interfaces(["lo", "docker0", "veth1"]) == ["docker0", "veth1"]
