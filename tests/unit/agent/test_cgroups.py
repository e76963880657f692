"""What a container takes, from trees of files such as the kernel makes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cgroups import Counters, Figures, Interfaces, begun, cpu_milli
from agent.wire.errors import Refused

PID = 77
COUNTED = Figures(cpu_us=1_500_000, memory_bytes=8_000_000, memory_peak_bytes=9_000_000, oom_kills=2)
SCOPE = "machine.slice/libpod-4f2a.scope/container"


class Machine:
    """A made-up /proc and /sys/fs/cgroup."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.cgroups = folder / "cgroup"
        self.cgroups.mkdir()
        self.opened: list[Counters] = []

    def put(self, *lines: str) -> None:
        """Say in which cgroups the process is."""
        file = self.proc / str(PID) / "cgroup"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))

    def write(self, folder: str, **files: str) -> None:
        """Make a cgroup with these files, ``__`` being the dot in their names."""
        for name, text in files.items():
            file = self.cgroups / folder / name.replace("__", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")

    def open(self) -> Counters:
        self.opened.append(Counters.open(PID, proc=self.proc, cgroups=self.cgroups))
        return self.opened[-1]

    def write_v1(self, cpu: str, memory: str) -> None:
        self.write(cpu, cpuacct__usage="1500000999")
        self.write(
            memory,
            memory__usage_in_bytes="8000000",
            memory__max_usage_in_bytes="9000000",
            memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2",
        )

    def write_v2(self, folder: str) -> None:
        self.write(
            folder,
            cpu__stat="usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000",
            memory__current="8000000",
            memory__peak="9000000",
            memory__events="low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0",
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    for counters in made.opened:
        counters.close()


def test_version_1(machine: Machine) -> None:
    machine.put("4:memory:/lichen/web", "3:cpu,cpuacct:/lichen/web", "1:name=systemd:/lichen/web")
    machine.write_v1("cpu,cpuacct/lichen/web", "memory/lichen/web")
    assert machine.open().look() == COUNTED


def test_version_1_with_a_folder_for_each_controller(machine: Machine) -> None:
    """Mounted together, and found under a name of its own."""
    machine.put("4:memory:/lichen/web", "3:cpu,cpuacct:/lichen/web")
    machine.write_v1("cpuacct/lichen/web", "memory/lichen/web")
    assert machine.open().look() == COUNTED


def test_version_2_below_systemd(machine: Machine) -> None:
    machine.put(f"0::/{SCOPE}")
    machine.write_v2(SCOPE)
    assert machine.open().look() == COUNTED


def test_both_versions_each_with_some_controllers(machine: Machine) -> None:
    machine.put("4:memory:/lichen/web", "0::/lichen/web")
    machine.write_v1("elsewhere", "memory/lichen/web")
    machine.write("unified/lichen/web", cpu__stat="usage_usec 1500000")
    assert machine.open().look() == COUNTED


def test_a_kernel_without_a_controller_for_memory(machine: Machine) -> None:
    """A Raspberry Pi without cgroup_enable=memory."""
    machine.put("3:cpu,cpuacct:/lichen/web", "0::/")
    machine.write("cpu,cpuacct/lichen/web", cpuacct__usage="1500000999")
    machine.write("unified", memory__current="1")
    assert machine.open().look() == Figures(cpu_us=1_500_000)


def test_an_old_kernel_without_peak_and_kills(machine: Machine) -> None:
    machine.put(f"0::/{SCOPE}")
    machine.write(
        SCOPE, cpu__stat="usage_usec 1500000", memory__current="8000000", memory__events="low 0\nhigh 0"
    )
    assert machine.open().look() == Figures(cpu_us=1_500_000, memory_bytes=8_000_000)


@pytest.mark.parametrize("path", ["/", "/..", "/../../machine.slice"])
def test_the_whole_machine_is_never_taken_for_a_container(machine: Machine, path: str) -> None:
    machine.put(f"4:memory:{path}", f"3:cpuacct:{path}", f"0::{path}")
    machine.write_v1("cpuacct", "memory")
    machine.write_v1("machine.slice", "machine.slice")
    machine.write_v2("unified")
    assert machine.open().look() == Figures()


def test_a_process_that_has_gone(machine: Machine) -> None:
    with pytest.raises(Refused) as refused:
        machine.open()
    assert refused.value.code == "not-found"


def test_every_look_reads_anew(machine: Machine) -> None:
    machine.put(f"0::/{SCOPE}")
    machine.write_v2(SCOPE)
    counters = machine.open()
    before = counters.look()
    machine.write(SCOPE, cpu__stat="usage_usec 4000000", memory__current="5")
    now = counters.look()
    assert now.memory_bytes == 5
    assert cpu_milli(before, now, 10.0) == 250


def test_after_closing_the_last_figures_remain(machine: Machine) -> None:
    machine.put(f"0::/{SCOPE}")
    machine.write_v2(SCOPE)
    counters = machine.open()
    assert counters.look() == COUNTED
    counters.close()
    assert counters.look() == COUNTED


@pytest.mark.parametrize(
    ("before", "now", "span_s", "milli"),
    [
        (0, 1_000_000, 1.0, 1000),
        (500_000, 500_000, 60.0, 0),
        (0, 3_000_000, 2.0, 1500),
        (9, 3, 1.0, 0),  # another container with the same name
        (None, 3, 1.0, None),
        (3, None, 1.0, None),
        (0, 3, 0.0, None),
    ],
)
def test_processor_between_two_looks(
    before: int | None, now: int | None, span_s: float, milli: int | None
) -> None:
    assert cpu_milli(Figures(cpu_us=before), Figures(cpu_us=now), span_s) == milli


def test_of_two_processes_the_later_one_began_later() -> None:
    with subprocess.Popen(["sleep", "9"]) as process:
        ours, theirs = begun(os.getpid()), begun(process.pid)
        process.kill()
    assert ours is not None
    assert theirs is not None
    assert ours < theirs
    assert begun(process.pid) is None


def test_a_name_with_spaces_and_brackets_confuses_nobody(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text(f"7 (a ) b) S {' '.join(str(number) for number in range(4, 40))}")
    assert begun(7, tmp_path) == 22


# --- disk and network ----------------------------------------------------------------------------


def test_what_goes_to_disks_is_added_up_in_version_2(machine: Machine) -> None:
    machine.put(f"0::/{SCOPE}")
    machine.write(
        SCOPE, io__stat="253:0 rbytes=1000 wbytes=5 rios=9 wios=2\n8:0 8:16 rbytes=24 wbytes=0 rios=1"
    )
    figures = machine.open().look()
    assert (figures.read_bytes, figures.written_bytes) == (1024, 5)


def test_nothing_read_yet_is_0_and_not_unknown(machine: Machine) -> None:
    machine.put(f"0::/{SCOPE}")
    machine.write(SCOPE, io__stat="")
    assert machine.open().look().read_bytes == 0


def test_version_1_does_not_count_disks(machine: Machine) -> None:
    machine.put("7:blkio:/lichen/web", "0::/lichen/web")
    machine.write("blkio/lichen/web", io__stat="8:0 rbytes=7")
    machine.write("unified/lichen/web", io__stat="8:0 rbytes=7")
    assert machine.open().look().read_bytes is None


class Wires:
    """The file of a network namespace."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "dev"
        self.say(lo=(9, 9))
        self.interfaces = Interfaces.open(self._path)

    def say(self, **bytes: tuple[int, int]) -> None:
        lines = ["Inter-|   Receive  |  Transmit", " face |bytes packets |bytes packets"]
        rest = "1 0 0 0 0 0 0"
        lines += [f"{name:>6}:{got:8} {rest} {sent:8} {rest}" for name, (got, sent) in bytes.items()]
        self._path.write_text("\n".join(lines) + "\n")


def test_what_goes_through_all_interfaces_but_the_loopback(tmp_path: Path) -> None:
    wires = Wires(tmp_path)
    assert wires.interfaces.look() == (0, 0)
    wires.say(lo=(9, 9), eth0=(100, 10), eth1=(5, 6))
    assert wires.interfaces.look() == (105, 16)
    wires.interfaces.close()


def test_an_interface_that_is_made_anew_keeps_what_it_counted(tmp_path: Path) -> None:
    """So a container is switched to: it is taken off its network, and put on it again."""
    wires = Wires(tmp_path)
    wires.say(lo=(9, 9), eth0=(100, 10), eth1=(5, 6))
    wires.interfaces.look()
    wires.say(lo=(9, 9), eth1=(6, 6))
    assert wires.interfaces.look() == (106, 16)
    wires.say(lo=(9, 9), eth0=(3, 2), eth1=(6, 6))
    assert wires.interfaces.look() == (109, 18)
    wires.say(lo=(9, 9), eth0=(2, 4), eth1=(6, 6))  # and once more, between two looks
    assert wires.interfaces.look() == (111, 22)
    wires.say(lo=(9, 9))  # it died, and Podman took its network away
    assert wires.interfaces.look() == (111, 22)
    wires.interfaces.close()


def test_the_network_of_a_process(machine: Machine) -> None:
    machine.put(f"0::/{SCOPE}")
    machine.write_v2(SCOPE)
    file = machine.proc / str(PID) / "net/dev"
    file.parent.mkdir()
    file.write_text("a\nb\n  eth0: 7 1 0 0 0 0 0 0 8 1\n")
    counters = Counters.open(PID, net=True, proc=machine.proc, cgroups=machine.cgroups)
    machine.opened.append(counters)
    assert (counters.look().received_bytes, counters.look().sent_bytes) == (7, 8)
    assert machine.open().look().received_bytes is None  # that of the host is not the container's
