"""The hub's broker: a mosquitto of its own, configured, started, watched and ended by the hub.

Owns the folder ``broker/``: mosquitto.conf, acl, mosquitto.db, broker.sock and the lock.  The
hub's composition root runs it; joining and revoking tell it whom to deny, and ingest hears from
it whom it cut off for what no message is.  It speaks no MQTT and opens no certificate.

Boards come in over TLS with a certificate whose common name becomes user name *and* client id
(else a certificate could take over another board's session by its client id), and may write
``lichen/v1/<board>/up`` and read ``lichen/v1/<board>/down``, nothing else.  The hub itself comes
in over a unix socket that only its own user can reach, the folder being 0700.

Its death is normal: it is started again.  It never outlives the hub, even one that is killed:
the kernel kills it then (prctl(2), PR_SET_PDEATHSIG), and a lock that it inherits keeps
the next hub from starting a second one before the first has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.base.files import make_directory, write_file
from agent.wire.envelope import MAX_PAYLOAD
from agent.wire.errors import Busy, ConfigError, Refused
from agent.wire.topics import ROOT, check_board_id

log = logging.getLogger(__name__)

HUB_USER = "hub"
SOCKET_BYTES = 100
"""Longest path of a unix socket that we use; the kernel takes 107 (unix(7))."""
SBIN = "/usr/sbin:/usr/local/sbin"
STOP_S = 1.0
"""How long it may take to save its database and end, before it is killed."""
START_S = 10.0
"""Not listening by then, it hangs: it is killed and started again."""
LOCK_TRIES = 100
"""Every 50 ms."""
STEADY_S = 60.0
"""Having lived that long, it is started again at once after its death."""
AUTOSAVE_S = 60
HEADER_BYTES = 1024
"""Room for topic and properties beside the largest payload."""

CUT = re.compile(r"Client ([a-z2-7]{16}) disconnected due to (oversize|malformed|protocol error)")
"""How it says that it ended a session, and that its client was to blame (src/loop.c, 2.0)."""

# It says so at each start and at each connection of the hub, and we mean it that way.
INTENDED = ("should not be run as root", "Unable to set TCP_NODELAY")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the broker keeps its files and where boards reach it.

    ``dir`` is a folder of its own; ``ca``, ``certificate``, ``key`` and ``crl`` are PEM files.
    """

    dir: Path
    listen: str
    port: int
    ca: Path
    certificate: Path
    key: Path
    crl: Path | None = None

    @property
    def socket(self) -> Path:
        """Where the hub's own sessions connect, as the user "hub"."""
        return self.dir / "broker.sock"


