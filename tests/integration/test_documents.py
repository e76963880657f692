"""Every command in the documents works as it is written.

A document is a session: its `console` blocks are run in order, in a fresh copy of this checkout
with a home of its own.  What runs until Ctrl-C is started, waited for, and stopped at the end in
reverse order; apps are taken off before.  Only what is the reader's own is replaced: ports, and the
hub's name by an address of this machine.  Make targets other than `run` and `demo-image` are asked what
they would do (`make -n`), or this would run itself.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.lab import free_ports
from support.podman import sweep
from support.source import ROOT

DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^([^\n]*)\n\n?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`~/(\S+)`:$")
PORTS = (8420, 8421, 8422, 8425, 8430, 8431)
"""Of the page, boards, MQTT, the demo's registry, the demo's app, and the app that a guide has."""
PREFIX = r"(?:\w+=\S+ )*(?:\S*/)?"
# What runs until Ctrl-C, and what it says or does once others may rely on it.
LASTING = {
    re.compile(rf"{PREFIX}make run"): "Lichen is running",
    re.compile(rf"{PREFIX}lichen-hub run"): "hub started",
    re.compile(rf"{PREFIX}lichen-agent run"): "link is up",
    re.compile(rf"{PREFIX}lichen-agent sensors watch"): "28-0316a27983fd",
    re.compile(rf"{PREFIX}lichen watch"): "capacity.cpu",
}


@dataclass(frozen=True)
class Step:
    """A command to type, or with a ``path`` below the home, a file to write."""

    text: str
    path: str = ""


def steps(document: str) -> Iterator[Step]:
    """What a reader of a document does: its `console` blocks, and the files whose names end a line above."""
    for before, language, text in BLOCK.findall((ROOT / document).read_text()):
        assert language not in ("sh", "bash", "shell"), f"{document}: commands go into `console` blocks"
        if language != "console" and (named := FILE.search(before)):
            yield Step(text, named[1])
        for line in text.replace("\\\n", " ").splitlines() if language == "console" else ():
            if line.startswith("$ "):
                yield Step(line.removeprefix("$ ").partition("    #")[0].strip())


class Session:
    """A reader at a terminal in a checkout."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "lichen"
        self.ports = dict(zip(map(str, PORTS), map(str, free_ports(len(PORTS))), strict=True))
        self.has_apps = False
        self.lasting: list[Lasting] = []
        self.home = folder / "home"
        self.home.mkdir()
        programs = Path(sys.executable).parent
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("LICHEN_", "PYTEST_"))},
            "HOME": str(self.home),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PORT": self.ports["8420"],
            "REGISTRY_PORT": self.ports["8425"],
        }
        self._copy_checkout()

    def _copy_checkout(self) -> None:
        # The copy shares the environment, and must find nothing in it to install.
        subprocess.run([ROOT / ".ci" / "prepare", "test"], check=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, text=True, capture_output=True, check=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.checkout / name)
        (self.checkout / ".venv").symlink_to(Path(sys.prefix))
        sample = self.checkout / "images/demo-app/.env.sample"
        sample.write_text(self._ported(sample.read_text()))

    def _ported(self, text: str) -> str:
        for usual, free in self.ports.items():
            text = text.replace(usual, free)
        return text

    def do(self, step: Step) -> None:
        """Take a step; a command that lasts is left running once it is ready."""
        if step.path:
            (self.home / step.path).parent.mkdir(exist_ok=True)
            (self.home / step.path).write_text(self._ported(step.text))
        else:
            self._type(step.text)

    def _type(self, command: str) -> None:
        text = self._ported(command.replace("hub.example.org", "127.0.0.1"))
        self.has_apps = self.has_apps or "demo-image" in text
        for pattern, ready in LASTING.items():
            if pattern.match(text):
                self.lasting.append(Lasting(text, ready, self.checkout, self.environment))
                self.lasting[-1].wait()
                return
        text = re.sub(rf"^({PREFIX})make (?!run|demo-image)", r"\1make -n ", text)
        done = self._run(text)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.checkout, env=self.environment, stdin=subprocess.DEVNULL,
            text=True, capture_output=True, timeout=120, check=False,
        )  # fmt: skip

    def close(self) -> None:
        """Take off what was not, then Ctrl-C in each terminal, the newest first."""
        if self.has_apps:
            for app in ("demo-app", "hello"):
                self._run(f"lichen app undeploy {app} --wait --volumes")
            self._run("images/demo-image stop")
        for lasting in reversed(self.lasting):
            lasting.interrupt()
        sweep(self.checkout / ".run/agent/state/containers")


class Lasting:
    """A command in a terminal of its own, until Ctrl-C."""

    def __init__(self, command: str, ready: str, folder: Path, environment: dict[str, str]) -> None:
        self.command, self.ready = command, ready
        self.output: list[str] = []
        self.event = threading.Event()
        self.child = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, env=environment, start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.output.append(line)
            if self.ready in line:
                self.event.set()
        self.event.set()  # it has ended

    def wait(self) -> None:
        """Until it is ready."""
        self.event.wait(90)
        output = "".join(self.output)
        assert self.ready in output, f"$ {self.command}\nnever said {self.ready!r}:\n{output}"

    def interrupt(self) -> None:
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGINT)
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            pytest.fail(f"$ {self.command}\ndid not end at Ctrl-C")
        finally:
            self.reader.join(5)
            assert self.child.stdout is not None
            self.child.stdout.close()


@pytest.fixture
def session(short_path: Path) -> Iterator[Session]:
    session = Session(short_path)
    yield session
    session.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_works(document: str, session: Session) -> None:
    for step in steps(document):
        session.do(step)


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{document} links to {target}, which is not there"
