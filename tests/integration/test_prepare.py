"""`.ci/prepare`, which `make run` and `make test` begin with, on machines that lack something.

The script runs in an empty project whose PATH holds only the commands a test puts there; apt-get,
sudo and the virtual environment's python are scripts that write down how they were called.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = ("cat", "chmod", "dirname", "env", "mkdir", "sha256sum", "sh", "touch")
SOURCES = (".ci/prepare", "pyproject.toml", "hub/web/package-lock.json", "hub/web/hatch_build.py")

APPS = ("podman", "netavark", "aardvark-dns", "iptables", "nft", "runc", "catatonit", "haproxy", "skopeo")
IMAGES = ("docker-registry", "busybox")
PROOFS = ("go",)
"""What checks our proofs; its module of notes and trees is looked for where `make test` has put it."""


class Machine:
    """A project folder and the commands that exist there."""

    def __init__(self, folder: Path) -> None:
        self.project, self.bin, self.calls = folder / "project", folder / "bin", folder / "calls"
        self.bin.mkdir()
        for source in SOURCES:
            (self.project / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, self.project / source)
        for name in SYSTEM:
            (self.bin / name).symlink_to(shutil.which(name) or name)
        for name in ("mosquitto", "openssl", *APPS, *IMAGES, *PROOFS):
            self.add(name)
        self.add("id", "echo 0")
        self.add_script(self.project / ".venv/bin/python", self._noted("python"))

    def _noted(self, name: str) -> str:
        return f'case "$*" in -c*) ;; *) echo "{name} $*" >>{self.calls} ;; esac'

    def add_script(self, path: Path, body: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def add(self, name: str, body: str = "") -> None:
        self.add_script(self.bin / name, body)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.bin / name).unlink()

    def add_apt(self) -> None:
        """An apt-get that "installs" a command for each package."""
        install = f"shift 3; for name; do touch {self.bin}/$name; chmod +x {self.bin}/$name; done"
        self.add("apt-get", f'{self._noted("apt-get")}; [ "$2" != install ] || {{ {install}; }}')

    def prepare(self, purpose: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.project / ".ci/prepare", purpose],
            env={"PATH": str(self.bin)},
            text=True,
            capture_output=True,
            check=False,
        )

    def take_calls(self) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_is_missing_is_installed_once_and_named(machine: Machine) -> None:
    machine.add_apt()
    done = machine.prepare("test")
    assert done.returncode == 0, done.stderr
    assert "installing Debian packages with apt-get: chromium-headless-shell" in done.stdout
    calls = machine.take_calls()
    installed = "apt-get -qq install --no-install-recommends chromium-headless-shell"
    assert calls[:2] == ["apt-get -qq update", installed]
    assert any(call.endswith("--editable .[dev]") for call in calls)

    again = machine.prepare("test")
    assert (again.returncode, again.stdout, machine.take_calls()) == (0, "", [])


def test_running_needs_no_browser_and_less_python(machine: Machine) -> None:
    machine.add_apt()
    assert machine.prepare("run").returncode == 0
    calls = machine.take_calls()
    assert not any(call.startswith("apt-get") for call in calls)
    assert any(call.endswith("--editable .[hub]") for call in calls)


def test_running_needs_what_runs_apps(machine: Machine) -> None:
    machine.add_apt()
    machine.remove("podman", "skopeo", "docker-registry", "busybox")
    done = machine.prepare("run")
    assert "installing Debian packages with apt-get: podman skopeo\n" in done.stdout
    assert machine.take_calls()[1] == "apt-get -qq install --no-install-recommends podman skopeo"


def test_an_image_needs_a_registry_and_no_browser(machine: Machine) -> None:
    machine.add_apt()
    machine.add("service", machine._noted("service"))
    machine.remove("docker-registry", "busybox")
    done = machine.prepare("image")
    assert "installing Debian packages with apt-get: docker-registry busybox-static\n" in done.stdout
    calls = machine.take_calls()
    assert calls[1] == "apt-get -qq install --no-install-recommends docker-registry busybox-static"
    assert calls[2] == "service docker-registry stop", "Debian starts what it installs"
    assert not any(call.startswith("python") for call in calls), "it is no Python"


def test_a_changed_lock_is_installed_again(machine: Machine) -> None:
    machine.prepare("run")
    machine.take_calls()
    with (machine.project / "hub/web/package-lock.json").open("a") as lock:
        lock.write("\n")
    machine.prepare("run")
    assert any("pip install" in call for call in machine.take_calls())


def test_a_user_gets_packages_through_sudo(machine: Machine) -> None:
    machine.add_apt()
    machine.add("id", "echo 1000")
    machine.add("sudo", f'{machine._noted("sudo")}; exec "$@"')
    done = machine.prepare("test")
    assert "installing Debian packages with sudo apt-get: chromium-headless-shell" in done.stdout
    assert machine.take_calls()[0] == "sudo apt-get -qq update"


def test_a_user_without_sudo_is_told_the_command(machine: Machine) -> None:
    machine.add_apt()
    machine.add("id", "echo 1000")
    done = machine.prepare("test")
    assert done.returncode == 1
    assert "apt-get install chromium-headless-shell" in done.stderr
    assert machine.take_calls() == []


def test_without_apt_the_packages_are_named(machine: Machine) -> None:
    done = machine.prepare("test")
    assert done.returncode == 1
    assert "missing: chromium-headless-shell." in done.stderr
    assert machine.take_calls() == []


def test_a_python_that_is_too_old_is_named(machine: Machine) -> None:
    shutil.rmtree(machine.project / ".venv")
    machine.add("oldpython", "exit 1")
    done = subprocess.run(
        [machine.project / ".ci/prepare", "run"],
        env={"PATH": str(machine.bin), "PYTHON": "oldpython"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no Python of at least 3.11 with venv found in PYTHON=oldpython" in done.stderr
