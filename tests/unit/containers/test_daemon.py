"""What the service is told of its machine, and of a storage of its own."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent.containers import daemon
from agent.wire.errors import ConfigError

ALL = "CapEff:\t000001ffffffffff\n"
NO_RESOURCE = "CapEff:\t000001fffeffffff\n"


class Machine:
    """The files that tell what a machine can do."""

    def __init__(self, folder: Path) -> None:
        self.status, self.unified, self.bin = folder / "status", folder / "cgroup.controllers", folder / "bin"
        self.status.write_text(f"Name:\tx\n{ALL}")
        self.bin.mkdir()

    def install(self, name: str) -> None:
        (self.bin / name).touch(mode=0o755)

    def deviations(self, storage: Path | None = None, user: int = 0) -> dict[str, Any]:
        path = f"/nowhere:{self.bin}:"
        return daemon.deviations(storage, status=self.status, unified=self.unified, path=path, user=user)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_common_machine_needs_nothing(machine: Machine) -> None:
    assert machine.deviations() == {}
    machine.install("runc")
    machine.unified.write_text("\n")
    assert machine.deviations() == {}


def test_one_that_may_not_raise_limits_has_none(machine: Machine) -> None:
    machine.status.write_text(f"Name:\tx\n{NO_RESOURCE}")
    assert machine.deviations() == {"containers": {"default_ulimits": []}}


def test_cgroups_of_both_versions_need_runc(machine: Machine) -> None:
    machine.unified.write_text("cpu memory\n")
    assert machine.deviations() == {}, "there is no runc"
    machine.install("runc")
    assert machine.deviations() == {"engine": {"runtime": "runc"}}


def test_a_storage_of_its_own_shares_nothing(machine: Machine) -> None:
    one, other = machine.deviations(Path("/a/containers")), machine.deviations(Path("/b/containers"))
    assert one["engine"] == {"lock_type": "file", "cgroup_manager": "cgroupfs"}
    assert one["network"]["network_backend"] == "netavark"
    assert one["network"]["default_subnet_pools"] != other["network"]["default_subnet_pools"]


def test_who_is_not_root_leaves_cgroups_to_systemd(machine: Machine) -> None:
    assert machine.deviations(Path("/a/containers"), user=1000)["engine"] == {"lock_type": "file"}


def test_everything_of_a_storage_is_below_it_or_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert daemon.place(None) == []
    root, networks, runroot, tmpdir = daemon.place(Path("/a/containers"), user=0)
    assert (root, networks) == ("--root=/a/containers", "--network-config-dir=/a/containers/networks")
    assert runroot.startswith("--runroot=/run/lichen-")
    assert tmpdir == runroot.replace("--runroot", "--tmpdir") + "/libpod"
    assert daemon.place(Path("/b/containers"), user=0)[2] != runroot
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert daemon.place(Path("/a/containers"), user=1000)[2].startswith("--runroot=/run/user/1000/lichen-")


def test_what_the_machine_says_already_goes_on_to_hold(tmp_path: Path) -> None:
    there = tmp_path / "containers.conf"
    there.write_text(
        '[containers]\ntz = "local"\n[engine]\nlock_type = "shm"\n[engine.runtimes]\nx = ["/x"]\n'
    )
    made = daemon.configuration(Path("/a/containers"), {"CONTAINERS_CONF": str(there)})
    read = tomllib.loads(made.decode())
    assert read["containers"]["tz"] == "local"
    assert read["engine"]["lock_type"] == "file"
    assert read["engine"]["runtimes"] == {"x": ["/x"]}


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    there = tmp_path / "containers.conf"
    there.write_text("[containers\n")
    with pytest.raises(ConfigError, match=r"containers\.conf cannot be read"):
        daemon.configuration(Path("/a/containers"), {"CONTAINERS_CONF": str(there)})


def test_the_child_hears_nothing_that_was_said_to_the_agent() -> None:
    told = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "5", "CONTAINER_HOST": "tcp://x", "LANG": "C"}
    assert daemon.surroundings({**told, "PATH": "/bin"}) == {"LANG": "C", "PATH": "/bin:/usr/sbin:/sbin"}


def test_programs_are_found_as_a_shell_finds_them(machine: Machine) -> None:
    (machine.bin / "folder").mkdir()
    (machine.bin / "text").touch(mode=0o644)
    machine.install("podman")
    path = f"/nowhere:{machine.bin}"
    assert daemon.find_program("podman", path) == machine.bin / "podman"
    assert daemon.find_program("folder", path) is None
    assert daemon.find_program("text", path) is None
    assert daemon.find_program("podman", "") is None
