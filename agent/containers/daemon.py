"""Podman's service, where no system service offers one: a child of the agent, there while it is needed.

`agent.containers.podman` opens a `Service` when neither a socket is configured nor one of systemd's is
there.  It owns the socket, the child and the child's configuration, and never speaks to it.

The socket stays ours and is listened to for as long as the agent lives.  The first connection starts
``podman system service --time=5`` with the socket in its hand, as systemd would (sd_listen_fds(3)); it
ends by itself after five idle seconds, and the next connection starts it again.  A connection that is
made in between waits, so nobody has to ask whether the service runs.  What it has started, containers
and their conmon, outlives it and the agent.

A machine without systemd is often a container itself, or a virtual one.  What podman's defaults assume
and such a machine does not give is found out, and said in a ``containers.conf`` for this child alone:

- without CAP_SYS_RESOURCE no limit can be raised, so containers get the limits that there are;
- crun refuses cgroups of both versions side by side, runc does not;
- a storage of our own also has its own networks, addresses, locks and state, apart from the machine's, and
  makes cgroups itself where it may: what systemd makes above a container (`agent.parents`) would never go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import tomllib
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.base.files import write_file
from agent.wire.errors import ConfigError, LinkDown

IDLE_S = 5
"""After how long without a call the service ends."""
STOP_S = 3.0
"""How long it may finish what it was asked, when it is told to end."""
MAX_SOCKET_PATH = 107
"""Bytes of sun_path but for its end (unix(7))."""
CAP_SYS_RESOURCE = 24

# What `containers.conf` is made of, in this order (containers.conf(5)).
CONFIGURATION = (
    Path("/usr/share/containers/containers.conf"),
    Path("/etc/containers/containers.conf"),
    Path("/etc/containers/containers.conf.d"),
)

# systemd's to the agent, and what would make podman the client of another one.
NOT_FOR_THE_CHILD = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}
    | {"CONTAINER_HOST", "CONTAINER_CONNECTION"}
)

# The service looks for its socket as number 3, and for its own pid in LISTEN_PID.
HAND_OVER = 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<&0 </dev/null'


class Service:
    """The child and its socket; `serve` makes one."""

    def __init__(self, path: Path, arguments: list[str], environment: Mapping[str, str]) -> None:
        self.path = path
        self._arguments = arguments
        self._environment = environment
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._says = -1
        self._ended = asyncio.Event()
        self._ended.set()
        self._trouble = ""

    @property
    def pid(self) -> int:
        """The process of the service, 0 while there is none."""
        return 0 if self._process is None else self._process.pid

    def be_ready(self) -> None:
        """Before each call.  Raises LinkDown when there is no Podman to start."""
        if self._process is None and find_program("podman") is None:
            raise LinkDown(
                "Podman is not installed, and apps need it",
                code="podman-missing",
                hint="run: apt-get install --no-install-recommends podman netavark aardvark-dns",
            )

    def explain(self) -> str:
        """Why the service ended when it was started last; empty when it did not, or was told to."""
        return self._trouble

    def open(self) -> None:
        """Listen."""
        self.path.unlink(missing_ok=True)
        os.fchmod(self._socket.fileno(), 0o600)  # Linux gives it to the file that bind makes
        self._socket.bind(str(self.path))
        self._socket.listen(128)
        self._await_connection()

    async def close(self) -> None:
        """End the child; what runs in containers goes on."""
        self._loop.remove_reader(self._socket)
        process = self._process
        if process is not None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await self._ended.wait()
            except TimeoutError:
                process.kill()  # which is nothing when it has ended just now
                await self._ended.wait()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def _await_connection(self) -> None:
        self._loop.add_reader(self._socket, self._start)

    def _start(self) -> None:
        """Somebody has connected: let the service accept it, and leave the socket to it until it ends."""
        self._trouble = ""
        self._loop.remove_reader(self._socket)
        self._says = os.memfd_create("podman")
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", HAND_OVER, "sh", *self._arguments],
                stdin=self._socket.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._says,
                env=dict(self._environment),
                cwd=self.path.parent,  # conmon may leave a file there
                start_new_session=True,  # Ctrl-C is meant for the agent
            )
        except OSError as error:  # no memory, or too many processes
            os.close(self._says)
            self._turn_away(f"{error}")
            self._await_connection()
            return
        self._ended.clear()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._on_end)

    def _on_end(self) -> None:
        assert self._process is not None
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        self._process = None
        with os.fdopen(self._says, "rb") as said:
            said.seek(0)
            lines = said.read().decode(errors="replace").split("\n")
        if code > 0:
            last = next((line for line in reversed(lines) if line.strip()), "")
            self._turn_away(f"it ended with {code}: {last.strip()[:300]}")
        self._ended.set()
        self._await_connection()

    def _turn_away(self, why: str) -> None:
        """Whoever waits for a service that cannot start is told now, and comes again when it likes."""
        self._trouble = why
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._socket.accept()
                connection.close()


@asynccontextmanager
async def serve(runtime_dir: Path, storage: Path | None = None) -> AsyncIterator[Service]:
    """A `Service` with its files in ``runtime_dir``, on the machine's storage or on one of its own."""
    with contextlib.ExitStack() as stack:
        runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = runtime_dir / "podman.sock"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            import tempfile  # brings shutil, for a case that is rare

            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lichen-"))
            path = Path(folder) / "podman.sock"
        environment = surroundings(os.environ)
        if wanted := configuration(storage):
            file = runtime_dir / "containers.conf"
            write_file(file, wanted, sync=False)
            environment["CONTAINERS_CONF"] = str(file)
        arguments = ["podman", "--log-level=fatal", *place(storage), "system", "service", f"--time={IDLE_S}"]
        service = Service(path, arguments, environment)
        service.open()
        try:
            yield service
        finally:
            await service.close()


def surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    """What the child finds in its environment: ours, without what was said to the agent alone."""
    kept = {key: value for key, value in environment.items() if key not in NOT_FOR_THE_CHILD}
    # netavark looks for iptables, and Debian's is where a user's PATH does not look.
    return {**kept, "PATH": f"{environment.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


def find_program(name: str, path: str | None = None) -> Path | None:
    """Where a program is.  (shutil.which would load what an agent without apps has no use for.)"""
    folders = os.environ.get("PATH", os.defpath) if path is None else path
    candidates = (Path(folder) / name for folder in folders.split(":") if folder)
    return next((each for each in candidates if os.access(each, os.X_OK) and each.is_file()), None)


def place(storage: Path | None, user: int | None = None) -> list[str]:
    """The options that put everything Podman keeps below ``storage``, and what a reboot ends into memory."""
    if storage is None:
        return []
    user = os.geteuid() if user is None else user
    memory = Path("/run") if user == 0 else Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{user}"))
    # conmon's sockets are below it, so its name is short.
    state = memory / f"lichen-{zlib.crc32(os.fsencode(storage)):08x}"
    return [
        f"--root={storage}",
        f"--network-config-dir={storage / 'networks'}",
        f"--runroot={state}",
        f"--tmpdir={state / 'libpod'}",
    ]


def configuration(storage: Path | None, environment: Mapping[str, str] = os.environ) -> bytes:
    """The ``containers.conf`` that Podman has to be given here; empty: none."""
    changes = deviations(storage)
    return _toml([*_read_configuration(environment), changes]) if changes else b""


def deviations(
    storage: Path | None,
    *,
    status: Path = Path("/proc/self/status"),
    unified: Path = Path("/sys/fs/cgroup/unified/cgroup.controllers"),
    path: str | None = None,
    user: int | None = None,
) -> dict[str, Any]:
    """What this machine, and a storage of its own, need otherwise than podman's defaults."""
    changes: dict[str, Any] = {}
    if not _may_raise_limits(status):
        changes["containers"] = {"default_ulimits": []}
    if _is_hybrid(unified) and find_program("runc", path):
        changes["engine"] = {"runtime": "runc"}
    if storage is not None:
        # Locks in /dev/shm would be shared with the machine's own Podman, by number.
        changes["engine"] = {**changes.get("engine", {}), "lock_type": "file"}
        if (os.geteuid() if user is None else user) == 0:
            changes["engine"]["cgroup_manager"] = "cgroupfs"
        # Two Podmans do not see each other's networks until containers are on them.
        number = 90 + zlib.crc32(os.fsencode(storage)) % 160
        pools = [{"base": f"10.{number}.0.0/16", "size": 24}]
        changes["network"] = {"network_backend": "netavark", "default_subnet_pools": pools}
    return changes


def _may_raise_limits(status: Path) -> bool:
    """Whether this process has CAP_SYS_RESOURCE."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)
    return True


def _is_hybrid(unified: Path) -> bool:
    """Whether cgroups of version 2 have controllers beside those of version 1."""
    try:
        return bool(unified.read_text().strip())
    except OSError:  # one version only
        return False


def _read_configuration(environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What the machine says already; a CONTAINERS_CONF of ours takes the place of all of it."""
    named = environment.get("CONTAINERS_CONF")
    for path in (Path(named),) if named else CONFIGURATION:
        files = sorted(path.glob("*.conf")) if path.is_dir() else [path]
        for file in files:
            try:
                yield tomllib.loads(file.read_text("utf-8"))
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise ConfigError(f"{file} cannot be read: {error}") from error


def _toml(tables: list[dict[str, Any]]) -> bytes:
    """One table of several, where the later ones win key by key."""
    import tomli_w  # only to write

    merged: dict[str, Any] = {}
    for table in tables:
        for name, keys in table.items():
            merged[name] = {**merged.get(name, {}), **keys} if isinstance(keys, dict) else keys
    return tomli_w.dumps(merged).encode()