class Mosquitto:
    """The broker of one hub."""

    def __init__(
        self,
        settings: Settings,
        *,
        deny: Iterable[str] = (),
        search: str | None = None,
        cut: Callable[[str, Refused], None] = lambda board, why: None,
    ) -> None:
        """``search`` is where programs are looked for, like $PATH, which it is if not given.
        ``cut`` hears of each board that was cut off for what it sent.

        Raises ConfigError when mosquitto is missing or the path of its socket is too long.
        """
        self.settings = settings
        # Debian keeps daemons in /usr/sbin, which is not in the PATH of ordinary users.
        search = f"{os.environ.get('PATH', os.defpath)}:{SBIN}" if search is None else search
        # setpriv becomes mosquitto, so it is our child and keeps the signal for a dead parent.  That
        # is SIGKILL, because mosquitto forgets a SIGTERM that comes just before its main loop.
        tied = (_find("setpriv", "util-linux", search), "--pdeathsig", "KILL", "--")
        program = _find("mosquitto", "mosquitto", search)
        self._command = (*tied, program, "-c", str(self._configuration))
        self._check_socket_path()
        self._denied = frozenset(deny)
        self._throttled: frozenset[str] = frozenset()
        self._cut = cut
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()

    def deny(self, boards: Iterable[str]) -> None:
        """Refuse everything to exactly these boards from now on, also in sessions that are open."""
        self._denied = frozenset(boards)
        make_directory(self.settings.dir)
        self._write_acl()
        self.reload()

    def throttle(self, boards: Iterable[str]) -> None:
        """The same for boards that are to calm down; those of `deny` stay out whatever is said here."""
        self._throttled = frozenset(boards)
        self._write_acl()
        self.reload()

    def reload(self) -> None:
        """Let it read again: access list, server certificate, revocation list.

        New connections feel a revocation list; one that is open only feels `deny`.
        """
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    async def wait_ready(self) -> None:
        """Wait until it listens; it may be dead again by the time this returns."""
        await self._ready.wait()

    async def run(self) -> None:
        """Run it until cancelled, starting it again whenever it dies.

        Raises ConfigError when it cannot be started with these settings, and Busy when
        another hub's broker lives in this folder.
        """
        make_directory(self.settings.dir)
        loop = asyncio.get_running_loop()
        async with _locked(self.settings.dir / "lock") as lock:
            deaths = 0
            while True:
                began_at = loop.time()
                code = await self._live_once(lock)
                deaths = 0 if loop.time() - began_at > STEADY_S else deaths + 1
                pause_s = min(5.0, 0.1 * 2.0 ** min(deaths, 10))
                log.warning("broker died", extra={"status": code, "again_in_s": pause_s})
                await asyncio.sleep(pause_s)

    async def _live_once(self, lock: int) -> int:
        """Start it, wait for its death, and return its exit status (negative: the signal)."""
        self._write_configuration()
        self._write_acl()
        complaint = ""
        async with self._child(lock) as process, _impatience(process) as patience:
            assert process.stderr is not None
            async for raw in process.stderr:
                line = raw.decode(errors="replace").strip()
                _log(line)
                if (found := CUT.match(line)) is not None:
                    self._cut(found[1], _why_cut(found[2]))
                if line.startswith("Error: "):
                    complaint = line.removeprefix("Error: ")
                if line.startswith("mosquitto version") and line.endswith("running"):
                    patience.reschedule(None)
                    self._ready.set()
            code = await process.wait()
            if code > 0 and not self._ready.is_set():
                raise self._unusable(complaint or f"it ended with status {code}")
        return await process.wait()

    @contextlib.asynccontextmanager
    async def _child(self, lock: int) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.settings.dir,
            pass_fds=(lock,),
        )
        self._process = process
        try:
            _raise_file_limit(process.pid)
            yield process
        finally:
            self._ready.clear()
            self._process = None
            await _end(process)

    @property
    def _configuration(self) -> Path:
        return self.settings.dir / "mosquitto.conf"

    @property
    def _acl(self) -> Path:
        return self.settings.dir / "acl"

    def _write_configuration(self) -> None:
        _ensure_file(self._configuration, configuration(self.settings, self._acl).encode())

    def _write_acl(self) -> None:
        _ensure_file(self._acl, access_list(self._denied | self._throttled).encode())

    def _check_socket_path(self) -> None:
        path = str(self.settings.socket)
        if len(os.fsencode(path)) > SOCKET_BYTES:
            raise ConfigError(
                f"{path} is too long for a unix socket ({SOCKET_BYTES} bytes)",
                hint="keep the hub in a directory with a shorter path",
            )

    def _unusable(self, complaint: str) -> ConfigError:
        if "Address already in use" in complaint:
            return ConfigError(
                f"port {self.settings.port} is taken by another program",
                hint="set mqtt_port in hub.toml to a free port; `ss -ltnp` shows who has this one",
            )
        return ConfigError(
            f"mosquitto does not start: {complaint}", hint=f"its configuration is {self._configuration}"
        )


