"""The process haproxy: found, started, reloaded, asked and stopped.  What it serves, it is told.

Called by `agent.containers.proxy` alone.  haproxy runs as a master with workers, apart from the
agent: it goes on while the agent is away, and the next one finds it by its socket.  A reload makes
a new worker with the listening sockets of the old one, which stays until its connections
have ended.  The files are in a folder of its own: haproxy.cfg, haproxy.pid, and master.sock, by which
everything is asked; only our own user gets at it.

It never judges a configuration, and never kills a process that does not run ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import logging
import os
import pwd
import re
import shutil
import signal
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.base.files import make_directory, write_file
from agent.containers.routes import Server, State
from agent.wire.errors import ConfigError, LinkDown, Refused

log = logging.getLogger(__name__)

SBIN = "/usr/sbin:/usr/local/sbin"
USER = "haproxy"
"""Whom Debian's package makes for its workers."""
SOCKET_BYTES = 107
"""Longest path of a unix socket (unix(7))."""
ANSWER_S = 3.0
"""Not answering for so long, it hangs."""
START_S = 10.0
"""How long a start or a reload may take, on a slow board with a slow card."""
STOP_S = 2.0
LOOK_S = 0.02
STATES: dict[str, State] = {"MAINT": "off", "DRAIN": "drain"}
"""By what haproxy calls them; without checks of its own anything else takes connections."""

CREW = re.compile(r"^(\d+)\s+(master|worker)\s", re.MULTILINE)
FAILED = re.compile(r"\[failed: (\d+)\]")


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes: the ``worker`` that listens, and ``old`` ones that still have connections."""

    master: int
    worker: int
    old: tuple[int, ...] = ()
    failures: int = 0
    """How many reloads have failed since the last one that did not."""

    @property
    def workers(self) -> tuple[int, ...]:
        return (self.worker, *self.old)


class Haproxy:
    """The haproxy of one folder.  ``died`` is called when it ends without having been told to."""

    def __init__(self, folder: Path, *, died: Callable[[], None], search: str | None = None) -> None:
        """``search`` is where the program is looked for, like $PATH.  Raises ConfigError."""
        self._folder = folder.absolute()
        self._search = f"{os.environ.get('PATH', os.defpath)}:{SBIN}" if search is None else search
        self._died = died
        self._watched: tuple[int, int] | None = None  # the master's id, and its pidfd
        if len(os.fsencode(self._socket)) > SOCKET_BYTES:
            raise ConfigError(
                f"{self._socket} is too long for a unix socket ({SOCKET_BYTES} bytes)",
                hint="keep the agent's state in a directory with a shorter path",
            )

    def close(self) -> None:
        """Stop watching; haproxy goes on."""
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched[1])
            os.close(self._watched[1])
            self._watched = None

    # --- its configuration

    @property
    def user(self) -> str:
        """Whom its workers should become; empty where it is not ours to choose."""
        if os.geteuid() != 0:
            return ""
        try:
            return pwd.getpwnam(USER).pw_name
        except KeyError:
            return "nobody"

    def read(self) -> str:
        """The configuration that was written last; empty when there is none."""
        try:
            return self._configuration.read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def write(self, text: str) -> None:
        """Keep a configuration for the next start or reload.  Raises Refused when the disk is full."""
        if text != self.read():
            make_directory(self._folder)
            # Not synced: after a power cut containers have other addresses.
            write_file(self._configuration, text.encode(), sync=False)

    # --- its processes

    async def find(self) -> Crew | None:
        """Who is running; None when nobody is.  One that does not answer is killed first."""
        crew = await self._await_crew(ANSWER_S)
        if crew is not None:
            self._watch(crew.master)
        elif (pid := self._recorded()) is not None:
            log.warning("haproxy does not answer, killing it", extra={"pid": pid})
            await self.end(pid, signal.SIGKILL)
        return crew

    async def _await_crew(
        self,
        within_s: float,
        is_right: Callable[[Crew], bool] = lambda crew: True,
        *,
        is_starting: bool = False,
    ) -> Crew | None:
        """The processes, as soon as they are right; None when none run, or it takes too long.

        The master replaces itself at a reload, and does not answer for a moment; one that starts may
        not have written its pid file yet.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    with contextlib.suppress(LinkDown):
                        crew = _crew(await self._tell("show proc"))
                        if crew is not None and is_right(crew):
                            return crew
                    if self._recorded() is None and not is_starting:
                        return None
                    await asyncio.sleep(LOOK_S)
        return None

    def owns(self, pid: int) -> bool:
        """Whether this process is a haproxy with our configuration."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return words[0].endswith(b"haproxy") and os.fsencode(self._configuration) in words

    async def start(self) -> Crew:
        """Start it with what was written.  Raises Refused when it does not come up."""
        program = shutil.which("haproxy", path=self._search)
        if program is None:
            raise Refused(
                "the program haproxy is missing; ports of replicas and of start-first updates need it",
                code="haproxy-missing",
                hint="sudo apt-get install --no-install-recommends haproxy",
            )
        make_directory(self._folder)
        # -D: it returns once it listens, and what hinders it is on its standard error until then.
        # The socket goes by its name alone: a path would be cut at its first comma.
        process = await asyncio.create_subprocess_exec(
            program, "-W", "-D", "-f", str(self._configuration), "-p", str(self._pid_file),
            "-S", f"unix@{self._socket.name},mode,600,level,admin",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            cwd=self._folder, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_S):
                _, said = await process.communicate()
        except TimeoutError as error:
            process.kill()
            raise Refused(f"haproxy does not come up within {START_S:g} s", code="proxy") from error
        listens = process.returncode == 0
        crew = await self._await_crew(START_S, is_starting=True) if listens else None
        if crew is None:
            raise Refused(f"haproxy does not start: {_complaint(said)}", code="proxy")
        self._watch(crew.master)
        log.info("haproxy started", extra={"pid": crew.master})
        return crew

    async def reload(self, before: Crew) -> Crew:
        """Let a new worker take over with what was written.

        Raises Refused when none does.  The old one serves on then, but when a port could not be had
        it may have been made to let go of all of its own for a moment: look at ports before.
        """
        with contextlib.suppress(LinkDown):  # it replaces itself without saying good-bye
            await self._tell("reload")
        crew = await self._await_crew(
            START_S, lambda crew: crew.worker not in before.workers or crew.failures > before.failures
        )
        if crew is not None and crew.worker not in before.workers:
            log.info("haproxy reloaded", extra={"worker": crew.worker})
            return crew
        raise Refused("haproxy does not take its new configuration", code="proxy")

    async def stop(self, crew: Crew | None) -> None:
        """End it with all its connections, and remove its files."""
        self.close()
        if crew is not None:
            await self.end(crew.master, signal.SIGTERM)
            log.info("haproxy stopped", extra={"pid": crew.master})
        for path in (self._configuration, self._pid_file, self._socket):
            path.unlink(missing_ok=True)

    async def end(self, pid: int, how: signal.Signals) -> None:
        """End one of our processes, by force when it does not obey."""
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(process, gone.set)
        try:
            # Now that its number cannot become somebody else's.
            while self.owns(pid) and not gone.is_set():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, how)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_S):
                        await gone.wait()
                how = signal.SIGKILL
        finally:
            loop.remove_reader(process)
            os.close(process)

    # --- its workers

    async def servers(self, worker: int) -> dict[str, list[Server]]:
        """The slots of each section, as this worker has them.  Raises LinkDown."""
        text = await self.ask(worker, "show stat -1 4 -1")
        if not text.startswith("# pxname"):
            raise LinkDown(f"haproxy has no worker {worker}: {text[:128]}", code="proxy-down")
        found: dict[str, list[Server]] = defaultdict(list)
        for row in csv.DictReader(text.removeprefix("# ").splitlines()):
            state = STATES.get(row["status"].partition(" ")[0], "up")
            found[row["pxname"]].append(Server(row["addr"], state, int(row["scur"])))
        return dict(found)

    async def ask(self, worker: int, command: str) -> str:
        """What a worker answers.  Raises LinkDown."""
        return await self._tell(f"@!{worker} {command}")

    async def _tell(self, command: str) -> str:
        """What the master answers to one line."""
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(str(self._socket))
                try:
                    writer.write(command.encode() + b"\n")
                    writer.write_eof()
                    return (await reader.read()).decode(errors="replace").strip()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise LinkDown(f"haproxy does not answer at {self._socket}", code="proxy-down") from error

    # --- files

    @property
    def _configuration(self) -> Path:
        return self._folder / "haproxy.cfg"

    @property
    def _pid_file(self) -> Path:
        return self._folder / "haproxy.pid"

    @property
    def _socket(self) -> Path:
        return self._folder / "master.sock"

    def _recorded(self) -> int | None:
        """The master of the pid file, if it is alive and ours."""
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if self.owns(pid) else None

    def _watch(self, master: int) -> None:
        """Hear of the master's death."""
        if self._watched is not None and self._watched[0] == master:
            return
        self.close()
        try:
            process = os.pidfd_open(master)
        except OSError:  # it has just died, or Linux before 5.3: the next look finds out
            return
        self._watched = master, process
        asyncio.get_running_loop().add_reader(process, self._on_death)

    def _on_death(self) -> None:
        log.warning("haproxy died")
        self.close()
        self._died()


def _crew(text: str) -> Crew | None:
    """The processes of ``show proc``; None while there is no worker."""
    current, _, old = text.partition("# old workers")
    master = next((int(pid) for pid, kind in CREW.findall(current) if kind == "master"), None)
    workers = [int(pid) for pid, kind in CREW.findall(current) if kind == "worker"]
    if master is None or not workers:
        return None
    failed = FAILED.search(current)
    return Crew(
        master,
        workers[-1],
        tuple(int(pid) for pid, _ in CREW.findall(old)),
        int(failed[1]) if failed is not None else 0,
    )


def _complaint(said: bytes) -> str:
    """What it called an error, without who says it."""
    lines = said.decode(errors="replace").splitlines()
    errors = [line.partition(" : ")[2] for line in lines if "ALERT" in line]
    return "; ".join(errors)[:512] or "it does not say why"