def configuration(settings: Settings, acl: Path) -> str:
    """The text of mosquitto.conf (mosquitto.conf(5), 2.0)."""
    revoked = f"crlfile {settings.crl}\n" if settings.crl is not None else ""
    return f"""\
# Written by the hub at each start of the broker; changes are lost.
# Without this a mosquitto that root starts becomes another user, who cannot read these files.
user root
per_listener_settings true
log_dest stderr
log_timestamp false
log_type error
log_type warning
log_type notice
log_type information
# With these it says whom it cut off, and why.
connection_messages true
sys_interval 0

# A message is acknowledged end to end, so what is lost between two saves is sent again.
persistence true
persistence_location {settings.dir}/
autosave_interval {AUTOSAVE_S}
persistent_client_expiration 14d

# Nagle's algorithm makes pipelined publishes five times slower.
set_tcp_nodelay true
max_inflight_messages 64
# The hub's own queue while it commits: 10,000 boards for some seconds.
max_queued_messages 50000
max_packet_size {MAX_PAYLOAD + HEADER_BYTES}

# Boards.
listener {settings.port} {settings.listen}
cafile {settings.ca}
certfile {settings.certificate}
keyfile {settings.key}
{revoked}tls_version tlsv1.2
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
# Here and not above: there it would open a listener on port 1883 too.
allow_zero_length_clientid false
acl_file {acl}

# The hub itself: who reaches this socket is the hub's user.  By its name alone, in the directory
# that it is started in: of a path with a space it takes the beginning, outside of our folder.
listener 0 {settings.socket.name}
allow_anonymous true
acl_file {acl}
"""


def access_list(denied: Iterable[str]) -> str:
    """The text of the access list; ``denied`` are boards that may do nothing.  Raises Refused."""
    lines = [
        f"pattern write {ROOT}/%u/up/#",
        f"pattern read {ROOT}/%u/down/#",
        "",
        f"user {HUB_USER}",
        f"topic readwrite {ROOT}/#",
    ]
    for board in sorted(denied):
        lines += ["", f"user {check_board_id(board)}", "topic deny #"]
    return "\n".join(lines) + "\n"


def _why_cut(what: str) -> Refused:
    if what == "oversize":
        return Refused(f"a message is over the limit of {MAX_PAYLOAD} bytes", code="too-large")
    return Refused("what it sends is no MQTT", code="invalid")


def _ensure_file(path: Path, data: bytes) -> None:
    """Write a file unless it says that already: a hub on a full disk must still be able to start."""
    if not path.exists() or path.read_bytes() != data:
        write_file(path, data)


def _find(program: str, package: str, search: str) -> str:
    found = shutil.which(program, path=search)
    if found is None:
        raise ConfigError(f"the program {program} is missing", hint=f"sudo apt-get install {package}")
    return found


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[int]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await _lock(lock, path.parent)
        yield lock
    finally:
        os.close(lock)


async def _lock(lock: int, directory: Path) -> None:
    """Wait a moment for the broker of a hub that was killed to end.  Raises Busy."""
    for _ in range(LOCK_TRIES):
        if _try_lock(lock):
            return
        await asyncio.sleep(0.05)
    raise Busy(f"another broker runs in {directory}", hint="stop the other hub, or its mosquitto")


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.asynccontextmanager
async def _impatience(process: asyncio.subprocess.Process) -> AsyncIterator[asyncio.Timeout]:
    """Kill a process that is not up in time, that is, before the timeout is rescheduled."""
    try:
        async with asyncio.timeout(START_S) as patience:
            yield patience
    except TimeoutError:
        process.kill()


def _raise_file_limit(pid: int) -> None:
    # One descriptor per board: the usual 1,024 would be the size of the fleet.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _log(line: str) -> None:
    if line.startswith("Error: "):
        level = logging.ERROR
    elif line.startswith("Warning: ") and not any(known in line for known in INTENDED):
        level = logging.WARNING
    else:
        level = logging.DEBUG  # notices, and the TLS failures of whoever knocks
    log.log(level, "broker says", extra={"line": line})
